"""The money that predictions have cost: one expense each, their sums by day, job or model, and both as CSV."""

import csv
import io
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Literal
from zoneinfo import ZoneInfo

from videogen.errors import InvalidError

Outcome = Literal[
    "delivered", "undelivered", "running", "failed", "failed_billed", "canceled", "undeterminable", "unrecorded"
]
Grouping = Literal["day", "job", "model", "scene", "run", "outcome", "origin"]
OUTCOMES: Mapping[Outcome, str] = {
    "delivered": "delivered",
    "undelivered": "paid for but not delivered",
    "running": "running",
    "failed": "failed",
    "failed_billed": "failed but billed",
    "canceled": "canceled",
    "undeterminable": "of unknown cost",
    "unrecorded": "from a lost journal",
}
"""Each outcome in words."""
UNKNOWN = "unknown"
"""The name of a group whose expenses do not have the fact by which they are grouped, such as their model."""
COLUMNS: Mapping[Grouping, tuple[str, ...]] = {
    "day": ("day",),
    "job": ("job_id",),
    "model": ("model",),
    "scene": ("job_id", "scene_id"),
    "run": ("job_id", "run_id"),
    "outcome": ("outcome",),
    "origin": ("origin",),
}
"""The columns that name a group."""
EXPENSE_COLUMNS = (
    "prediction_id",
    "at",
    "origin",
    "job_id",
    "run_id",
    "scene_id",
    "model",
    "outcome",
    "error_code",
    "planned",
    "billed",
    "cost_basis",
    "reserved",
    "token",
)
AMOUNTS = ("planned", "billed", "reserved")
"""The columns with amounts in USD."""
SUM_COLUMNS = ("predictions", "delivered", "planned", "billed", "reserved")
_DAYS_BACK = re.compile(r"(\d{1,4})d", re.ASCII)
_YEARS = range(2000, 2200)


@dataclass(frozen=True, slots=True)
class Expense:
    """The cost of one prediction, or the unrecorded cost of a job whose journal was lost. Money is in USD."""

    prediction_id: str | None
    """None if no prediction is known: it is not created yet, or the answer to its create was lost."""
    at: datetime
    """When the prediction was created, else when its attempt began, in UTC."""
    origin: str
    """The provider's account."""
    job_id: str
    run_id: str
    """The run that created the prediction, also if another one continued it."""
    scene_id: str | None
    model: str | None
    """Name in the registry; None if the journal does not know it, as of attempts of older versions."""
    outcome: Outcome
    error_code: str | None
    planned: Decimal | None
    """The price by the plan; None for an unrecorded cost."""
    billed: Decimal | None
    """None if the prediction is not known to have ended, or its cost cannot be determined."""
    cost_basis: str | None
    """`known`, `estimated` or `undeterminable`; None as long as the prediction may be running."""
    reserved: Decimal
    """The most that may be billed in addition, because the cost is not certain. Caps count it."""
    token: str | None
    """The attempt's own name; None for attempts of older versions."""

    def summary(self) -> dict[str, str | None]:
        """Return the columns of `EXPENSE_COLUMNS` as texts. Amounts are decimal numbers, times are ISO 8601 in UTC."""
        values: dict[str, Any] = {name: getattr(self, name) for name in EXPENSE_COLUMNS}
        values["at"] = self.at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        values |= {name: None if values[name] is None else f"{values[name]:f}" for name in AMOUNTS}
        return values


@dataclass(frozen=True, slots=True)
class ExpenseGroup:
    """Expenses that are summed up. Money is in USD."""

    key: tuple[str, ...]
    """The values of the columns by which they are grouped; empty for all expenses together."""
    outcomes: Mapping[Outcome, int]
    """How many predictions ended so, in the order of `OUTCOMES`."""
    planned: Decimal
    billed: Decimal
    """Without the costs that cannot be determined, which are part of `reserved`."""
    reserved: Decimal
    """The most that may be billed in addition."""

    @property
    def predictions(self) -> int:
        """Number of predictions. An unrecorded cost is none."""
        return sum(count for outcome, count in self.outcomes.items() if outcome != "unrecorded")

    def summary(self, by: Grouping | None = None) -> dict[str, Any]:
        """Return the group's columns and its sums as JSON values; None means that the group has no columns."""
        names = dict(zip(COLUMNS[by], self.key, strict=True)) if by else {}
        return {
            **names,
            "predictions": self.predictions,
            "delivered": self.outcomes.get("delivered", 0),
            **{name: f"{getattr(self, name):f}" for name in AMOUNTS},
            "outcomes": dict(self.outcomes),
        }


@dataclass(frozen=True, slots=True)
class SpendPeriod:
    """The time in which predictions were created, with the time zone whose days are meant."""

    zone: ZoneInfo
    since: datetime | None
    """The first moment; None means from the beginning."""
    until: datetime | None
    """The moment after the last one; None means until now."""

    @classmethod
    def parse(
        cls, since: str | None, until: str | None, time_zone: str | None, *, now: datetime | None = None
    ) -> "SpendPeriod":
        """Return the period that two texts such as `2026-11-01` and `7d` mean, with both days in it.

        Raises:
            InvalidError: a text is no day, the first day is after the last one, or the time zone is unknown.
        """
        try:
            zone = ZoneInfo(time_zone or "UTC")
        except (KeyError, ValueError, OSError):  # unknown, a path, or a folder of the database
            raise InvalidError(
                f"--time-zone: {time_zone!r} is no time zone that is known here. Write a name such as Europe/Berlin"
            ) from None
        today = (now or datetime.now(UTC)).astimezone(zone).date()
        first, last = _parse_day("--since", since, today), _parse_day("--until", until, today)
        if first and last and first > last:
            raise InvalidError(f"--since: {first} is after --until {last}")
        begin = datetime.combine(first, time(), zone) if first else None
        end = datetime.combine(last + timedelta(days=1), time(), zone) if last else None
        return cls(zone, begin, end)

    @property
    def first_day(self) -> date | None:
        """The first day; None means from the beginning."""
        return self.since.date() if self.since else None

    @property
    def last_day(self) -> date | None:
        """The last day; None means until now."""
        return (self.until - timedelta(days=1)).date() if self.until else None

    def find_day(self, at: datetime) -> date:
        """Return the day of a moment in this time zone."""
        return at.astimezone(self.zone).date()


def _parse_day(flag: str, text: str | None, today: date) -> date | None:
    if text is None:
        return None
    if found := _DAYS_BACK.fullmatch(text):
        return today - timedelta(days=max(0, int(found[1]) - 1))
    with suppress(ValueError):
        day = date.fromisoformat(text)
        if day.year in _YEARS:
            return day
    raise InvalidError(
        f"{flag}: {text!r} is no day. Write one such as 2026-11-01, or 7d for today and the six days before it"
    )


def choose_origins(known: Collection[str], *, free: str, with_free: bool) -> list[str]:
    """Return the provider accounts whose expenses are shown: those that cost money, and the `free` one if it is asked
    for or the only one."""
    found = [origin for origin in known if origin != free]
    return [*found, free] if free in known and (with_free or not found) else found


def group_expenses(expenses: Iterable[Expense], by: Grouping, zone: ZoneInfo) -> list[ExpenseGroup]:
    """Return the sums of the expenses by day (oldest first), or by another fact (the most expensive first)."""
    groups = defaultdict[tuple[str, ...], list[Expense]](list)
    for expense in expenses:
        groups[_find_key(expense, by, zone)].append(expense)
    found = [sum_expenses(members, key) for key, members in groups.items()]
    return sorted(found, key=lambda group: (0 if by == "day" else -group.billed, group.key))


def _find_key(expense: Expense, by: Grouping, zone: ZoneInfo) -> tuple[str, ...]:
    if by == "day":
        return (expense.at.astimezone(zone).date().isoformat(),)
    return tuple(getattr(expense, name) or UNKNOWN for name in COLUMNS[by])


def sum_expenses(expenses: Sequence[Expense], key: tuple[str, ...] = ()) -> ExpenseGroup:
    """Return the sums of expenses under a key."""
    counts = Counter(expense.outcome for expense in expenses)
    return ExpenseGroup(
        key=key,
        outcomes={outcome: counts[outcome] for outcome in OUTCOMES if counts[outcome]},
        planned=sum((expense.planned for expense in expenses if expense.planned is not None), Decimal(0)),
        billed=sum((expense.billed for expense in expenses if expense.billed is not None), Decimal(0)),
        reserved=sum((expense.reserved for expense in expenses), Decimal(0)),
    )


def make_expenses_csv(expenses: Iterable[Expense], by: Grouping | None, zone: ZoneInfo) -> str:
    """Return a table in CSV with a line of names: one line for each expense, or with `by` for each group."""
    columns: tuple[str, ...] = EXPENSE_COLUMNS
    rows: Iterable[Mapping[str, Any]] = (expense.summary() for expense in expenses)
    if by is not None:
        columns = (*COLUMNS[by], *SUM_COLUMNS)
        rows = (group.summary(by) for group in group_expenses(expenses, by, zone))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([row[name] for name in columns] for row in rows)
    return out.getvalue()
