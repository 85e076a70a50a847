"""Budgets that runs share: what they allow in each period, and what a plan needs of them."""

import re
from calendar import month_name
from collections.abc import Collection, Iterator
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal
from zoneinfo import ZoneInfo, available_timezones

from videogen.errors import InvalidError, Problem, ValidationError
from videogen.planning.requests import FrozenModel
from videogen.source_files.messages import did_you_mean
from videogen.text import format_money

if TYPE_CHECKING:
    from videogen.planning.plan import Plan

BudgetPeriod = Literal["day", "month", "total"]
BUDGET_PERIODS: tuple[BudgetPeriod, ...] = ("day", "month", "total")
EXAMPLE_ALLOWANCE = "200/month"
_AMOUNT = re.compile(r"\d{1,9}(?:\.\d{1,6})?", re.ASCII)


class BudgetSpan(FrozenModel):
    """One period of a budget."""

    key: str
    """The local date of its first day, such as `2026-11-01`, or `total`."""
    when: str
    """The period as people read it, such as `in November (UTC)`, `on 30 November (UTC)` or `in total`."""
    starts_at: datetime | None
    """None means that the period has no beginning and no end."""
    ends_at: datetime | None
    """When the next period begins; None if there is none."""


class Budget(FrozenModel):
    """An amount in USD that all runs which count for it may cost together in each period."""

    name: str
    amount: Decimal
    period: BudgetPeriod
    time_zone: str = "UTC"
    """IANA name of the zone in which days and months begin, such as `Europe/Berlin`."""
    models: tuple[str, ...] = ()
    """Patterns of the names of the models that it is for, such as `veo-*`. Empty means all models."""

    def is_for(self, model: str) -> bool:
        """Return whether predictions of this model count for the budget."""
        return not self.models or any(fnmatchcase(model, pattern) for pattern in self.models)

    def find_span(self, at: datetime) -> BudgetSpan:
        """Return the period that a time is in. Days and months begin at midnight in the budget's time zone."""
        if self.period == "total":
            return BudgetSpan(key="total", when="in total", starts_at=None, ends_at=None)
        zone = ZoneInfo(self.time_zone)
        first = at.astimezone(zone).date()
        if self.period == "day":
            following = first + timedelta(days=1)
            when = f"on {first.day} {month_name[first.month]} ({self.time_zone})"
        else:
            first = first.replace(day=1)
            following = (first + timedelta(days=31)).replace(day=1)
            when = f"in {month_name[first.month]} ({self.time_zone})"
        starts_at, ends_at = (datetime.combine(day, time(), zone).astimezone(UTC) for day in (first, following))
        return BudgetSpan(key=first.isoformat(), when=when, starts_at=starts_at, ends_at=ends_at)


class BudgetUse(FrozenModel):
    """A budget in one of its periods, and what the predictions that count for it have taken. Money is in USD."""

    budget: Budget
    span: BudgetSpan
    spent: Decimal = Decimal(0)
    reserved: Decimal = Decimal(0)
    """May have to be paid beyond `spent`, for predictions that have not ended or whose cost is uncertain."""

    @property
    def taken(self) -> Decimal:
        """The part of the amount that is spent or reserved."""
        return self.spent + self.reserved

    @property
    def left(self) -> Decimal:
        """The part of the amount that predictions may still take, at least 0."""
        return max(Decimal(0), self.budget.amount - self.taken)

    def describe(self) -> str:
        """Return the taken part, such as `$31.20 of $200.00 spent or reserved in November (UTC)`."""
        return f"{format_money(self.taken)} of {format_money(self.budget.amount)} spent or reserved {self.span.when}"

    def describe_end(self) -> str:
        """Return when the next period begins, in the budget's time zone, or an empty text if there is none."""
        if self.span.ends_at is None:
            return ""
        local = self.span.ends_at.astimezone(ZoneInfo(self.budget.time_zone))
        return f"{local.day} {month_name[local.month]} {local.year}, {local:%H:%M} ({self.budget.time_zone})"

    def describe_ways_out(self, needed: Decimal) -> str:
        """Return when more may be spent, and which command allows `needed` USD more at once."""
        end = self.describe_end()
        anew = f"The next {self.budget.period} begins on {end}. " if end else ""
        allowance = format_allowance(self.taken + needed, self.budget.period)
        return f"{anew}To allow more: videogen budget {self.budget.name} {allowance}"


# -- plans ------------------------------------------------------------------------------------------------------------


def compute_share(plan: "Plan", budget: Budget) -> Decimal:
    """Return the part of a plan's price that counts for a budget, in USD."""
    parts = {part.key: part.cost for each in plan.to_create if budget.is_for(each.model) for part in each.parts}
    return sum((cost for key, cost in parts.items() if key not in plan.made_segments), Decimal(0))


def list_budget_lines(plan: "Plan") -> Iterator[str]:
    """Yield a line for each budget that the run counts for: the part that is taken, and the part of this run."""
    for use in plan.budgets:
        share = compute_share(plan, use.budget)
        yield f"budget {use.budget.name}: {use.describe()}, {format_money(share)} for this run"


def find_budget_warnings(plan: "Plan") -> Iterator[str]:
    """Yield a warning for each budget whose rest does not cover the plan."""
    for use in plan.budgets:
        share = compute_share(plan, use.budget)
        if share > use.left:
            sufficient = format_allowance(use.taken + share, use.budget.period)
            yield (
                f"budget {use.budget.name}: {use.describe()}, and this run costs {format_money(share)}: clips that the "
                f"remaining {format_money(use.left)} does not cover will fail with `budget`. "
                f"`videogen budget {use.budget.name} {sufficient}` covers all of them"
            )


def validate_shared_budgets(plan: "Plan") -> None:
    """Raise `ValidationError` if the run could only fail, because the budgets cover none of the clips to create."""
    if not plan.to_create or len(plan.to_create) < len(plan.to_make):  # others are continued, and cost nothing more
        return
    short: dict[str, BudgetUse] = {}
    for request in plan.to_create:
        cost = plan.get_remaining_cost(request)
        uses = [use for use in plan.budgets if use.budget.is_for(request.model) and use.left < cost]
        if not uses:
            return
        short |= {use.budget.name: use for use in uses}
    raise ValidationError(
        [
            Problem(
                f"budget {name}: {use.describe()}, and the remaining {format_money(use.left)} does not cover any clip. "
                f"{use.describe_ways_out(compute_share(plan, use.budget))}"
            )
            for name, use in short.items()
        ]
    )


def summarize_use(plan: "Plan", use: BudgetUse) -> dict[str, object]:
    """Return a budget of the plan as JSON value."""
    budget, span = use.budget, use.span
    return {
        "name": budget.name,
        "amount": str(budget.amount),
        "period": budget.period,
        "time_zone": budget.time_zone,
        "models": list(budget.models),
        "spent": str(use.spent),
        "reserved": str(use.reserved),
        "ends_at": None if span.ends_at is None else span.ends_at.isoformat(),
        "planned_cost": str(compute_share(plan, budget)),
    }


# -- what people write ------------------------------------------------------------------------------------------------


def format_allowance(amount: Decimal, period: BudgetPeriod) -> str:
    """Return an amount and a period as the command line takes them, such as `200/month`."""
    text = f"{amount:f}"
    return f"{text.rstrip('0').rstrip('.') if '.' in text else text}/{period}"


def parse_allowance(text: str) -> tuple[Decimal, BudgetPeriod]:
    """Return the amount in USD and the period of a text such as `200/month`.

    Raises:
        InvalidError: it is no such text. The message shows the right one.
    """
    amount, slash, name = (part.strip() for part in text.partition("/"))
    amount = amount.removeprefix("$")
    period = next((period for period in BUDGET_PERIODS if period == name.lower()), None)
    if _AMOUNT.fullmatch(amount) is None:
        right = amount.lstrip("+-")
        example = f"{right}/{period}" if period and _AMOUNT.fullmatch(right) else EXAMPLE_ALLOWANCE
        shown = amount if slash else text
        raise InvalidError(f"AMOUNT: {shown[:40]!r} is no amount in USD: write digits and a period, such as {example}")
    if period is None:
        ways = ", ".join(f"{amount}/{period}" for period in BUDGET_PERIODS)
        problem = f"{name[:40]!r} is no period of a budget" if slash else f"{text[:40]!r} has no period"
        raise InvalidError(f"AMOUNT: {problem}: write one of {ways}{did_you_mean(name, BUDGET_PERIODS)}")
    return Decimal(amount), period


def check_time_zone(name: str) -> str:
    """Return the name of a time zone. Raise `InvalidError` if there is none of this name."""
    known = available_timezones()
    if name in known:
        return name
    hint = did_you_mean(name, known) or ": write a name such as Europe/Berlin or UTC"
    raise InvalidError(f"--time-zone: {name[:40]!r} is no time zone of the IANA list{hint}")


def describe_missing_budget(name: str, known: Collection[str], *, flags: str = "") -> str:
    """Return the message about a budget that is named and does not exist.

    `known` are those that exist, and `flags` those with which a command finds the journal.
    """
    hint = did_you_mean(name, known) or " yet."
    command = f"videogen budget {name} {EXAMPLE_ALLOWANCE}{flags}"
    return f"the journal has no budget {name!r}{hint} To create it: {command}"
