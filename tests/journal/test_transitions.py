"""The states of an attempt, the leases of runs, and what a job may cost: each is checked where it is written."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from threading import Barrier

import pytest

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
from videogen.journal.base import LEASE_S
from videogen.journal.schema import OPEN_STATES, AttemptState
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
