"""A gateway on a journal that a real run has written, or that a test writes as a run does."""

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.small_clips import small_clips  # noqa: F401 - for all tests of this folder
from videogen.app import open_run, prepare_job
from videogen.emulator import EmulatorSettings
from videogen.emulator import run_emulator as emulating
from videogen.events import RunStarted, SceneOutline
from videogen.execution.options import RunOptions
from videogen.gateway import GatewaySettings, run_gateway_in_thread
from videogen.job.model import Job
from videogen.journal.store import Journal
from videogen.results.run_result import RunResult

FAULTS = """
[[rules]]
prompt = "storm"
do = "fail"
error = "CUDA out of memory"

[[rules]]
prompt = "forbidden"
times = "always"
do = "fail"
error = "<b>flagged</b> as sensitive (E005)"
"""
PROMPTS = {"harbour": "A harbour", "storm": "A storm", "cave": "A forbidden cave"}
"""By scene: the first comes at once, the second at the second attempt, the third never, with HTML in its error."""
DELIVERED: dict[str, Any] = {
    "model": "quick",
    "status": "success",
    "target_duration": 2,
    "original_target_duration": 2,
    "buffered_duration": 2,
    "requested_duration": 2,
    "buffer_cost_impact": 0,
}
"""What an event tells of a delivered clip, but for which one it is."""


@dataclass(frozen=True)
class Told:
    """One server-sent event."""

    id: int | None
    event: str
    data: dict[str, Any]


class Streamed:
    """Events of a response, one by one as they come; `comments` are the lines that keep it alive."""

    def __init__(self, response: httpx.Response) -> None:
        assert response.status_code == 200, response.read()
        self._lines = response.iter_lines()
        self.comments: list[str] = []

    def __iter__(self) -> Iterator[Told]:
        fields: dict[str, str] = {}
        for line in self._lines:
            if line.startswith(":"):
                self.comments.append(line)
            elif line:
                name, _, value = line.partition(": ")
                fields[name] = value
            elif fields:
                yield Told(int(fields["id"]) if "id" in fields else None, fields["event"], json.loads(fields["data"]))
                fields = {}


@dataclass(frozen=True)
class Shown:
    """A gateway, its client, and the journal it reads."""

    http: httpx.Client
    journal: Journal
    out: Path

    def get(self, address: str, **headers: str) -> Any:
        return self.http.get(address, headers=headers).raise_for_status().json()

    def events(self, run_id: str, after: int | None = None, **headers: str) -> list[Told]:
        """All that is told of a run that is over."""
        query = "" if after is None else f"?after={after}"
        with self.http.stream("GET", f"/runs/{run_id}/events{query}", headers=headers) as response:
            return list(Streamed(response))

    def begin(
        self,
        run_id: str,
        *scene_ids: str,
        job_id: str = "film",
        folder: str = "",
        max_cost: str | None = None,
        spent_before: str = "0",
    ) -> None:
        """Writes what a run of these scenes writes first; its folder is that of the job."""
        self.journal.start_run(run_id, job_id=job_id, origin="local", folder=folder or str(self.out / job_id))
        scenes = [
            SceneOutline(clip_index=index, scene_id=scene_id, prompt=f"Scene {scene_id}", target_duration=2)
            for index, scene_id in enumerate(scene_ids)
        ]
        started = RunStarted(
            job_id=job_id,
            model="quick",
            aspect_ratio="16:9",
            provider="local",
            planned_cost=Decimal("0.06"),
            max_cost=None if max_cost is None else Decimal(max_cost),
            spent_before=Decimal(spent_before),
            scenes=tuple(scenes),
        )
        self.tell(run_id, "run.started", total=len(scenes), **started.payload())

    def kill(self, run_id: str) -> None:
        """Leave a run as its process does when it is killed."""
        with closing(Journal(f"sqlite:///{self.out / 'journal.db'}")) as journal:
            journal.release_lease(run_id)

    def tell(self, run_id: str, type_: str, *, completed: int = 0, total: int = 1, **payload: Any) -> int:
        counts = {"run_id": run_id, "completed": completed, "total": total}
        return self.journal.add_event(run_id, type_, payload | counts)


@dataclass(frozen=True)
class Played:
    """What is left of a real run: its folder, and its verdict."""

    out: Path
    batch: RunResult


@pytest.fixture(scope="session")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    """A run of three scenes on the emulator; its job is called `film`."""
    folder = tmp_path_factory.mktemp("played")
    with emulated(folder, FAULTS):
        return Played(folder / "out", shoot(folder / "out", PROMPTS))


@contextmanager
def emulated(folder: Path, faults: str, **settings: Any) -> Iterator[None]:
    """Runs inside are made by an emulator with this fault plan and these settings."""
    (folder / "faults.toml").write_text(faults)
    emulator = EmulatorSettings(**{"latency_s": (0.1, 0.1), "faults": folder / "faults.toml", **settings})
    with pytest.MonkeyPatch.context() as patch, emulating(emulator) as server:
        patch.setenv("REPLICATE_BASE_URL", server.url)
        patch.setenv("REPLICATE_API_TOKEN", "r8_test")
        patch.setenv("VIDEOGEN_REGISTRY", str(Path(__file__).parent.parent / "faults" / "models.toml"))
        yield


def shoot(out: Path, prompts: Mapping[str, str], **fields: Any) -> RunResult:
    """Runs the job `film` with a scene of two seconds for each prompt, by its id."""
    scenes = [{"id": name, "prompt": prompt, "target_duration": 2} for name, prompt in prompts.items()]
    given = {"id": "film", "model": "quick", "min_clips": 2, "max_cost": "1.00", "scenes": scenes, **fields}
    with ThreadPoolExecutor(1) as thread:  # the caller's may have a loop, as Playwright's has
        return thread.submit(asyncio.run, _shot(Job.model_validate(given), out)).result()


async def _shot(job: Job, out: Path) -> RunResult:
    async with open_run(await prepare_job(job, RunOptions(out=str(out)))) as session:
        return await session.finish(await asyncio.gather(*map(session.make_clip, session.plan.requests)))


@contextmanager
def watching(out: Path, **settings: Any) -> Iterator[Shown]:
    """A gateway on a folder of runs; keyword arguments are its settings.

    The runs that a test begins are seen as alive however long it takes: their clock is ahead.
    """
    out.mkdir(exist_ok=True)
    url = f"sqlite:///{out / 'journal.db'}"
    with (
        run_gateway_in_thread(GatewaySettings(out=out, journal_url=url, port=0, **settings)) as gateway,
        httpx.Client(base_url=gateway.url, trust_env=False, timeout=20) as http,
        closing(Journal(url, clock=lambda: datetime.now(UTC) + timedelta(hours=1))) as journal,
    ):
        yield Shown(http, journal, out)


@pytest.fixture(scope="session")
def finished(played: Played) -> Iterator[Shown]:
    """A gateway on the run that is over."""
    with watching(played.out) as gateway:
        yield gateway


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Shown]:
    """A gateway on an empty journal, which the test writes."""
    with watching(tmp_path / "out") as gateway:
        yield gateway


@contextmanager
def gateway(
    out: Path, *flags: str, most_files: int | None = None, prints_token: bool = False
) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """A process and its address, which may have a token in it; it may open so many files."""
    command = [sys.executable, "-m", "videogen", "gateway", *(flags or ("--port", "0"))]
    if most_files:
        command = ["sh", "-c", f'ulimit -n {most_files}; exec "$0" "$@"', *command]
    environment = {**os.environ, "VIDEOGEN_OUT": str(out)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout
    try:
        line = process.stdout.readline()
        assert line.startswith("listening on http://127.0.0.1:"), line
        yield process, line.split()[-1] if prints_token else line.split()[2].rstrip(",")
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def read_complaints(process: "subprocess.Popen[str]") -> str:
    """What a gateway has said since it began to listen; it is ended for that."""
    process.terminate()
    assert process.stdout
    return process.stdout.read()


PAGE = Path(__file__).parent.parent.parent / "docs" / "follow-a-run.md"
RUN = "4f1f0c6d2b7a"
"""The run in the examples."""


def example(language: str) -> str:
    """The one example of that language."""
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return str(found)
