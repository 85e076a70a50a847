"""Sum up the spending that a gateway shows. `spend.js` draws it."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import date
from decimal import Decimal

from pydantic import BaseModel, ConfigDict

from videogen.journal.store import Journal
from videogen.results.expenses import (
    COLUMNS,
    UNKNOWN,
    Expense,
    ExpenseGroup,
    Grouping,
    Outcome,
    SpendPeriod,
    choose_origins,
    group_expenses,
    sum_expenses,
)
from videogen.settings import FREE_ORIGIN


class SpendGroup(BaseModel):
    """Predictions that are summed up. Money is in USD."""

    model_config = ConfigDict(frozen=True)

    key: tuple[str, ...]
    """The values of the view's `columns`; empty for the total."""
    predictions: int
    outcomes: dict[Outcome, int]
    """Number of predictions by outcome. `unrecorded` counts the costs of lost journals, which are no predictions."""
    planned: Decimal
    billed: Decimal
    reserved: Decimal
    """The most that may be billed in addition."""


class SpendDay(BaseModel):
    """The money that the predictions of one day were billed, in USD."""

    day: date
    by_model: dict[str, Decimal]


class SpendView(BaseModel):
    """The spending of a period."""

    origins: tuple[str, ...]
    """The provider accounts that it is about."""
    time_zone: str
    since: date | None
    """The first day; None means from the beginning."""
    until: date | None
    """The last day; None means until now."""
    by: Grouping
    columns: tuple[str, ...]
    """Names of the values that each group has in its `key`."""
    groups: tuple[SpendGroup, ...]
    """By day the oldest first, else the most expensive first."""
    total: SpendGroup
    days: tuple[SpendDay, ...]
    """The days on which something was billed, oldest first."""


def find_shown_expenses(
    journal: Journal, period: SpendPeriod, *, job_id: str | None, origin: str | None, with_local: bool
) -> tuple[list[str], list[Expense]]:
    """Return the provider accounts to show, and their expenses.

    Args:
        journal: where they are recorded.
        period: when the predictions were created.
        job_id: the job that paid for them; None means all jobs.
        origin: the only account to show; None means all accounts that cost money.
        with_local: also show the emulator on this machine.
    """
    origins = choose_origins(journal.list_origins(), free=FREE_ORIGIN, with_free=with_local)
    origins = origins if origin is None else [origin]
    return origins, journal.find_expenses(origins, since=period.since, until=period.until, job_id=job_id)


def make_spend_view(
    origins: Sequence[str], expenses: Sequence[Expense], by: Grouping, period: SpendPeriod
) -> SpendView:
    """Return the sums of expenses."""
    return SpendView(
        origins=tuple(origins),
        time_zone=period.zone.key,
        since=period.first_day,
        until=period.last_day,
        by=by,
        columns=COLUMNS[by],
        groups=tuple(_make_group(group) for group in group_expenses(expenses, by, period.zone)),
        total=_make_group(sum_expenses(expenses)),
        days=tuple(_sum_days(expenses, period)),
    )


def _make_group(group: ExpenseGroup) -> SpendGroup:
    return SpendGroup(
        key=group.key,
        predictions=group.predictions,
        outcomes=dict(group.outcomes),
        planned=group.planned,
        billed=group.billed,
        reserved=group.reserved,
    )


def _sum_days(expenses: Sequence[Expense], period: SpendPeriod) -> list[SpendDay]:
    sums = defaultdict[date, defaultdict[str, Decimal]](lambda: defaultdict(Decimal))
    for expense in expenses:
        if expense.billed:
            sums[period.find_day(expense.at)][expense.model or UNKNOWN] += expense.billed
    return [SpendDay(day=day, by_model=dict(by_model)) for day, by_model in sorted(sums.items())]
