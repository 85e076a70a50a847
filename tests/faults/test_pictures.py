"""What a person looks at after a run, when it can be written and when not."""

from collections.abc import Iterator

import pytest

from tests.faults.conftest import Stage, job_of
from videogen.app import open_run, prepare_job
from videogen.events import RunCompleted
from videogen.execution.recorder import Listener
from videogen.media import inspect_video
from videogen.results.run_result import RunResult

PICTURES = ("index.html", "contact_sheet.jpg", "film.otio", "film.fcpxml", "film.edl", "rough_cut.mp4")


async def shoot(stage: Stage, *, rough_cut: bool) -> tuple[RunResult, RunCompleted]:
    """A run of two scenes, and the event that ends it."""
    events: list[RunCompleted] = []
    listener: Listener = lambda event, _: events.append(event) if isinstance(event, RunCompleted) else None  # noqa: E731
    prepared = await prepare_job(job_of("a", "b"), stage.options.model_copy(update={"rough_cut": rough_cut}))
    async with open_run(prepared, listener) as session:
        batch = await session.finish([await session.make_clip(request) for request in session.plan.requests])
    (end,) = events
    return batch, end


@pytest.fixture(autouse=True)
def emulating(stage: Stage) -> Iterator[None]:
    stage.emulate()
    yield
    stage.stop()


async def test_a_run_leaves_its_pictures(stage: Stage) -> None:
    """The page, the sheet and the timelines always, the rough cut when asked; the page links what there is."""
    _, end = await shoot(stage, rough_cut=False)
    assert end.warnings == ()
    assert [(stage.job_folder / name).exists() for name in PICTURES] == [True] * 5 + [False]
    page = (stage.job_folder / "index.html").read_text()
    assert [f'href="{name}"' in page for name in PICTURES[1:]] == [True] * 4 + [False]
    _, end = await shoot(stage, rough_cut=True)
    assert end.warnings == ()
    assert 'href="rough_cut.mp4"' in (stage.job_folder / "index.html").read_text()
    assert inspect_video(stage.job_folder / "rough_cut.mp4").duration == pytest.approx(4, abs=0.1)


async def test_pictures_that_cannot_be_written_leave_the_verdict(stage: Stage) -> None:
    """Each one is warned of, by name and with its reason; clips, manifest and verdict stand."""
    for name in PICTURES:
        (stage.job_folder / name / "in the way").mkdir(parents=True)
    batch, end = await shoot(stage, rough_cut=True)
    assert batch.verdict.status == "complete"
    assert (stage.job_folder / "manifest.json").read_text() == batch.manifest()
    assert sorted(warning.partition(" ")[0] for warning in end.warnings) == sorted(PICTURES)
    assert all("was not written: cannot write" in warning for warning in end.warnings)
