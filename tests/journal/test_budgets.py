"""Budgets that runs share, in the database: what counts for them, in which period, and of what alerts tell."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from tests.journal.conftest import Clock, intend, start
from tests.support.builders import request_of
from videogen.errors import BudgetError
from videogen.journal.attempts import Attempt
from videogen.journal.store import Journal
from videogen.planning.budgets import Budget, BudgetUse

PRICE = request_of().cost
OTHER = {"job_model": "hailuo-2.3", "target_duration": 6}
OTHER_PRICE = request_of(**OTHER).cost


def have_budget(journal: Journal, name: str = "team", **fields: Any) -> Budget:
    budget = Budget.model_validate({"name": name, "amount": "1.00", "period": "total", **fields})
    journal.set_budget(budget)
    return budget


def reserve(journal: Journal, take: int, run_id: str = "run1", *, budget: str = "team", **given: Any) -> Attempt:
    return intend(journal, request_of(take=take), run_id, budgets=(budget,), **given)


def get_use(journal: Journal, budget: Budget, at: datetime | None = None) -> tuple[Decimal, Decimal]:
    use: BudgetUse = journal.get_budget_use(budget, "fake", at=at)
    return use.spent, use.reserved


def test_all_runs_of_all_jobs_share_a_budget(journal: Journal, other: Journal) -> None:
    budget = have_budget(journal)
    start(journal, "run1", job_id="one")
    start(other, "run2", job_id="two")
    reserve(journal, 1, "run1")
    reserve(other, 2, "run2")
    assert get_use(journal, budget) == (Decimal(0), 2 * PRICE)
    message = (
        r"budget team: \$0.70 of \$1.00 spent or reserved in total.* \$0.35 more.*videogen budget team 1\.05/total"
    )
    with pytest.raises(BudgetError, match=message) as refused:
        reserve(other, 3, "run1")
    assert refused.value.code == "budget"
    have_budget(other, amount=str(3 * PRICE))
    assert reserve(journal, 3, "run1")


def test_attempts_count_as_for_the_cap_of_their_job(journal: Journal) -> None:
    """At their cost if it is certain, at their reservation if not: failed, cancelled, lost and running ones."""
    budget = have_budget(journal, amount="100")
    start(journal, "run1")
    attempts = [reserve(journal, take, reserve=2 * PRICE) for take in range(1, 7)]
    succeeded, failed, cancelled, lost, running, _intended = attempts
    for number, attempt in enumerate([succeeded, failed, cancelled, running]):
        assert journal.record_prediction(attempt, f"p{number}", None)
    journal.record_success(succeeded, PRICE, "known")
    journal.record_cost(failed, Decimal(0), "estimated")
    journal.record_end(failed, error="model-error", message="out of memory")
    journal.record_cost(cancelled, Decimal("0.10"), "known")
    journal.record_end(cancelled, error="interrupted", message="Ctrl-C")
    journal.record_end(lost, error="unreachable", message="no answer")
    assert get_use(journal, budget) == (PRICE + Decimal("0.10"), 4 * 2 * PRICE)
    assert get_use(journal, budget) == journal.get_job_spending("job", "fake")


def test_a_bill_above_its_reservation_counts_in_full(journal: Journal) -> None:
    budget = have_budget(journal)
    start(journal, "run1")
    dear = reserve(journal, 1)
    assert journal.record_prediction(dear, "p1", None)
    journal.record_success(dear, Decimal("1.20"), "known")
    assert get_use(journal, budget) == (Decimal("1.20"), Decimal(0))
    assert journal.get_budget_use(budget, "fake").left == 0
    with pytest.raises(BudgetError):
        reserve(journal, 2)


def test_a_budget_is_for_the_models_of_its_patterns(journal: Journal) -> None:
    hailuo = have_budget(journal, "hailuo", amount=str(OTHER_PRICE), models=["hailuo-*", "veo-*"])
    every = have_budget(journal, "all", amount="10")
    start(journal, "run1")
    both = ("hailuo", "all")
    intend(journal, request_of(take=1), "run1", budgets=both)
    intend(journal, request_of(take=2, **OTHER), "run1", budgets=both)
    with pytest.raises(BudgetError, match="budget hailuo"):
        intend(journal, request_of(take=3, **OTHER), "run1", budgets=both)
    intend(journal, request_of(take=3), "run1", budgets=both)
    assert get_use(journal, hailuo) == (Decimal(0), OTHER_PRICE)
    assert get_use(journal, every) == (Decimal(0), 2 * PRICE + OTHER_PRICE)


def test_a_refused_attempt_takes_nothing_of_any_budget(journal: Journal) -> None:
    large, small = have_budget(journal, "large", amount="10"), have_budget(journal, "small", amount="0.30")
    start(journal, "run1")
    with pytest.raises(BudgetError, match="budget small"):
        intend(journal, request_of(), "run1", budgets=("large", "small"))
    assert get_use(journal, large) == get_use(journal, small) == (Decimal(0), Decimal(0))


def test_attempts_of_the_past_stay_with_a_budget_that_changes(journal: Journal) -> None:
    have_budget(journal)
    start(journal, "run1")
    reserve(journal, 1)
    changed = have_budget(journal, amount="5", period="month", models=["veo-*"])
    assert journal.find_budget("team") == changed
    assert journal.list_budgets() == [changed]
    assert get_use(journal, changed, datetime.now(UTC)) == (Decimal(0), PRICE)


def test_an_attempt_that_another_run_takes_over_stays_with_the_budgets_of_the_run_that_began_it(
    journal: Journal, clock: Clock
) -> None:
    mine, yours = have_budget(journal, "mine"), have_budget(journal, "yours")
    start(journal, "run1", job_id="one")
    attempt = reserve(journal, 1, budget="mine")
    journal.release_lease("run1")
    start(journal, "run2", job_id="two")
    adopted = journal.take_over_attempt(attempt, run_id="run2", scene_id="a")
    assert journal.record_prediction(adopted, "p1", None)
    journal.record_success(adopted, PRICE, "known")
    assert get_use(journal, mine) == (PRICE, Decimal(0))
    assert get_use(journal, yours) == (Decimal(0), Decimal(0))


def test_each_account_has_the_amount_for_itself(journal: Journal) -> None:
    budget = have_budget(journal, amount=str(PRICE))
    start(journal, "run1")
    reserve(journal, 1)
    elsewhere = {"run_id": "run1", "origin": "elsewhere", "folder": "run1"}
    journal.record_intent(request_of(take=1), **elsewhere, budgets=("team",))  # type: ignore[arg-type]
    uses = journal.get_budget_uses(budget)
    assert {origin: use.taken for origin, use in uses.items()} == {"elsewhere": PRICE, "fake": PRICE}


def test_a_budget_that_is_not_there_refuses_everything(journal: Journal) -> None:
    have_budget(journal)
    start(journal, "run1")
    with pytest.raises(BudgetError, match=r"did you mean 'team'.* videogen budget teem 200/month"):
        reserve(journal, 1, budget="teem")
    assert journal.find_budget("teem") is None


def test_room_may_come_from_the_predictions_of_the_same_run_only(journal: Journal) -> None:
    have_budget(journal)
    start(journal, "run1")
    start(journal, "run2")
    reserve(journal, 1, "run1")
    reserve(journal, 2, "run1")
    for run_id, may_free in (("run1", True), ("run2", False)):
        with pytest.raises(BudgetError) as refused:
            reserve(journal, 3, run_id)
        assert refused.value.may_free is may_free
    with pytest.raises(BudgetError) as refused:
        reserve(journal, 3, "run1", reserve=Decimal("1.01"))
    assert not refused.value.may_free


def test_a_search_reserves_nothing_and_its_find_counts(journal: Journal) -> None:
    """It looks for a prediction that is paid for already, so even a budget that is used up does not refuse it."""
    budget = have_budget(journal, amount="0.10")
    start(journal, "run1")
    attempt = reserve(journal, 1, reserve=Decimal(0))
    assert get_use(journal, budget) == (Decimal(0), Decimal(0))
    assert journal.record_prediction(attempt, "p1", None)
    journal.record_success(attempt, PRICE, "known")
    assert get_use(journal, budget) == (PRICE, Decimal(0))


# -- periods ----------------------------------------------------------------------------------------------------------

BERLIN = "Europe/Berlin"
MIDNIGHTS = [
    # zone, period, the instant at which one ends and the next begins
    ("UTC", "month", datetime(2026, 11, 1, tzinfo=UTC)),
    (BERLIN, "month", datetime(2026, 10, 31, 23, tzinfo=UTC)),
    (BERLIN, "month", datetime(2026, 6, 30, 22, tzinfo=UTC)),
    (BERLIN, "month", datetime(2026, 12, 31, 23, tzinfo=UTC)),
    (BERLIN, "day", datetime(2026, 10, 24, 22, tzinfo=UTC)),  # the day of 25 hours begins
    (BERLIN, "day", datetime(2026, 10, 25, 23, tzinfo=UTC)),  # and ends
    (BERLIN, "day", datetime(2026, 3, 28, 23, tzinfo=UTC)),  # the day of 23 hours begins
    (BERLIN, "day", datetime(2026, 3, 29, 22, tzinfo=UTC)),  # and ends
    ("Asia/Kolkata", "day", datetime(2026, 5, 5, 18, 30, tzinfo=UTC)),
]


@pytest.mark.parametrize(("zone", "period", "midnight"), MIDNIGHTS)
def test_a_period_begins_at_midnight_in_the_zone_of_the_budget(
    journal: Journal, clock: Clock, zone: str, period: str, midnight: datetime
) -> None:
    """In the second before it counts for one period, at midnight for the next; the database's clock agrees."""
    second = timedelta(seconds=1)
    budget = have_budget(journal, amount=str(PRICE), period=period, time_zone=zone)
    start(journal, "run1")
    reserve(journal, 1, at=midnight - second)
    with pytest.raises(BudgetError, match=f"The next {period} begins on"):
        reserve(journal, 2, at=midnight - second)
    reserve(journal, 2, at=midnight)
    with pytest.raises(BudgetError):
        reserve(journal, 3, at=midnight + second)
    for at in (midnight - second, midnight):
        clock.now = at
        assert get_use(journal, budget) == (Decimal(0), PRICE)
    clock.now = midnight + timedelta(days=40)
    assert get_use(journal, budget) == (Decimal(0), Decimal(0))


def test_an_attempt_counts_in_the_period_of_its_reservation(journal: Journal) -> None:
    """A create that is sent after midnight does not take from the new month without having been checked there."""
    midnight = datetime(2026, 11, 1, tzinfo=UTC)
    budget = have_budget(journal, amount=str(PRICE), period="month")
    start(journal, "run1")
    late = reserve(journal, 1, at=midnight - timedelta(seconds=2))
    reserve(journal, 2, at=midnight)
    assert journal.confirm_intent(late, at=midnight + timedelta(seconds=3)).intended_at > midnight
    assert get_use(journal, budget, midnight) == (Decimal(0), PRICE)
    assert get_use(journal, budget, midnight - timedelta(days=1)) == (Decimal(0), PRICE)


def test_a_time_of_another_zone_is_the_same_time(journal: Journal) -> None:
    budget = have_budget(journal, period="day")
    start(journal, "run1")
    at = datetime.fromisoformat("2026-11-02T01:00:00+05:00")  # still 1 November in UTC
    reserve(journal, 1, at=at)
    assert get_use(journal, budget, datetime(2026, 11, 1, 12, tzinfo=UTC)) == (Decimal(0), PRICE)


# -- alerts -----------------------------------------------------------------------------------------------------------


def test_an_alert_tells_once_that_a_part_of_the_budget_is_reached(journal: Journal) -> None:
    have_budget(journal, amount=str(10 * PRICE))
    start(journal, "run1")
    told = [[alert.percent for alert in reserve(journal, take).alerts] for take in range(1, 11)]
    assert told == [[], [], [], [], [50], [], [], [80], [], [100]]


def test_a_reservation_that_reaches_several_parts_tells_of_each(journal: Journal) -> None:
    have_budget(journal, amount=str(PRICE), period="month", time_zone=BERLIN)
    start(journal, "run1")
    at = datetime(2026, 10, 31, 22, 59, tzinfo=UTC)
    alerts = reserve(journal, 1, at=at).alerts
    assert [alert.percent for alert in alerts] == [50, 80, 100]
    assert {(alert.budget, alert.amount, alert.taken) for alert in alerts} == {("team", PRICE, PRICE)}
    assert alerts[0].period == "in October (Europe/Berlin)"
    assert alerts[0].ends_at == datetime(2026, 10, 31, 23, tzinfo=UTC)


def test_alerts_are_told_again_in_the_next_period_and_after_a_change_of_the_amount(journal: Journal) -> None:
    have_budget(journal, amount=str(2 * PRICE), period="day")
    start(journal, "run1")
    today = datetime(2026, 11, 1, 12, tzinfo=UTC)
    assert [alert.percent for alert in reserve(journal, 1, at=today).alerts] == [50]
    assert [alert.percent for alert in reserve(journal, 2, at=today + timedelta(days=1)).alerts] == [50]
    have_budget(journal, amount=str(4 * PRICE), period="day")
    assert [alert.percent for alert in reserve(journal, 3, at=today).alerts] == [50]
    have_budget(journal, amount=str(4 * PRICE), period="day", models=["kling-*"])
    assert [alert.percent for alert in reserve(journal, 4, at=today).alerts] == []


def test_a_budget_of_nothing_refuses_and_tells_nothing(journal: Journal) -> None:
    have_budget(journal, amount="0")
    start(journal, "run1")
    with pytest.raises(BudgetError):
        reserve(journal, 1)
    assert reserve(journal, 1, reserve=Decimal(0)).alerts == ()


def test_concurrent_runs_stay_within_a_budget_and_tell_of_each_part_once(journal: Journal, other: Journal) -> None:
    """Of forty intents at once as many are recorded as the amount allows."""
    budget = have_budget(journal, amount=str(8 * PRICE + Decimal("0.01")))
    journals, requests = (journal, other), [request_of(take=take) for take in range(1, 41)]
    for number in range(2):
        start(journal, f"run{number}", job_id=f"job{number}")

    def reserve_once(number: int) -> Attempt | None:
        try:
            return intend(journals[number % 2], requests[number], f"run{number % 2}", budgets=("team",))
        except BudgetError:
            return None

    with ThreadPoolExecutor(8) as pool:
        made = [attempt for attempt in pool.map(reserve_once, range(40)) if attempt]
    assert len(made) == 8
    assert get_use(journal, budget) == (Decimal(0), 8 * PRICE)
    assert sorted(alert.percent for attempt in made for alert in attempt.alerts) == [50, 80]
