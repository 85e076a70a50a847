"""Where the rows are played: emulators, a Prefect server, and processes whose time and memory are taken."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.contenders import PROMPT
from benchmarks.measures import first_create, ready_at
from videogen.emulator import Emulator

HERE = Path(__file__).parent
KEPT_OUT = ("REPLICATE_", "VIDEO", "PREFECT_", "PYTHONDONTWRITEBYTECODE")
"""What begins so of our own environment; without byte code every start would compile videogen anew."""
LOOK_S = 0.01


@dataclass(frozen=True)
class Ran:
    """A process that has ended, or was ended: with everything that it started and waited for."""

    spawned_at: float
    """On the wall clock."""
    wall_s: float
    cpu_s: float
    peak_mb: float
    """Of its own memory, resident."""
    ended: bool
    """False when it was killed because its time was up."""


@dataclass(frozen=True)
class Played:
    """A contender's clips, and what the emulator says of them."""

    ran: Ran
    ledger: Mapping[str, Any]
    folder: Path
    ready: Mapping[Path, float]
    """When each of the files was there."""

    @property
    def makespan_s(self) -> float:
        """From the first create to the last file."""
        return max(self.ready.values()) - first_create(self.ledger)

    @property
    def to_first_create_s(self) -> float:
        return first_create(self.ledger) - self.ran.spawned_at

    @property
    def calls_per_clip(self) -> float:
        """Creates, and looks at one prediction or at the list of them; the file comes from elsewhere."""
        calls: int = sum(self.ledger[what] for what in ("creates", "polls", "lists"))
        return calls / len(self.ready)

    @property
    def ready_by_prediction(self) -> dict[str, float]:
        """As our manifest has them; files of others are named so, where that is known."""
        manifests = list(self.folder.glob("out/*/manifest.json"))
        if not manifests:
            return {path.stem: at for path, at in self.ready.items()}
        clips = json.loads(manifests[0].read_text(encoding="utf-8"))["clips"]
        return {clip["prediction_ids"][-1]: self.ready[manifests[0].parent / clip["video_path"]] for clip in clips}


@dataclass
class Stage:
    """One folder for everything; each play gets its own in it."""

    folder: Path
    emulators: Mapping[str, Emulator]
    prefect_api: str
    prefect_home: Path

    def play(
        self,
        contender: str,
        clips: int,
        *,
        pace: str = "seconds",
        job: Mapping[str, Any] | None = None,
        within_s: float = 1200,
        prefect: bool = False,
    ) -> Played:
        """Has a contender make clips in a new folder. `command` is `python -m flows.generate`.

        Args:
            job: fields of ours beside its scenes.
            prefect: whether it reports to the stage's server.
        """
        folder = self.new_folder()
        write_job(folder / "job.json", clips, **(job or {}))
        command = ["-m", "benchmarks.contenders", contender, str(clips), str(folder)]
        if contender == "command":
            command = ["-m", "flows.generate", str(folder / "job.json"), "--out", str(folder / "out"), "--json"]
        emulator = self.emulators[pace]
        emulator.reset()
        ran = run(command, folder, self.wired(emulator, prefect=prefect), within_s=within_s)
        ready = ready_at(path for path in folder.rglob("*.mp4") if ".scratch" not in path.parts)
        if ran.ended and len(ready) < clips and contender != "empty_flow":
            raise RuntimeError(
                f"{contender} made {len(ready)} of {clips} clips:\n{(folder / 'log').read_text()[-2000:]}"
            )
        return Played(ran, emulator.ledger(), folder, ready)

    def wired(self, emulator: Emulator, *, prefect: bool) -> dict[str, str]:
        """The environment of a process: nothing of ours but what is given here."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(KEPT_OUT)}
        return {
            **inherited,
            "DO_NOT_TRACK": "1",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_LOGGING_LEVEL": "WARNING",
            "PYTHONPATH": str(HERE.parent),
            "PREFECT_HOME": str(self.folder / "prefect-alone"),
            "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
            "REPLICATE_API_TOKEN": "local",
            "REPLICATE_BASE_URL": emulator.url,
            "VIDEOGEN_REGISTRY": str(HERE / "models.toml"),
            **({"PREFECT_API_URL": self.prefect_api} if prefect else {}),
        }

    def new_folder(self) -> Path:
        return Path(tempfile.mkdtemp(prefix="play-", dir=self.folder))


def run(command: list[str], folder: Path, environment: Mapping[str, str], *, within_s: float = 120) -> Ran:
    """Runs `python COMMAND` in a folder, its output in `log` there. Raises `RuntimeError` when it fails."""
    with (folder / "log").open("wb") as log:
        spawned_at, began = time.time(), time.monotonic()
        process = subprocess.Popen([sys.executable, *command], env=environment, cwd=folder, stdout=log, stderr=log)
    ended = True
    while True:
        pid, status, used = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        if ended and time.monotonic() - began > within_s:
            ended = False
            process.kill()
        time.sleep(LOOK_S)
    process.returncode = os.waitstatus_to_exitcode(status)
    if ended and process.returncode != 0:
        raise RuntimeError(
            f"{' '.join(command)} ended with {process.returncode}:\n{(folder / 'log').read_text()[-2000:]}"
        )
    wall_s = time.monotonic() - began
    return Ran(spawned_at, wall_s, used.ru_utime + used.ru_stime, used.ru_maxrss / 1000, ended)


def write_job(path: Path, clips: int, **fields: Any) -> None:
    """Clips that are asked for with the same words, so that the emulator renders one film, and yet are not one clip.

    `upstreams` has the number of the clip that each one continues, or None.
    """
    defaults = {"model": "quick", "aspect_ratio": "1:1", "concurrency": 5, "min_clips": 1}
    target = fields.pop("target_duration", 2)
    scenes = [
        {
            "id": f"s{number:04d}",
            "prompt": PROMPT + "." * (number // 1000),
            "take": number % 1000 + 1,
            "target_duration": target,
        }
        for number in range(clips)
    ]
    for scene, upstream in zip(scenes, fields.pop("upstreams", ()), strict=False):
        if upstream is not None:
            scene["continues"] = f"s{upstream:04d}"
    if "models" in fields:
        defaults.pop("model")
    path.write_text(json.dumps({**defaults, **fields, "scenes": scenes}), encoding="utf-8")
