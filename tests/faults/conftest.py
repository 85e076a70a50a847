"""A job on an emulator that breaks what a plan says, run as the flow runs it, and the emulator's ledger of it."""

import asyncio
import inspect
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import pytest

from tests.flows.conftest import CommandLine, wait_until
from tests.support.small_clips import small_clips  # noqa: F401 - for all tests of this folder
from tests.support.tokens import TOKEN
from videogen.app import open_run, prepare_job
from videogen.emulator import Emulator, EmulatorSettings, run_emulator
from videogen.execution.options import RunOptions
from videogen.execution.patience import Patience
from videogen.execution.rate_limit_gate import ProviderGate
from videogen.execution.runner import JobRunner
from videogen.job.model import Job
from videogen.journal.store import Journal
from videogen.providers.replicate import Limits, ReplicateProvider
from videogen.results.clip import Clip
from videogen.results.run_result import RunResult

REGISTRY = Path(__file__).with_name("models.toml")
"""With the model `quick`, and some that do not work."""
PRICE = Decimal("0.06")
"""Of one clip of the model `quick`, in USD."""
PROMPT = "A lighthouse at dusk"

Change = Callable[..., None]
"""Sets keyword defaults of a function, see `defaults`."""


InTurn = Literal["created", "answered"]


@dataclass
class Stage:
    """One emulator, and the jobs of one folder run against it."""

    folder: Path
    films: Path
    """Where rendered clips are kept for all tests."""
    setenv: Callable[[str, str], None]
    stack: ExitStack
    environment: dict[str, str] = field(default_factory=dict)
    """Of commands that are started."""
    emulator: Emulator = field(init=False)
    _open: AbstractContextManager[Emulator] = field(init=False)

    def emulate(self, *rules: str, **settings: Any) -> Emulator:
        """Starts an emulator with these rules of a fault plan, and points all jobs to it."""
        plan = self.folder / "plan.toml"
        plan.write_text("".join(f"[[rules]]\n{rule}\n" for rule in rules))
        given = {"latency_s": (0.2, 0.2), "cache": self.films, "faults": plan, **settings}
        self._open = run_emulator(EmulatorSettings(**given))
        self.emulator = self.stack.enter_context(self._open)
        self.setenv("REPLICATE_BASE_URL", self.emulator.url)
        self.environment["REPLICATE_BASE_URL"] = self.emulator.url
        return self.emulator

    def keep_journal_at(self, url: str, *, direct_url: str) -> None:
        """Has runs keep their journal on PostgreSQL, where they share a limit. Both are URLs of one database."""
        with closing(Journal(direct_url)) as journal:
            journal.set_limit("replicate", 5)
        self.setenv("VIDEOGEN_JOURNAL_URL", url)

    def stop(self) -> None:
        """Ends the emulator; its port is free then."""
        self.stack.close()

    @property
    def job_folder(self) -> Path:
        return self.folder / "out" / "job"

    @property
    def delivered(self) -> list[str]:
        """Names of all files under a final name, but the manifest."""
        return sorted(path.name for place in ("clips", "posters") for path in (self.job_folder / place).glob("*"))

    @property
    def rejected(self) -> list[Path]:
        return sorted(self.job_folder.glob(".scratch/*.rejected"))

    async def shoot(
        self, *prompts: str, in_turn: InTurn | None = None, options: Mapping[str, Any] | None = None, **fields: Any
    ) -> RunResult:
        """Runs a job of one scene for each prompt, in an own take each, and judges it.

        With `in_turn`, each clip begins when the one before it has its prediction or has failed, or when its create was
        answered, if only by a fault.
        """
        given = self.options.model_copy(update=options or {})
        async with open_run(await prepare_job(job_of(*prompts, **fields), given)) as session:
            return await shot(session, in_turn and self.emulator, in_turn)

    @property
    def origin(self) -> str:
        return self.emulator.url.removeprefix("http://")

    @property
    def options(self) -> RunOptions:
        return RunOptions(out=str(self.folder / "out"))

    def books(self, *, creates: int, billed: int, cancels: int = 0) -> dict[str, Any]:
        """The emulator's ledger, which must have these numbers, `billed` in clips, and nothing that still runs."""
        ledger = self.emulator.ledger()
        told = {key: ledger[key] for key in ("creates", "cancels", "running", "billed")}
        assert told == {"creates": creates, "cancels": cancels, "running": 0, "billed": told["billed"]}
        assert Decimal(ledger["billed"]) == billed * PRICE
        return ledger


def job_of(*prompts: str, **fields: Any) -> Job:
    scenes = [
        {"id": f"scene-{number}", "prompt": prompt, "target_duration": 2, "take": number}
        for number, prompt in enumerate(prompts or (PROMPT,), 1)
    ]
    return Job.model_validate({"model": "quick", "scenes": scenes, **fields})


async def shot(session: JobRunner, emulator: Emulator | None = None, in_turn: InTurn | None = None) -> RunResult:
    """All clips of a session, with as many attempts each as the flow gives them."""

    def has_begun(number: int) -> bool:
        ledger = emulator.ledger() if emulator else {}
        return bool(ledger["creates"] + (sum(ledger["faults"]) if in_turn == "answered" else 0) >= number)

    making: list[asyncio.Task[Clip]] = []
    for request in session.plan.requests:
        making.append(asyncio.create_task(session.make_clip(request)))
        while emulator and not making[-1].done() and not has_begun(len(making)):
            await asyncio.sleep(0.02)
    return await session.finish(await asyncio.gather(*making))


def only(batch: RunResult) -> Clip:
    (clip,) = batch.clips
    return clip


def code(clip: Clip) -> str | None:
    return clip.error.code if clip.error else None


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("films")


@pytest.fixture
def stage(tmp_path: Path, films: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    with ExitStack() as stack:
        yield Stage(tmp_path, films, monkeypatch.setenv, stack)


@pytest.fixture
def command(stage: Stage, prefect_api: str) -> CommandLine:
    """The command line in the stage's folder, with a token, the quick model and the test run's Prefect server."""
    stage.environment |= {
        "PREFECT_API_URL": prefect_api,
        "PREFECT_HOME": str(stage.folder / "prefect"),
        "REPLICATE_API_TOKEN": TOKEN,
        "VIDEOGEN_REGISTRY": str(REGISTRY),
    }
    return CommandLine(stage.folder, stage.environment)


@pytest.fixture
def defaults(monkeypatch: pytest.MonkeyPatch) -> Change:
    """Changes keyword defaults of a function, so that no test needs to wait as long as a user would."""

    def change(function: Any, **values: Any) -> None:
        known: Mapping[str, Any] = inspect.signature(function).parameters
        assert values.keys() <= known.keys()
        for name, value in values.items():
            monkeypatch.setitem(function.__kwdefaults__, name, value)

    return change


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch, defaults: Change) -> None:
    """A token, the quick model, and hundredths of a second where a user waits seconds."""
    monkeypatch.setenv("REPLICATE_API_TOKEN", TOKEN)
    monkeypatch.setenv("VIDEOGEN_REGISTRY", str(REGISTRY))
    defaults(ProviderGate.__init__, backoff_s=0.01)
    defaults(
        Patience.__init__,
        unknown_s=0.2,
        unknown_at_most_s=0.5,
        output_s=0.5,
        id_s=1.5,
        first_pause_s=0.02,
        longest_pause_s=0.1,
    )
    defaults(ReplicateProvider.__init__, limits=Limits(stalled_s=0.5, call_s=1.5))


@pytest.fixture
def job_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes a job file from what stands in it, or from its scenes."""

    def write(content: str | bytes | list[dict[str, Any]], name: str = "film.json") -> Path:
        path = tmp_path / name
        if isinstance(content, list):
            content = json.dumps({"model": "quick", "scenes": content})
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def wait_for_creates(stage: Stage, number: int) -> None:
    deadline = time.monotonic() + 250
    while stage.emulator.ledger()["creates"] < number:
        assert time.monotonic() < deadline, f"never {number} creates"
        time.sleep(0.05)


def wait_for_starts(stage: Stage, number: int) -> None:
    """Wait until that many predictions run, and are billed even if they are cancelled."""

    def count_running() -> int:
        return sum(made["status"] == "processing" for made in stage.emulator.ledger()["predictions"])

    wait_until(lambda: count_running() >= number)


def manifest(command: CommandLine) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((command.folder / "out" / "film" / "manifest.json").read_text())
    return data
