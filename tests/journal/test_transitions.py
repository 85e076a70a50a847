"""The states of an attempt, the leases of runs, and what a job may cost: each is checked where it is written."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from threading import Barrier
from typing import Any

import pytest
import sqlalchemy as sa

from tests.journal.conftest import Clock, intend, start
from tests.support.builders import pictured_request, request_of
from videogen.errors import (
    BudgetError,
    ClaimedError,
    DeliveredError,
    JobLockedError,
    LeaseLostError,
)
from videogen.journal.attempts import TRANSITIONS, Attempt
from videogen.journal.base import KEYS_AT_ONCE, LEASE_S, utc_now
from videogen.journal.schema import ATTEMPTS, OPEN_STATES, AttemptState
from videogen.journal.store import Journal
from videogen.planning.requests import ClipRequest, ImageInput
from videogen.results.clip import Clip, get_planned_fields

PRICE = request_of().cost


def clip_of(request: ClipRequest) -> Clip:
    return Clip(status="success", video_path="clips/a.mp4", **get_planned_fields(request))


STEPS: dict[str, Callable[[Journal, Attempt], object]] = {
    "confirm_intent": lambda journal, attempt: journal.confirm_intent(attempt),
    "record_prediction": lambda journal, attempt: journal.record_prediction(attempt, "p1", None),
    "record_cost": lambda journal, attempt: journal.record_cost(attempt, PRICE, "known"),
    "record_success": lambda journal, attempt: journal.record_success(attempt, PRICE, "known"),
    "record_delivery": lambda journal, attempt: journal.record_delivery(
        attempt, request_of(), origin="fake", folder="here", clip=clip_of(request_of())
    ),
    "record_end": lambda journal, attempt: journal.record_end(attempt, error="timeout", message="too late"),
}
WAYS: dict[AttemptState, tuple[str, ...]] = {
    "intended": (),
    "created": ("record_prediction",),
    "succeeded": ("record_prediction", "record_success"),
    "delivered": ("record_prediction", "record_success", "record_delivery"),
    "ended": ("record_prediction", "record_end"),
}


def reach(journal: Journal, state: AttemptState, run_id: str = "run1") -> Attempt:
    """An attempt of that run in that state."""
    attempt = intend(journal, request_of(), run_id)
    for step in WAYS[state]:
        STEPS[step](journal, attempt)
    return attempt


def only_attempt(journal: Journal, run_id: str = "run1") -> Attempt:
    (attempt,) = journal.find_attempts(run_id, "a")
    return attempt


@pytest.mark.parametrize("state", WAYS)
@pytest.mark.parametrize("step", STEPS)
def test_a_transition_that_the_table_does_not_have_is_refused(journal: Journal, state: AttemptState, step: str) -> None:
    """What has ended stays ended, whoever says otherwise; the same once more is no other."""
    start(journal, "run1")
    attempt = reach(journal, state)
    before = only_attempt(journal)
    allowed = any(step in methods for methods in TRANSITIONS[state].values())
    if allowed:
        STEPS[step](journal, attempt)
    elif step in WAYS[state][-1:]:
        STEPS[step](journal, attempt)
        assert only_attempt(journal) == before
    else:
        with pytest.raises(LeaseLostError, match="run1"):
            STEPS[step](journal, attempt)
        assert only_attempt(journal) == before


@pytest.mark.parametrize("state", OPEN_STATES)
@pytest.mark.parametrize("step", STEPS)
def test_a_run_that_slept_changes_nothing_that_another_one_goes_on_with(
    journal: Journal, other: Journal, clock: Clock, state: AttemptState, step: str
) -> None:
    """Its machine slept for 22 s, another job took the clip over: whatever it does when it wakes up is refused."""
    start(journal, "run1", job_id="one")
    start(other, "run2", job_id="two")
    attempt = reach(journal, state)
    for _ in range(4):
        clock.pass_s(6)
        other.heartbeat("run2")
    adopted = other.take_over_attempt(attempt, run_id="run2", scene_id="a")
    with pytest.raises(LeaseLostError):
        STEPS[step](journal, attempt)
    assert only_attempt(other, "run2") == adopted


def test_an_end_that_goes_back_to_the_run_that_began_it_may_be_repeated(journal: Journal) -> None:
    """As after a commit whose answer was lost."""
    start(journal, "run1", folder="here")
    attempt = reach(journal, "created")
    start(journal, "run2", folder="here")
    adopted = journal.take_over_attempt(attempt, run_id="run2", scene_id="a")
    ended = [journal.record_end(adopted, error="canceled", message="", of_run="run1") for _ in range(2)]
    assert ended[0] == ended[1] == only_attempt(journal, "run1")


def test_another_end_is_not_the_same_end(journal: Journal) -> None:
    start(journal, "run1")
    attempt = reach(journal, "ended")
    with pytest.raises(LeaseLostError):
        journal.record_end(attempt, error="canceled", message="by somebody")
    second = intend(journal, request_of(), "run1")
    journal.record_prediction(second, "p2", None)
    with pytest.raises(LeaseLostError):
        journal.record_prediction(second, "p3", None)


def test_every_method_of_the_table_is_one_of_the_journal() -> None:
    assert {method for following in TRANSITIONS.values() for names in following.values() for method in names} == {
        "take_over_attempt",
        "forget_delivery",
        "record_cost",
        "record_success",
        "confirm_intent",
        "record_prediction",
        "record_delivery",
        "record_end",
    }
    assert OPEN_STATES == ("intended", "created", "succeeded")


def test_an_intent_is_confirmed_with_its_lease_and_its_time(journal: Journal, clock: Clock) -> None:
    """After a pause the run is alive again, and the create is searched for from the confirmed time on."""
    start(journal, "run1")
    attempt = intend(journal, request_of(), "run1")
    clock.pass_s(LEASE_S + 5)
    at = datetime(2026, 2, 3, tzinfo=UTC)
    assert journal.confirm_intent(attempt, at=at) == replace(attempt, intended_at=at)
    assert journal.get_holder_last_seen("run1") == clock.now


# -- leases -----------------------------------------------------------------------------------------------------------


def test_a_run_whose_folder_was_taken_over_does_nothing_more(journal: Journal, other: Journal, clock: Clock) -> None:
    """It hears of it with its next heartbeat, its next intent, and before a create is sent."""
    start(journal, "run1", folder="here", exclusive=True)
    attempt = intend(journal, request_of(), "run1")
    with pytest.raises(JobLockedError):
        start(other, "run2", folder="here", exclusive=True)
    for _ in range(4):
        clock.pass_s(6)
        other.get_holder_last_seen("here")
    start(other, "run2", folder="here", exclusive=True)
    for act in (
        lambda: journal.heartbeat("run1"),
        lambda: journal.confirm_intent(attempt),
        lambda: intend(journal, request_of(take=2), "run1"),
        lambda: journal.take_over_attempt(attempt, run_id="run1", scene_id="a"),
    ):
        with pytest.raises(LeaseLostError, match="run2 took over its folder here"):
            act()
    other.heartbeat("run2")


def test_a_run_that_has_ended_creates_nothing(journal: Journal) -> None:
    start(journal, "run1")
    journal.end_run("run1", verdict="interrupted")
    journal.heartbeat("run1")
    with pytest.raises(LeaseLostError, match="has ended"):
        intend(journal, request_of(), "run1")


def test_an_intent_says_that_the_run_is_alive(journal: Journal, other: Journal, clock: Clock) -> None:
    start(journal, "run1")
    clock.pass_s(LEASE_S - 1)
    attempt = intend(journal, request_of(), "run1")
    clock.pass_s(LEASE_S - 1)
    assert other.is_claimed(attempt.clip_key, origin="fake", folder="elsewhere")


def test_nobody_is_dead_because_the_database_was_away(journal: Journal, other: Journal, clock: Clock) -> None:
    """All leases have run out during an outage. Who comes back first does not take over the others' work."""
    start(journal, "run1", folder="here", exclusive=True)
    start(other, "run2")
    attempt = intend(journal, request_of(), "run1")
    clock.pass_s(50)
    other.heartbeat("run2")
    assert other.is_claimed(attempt.clip_key, origin="fake", folder="run2")
    assert other.get_holder_last_seen("here")
    with pytest.raises(ClaimedError):
        other.take_over_attempt(attempt, run_id="run2", scene_id="a")
    with pytest.raises(JobLockedError):
        start(other, "run3", folder="here", exclusive=True)
    clock.pass_s(4)
    journal.heartbeat("run1")
    for _ in range(4):
        clock.pass_s(6)
        assert other.is_claimed(attempt.clip_key, origin="fake", folder="run2") == (_ < 3)
    assert other.take_over_attempt(attempt, run_id="run2", scene_id="a").run_id == "run2"


def test_who_comes_new_waits_for_a_lease_that_may_have_run_out_in_an_outage(
    journal: Journal, journal_url: str, clock: Clock
) -> None:
    """It cannot know of the outage. A lease that is older than any outage is no longer waited for."""
    start(journal, "run1", folder="here")
    clock.pass_s(60)
    with closing(Journal(journal_url, clock=clock)) as new:
        assert new.get_holder_last_seen("here")
    clock.pass_s(25)
    with closing(Journal(journal_url, clock=clock)) as new:
        assert new.get_holder_last_seen("here") is None


def test_an_earlier_run_of_the_same_folder_is_adopted_from_at_once(journal: Journal, clock: Clock) -> None:
    """The lock of the folder says that it is dead, whatever its lease says."""
    start(journal, "run1", folder="here")
    attempt = intend(journal, request_of(), "run1")
    clock.pass_s(1)
    start(journal, "run2", folder="here")
    assert journal.take_over_attempt(attempt, run_id="run2", scene_id="b").run_id == "run2"
    assert journal.take_over_attempt(attempt, run_id="run2", scene_id="b").run_id == "run2"


def test_of_two_that_adopt_at_once_one_is_first(journal: Journal, other: Journal) -> None:
    start(journal, "dead")
    attempt = intend(journal, request_of(), "dead")
    journal.release_lease("dead")
    start(journal, "run1")
    start(other, "run2")
    both = Barrier(2)

    def is_first(asked: tuple[Journal, str]) -> bool:
        both.wait()
        try:
            asked[0].take_over_attempt(attempt, run_id=asked[1], scene_id="a")
        except ClaimedError:
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(is_first, ((journal, "run1"), (other, "run2")))) == [False, True]


# -- delivered meanwhile ----------------------------------------------------------------------------------------------


def test_what_is_delivered_is_not_intended(journal: Journal) -> None:
    """Unless it is to be made anew, or at another origin."""
    request = request_of()
    start(journal, "run1")
    reach(journal, "delivered")
    with pytest.raises(DeliveredError):
        intend(journal, request, "run1")
    assert journal.record_intent(request, run_id="run1", origin="elsewhere", folder="run1")
    assert intend(journal, request, "run1", replaces_delivery=True)


def test_what_is_open_is_not_intended_again(journal: Journal, other: Journal) -> None:
    """Not even what a dead run has left open: a prediction of it may be running."""
    start(journal, "run1")
    attempt = intend(journal, request_of(), "run1")
    journal.release_lease("run1")
    start(other, "run2")
    with pytest.raises(ClaimedError):
        intend(other, request_of(), "run2", replaces_delivery=True)
    adopted = other.take_over_attempt(attempt, run_id="run2", scene_id="a")
    other.record_end(adopted, error="gone", message="never was")
    assert intend(other, request_of(), "run2")


@pytest.mark.parametrize("round_", range(3))
def test_three_runs_of_one_job_pay_for_each_clip_once(journal_url: str, journal: Journal, round_: int) -> None:
    """All three want all eight clips, and look up first what is delivered, as a run does."""
    requests = [request_of(id=f"s{number}", take=number + 1) for number in range(8)]
    created: list[str] = []
    ready = Barrier(3)

    def run(name: str) -> int:
        with closing(Journal(journal_url)) as own:
            start(own, name)
            ready.wait()
            return sum(deliver(own, name, request) for request in requests)

    def deliver(own: Journal, name: str, request: ClipRequest) -> bool:
        while own.find_delivery("fake", request.key) is None:
            try:
                attempt = intend(own, request, name, max_cost=8 * PRICE)
            except (ClaimedError, DeliveredError):
                continue
            created.append(request.key)
            own.record_prediction(attempt, f"p-{name}-{request.scene.id}", None)
            own.record_success(attempt, PRICE, "known")
            own.record_delivery(attempt, request, origin="fake", folder=name, clip=clip_of(request))
            return True
        return False

    with ThreadPoolExecutor(3) as pool:
        assert sum(pool.map(run, ("run1", "run2", "run3"))) == 8
    assert sorted(created) == sorted(request.key for request in requests)


# -- the cap ----------------------------------------------------------------------------------------------------------


def is_taken(journal: Journal, take: int, run_id: str, cap: Decimal, **given: object) -> bool:
    try:
        intend(journal, request_of(take=take), run_id, max_cost=cap, **given)
    except BudgetError:
        return False
    return True


def end_all(journal: Journal, run_id: str, cost: Decimal | None = None, basis: str = "known") -> None:
    for attempt in journal.find_running_attempts(run_id):
        if cost is not None:
            journal.record_cost(attempt, cost, basis)  # type: ignore[arg-type]
        journal.record_end(attempt, error="model-error", message="no")


def test_the_cap_holds_over_all_runs_of_a_job(journal: Journal) -> None:
    """A crash, a retry, a take-over: what earlier runs have spent or left open counts. Other jobs do not."""
    cap = 3 * PRICE
    start(journal, "run1", folder="here")
    assert is_taken(journal, 1, "run1", cap)
    end_all(journal, "run1", PRICE)
    start(journal, "run2", folder="there")
    assert is_taken(journal, 2, "run2", cap)
    start(journal, "run3")
    assert is_taken(journal, 3, "run3", cap)
    assert not is_taken(journal, 4, "run3", cap)
    start(journal, "other", job_id="another")
    assert is_taken(journal, 5, "other", cap)
    assert journal.record_intent(request_of(take=6), run_id="run3", origin="elsewhere", folder="run3", max_cost=cap)
    assert journal.get_job_spending("job", "fake") == (PRICE, 2 * PRICE)


def test_what_a_run_adopts_still_counts_for_the_job_that_began_it(journal: Journal) -> None:
    start(journal, "run1", job_id="one")
    attempt = intend(journal, request_of(), "run1")
    journal.release_lease("run1")
    start(journal, "run2", job_id="two")
    journal.take_over_attempt(attempt, run_id="run2", scene_id="a")
    assert journal.get_job_spending("one", "fake") == (Decimal(0), PRICE)
    assert journal.get_job_spending("two", "fake") == (Decimal(0), Decimal(0))
    assert not is_taken(journal, 2, "run2", PRICE / 2)
    start(journal, "run3", job_id="one")
    assert not is_taken(journal, 3, "run3", PRICE)


@pytest.mark.parametrize(
    ("cost", "basis", "counted"),
    [
        (None, None, "2.00"),  # not known what it cost
        (Decimal(0), "estimated", "2.00"),
        (Decimal("0.10"), "estimated", "2.00"),
        (Decimal("2.50"), "estimated", "2.50"),
        (Decimal("0.10"), "known", "0.10"),
        (Decimal(0), "known", "0"),
        (Decimal("2.50"), "known", "2.50"),
        (Decimal("0.10"), "undeterminable", "2.00"),
    ],
)
def test_a_bill_that_is_not_certain_counts_as_what_was_reserved(
    journal: Journal, cost: Decimal | None, basis: str, counted: str
) -> None:
    """The cap is never passed by what the provider could have billed, whatever was booked."""
    start(journal, "run1")
    assert is_taken(journal, 1, "run1", Decimal(2), reserve=Decimal(2))
    end_all(journal, "run1", cost, basis)
    spent, reserved = journal.get_job_spending("job", "fake")
    assert (spent, spent + reserved) == (cost or Decimal(0), Decimal(counted))
    start(journal, "run2")
    assert not is_taken(journal, 2, "run2", Decimal(counted) + Decimal("0.99"), reserve=Decimal(1))
    assert is_taken(journal, 2, "run2", Decimal(counted) + Decimal(1), reserve=Decimal(1))


def test_a_refusal_says_what_is_taken_and_whether_it_may_become_free(journal: Journal) -> None:
    """Only what this run has still running can become free, and only if that would be enough."""
    start(journal, "run1")
    first = intend(journal, request_of(), "run1", reserve=Decimal("3.1"), max_cost=Decimal("3.10"))
    with pytest.raises(BudgetError) as refused:
        intend(journal, request_of(take=2), "run1", reserve=Decimal("1.905"), max_cost=Decimal(5))
    assert str(refused.value) == (
        "$3.10 of $5.00 are spent or reserved for this job; this prediction could cost up to $1.905 more"
    )
    assert refused.value.may_free
    with pytest.raises(BudgetError) as refused:
        intend(journal, request_of(take=2), "run1", reserve=Decimal(6), max_cost=Decimal(5))
    assert not refused.value.may_free
    start(journal, "run2")
    with pytest.raises(BudgetError) as refused:
        intend(journal, request_of(take=2), "run2", reserve=Decimal(2), max_cost=Decimal(5))
    assert not refused.value.may_free
    journal.record_cost(first, Decimal(1), "known")
    assert intend(journal, request_of(take=2), "run2", reserve=Decimal(2), max_cost=Decimal(5))


def test_a_prediction_is_known_by_its_id(journal: Journal) -> None:
    start(journal, "run1")
    reach(journal, "created")
    assert journal.has_prediction("p1")
    assert journal.has_prediction("p1", origin="fake")
    assert not journal.has_prediction("p1", origin="elsewhere")
    assert not journal.has_prediction("p2")


def test_an_open_attempt_that_only_differs_in_its_picture_is_a_lookalike(journal: Journal) -> None:
    """As long as its prediction is not known: one with another prompt is none, and neither is another take."""
    picture, another = (ImageInput(background=digit * 64) for digit in "12")
    one, other = pictured_request(picture), pictured_request(another)
    start(journal, "r1")
    attempt = intend(journal, one, "r1")
    assert journal.has_unknown_lookalike(other, origin="fake")
    for not_alike in (one, pictured_request(picture, take=2), pictured_request(another, prompt="another")):
        assert not journal.has_unknown_lookalike(not_alike, origin="fake")
    assert not journal.has_unknown_lookalike(other, origin="elsewhere")
    journal.record_prediction(attempt, "p1", None)
    assert not journal.has_unknown_lookalike(other, origin="fake")


# -- what is recorded, and what is found again ------------------------------------------------------------------------

AT = datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)


def read_row(journal_url: str, attempt: Attempt) -> Any:
    """Return the attempt's row, with the columns that only other parts of the journal read."""
    with sa.create_engine(journal_url, poolclass=sa.NullPool).connect() as db:
        return db.execute(sa.select(ATTEMPTS).where(ATTEMPTS.c.id == attempt.id)).one()


def change_row(journal_url: str, attempt: Attempt, **values: object) -> None:
    with sa.create_engine(journal_url, poolclass=sa.NullPool).begin() as db:
        db.execute(ATTEMPTS.update().where(ATTEMPTS.c.id == attempt.id).values(values))


def is_recent(at: datetime) -> bool:
    """Return whether a time that a database gave back is of this test. SQLite keeps no zone."""
    return abs(utc_now() - at.replace(tzinfo=at.tzinfo or UTC)) < timedelta(hours=1)


def test_an_intent_records_all_that_a_search_for_a_lost_create_needs(journal: Journal, journal_url: str) -> None:
    request = request_of(id="harbour")
    start(journal, "run1", job_id="film")
    attempt = intend(journal, request, "run1", at=AT, reserve=Decimal("0.9"))
    assert attempt.token
    assert attempt == Attempt(
        id=attempt.id, run_id="run1", clip_key=request.key, state="intended", prediction_id=None, intended_at=AT,
        created_at=None, price=PRICE, cost=None, token=attempt.token, begun_by=None,
    )  # fmt: skip
    row = read_row(journal_url, attempt)
    assert (row.origin, row.scene_id, row.job_id, row.reserved) == ("fake", "harbour", "film", "0.9")
    assert row.digest_without_images == request.prediction.digest_without_images
    assert len(row.input_digest) == 64
    journal.record_end(attempt, error="input", message="no")
    again = intend(journal, request, "run1")
    assert is_recent(again.intended_at)
    assert again.token != attempt.token
    repeated = read_row(journal_url, again)
    assert (repeated.input_digest, repeated.reserved) == (row.input_digest, str(PRICE))


class LossyJournal(Journal):
    """Does each transaction twice, as if the answer to the first commit had been lost."""

    def _run(self, work: Callable[[sa.Connection], Any], **given: Any) -> Any:
        super()._run(work, **given)
        return super()._run(work, **given)


def test_an_intent_whose_answer_was_lost_is_recorded_once(journal: Journal, journal_url: str, clock: Clock) -> None:
    """The second time finds it by its token, and not as an attempt of somebody else."""
    start(journal, "run1")
    with closing(LossyJournal(journal_url, clock=clock)) as lossy:
        attempt = intend(lossy, request_of(), "run1", max_cost=PRICE)
    assert journal.find_attempts("run1", "a") == [attempt]


def test_an_intent_is_refused_with_the_reason(journal: Journal) -> None:
    start(journal, "run1")
    attempt = intend(journal, request_of(), "run1")
    with pytest.raises(ClaimedError, match=r"^another attempt at this very clip is open$"):
        intend(journal, request_of(), "run1")
    journal.record_prediction(attempt, "p1", None)
    journal.record_success(attempt, PRICE, "known")
    journal.record_delivery(attempt, request_of(), origin="fake", folder="here", clip=clip_of(request_of()))
    with pytest.raises(DeliveredError, match=r"^another run has delivered this very clip meanwhile$"):
        intend(journal, request_of(), "run1")
    with pytest.raises(ClaimedError, match=r"^another run goes on with this very clip, or has ended it$"):
        journal.take_over_attempt(attempt, run_id="run1", scene_id="a")
    with pytest.raises(LeaseLostError) as caught:
        journal.record_end(attempt, error="input", message="no")
    assert str(caught.value) == (
        f"attempt {attempt.id} of run run1 has ended, or another run goes on with it: record_end is not recorded"
    )


def test_a_run_that_was_never_started_is_a_job_of_its_own(journal: Journal) -> None:
    """Its budget is its own, too."""
    intend(journal, request_of(), "stray")
    assert journal.get_job_spending("stray", "fake") == (Decimal(0), PRICE)
    assert not is_taken(journal, 2, "stray", PRICE)
    assert is_taken(journal, 2, "stray", 2 * PRICE)


def test_a_prediction_is_recorded_with_its_time_and_with_who_began_it(journal: Journal) -> None:
    """The time of the create by the provider's clock, or now if it does not tell."""
    start(journal, "run1")
    first = intend(journal, request_of(), "run1")
    known = journal.record_prediction(first, "p1", AT, begun_by="lost")
    assert known == replace(first, state="created", prediction_id="p1", created_at=AT, begun_by="lost")
    assert known.is_taken_over
    second = journal.record_prediction(intend(journal, request_of(take=2), "run1"), "p2", None)
    assert second
    assert second.created_at
    assert is_recent(second.created_at)
    assert second.begun_by is None
    assert not second.is_taken_over
    assert not replace(second, begun_by="run1").is_taken_over


def test_a_prediction_of_another_attempt_is_not_recorded_twice(journal: Journal) -> None:
    """At another origin the same id is another prediction. Other refusals are not swallowed."""
    start(journal, "run1")
    first, second = (intend(journal, request_of(take=take), "run1") for take in (1, 2))
    elsewhere = journal.record_intent(request_of(), run_id="run1", origin="elsewhere", folder="run1")
    assert journal.record_prediction(first, "p1", None)
    assert journal.record_prediction(second, "p1", None) is None
    assert journal.find_attempts("run1", "a")[1] == second
    assert journal.record_prediction(elsewhere, "p1", None)
    journal.record_end(second, error="input", message="no")
    with pytest.raises(LeaseLostError):
        journal.record_prediction(second, "p2", None)


def test_a_cost_is_recorded_with_its_basis(journal: Journal, journal_url: str) -> None:
    """At once, with the success, and again when the bill is known better."""
    start(journal, "run1")
    attempt = intend(journal, request_of(), "run1")
    assert journal.record_cost(attempt, Decimal("0.10"), "estimated").cost == Decimal("0.10")
    assert read_row(journal_url, attempt).cost_basis == "estimated"
    journal.record_prediction(attempt, "p1", None)
    succeeded = journal.record_success(attempt, Decimal("0.20"), "undeterminable")
    assert (succeeded.state, succeeded.cost) == ("succeeded", Decimal("0.20"))
    assert read_row(journal_url, attempt).cost_basis == "undeterminable"
    assert journal.record_cost(attempt, Decimal("0.30"), "known").cost == Decimal("0.30")
    assert read_row(journal_url, attempt).cost_basis == "known"


def test_an_end_is_recorded_with_its_reason(journal: Journal, journal_url: str) -> None:
    """A cost that nobody recorded is undeterminable from then on; one that was recorded keeps its basis."""
    start(journal, "run1")
    attempt, billed = (intend(journal, request_of(take=take), "run1") for take in (1, 2))
    assert journal.record_end(attempt, error="e" * 40, message="it said no\0").state == "ended"
    row = read_row(journal_url, attempt)
    assert (row.error_code, row.error_message, row.cost_basis) == ("e" * 32, "it said no\ufffd", "undeterminable")
    assert is_recent(row.ended_at)
    journal.record_cost(billed, PRICE, "known")
    journal.record_end(billed, error="timeout", message="")
    assert read_row(journal_url, billed).cost_basis == "known"


def test_the_end_of_another_attempt_is_not_this_ones(journal: Journal) -> None:
    """One that is delivered has not ended because another one ended so."""
    start(journal, "run1")
    ended = intend(journal, request_of(take=2), "run1")
    journal.record_end(ended, error="timeout", message="too late")
    delivered = reach(journal, "delivered")
    with pytest.raises(LeaseLostError):
        journal.record_end(delivered, error="timeout", message="too late")


def test_a_delivery_is_recorded_with_its_time_and_its_clip(journal: Journal, journal_url: str) -> None:
    start(journal, "run1")
    attempt = reach(journal, "delivered")
    assert is_recent(read_row(journal_url, attempt).ended_at)
    found = journal.find_delivery("fake", attempt.clip_key)
    assert found
    assert (found.folder, found.clip) == ("here", clip_of(request_of()))


def test_only_a_live_run_of_another_folder_claims_a_clip(journal: Journal, other: Journal) -> None:
    start(other, "run1", folder="there")
    attempt = intend(other, request_of(), "run1")
    key = attempt.clip_key
    assert journal.is_claimed(key, origin="fake", folder="here")
    assert not journal.is_claimed(key, origin="fake", folder="there")
    assert not journal.is_claimed(key, origin="elsewhere", folder="here")
    assert not journal.is_claimed(request_of(take=2).key, origin="fake", folder="here")
    other.record_end(attempt, error="input", message="no")
    assert not journal.is_claimed(key, origin="fake", folder="here")
    intend(other, request_of(), "run1")
    other.release_lease("run1")
    assert not journal.is_claimed(key, origin="fake", folder="here")


def test_an_attempt_is_found_while_it_is_open(journal: Journal) -> None:
    """At its origin, by its clip; the latest one, if an older version left several."""
    request = request_of()
    start(journal, "run1")
    assert journal.find_open_attempt("fake", request.key) is None
    first = intend(journal, request, "run1")
    intend(journal, request_of(take=2), "run1")
    journal.record_intent(request, run_id="run1", origin="elsewhere", folder="run1")
    assert journal.find_open_attempt("fake", request.key) == first
    journal.record_end(first, error="input", message="no")
    assert journal.find_open_attempt("fake", request.key) is None
    second = intend(journal, request, "run1")
    assert journal.find_open_attempt("fake", request.key) == second


def test_the_latest_of_several_open_attempts_is_found(journal: Journal, journal_url: str) -> None:
    """As they may be in a journal that an older version wrote."""
    start(journal, "run1")
    first, second = (intend(journal, request_of(take=take), "run1") for take in (1, 2))
    change_row(journal_url, second, clip_key=first.clip_key)
    assert journal.find_open_attempt("fake", first.clip_key) == replace(second, clip_key=first.clip_key)


def test_the_clips_in_flight_are_found(journal: Journal) -> None:
    """Of this origin, in any number, and only those begun after a time if one is given."""
    start(journal, "run1")
    early, late, ended, unasked = (
        intend(journal, request_of(take=take), "run1", at=AT + timedelta(seconds=take)) for take in (1, 2, 3, 4)
    )
    journal.record_prediction(late, "p2", None)
    journal.record_end(ended, error="input", message="no")
    strange = journal.record_intent(request_of(take=5), run_id="run1", origin="elsewhere", folder="run1")
    keys = [early.clip_key, ended.clip_key, strange.clip_key, *map(str, range(KEYS_AT_ONCE)), late.clip_key]
    assert journal.find_keys_in_flight("fake", keys) == {early.clip_key, late.clip_key}
    assert journal.find_keys_in_flight("fake", [unasked.clip_key]) == {unasked.clip_key}
    after = AT + timedelta(seconds=1)
    assert journal.find_keys_in_flight("fake", keys, begun_after=after) == {late.clip_key}
    assert journal.find_keys_in_flight("fake", []) == set()


def test_an_attempt_is_known_by_its_token(journal: Journal) -> None:
    """Whatever the text that a stranger gave as one."""
    start(journal, "run1")
    attempt = intend(journal, request_of(), "run1")
    assert attempt.token
    assert journal.has_attempt(attempt.token)
    for token in ("", "f" * 32, f"{attempt.token}\0"):
        assert not journal.has_attempt(token)


def test_the_attempts_of_a_run_are_its_own(journal: Journal) -> None:
    """Those that may be running, and those at a scene; oldest first."""
    start(journal, "run1")
    start(journal, "run2", job_id="another")
    intended, created, succeeded, ended = (intend(journal, request_of(take=take), "run1") for take in (1, 2, 3, 4))
    of_other_scene = intend(journal, request_of(id="b", take=5), "run1")
    of_other_run = intend(journal, request_of(take=6), "run2")
    for attempt, prediction_id in ((created, "p2"), (succeeded, "p3")):
        journal.record_prediction(attempt, prediction_id, None)
    journal.record_success(succeeded, PRICE, "known")
    journal.record_end(ended, error="input", message="no")

    def ids_of(attempts: list[Attempt]) -> list[int]:
        return [each.id for each in attempts]

    assert ids_of(journal.find_running_attempts("run1")) == [intended.id, created.id, of_other_scene.id]
    assert ids_of(journal.find_attempts("run1", "a")) == [intended.id, created.id, succeeded.id, ended.id]
    assert ids_of(journal.find_attempts("run1", "b")) == [of_other_scene.id]
    assert ids_of(journal.find_attempts("run2", "a")) == [of_other_run.id]


def test_a_take_over_concerns_one_attempt(journal: Journal, journal_url: str) -> None:
    """It keeps who began it, however often it is taken over, and is of the new run's scene."""
    start(journal, "run1", job_id="one", folder="here")
    attempt, untouched = (intend(journal, request_of(take=take), "run1") for take in (1, 2))
    start(journal, "run2", job_id="two", folder="here")
    once = journal.take_over_attempt(attempt, run_id="run2", scene_id="b")
    assert once == replace(attempt, run_id="run2", begun_by="run1")
    assert read_row(journal_url, attempt).scene_id == "b"
    start(journal, "run3", job_id="three", folder="here")
    twice = journal.take_over_attempt(once, run_id="run3", scene_id="c")
    assert (twice.run_id, twice.begun_by, twice.is_taken_over) == ("run3", "run1", True)
    assert read_row(journal_url, attempt).job_id == "one"
    assert journal.find_running_attempts("run1") == [untouched]
    created = journal.record_prediction(twice, "p1", None)
    assert created
    assert created.begun_by == "run1"


@pytest.mark.parametrize(("run_id", "job_id"), [("run1", "one"), ("unknown", "unknown")])
def test_an_attempt_of_an_older_version_counts_for_the_job_of_its_run(
    journal: Journal, journal_url: str, run_id: str, job_id: str
) -> None:
    """It recorded the run only; of a run that is not known nothing else is known."""
    start(journal, "run1", job_id="one")
    attempt = intend(journal, request_of(), run_id)
    change_row(journal_url, attempt, job_id=None)
    journal.release_lease("run1")
    start(journal, "run2", job_id="two")
    journal.take_over_attempt(attempt, run_id="run2", scene_id="a")
    assert read_row(journal_url, attempt).job_id == job_id


def deliver_at(journal: Journal, run_id: str, prediction_id: str, made_at: datetime, take: int = 1) -> Attempt:
    request = request_of(take=take)
    attempt = intend(journal, request, run_id, replaces_delivery=True)
    journal.record_prediction(attempt, prediction_id, made_at)
    journal.record_success(attempt, PRICE, "known")
    journal.record_delivery(attempt, request, origin="fake", folder="here", clip=clip_of(request))
    return replace(attempt, state="delivered", prediction_id=prediction_id, created_at=made_at, cost=PRICE)


def test_a_delivery_whose_file_is_gone_is_forgotten(journal: Journal) -> None:
    """Only that one; its attempt stays as it is unless its output can still be downloaded."""
    start(journal, "run1")
    gone, kept = (deliver_at(journal, "run1", f"p{take}", AT, take) for take in (1, 2))
    journal.forget_delivery("elsewhere", gone.clip_key)
    assert journal.find_delivery("fake", gone.clip_key)
    journal.forget_delivery("fake", gone.clip_key)
    assert journal.find_delivery("fake", gone.clip_key) is None
    assert journal.find_delivery("fake", kept.clip_key)
    assert journal.find_attempts("run1", "a") == [gone, kept]


def test_the_attempt_that_made_a_forgotten_clip_goes_on_if_its_output_is_still_there(
    journal: Journal, journal_url: str
) -> None:
    """The latest one, if its prediction is recent; it is delivered once more without a new prediction."""
    start(journal, "run1")
    first = deliver_at(journal, "run1", "p1", AT)
    second = deliver_at(journal, "run1", "p2", AT)
    another = deliver_at(journal, "run1", "p3", AT, take=2)
    journal.forget_delivery("fake", first.clip_key, made_since=AT - timedelta(seconds=1))
    assert journal.find_delivery("fake", first.clip_key) is None
    assert journal.find_attempts("run1", "a") == [first, replace(second, state="succeeded"), another]
    assert read_row(journal_url, second).ended_at is None
    request = request_of()
    journal.record_delivery(second, request, origin="fake", folder="here", clip=clip_of(request))
    assert journal.find_delivery("fake", first.clip_key)


def test_a_later_attempt_that_failed_does_not_stand_for_the_clip(journal: Journal) -> None:
    """It was to replace the clip, and brought none: the attempt that made the clip goes on."""
    start(journal, "run1")
    made = deliver_at(journal, "run1", "p1", AT)
    failed = intend(journal, request_of(), "run1", replaces_delivery=True)
    journal.record_prediction(failed, "p2", AT)
    ended = journal.record_end(failed, error="model-error", message="no")
    assert journal.find_last_attempts("fake", [made.clip_key]) == {made.clip_key: made}
    journal.forget_delivery("fake", made.clip_key, made_since=AT - timedelta(seconds=1))
    assert journal.find_attempts("run1", "a") == [replace(made, state="succeeded"), ended]


def test_an_output_that_is_too_old_is_not_waited_for(journal: Journal) -> None:
    start(journal, "run1")
    attempt = deliver_at(journal, "run1", "p1", AT)
    journal.forget_delivery("fake", attempt.clip_key, made_since=AT)
    assert journal.find_delivery("fake", attempt.clip_key) is None
    assert journal.find_attempts("run1", "a") == [attempt]


def test_nothing_goes_on_where_nothing_was_delivered(journal: Journal, journal_url: str) -> None:
    """Neither what was forgotten before, nor what was made elsewhere, nor what has no prediction."""
    start(journal, "run1")
    since = AT - timedelta(seconds=1)
    attempt = deliver_at(journal, "run1", "p1", AT)
    journal.forget_delivery("fake", attempt.clip_key)
    journal.forget_delivery("fake", attempt.clip_key, made_since=since)
    assert journal.find_attempts("run1", "a") == [attempt]
    journal.import_delivery(attempt.clip_key, origin="elsewhere", folder="here", clip=clip_of(request_of()))
    journal.forget_delivery("elsewhere", attempt.clip_key, made_since=since)
    assert journal.find_attempts("run1", "a") == [attempt]
    journal.import_delivery(attempt.clip_key, origin="fake", folder="here", clip=clip_of(request_of()))
    change_row(journal_url, attempt, prediction_id=None)
    journal.forget_delivery("fake", attempt.clip_key, made_since=since)
    assert [each.state for each in journal.find_attempts("run1", "a")] == ["delivered"]


def test_the_attempts_that_made_clips_are_found_by_key(journal: Journal, journal_url: str) -> None:
    """The latest of each clip, among any number of clips."""
    start(journal, "run1")
    deliver_at(journal, "run1", "p1", AT)
    second, other = deliver_at(journal, "run1", "p2", AT), deliver_at(journal, "run1", "p3", AT, take=2)
    unnamed = deliver_at(journal, "run1", "p4", AT, take=3)
    change_row(journal_url, unnamed, prediction_id=None)
    ended = intend(journal, request_of(take=4), "run1")
    journal.record_end(ended, error="input", message="no")
    asked = [each.clip_key for each in (second, unnamed, ended)] + [str(n) for n in range(KEYS_AT_ONCE)]
    assert journal.find_last_attempts("fake", asked) == {second.clip_key: second}
    assert journal.find_last_attempts("fake", [*asked, other.clip_key]) == {
        second.clip_key: second,
        other.clip_key: other,
    }
    assert journal.find_last_attempts("elsewhere", asked) == {}
