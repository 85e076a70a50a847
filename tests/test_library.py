"""The functions for Python programs, on an emulator of their own."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import videogen
from tests.support.tokens import TOKEN
from videogen import (
    AuthenticationError,
    ClipCompleted,
    InvalidError,
    Job,
    RunCompleted,
    RunEvent,
    RunOptions,
    RunStarted,
    Scene,
    ValidationError,
    plan_job,
    run_job,
)
from videogen.emulator import Emulator, EmulatorSettings, run_emulator
from videogen.journal.store import Journal

pytestmark = pytest.mark.integration

REGISTRY = Path(__file__).parents[0] / "faults" / "models.toml"


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which rendered clips are kept for all tests."""
    return tmp_path_factory.mktemp("films")


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of a program that works in `tmp_path`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REPLICATE_API_TOKEN", TOKEN)
    monkeypatch.setenv("VIDEOGEN_REGISTRY", str(REGISTRY))


@pytest.fixture
def emulator(environment: None, films: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """An emulator whose clips are made at once."""
    with run_emulator(EmulatorSettings(latency_s=(0.1, 0.1), cache=films)) as server:
        monkeypatch.setenv("REPLICATE_BASE_URL", server.url)
        yield server


@pytest.fixture
def slow_emulator(environment: None, films: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """An emulator whose clips take longer than any test."""
    with run_emulator(EmulatorSettings(latency_s=(600.0, 600.0), cache=films)) as server:
        monkeypatch.setenv("REPLICATE_BASE_URL", server.url)
        yield server


def make_job(scenes: int = 2, **fields: Any) -> Job:
    wanted = tuple(Scene(id=f"s{n}", prompt=f"scene {n}", target_duration=2) for n in range(scenes))
    return Job(id="film", model="quick", timeout_seconds=600, scenes=wanted, **fields)


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=250, check=True)
    return done.stdout


def test_the_import_loads_nothing_but_itself_and_a_little_of_the_standard_library() -> None:
    """In a fresh interpreter: programs that only may need videogen start as quickly as without it."""
    loaded = run_python(
        "import sys; before = set(sys.modules); import videogen; print(*sorted(set(sys.modules) - before))"
    ).split()
    assert {name for name in loaded if name.partition(".")[0] not in sys.stdlib_module_names} == {"videogen"}
    assert len(loaded) < 40, loaded


def test_every_public_name_is_there() -> None:
    """Also for `dir` and `import *`; another name is no attribute."""
    assert set(videogen.__all__) == videogen._MODULES.keys()
    assert list(videogen.__all__) == sorted(videogen.__all__)
    assert set(videogen.__all__) <= set(dir(videogen))
    missing = [name for name in videogen.__all__ if not hasattr(videogen, name)]
    assert missing == []
    assert not hasattr(videogen, "plan_jobs")
    run_python("from videogen import *; assert issubclass(ValidationError, InvalidError)")


async def test_a_run_makes_the_clips_and_the_next_one_is_free(
    emulator: Emulator, capfd: pytest.CaptureFixture[str]
) -> None:
    """Without a word, and with the manifest on the disk."""
    planned = await plan_job(make_job())
    assert (len(planned.to_create), emulator.ledger()["creates"]) == (2, 0)
    result = await run_job(make_job())
    assert (result.verdict.status, [clip.reused for clip in result.clips]) == ("complete", [False, False])
    assert all(Path("out/film", str(clip.video_path)).is_file() for clip in result.clips)
    again = await run_job(make_job(), RunOptions())
    assert (str(again.total_cost), [clip.reused for clip in again.clips]) == ("0", [True, True])
    assert (await plan_job(make_job())).to_create == ()
    assert emulator.ledger()["creates"] == 2
    assert tuple(capfd.readouterr()) == ("", "")


async def test_a_run_takes_the_address_of_a_job_file(emulator: Emulator, tmp_path: Path) -> None:
    """As text or as a path; an error names the position in the file."""
    file = tmp_path / "night.toml"
    file.write_text('model = "quick"\n[[scenes]]\nid = "a"\nprompt = "stars"\ntarget_duration = 2\n')
    assert (await run_job(file, RunOptions(out=str(tmp_path / "elsewhere")))).job_id == "night"
    assert (tmp_path / "elsewhere" / "night" / "manifest.json").is_file()
    file.write_text(file.read_text().replace("= 2", "= -2"))
    with pytest.raises(ValidationError, match=r"night\.toml:5:1: scenes\.0\.target_duration"):
        await run_job("night.toml")


async def test_the_events_come_typed_and_with_counts(emulator: Emulator) -> None:
    """In order, each with its payload."""
    heard: list[tuple[RunEvent, Mapping[str, Any]]] = []
    result = await run_job(make_job(), on_event=lambda event, payload: heard.append((event, payload)))
    first, last = heard[0][0], heard[-1][0]
    assert isinstance(first, RunStarted)
    assert isinstance(last, RunCompleted)
    assert last.result == result
    counts = [payload["completed"] for event, payload in heard if isinstance(event, ClipCompleted)]
    assert counts == [1, 2]
    assert {payload["run_id"] for _, payload in heard} == {result.run_id}


async def test_a_run_goes_on_when_the_callers_function_raises(
    emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    """The clips are paid for. The error is logged with its traceback."""

    def fail(event: RunEvent, payload: Mapping[str, Any]) -> None:
        raise RuntimeError("a mistake of the caller")

    async with asyncio.timeout(250):
        result = await run_job(make_job(1), on_event=fail)
    assert result.verdict.status == "complete"
    assert "RuntimeError: a mistake of the caller" in caplog.text


async def start_and_cancel(emulator: Emulator, options: RunOptions) -> str:
    """Cancel a run while two predictions are running, and return its id."""
    run_ids = set[str]()
    running = asyncio.create_task(
        run_job(make_job(), options, on_event=lambda _, payload: run_ids.add(payload["run_id"]))
    )
    async with asyncio.timeout(250):
        while emulator.ledger()["running"] < 2:
            await asyncio.sleep(0.05)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    (run_id,) = run_ids
    return run_id


async def test_a_cancelled_run_cancels_its_predictions(slow_emulator: Emulator) -> None:
    """All of them have ended when the task has, and the journal says that the run was interrupted."""
    run_id = await start_and_cancel(slow_emulator, RunOptions())
    ledger = slow_emulator.ledger()
    assert (ledger["creates"], ledger["cancels"], ledger["running"]) == (2, 2, 0)
    with closing(Journal(f"sqlite:///{Path('out/journal.db').absolute()}", read_only=True)) as journal:
        run = journal.find_run(run_id)
    assert run
    assert run.verdict == "interrupted"


async def test_a_cancelled_run_leaves_its_predictions_when_asked(slow_emulator: Emulator) -> None:
    """The next run continues them."""
    await start_and_cancel(slow_emulator, RunOptions(on_interrupt="leave"))
    ledger = slow_emulator.ledger()
    assert (ledger["cancels"], ledger["running"]) == (0, 2)


async def test_a_failed_clip_is_in_the_result(emulator: Emulator) -> None:
    """Nothing is raised for it."""
    result = await run_job(make_job(1).model_copy(update={"model": "refused"}))
    (clip,) = result.clips
    assert clip.error
    assert (result.verdict.status, clip.error.code) == ("failed", "input")


async def test_a_refused_token_is_an_error(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before any clip is begun."""
    monkeypatch.setenv("REPLICATE_API_TOKEN", "bad")
    with pytest.raises(AuthenticationError):
        await run_job(make_job())
    assert emulator.ledger()["creates"] == 0


def test_a_warning_is_not_printed_by_python() -> None:
    """A program that has not set up logging shows nothing."""
    code = "import logging; from videogen import run_job; logging.getLogger('videogen.journal').warning('for the log')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=250, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_prefect_is_not_needed() -> None:
    """Nothing of it is imported, nor is the command line."""
    loaded = run_python("import sys; from videogen import run_job; print(*sorted(sys.modules))").split()
    assert not {name.partition(".")[0] for name in loaded} & {"prefect", "flows", "cyclopts", "rich"}
    assert "videogen.library" in loaded


# -- refused ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("job", [{"scenes": []}, None, 7], ids=["dict", "none", "number"])
async def test_what_is_no_job_is_refused_by_its_type(environment: None, job: Any) -> None:
    with pytest.raises(TypeError, match=f"Job, or the address of its file, not {type(job).__name__}"):
        await plan_job(job)


async def test_a_folder_that_no_system_can_name_is_refused(environment: None) -> None:
    with pytest.raises(InvalidError, match="NUL character"):
        await plan_job(make_job(), RunOptions(out="a\0b"))


async def test_an_address_without_a_bucket_is_refused(environment: None) -> None:
    with pytest.raises(InvalidError, match="not the address of a folder in an object store"):
        await plan_job(make_job(), RunOptions(out="s3://"))


@pytest.mark.parametrize("is_there", [False, True])
async def test_music_that_cannot_be_used_is_refused_before_anything_is_sent(
    emulator: Emulator, tmp_path: Path, is_there: bool
) -> None:
    """A missing file, or one without sound."""
    if is_there:
        (tmp_path / "nope.mp3").write_text("no sound")
    with pytest.raises(InvalidError, match=r"music: .*nope\.mp3"):
        await run_job(make_job(), RunOptions(rough_cut=True, music=tmp_path / "nope.mp3"))
    assert not (tmp_path / "out").exists()
