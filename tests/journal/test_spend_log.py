"""The expenses in the journal: one for each prediction, and together what caps count."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from tests.journal.conftest import intend, start
from tests.support.builders import request_of
from videogen.journal.attempts import Attempt
from videogen.journal.spend_log import find_outcome
from videogen.journal.store import Journal
from videogen.results.clip import Clip, get_planned_fields
from videogen.results.expenses import Expense

PRICE = request_of().cost
AT = datetime(2026, 11, 1, 23, 30, tzinfo=UTC)


@pytest.fixture
def spent(journal_url: str) -> Iterator[Journal]:
    """A journal with a run of the job `job`."""
    with closing(Journal(journal_url)) as journal:
        start(journal, "run1")
        yield journal


def begin(journal: Journal, take: int, *, at: datetime = AT, run_id: str = "run1", **given: Any) -> Attempt:
    """Record the prediction `p` and the number of the take."""
    created = journal.record_prediction(intend(journal, request_of(take=take), run_id, **given), f"p{take}", at)
    assert created
    return created


def end(journal: Journal, attempt: Attempt, error: str, cost: str | None, basis: str = "known") -> None:
    if cost is not None:
        attempt = journal.record_cost(attempt, Decimal(cost), basis)  # type: ignore[arg-type]
    journal.record_end(attempt, error=error, message="no")


def deliver(journal: Journal, take: int, attempt: Attempt, cost: str) -> None:
    request = request_of(take=take)
    clip = Clip(status="success", video_path="clips/a.mp4", **get_planned_fields(request))
    succeeded = journal.record_success(attempt, Decimal(cost), "known")
    journal.record_delivery(succeeded, request, origin="fake", folder="here", clip=clip)


def list_all(journal: Journal, **given: Any) -> dict[str | None, Expense]:
    return {each.prediction_id: each for each in journal.find_expenses(["fake"], **given)}


def test_each_prediction_is_an_expense_with_its_outcome(spent: Journal) -> None:
    deliver(spent, 1, begin(spent, 1), "0.40")
    spent.record_success(begin(spent, 2), PRICE, "known")
    begin(spent, 3)
    end(spent, begin(spent, 4), "moderation", "0", "estimated")
    end(spent, begin(spent, 5), "duration", "0.35")
    end(spent, begin(spent, 6), "interrupted", "0.35", "estimated")
    end(spent, begin(spent, 7), "expired", None)
    told = {each.prediction_id: (each.outcome, each.billed, each.reserved) for each in list_all(spent).values()}
    assert told == {
        "p1": ("delivered", Decimal("0.40"), Decimal(0)),
        "p2": ("undelivered", PRICE, Decimal(0)),
        "p3": ("running", None, PRICE),
        "p4": ("failed", Decimal(0), PRICE),
        "p5": ("failed_billed", Decimal("0.35"), Decimal(0)),
        "p6": ("canceled", Decimal("0.35"), Decimal(0)),
        "p7": ("undeterminable", None, PRICE),
    }
    first = list_all(spent)["p1"]
    assert (first.job_id, first.run_id, first.scene_id, first.model) == ("job", "run1", "a", "kling-v2.5-turbo")
    assert (first.at, first.origin, first.planned, first.cost_basis) == (AT, "fake", PRICE, "known")


@pytest.mark.parametrize(
    ("state", "error_code", "cost", "basis", "outcome"),
    [
        ("intended", None, None, None, "running"),
        ("created", None, "0.35", "known", "failed_billed"),
        ("ended", "canceled", None, "undeterminable", "undeterminable"),
        ("ended", "timeout", "0", "known", "canceled"),
        ("ended", "aborted", "0", "known", "canceled"),
        ("ended", "cancelled", "0.35", "estimated", "canceled"),
        ("ended", "model-error", "0.000140", "known", "failed_billed"),
    ],
)
def test_the_outcome_of_each_state(
    state: str, error_code: str | None, cost: str | None, basis: str | None, outcome: str
) -> None:
    amount = None if cost is None else Decimal(cost)
    assert find_outcome(state=state, error_code=error_code, cost=amount, cost_basis=basis) == outcome


def test_an_attempt_that_certainly_made_no_prediction_is_no_expense(spent: Journal) -> None:
    """A refused create is none. One that was not answered is: it may have been billed."""
    end(spent, intend(spent, request_of(take=1), "run1"), "input", "0")
    intend(spent, request_of(take=2), "run1", reserve=Decimal(0))
    end(spent, intend(spent, request_of(take=3), "run1"), "gone", "0", "estimated")
    (only,) = spent.find_expenses(["fake"])
    assert (only.prediction_id, only.outcome, only.billed, only.reserved) == (None, "undeterminable", None, PRICE)


def test_the_run_that_began_a_prediction_pays_it(spent: Journal) -> None:
    """Also if a run of another job has continued it."""
    attempt = begin(spent, 1)
    spent.release_lease("run1")
    start(spent, "run2", job_id="another", folder="run1")
    deliver(spent, 1, spent.take_over_attempt(attempt, run_id="run2", scene_id="b"), "0.35")
    paid = list_all(spent)["p1"]
    assert (paid.run_id, paid.job_id, paid.scene_id) == ("run1", "job", "b")


def test_days_jobs_and_accounts_are_told_apart(spent: Journal) -> None:
    """`since` is within the period, `until` is not; a time may have any zone."""
    start(spent, "run2", job_id="another")
    begin(spent, 1)
    begin(spent, 2, at=AT + timedelta(hours=1), run_id="run2")
    east = AT.astimezone(datetime.strptime("+0500", "%z").tzinfo)
    assert list(list_all(spent, since=east)) == ["p1", "p2"]
    assert list(list_all(spent, until=east)) == []
    assert list(list_all(spent, until=east + timedelta(hours=1))) == ["p1"]
    assert list(list_all(spent, since=AT + timedelta(seconds=1))) == ["p2"]
    assert list(list_all(spent, job_id="another")) == ["p2"]
    assert spent.find_expenses(["elsewhere"]) == []
    assert spent.list_origins() == ["fake"]


def test_the_cost_of_a_lost_journal_is_an_expense_once(journal_url: str) -> None:
    """A prediction that was found again is part of it."""
    with closing(Journal(journal_url)) as journal:
        journal.start_run("run1", job_id="job", origin="fake", folder="f", unrecorded_cost=Decimal("1.00"))
        attempt = intend(journal, request_of(take=1), "run1", reserve=Decimal(0))
        found = journal.record_prediction(attempt, "p1", AT, begun_by="lost run0")
        assert found
        deliver(journal, 1, found, "0.35")
        expenses = list_all(journal)
        assert (expenses["p1"].run_id, expenses["p1"].billed) == ("lost run0", Decimal("0.35"))
        assert (expenses[None].outcome, expenses[None].billed, expenses[None].planned) == (
            "unrecorded",
            Decimal("0.65"),
            None,
        )
        assert journal.get_job_spending("job", "fake") == (Decimal("1.00"), Decimal(0))


def test_together_they_are_what_a_cap_counts(spent: Journal) -> None:
    """The sums of a job, whatever became of its predictions, also of those that are equal."""
    deliver(spent, 1, begin(spent, 1), "0.40")
    deliver(spent, 6, begin(spent, 6), "0.40")
    begin(spent, 2, reserve=Decimal("0.80"))
    end(spent, begin(spent, 3), "model-error", "0.10", "estimated")
    end(spent, begin(spent, 4), "expired", None)
    end(spent, intend(spent, request_of(take=5), "run1"), "gone", "0", "estimated")
    billed = sum((each.billed or Decimal(0) for each in spent.find_expenses(["fake"])), Decimal(0))
    reserved = sum((each.reserved for each in spent.find_expenses(["fake"])), Decimal(0))
    assert (billed, reserved) == spent.get_job_spending("job", "fake") == (Decimal("0.90"), Decimal("1.75"))


def test_known_predictions_are_found_by_account(spent: Journal) -> None:
    begin(spent, 1)
    assert spent.find_known_predictions("fake", ["p1", "p2", *map(str, range(1000))]) == {"p1"}
    assert spent.find_known_predictions("elsewhere", ["p1"]) == set()


def test_an_expense_is_told_as_texts(spent: Journal) -> None:
    """As CSV and JSON have it."""
    deliver(spent, 1, begin(spent, 1), "0.40")
    told = replace(list_all(spent)["p1"], token="t").summary()
    assert told == {
        "prediction_id": "p1",
        "at": "2026-11-01T23:30:00.000Z",
        "origin": "fake",
        "job_id": "job",
        "run_id": "run1",
        "scene_id": "a",
        "model": "kling-v2.5-turbo",
        "outcome": "delivered",
        "error_code": None,
        "planned": str(PRICE),
        "billed": "0.40",
        "cost_basis": "known",
        "reserved": "0",
        "token": "t",
    }
