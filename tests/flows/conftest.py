"""The command line, run against the test run's Prefect server as a person would."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.small_clips import small_clips  # noqa: F401 - for all tests of this folder
from tests.support.tokens import TOKEN
from videogen.emulator import Emulator, EmulatorSettings, run_emulator

FAULT_REGISTRY = Path(__file__).parents[1] / "faults" / "models.toml"
COMMAND = [sys.executable, "-m", "flows.generate"]


@dataclass
class Finished:
    """A command that has ended."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def manifest(self) -> dict[str, Any]:
        data: dict[str, Any] = json.loads(self.out)
        return data


@dataclass
class CommandLine:
    """`python -m flows.generate` in a folder of its own, with nothing of ours in its environment but what is given."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def job(self, *scenes: dict[str, Any], **fields: Any) -> Path:
        path = self.folder / "film.json"
        path.write_text(json.dumps({"scenes": scenes, **fields}), encoding="utf-8")
        return path

    def quick_job(self, clips: int, **fields: Any) -> Path:
        """Clips of two seconds of a small model, which the registry of the fault tests has."""
        self.environment["VIDEOGEN_REGISTRY"] = str(FAULT_REGISTRY)
        scenes = ({"id": f"s{n}", "prompt": f"scene {n}", "target_duration": 2} for n in range(clips))
        return self.job(*scenes, model="quick", **fields)

    @property
    def whole_environment(self) -> dict[str, str]:
        """Of its processes: what the tests inherit, but for our own variables, and what is given."""
        ours = ("REPLICATE_", "VIDEO", "PREFECT_")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        return {**inherited, "PYTHONPATH": str(Path.cwd()), **self.environment}

    def start(self, *arguments: str | Path) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [*COMMAND, *map(str, arguments)],
            env=self.whole_environment,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,  # as a terminal has it: what is sent to all of its processes is not sent to us
        )

    def run(self, *arguments: str | Path, timeout_s: float = 250) -> Finished:
        began = time.monotonic()
        process = self.start(*arguments)
        try:
            out, err = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            raise
        return Finished(process.returncode, out, err, time.monotonic() - began)


@pytest.fixture
def command(tmp_path: Path, prefect_api: str) -> CommandLine:
    """The command line with a Prefect server and no token: clips come from an emulator of its own."""
    return CommandLine(tmp_path, {"PREFECT_API_URL": prefect_api, "PREFECT_HOME": str(tmp_path / "prefect")})


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """An emulator whose clips take two seconds."""
    with run_emulator(EmulatorSettings(latency_s=(2.0, 2.0))) as server:
        yield server


@pytest.fixture
def on_emulator(command: CommandLine, emulator: Emulator) -> CommandLine:
    """The command line as for Replicate, with the emulator at its address."""
    command.environment |= {"REPLICATE_API_TOKEN": TOKEN, "REPLICATE_BASE_URL": emulator.url}
    return command


def wait_until(holds: Callable[[], bool], tell: Callable[[], str] = str) -> None:
    """Wait until something holds, which is soon: Prefect writes down what it hears with some delay.

    If it never holds, the test fails with what `tell` says.
    """
    for _ in range(1_000):
        if holds():
            return
        time.sleep(0.2)
    pytest.fail(f"it did not hold any of 1,000 times: {tell()}")
