"""Budgets that runs share: their periods, the texts that people write, and plans that need more than is left."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.builders import job_of, small_registry
from videogen.errors import InvalidError, ValidationError
from videogen.job.model import Job
from videogen.planning.budgets import (
    Budget,
    BudgetUse,
    check_time_zone,
    describe_missing_budget,
    format_allowance,
    list_budget_lines,
    parse_allowance,
    validate_shared_budgets,
)
from videogen.planning.plan import Plan
from videogen.planning.planner import build_plan

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
REGISTRY = small_registry(kling={}, veo={})
"""Their clips of five seconds cost $0.50 each."""


def budget_of(**fields: Any) -> Budget:
    return Budget.model_validate({"name": "team", "amount": "200", "period": "month", **fields})


def use_of(*, spent: str = "0", reserved: str = "0", **fields: Any) -> BudgetUse:
    budget = budget_of(**fields)
    return BudgetUse(budget=budget, span=budget.find_span(NOW), spent=Decimal(spent), reserved=Decimal(reserved))


def plan_of(*uses: BudgetUse, scenes: int = 2, **fields: Any) -> Plan:
    job = job_of(*[{} for _ in range(scenes)], model="kling", **fields)
    return build_plan(job, REGISTRY).with_budgets(uses)


# -- periods ----------------------------------------------------------------------------------------------------------


@given(
    zone=st.sampled_from(sorted(available_timezones())),
    at=st.integers(0, 22 * 366 * 86_400).map(lambda seconds: datetime(2015, 1, 1, tzinfo=UTC) + timedelta(0, seconds)),
    period=st.sampled_from(("day", "month")),
)
def test_each_time_is_in_one_period_and_periods_follow_each_other(zone: str, at: datetime, period: str) -> None:
    budget = budget_of(period=period, time_zone=zone)
    span = budget.find_span(at)
    assert span.starts_at is not None
    assert span.ends_at is not None
    assert span.starts_at <= at < span.ends_at
    following = budget.find_span(span.ends_at)
    assert following.starts_at == span.ends_at
    before = budget.find_span(span.starts_at - timedelta(microseconds=1))
    assert before.ends_at == span.starts_at
    assert len({before.key, span.key, following.key}) == 3


def test_a_period_is_told_in_the_zone_of_the_budget() -> None:
    late = datetime(2026, 11, 30, 23, 30, tzinfo=UTC)
    assert budget_of().find_span(late).when == "in November (UTC)"
    assert budget_of(time_zone="Europe/Berlin").find_span(late).when == "in December (Europe/Berlin)"
    assert budget_of(period="day").find_span(late).when == "on 30 November (UTC)"
    assert budget_of(period="total").find_span(late).when == "in total"
    assert use_of(time_zone="Europe/Berlin").describe_end() == "1 December 2026, 00:00 (Europe/Berlin)"
    assert use_of(period="total").describe_end() == ""


def test_patterns_are_of_the_case_of_the_names() -> None:
    budget = budget_of(models=["veo-*", "kling-v2.?"])
    assert [budget.is_for(name) for name in ("veo-3", "kling-v2.5", "kling-v2.5-turbo", "VEO-3")] == [
        True,
        True,
        False,
        False,
    ]
    assert budget_of().is_for("anything")


# -- what people write ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "amount", "period"),
    [
        ("200/month", "200", "month"),
        ("20/day", "20", "day"),
        ("1000/total", "1000", "total"),
        ("0.05/Day", "0.05", "day"),
        ("$12.50 / month", "12.50", "month"),
        ("0/total", "0", "total"),
    ],
)
def test_an_allowance_is_an_amount_for_a_period(text: str, amount: str, period: str) -> None:
    assert parse_allowance(text) == (Decimal(amount), period)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("200/week", "AMOUNT: 'week' is no period of a budget: write one of 200/day, 200/month, 200/total"),
        ("200/mnth", "200/total; did you mean 'month'?"),
        ("200", "AMOUNT: '200' has no period: write one of 200/day, 200/month, 200/total"),
        ("-5/day", "AMOUNT: '-5' is no amount in USD: write digits and a period, such as 5/day"),
        ("abc", "AMOUNT: 'abc' is no amount in USD: write digits and a period, such as 200/month"),
        ("1e3/day", "such as 200/month"),
        ("1,000/month", "'1,000' is no amount in USD"),
        ("nan/month", "'nan' is no amount"),
        ("", "such as 200/month"),
        ("/day", "such as 200/month"),
    ],
)
def test_another_text_is_told_with_the_right_one(text: str, told: str) -> None:
    with pytest.raises(InvalidError) as refused:
        parse_allowance(text)
    assert told in str(refused.value)


@given(amount=st.decimals(0, 10**8, places=4), period=st.sampled_from(("day", "month", "total")))
def test_an_allowance_is_written_as_it_is_read(amount: Decimal, period: Any) -> None:
    assert parse_allowance(format_allowance(amount, period)) == (amount, period)


def test_an_unknown_time_zone_is_told_with_one_that_is_alike() -> None:
    assert check_time_zone("Europe/Berlin") == "Europe/Berlin"
    with pytest.raises(InvalidError, match="did you mean 'Europe/Berlin'"):
        check_time_zone("Europe/Berln")
    with pytest.raises(InvalidError, match=r"--time-zone: 'xx' is no time zone.* such as Europe/Berlin or UTC"):
        check_time_zone("xx")


def test_a_missing_budget_is_told_with_the_command_that_creates_it() -> None:
    assert describe_missing_budget("team", []) == (
        "the journal has no budget 'team' yet. To create it: videogen budget team 200/month"
    )
    assert "did you mean 'team'? To create it: videogen budget teem" in describe_missing_budget("teem", ["team"])


# -- plans ------------------------------------------------------------------------------------------------------------


def test_a_plan_tells_of_each_budget_what_is_taken_and_what_it_needs() -> None:
    uses = (
        use_of(spent="29.80", reserved="1.40"),
        use_of(name="veo", models=["veo"], period="day", amount="20"),
    )
    planned = plan_of(*uses)
    assert list(list_budget_lines(planned)) == [
        "budget team: $31.20 of $200.00 spent or reserved in November (UTC), $1.00 for this run",
        "budget veo: $0.00 of $20.00 spent or reserved on 30 November (UTC), $0.00 for this run",
    ]
    assert planned.warnings == plan_of().warnings
    assert planned.summary()["budgets"][0] == {
        "name": "team",
        "amount": "200",
        "period": "month",
        "time_zone": "UTC",
        "models": [],
        "spent": "29.80",
        "reserved": "1.40",
        "ends_at": "2026-12-01T00:00:00+00:00",
        "planned_cost": "1.000",
    }
    assert "budgets" not in plan_of().summary()


def test_a_rest_that_does_not_cover_the_plan_is_a_warning() -> None:
    planned = plan_of(use_of(spent="199.20"))
    assert planned.warnings[-1] == (
        "budget team: $199.20 of $200.00 spent or reserved in November (UTC), and this run costs $1.00: clips that the "
        "remaining $0.80 does not cover will fail with `budget`. `videogen budget team 200.2/month` covers all of them"
    )
    validate_shared_budgets(planned)


def test_a_plan_of_which_no_clip_is_covered_is_refused() -> None:
    planned = plan_of(use_of(spent="199.60"))
    with pytest.raises(ValidationError, match=r"remaining \$0.40 does not cover any clip.*begins on 1 December 2026"):
        validate_shared_budgets(planned)
    delivered = frozenset(request.key for request in planned.requests)
    validate_shared_budgets(planned.with_reuse(delivered))


def test_a_plan_goes_on_if_it_has_work_that_no_budget_refuses() -> None:
    """A prediction that is paid for, or a clip of a model that the budget is not for."""
    exhausted = use_of(spent="200")
    first = plan_of(exhausted).requests[0]
    validate_shared_budgets(plan_of(exhausted).with_reuse((), paid={first.key}, resumable={first.key}))
    of_kling = use_of(spent="200", models=["kling"])
    mixed = build_plan(job_of({}, {"model": "veo"}, model="kling"), REGISTRY).with_budgets((of_kling,))
    validate_shared_budgets(mixed)
    with pytest.raises(ValidationError):
        validate_shared_budgets(mixed.with_budgets((exhausted,)))


def test_a_job_names_one_budget_or_several() -> None:
    """Also when it is passed on as JSON, as a parameter of a flow is."""
    for field, names in ((["team", "veo"], ("team", "veo")), ("team", ("team",)), ([], ())):
        job = job_of({}, budget=field)
        assert job.budget == names
        assert Job.model_validate_json(job.model_dump_json()) == job
