"""What the journal remembers of clips that were made, over SQLite and PostgreSQL."""

from collections.abc import Iterator

import pytest

from tests.support.builders import request_of
from videogen.journal.store import Journal
from videogen.planning.requests import ClipRequest
from videogen.results.clip import Clip, get_planned_fields


@pytest.fixture
def journal(journal_url: str) -> Iterator[Journal]:
    journal = Journal(journal_url)
    yield journal
    journal.close()


def start(journal: Journal, run_id: str, *, fresh: bool | None = None, folder: str = "here") -> None:
    journal.start_run(run_id, job_id="job", origin="fake", folder=folder)
    journal.add_event(run_id, "run.started", {} if fresh is None else {"fresh": fresh})


def deliver(journal: Journal, request: ClipRequest, run_id: str, *, folder: str = "here") -> Clip:
    attempt = journal.record_intent(request, run_id=run_id, origin="fake", folder=folder, replaces_delivery=True)
    created = journal.record_prediction(attempt, f"p-{run_id}-{request.key}", None)
    assert created
    billed = journal.record_success(created, request.cost, "known")
    clip = Clip(status="success", video_path=request.video_path, **get_planned_fields(request))
    journal.record_delivery(billed, request, origin="fake", folder=folder, clip=clip)
    return clip


def test_the_prediction_that_brought_a_clip_is_known_after_its_delivery_is_forgotten(journal: Journal) -> None:
    """The latest one; not one that failed, nor one that is still open."""
    request, failed, unborn = request_of(), request_of(take=2), request_of(take=3)
    for run_id in ("r1", "r2"):
        start(journal, run_id)
        deliver(journal, request, run_id)
    attempt = journal.record_intent(failed, run_id="r2", origin="fake", folder="here")
    journal.record_end(attempt, error="moderation", message="no")
    journal.record_intent(request, run_id="r2", origin="fake", folder="here", replaces_delivery=True)
    journal.forget_delivery("fake", request.key)
    last = journal.find_last_attempts("fake", [request.key])[request.key]
    assert (last.state, last.prediction_id) == ("delivered", f"p-r2-{request.key}")
    assert journal.find_last_attempts("fake", [request.key, failed.key, unborn.key]) == {request.key: last}
    assert journal.find_last_attempts("another", [request.key]) == {}


def test_all_that_a_folder_has_is_known(journal: Journal) -> None:
    """Also what this job does not ask for; not what is elsewhere."""
    start(journal, "r1")
    clips = [deliver(journal, request_of(take=take), "r1") for take in (1, 2)]
    deliver(journal, request_of(take=3), "r1", folder="there")
    assert sorted(each.clip.video_path or "" for each in journal.find_deliveries_in("fake", "here")) == sorted(
        clip.video_path or "" for clip in clips
    )
    assert journal.find_deliveries_in("another", "here") == []


@pytest.mark.long_variants
@pytest.mark.parametrize(
    ("runs", "kept"),
    [
        pytest.param([(True, None)], {1}, id="killed"),
        pytest.param([(True, None), (True, None)], {1, 2}, id="killed-twice"),
        pytest.param([(True, None), (False, None)], {1, 2}, id="gone-on-with"),
        pytest.param([(True, "interrupted"), (None, None)], {1, 2}, id="interrupted"),
        pytest.param([(False, None), (True, None)], {2}, id="not-fresh-before"),
        pytest.param([(None, None)], set(), id="not-fresh"),
        pytest.param([(True, "complete")], set(), id="complete"),
        pytest.param([(True, "failed")], set(), id="failed"),
        pytest.param([(True, None), (False, "partial")], set(), id="judged-without-fresh"),
        pytest.param([(True, None), (True, "complete"), (True, None)], {3}, id="judged-between"),
    ],
)
def test_what_a_fresh_run_made_counts_until_a_run_is_judged(
    journal: Journal, runs: list[tuple[bool | None, str | None]], kept: set[int]
) -> None:
    requests = [request_of(take=number) for number, _ in enumerate(runs, 1)]
    for request, (fresh, verdict) in zip(requests, runs, strict=True):
        run_id = f"r{request.scene.take}"
        start(journal, run_id, fresh=fresh)
        deliver(journal, request, run_id)
        if verdict:
            journal.end_run(run_id, verdict=verdict)
    start(journal, "other", fresh=True, folder="there")
    deliver(journal, request_of(take=99), "other", folder="there")
    assert journal.find_fresh_keys("fake", "here") == {each.key for each in requests if each.scene.take in kept}
