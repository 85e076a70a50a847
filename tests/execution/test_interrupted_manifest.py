"""The manifest of a run that is interrupted."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.tokens import TOKEN
from videogen import ClipCompleted, ClipStarted, Job, RunEvent, RunOptions, RunResult, RunStarted, Scene, run_job
from videogen.emulator import Emulator, EmulatorSettings, run_emulator
from videogen.execution import prediction

pytestmark = pytest.mark.integration

OPTIONS = RunOptions()
REGISTRY = Path(__file__).parents[1] / "faults" / "models.toml"


@contextmanager
def emulate(folder: Path, monkeypatch: pytest.MonkeyPatch, *rules: str) -> Iterator[Emulator]:
    """Provide an emulator with these faults, to which runs in the folder go."""
    plan = folder / "plan.toml"
    plan.write_text("".join(f"[[rules]]\n{rule}\n" for rule in rules), encoding="utf-8")
    monkeypatch.chdir(folder)
    with run_emulator(EmulatorSettings(latency_s=(0.1, 0.1), faults=plan)) as emulator:
        monkeypatch.setenv("REPLICATE_API_TOKEN", TOKEN)
        monkeypatch.setenv("REPLICATE_BASE_URL", emulator.url)
        monkeypatch.setenv("VIDEOGEN_REGISTRY", str(REGISTRY))
        yield emulator


def make_job(scenes: int) -> Job:
    wanted = tuple(Scene(id=f"s{n}", prompt=f"scene {n}", target_duration=2) for n in range(scenes))
    return Job(id="film", model="quick", concurrency=2, scenes=wanted)


async def run_until(job: Job, event: type[RunEvent], options: RunOptions = OPTIONS) -> RunResult:
    """Run the job, cancel the run after the first event of this type, and return its manifest."""
    reached = asyncio.Event()

    def look_at(each: RunEvent, _: Any) -> None:
        if isinstance(each, event):
            reached.set()

    running = asyncio.create_task(run_job(job, options, on_event=look_at))
    await reached.wait()
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    return read_manifest()


def read_manifest() -> RunResult:
    return RunResult.from_manifest(Path("out/film/manifest.json").read_text(encoding="utf-8"))


def describe_clips(result: RunResult) -> list[str]:
    return [clip.error.code if clip.error else clip.outcome for clip in result.clips]


async def test_it_has_what_was_delivered_and_what_was_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cost of cancelled predictions is in it. The next run makes the others."""
    with emulate(tmp_path, monkeypatch, 'do = "stick"\nnth_create = [2, 3]') as emulator:
        result = await run_until(make_job(4), ClipCompleted)
        assert sorted(describe_clips(result)) == ["delivered", "interrupted", "interrupted", "interrupted"]
        assert result.verdict.reason.startswith("interrupted: 1 of 4 clips delivered, $0.")
        assert f"{result.total_cost:.2f}" == emulator.ledger()["billed"]
        assert emulator.ledger()["running"] == 0
        await run_job(make_job(4))
    assert sorted(describe_clips(read_manifest())) == ["delivered", "delivered", "delivered", "reused"]


async def test_clips_of_earlier_runs_stay_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if the run had no time to look at them."""
    with emulate(tmp_path, monkeypatch):
        before = await run_job(make_job(3))
        result = await run_until(make_job(4), RunStarted)
    assert describe_clips(result)[3] == "interrupted"
    assert [clip.sha256 for clip in result.clips[:3]] == [clip.sha256 for clip in before.clips]
    assert [clip.outcome for clip in result.clips[:3]] == ["reused"] * 3
    assert result.total_cost == 0


async def test_an_interrupted_fresh_run_keeps_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would make everything again, and has not begun to. A clip of another prompt is not taken for its scene's."""
    with emulate(tmp_path, monkeypatch):
        await run_job(make_job(2))
        result = await run_until(make_job(2), RunStarted, RunOptions(fresh=True))
        assert describe_clips(result) == ["reused", "reused"]
        other = make_job(2).scenes[0].model_copy(update={"prompt": "another scene"})
        job = make_job(2).model_copy(update={"scenes": (other, make_job(2).scenes[1])})
        result = await run_until(job, RunStarted)
    assert describe_clips(result) == ["interrupted", "reused"]


async def test_it_names_what_may_still_be_running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prediction, "CLEAN_UP_S", 0.5)
    faults = ('do = "stick"\nnth_create = [1]', 'on = "cancel"\ndo = "status"\nstatus = 500\ntimes = "always"')
    with emulate(tmp_path, monkeypatch, *faults) as emulator:
        result = await run_until(make_job(1), ClipStarted)
        (made,) = emulator.ledger()["predictions"]
    told = f"prediction {made['id']} may still be running: the next run looks for it"
    assert result.verdict.warnings == (told,)
    assert told in result.verdict.reason
    assert json.loads(Path("out/film/manifest.json").read_text())["verdict"]["status"] == "failed"
