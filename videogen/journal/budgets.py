"""The budgets that all runs on one journal share: what they allow, and what predictions have taken of them."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import sqlalchemy as sa

from videogen.errors import BudgetError
from videogen.events import BudgetAlert
from videogen.journal.base import JournalBase
from videogen.journal.database import sanitize_json
from videogen.journal.schema import ATTEMPTS, BUDGET_ALERTS, BUDGETED_ATTEMPTS, BUDGETS
from videogen.journal.spending import find_most
from videogen.planning.budgets import Budget, BudgetSpan, BudgetUse, describe_missing_budget
from videogen.text import format_money

ALERT_PERCENTS = (50, 80, 100)
"""Parts of a budget of which an alert tells when they are spent or reserved."""


class BudgetStore(JournalBase):
    """Keeps the budgets, and adds up the amounts that predictions have taken of them.

    A budget counts by provider account: predictions at one origin take nothing of it at another one.
    """

    def set_budget(self, budget: Budget) -> None:
        """Create the budget, or change it, also for runs in progress. Predictions that count for it stay with it.

        If its amount or its period changes, its alerts are told again.
        """
        is_it = BUDGETS.c.name == budget.name
        values = {
            "amount": str(budget.amount),
            "period": budget.period,
            "time_zone": budget.time_zone,
            "models": ",".join(budget.models) or None,
        }

        def work(db: sa.Connection) -> None:
            before = db.execute(sa.select(BUDGETS).where(is_it)).one_or_none()
            if before is None:
                db.execute(BUDGETS.insert().values(name=budget.name, **values))
                return
            db.execute(BUDGETS.update().where(is_it).values(values))
            if _read_budget(before).model_copy(update={"models": budget.models}) != budget:
                db.execute(BUDGET_ALERTS.delete().where(BUDGET_ALERTS.c.budget_name == budget.name))

        self._run(work, exclusive=True)

    def find_budget(self, name: str) -> Budget | None:
        """Return the budget of this name, or None."""
        return self._read(lambda db: find_budget_row(db, name))

    def list_budgets(self) -> list[Budget]:
        """Return all budgets by name."""
        query = sa.select(BUDGETS).order_by(BUDGETS.c.name)
        return self._read(lambda db: [_read_budget(row) for row in db.execute(query)])

    def get_budget_use(self, budget: Budget, origin: str, *, at: datetime | None = None) -> BudgetUse:
        """Return the use of a budget at this origin, in the period of that time; None means now."""
        return self._read(lambda db: compute_use(db, budget, at or self._now_by_shared_clock(db), origin))

    def get_budget_uses(self, budget: Budget) -> dict[str, BudgetUse]:
        """Return the use of a budget in its current period, by origin. Empty if no attempt counts for it."""

        def work(db: sa.Connection) -> dict[str, BudgetUse]:
            now = self._now_by_shared_clock(db)
            origins = db.scalars(_select_budgeted(budget, budget.find_span(now), BUDGETED_ATTEMPTS.c.origin).distinct())
            return {origin: compute_use(db, budget, now, origin) for origin in sorted(origins)}

        return self._read(work)

    def get_rest_of_budgets(self, names: Sequence[str], model: str, origin: str, *, at: datetime) -> Decimal | None:
        """Return the USD that the budgets of these names still allow for a prediction of this model, at least 0.

        None means that none of them is for this model.
        """

        def work(db: sa.Connection) -> Decimal | None:
            found = (find_budget_row(db, name) for name in names)
            budgets = [budget for budget in found if budget and budget.is_for(model)]
            return min((compute_use(db, budget, at, origin).left for budget in budgets), default=None)

        return self._read(work)


def find_budget_row(db: sa.Connection, name: str) -> Budget | None:
    """Return the budget of this name, or None."""
    row = db.execute(sa.select(BUDGETS).where(BUDGETS.c.name == sanitize_json(name))).one_or_none()
    return None if row is None else _read_budget(row)


def compute_use(
    db: sa.Connection, budget: Budget, at: datetime, origin: str, *, running_in: str | None = None
) -> BudgetUse:
    """Return the use of a budget by the attempts at this origin, in the period of that time.

    There may be very many attempts, and few of them differ. The database counts them, and Python adds up money.

    Args:
        running_in: count only the attempts of this run whose prediction has not ended; None means all attempts.
    """
    span, amounts = budget.find_span(at), (BUDGETED_ATTEMPTS.c.spent, BUDGETED_ATTEMPTS.c.at_most)
    query = _select_budgeted(budget, span, *amounts, sa.func.count().label("number"))
    query = query.where(BUDGETED_ATTEMPTS.c.origin == origin).group_by(*amounts)
    if running_in is not None:
        is_running = (ATTEMPTS.c.run_id == running_in, ATTEMPTS.c.state.in_(("intended", "created")))
        query = query.where(BUDGETED_ATTEMPTS.c.attempt_id.in_(sa.select(ATTEMPTS.c.id).where(*is_running)))
    rows = db.execute(query).all()
    spent = sum((Decimal(row.spent) * row.number for row in rows), Decimal(0))
    at_most = sum((Decimal(row.at_most) * row.number for row in rows), Decimal(0))
    return BudgetUse(budget=budget, span=span, spent=spent, reserved=at_most - spent)


def _select_budgeted(budget: Budget, span: BudgetSpan, *columns: Any) -> sa.Select[Any]:
    """Select these columns of the attempts that count for a budget in one of its periods."""
    query = sa.select(*columns).where(BUDGETED_ATTEMPTS.c.budget_name == budget.name)
    if span.starts_at is not None and span.ends_at is not None:
        reserved_at = BUDGETED_ATTEMPTS.c.reserved_at
        query = query.where(reserved_at >= span.starts_at, reserved_at < span.ends_at)
    return query


def check_shared_budgets(
    db: sa.Connection, names: Sequence[str], *, origin: str, run_id: str, model: str, most: Decimal, at: datetime
) -> list[BudgetUse]:
    """Return the use of those of the named budgets that a new prediction counts for, before it.

    Args:
        model: the prediction's model.
        most: USD that it can cost at most. One that reserves nothing is paid for already, and is not refused.
        at: when it is reserved, which decides the period.

    Raises:
        BudgetError: it could take one of the budgets above its amount, or one of them does not exist.
    """
    uses = []
    for name in names:
        budget = find_budget_row(db, name)
        if budget is None:
            raise BudgetError(describe_missing_budget(name, list(db.scalars(sa.select(BUDGETS.c.name)))))
        if not budget.is_for(model):
            continue
        use = compute_use(db, budget, at, origin)
        if most and use.taken + most > budget.amount:
            running = compute_use(db, budget, at, origin, running_in=run_id).reserved
            raise BudgetError(
                f"budget {name}: {use.describe()}, and this prediction could cost up to {format_money(most)} more. "
                f"{use.describe_ways_out(most)}",
                may_free=running > 0 and use.taken - running + most <= budget.amount,
            )
        uses.append(use)
    return uses


def book_attempt(
    db: sa.Connection, attempt_id: int, uses: Sequence[BudgetUse], *, origin: str, most: Decimal, at: datetime
) -> tuple[BudgetAlert, ...]:
    """Record that a new attempt counts for these budgets. Return the alerts that it is the first to cause.

    The arguments are those of `check_shared_budgets`, with its result as `uses`.
    """
    row = {"attempt_id": attempt_id, "origin": origin, "reserved_at": at.astimezone(UTC)}
    row |= {"spent": "0", "at_most": str(most)}
    for use in uses:
        db.execute(BUDGETED_ATTEMPTS.insert().values(budget_name=use.budget.name, **row))
    return tuple(alert for use in uses for alert in _record_alerts(db, use, origin, use.taken + most))


def rebook_attempt(db: sa.Connection, row: Any) -> None:
    """Record the cost of an attempt, by its row, in the budgets that it counts for: as for `max_cost`."""
    update = BUDGETED_ATTEMPTS.update().where(BUDGETED_ATTEMPTS.c.attempt_id == row.id)
    db.execute(update.values(spent=str(Decimal(row.cost or 0)), at_most=str(find_most(row))))


def _record_alerts(db: sa.Connection, use: BudgetUse, origin: str, taken: Decimal) -> Iterator[BudgetAlert]:
    """Record and yield the alerts for the parts of a budget that are taken now, and were never in this period."""
    budget = use.budget
    reached = [percent for percent in ALERT_PERCENTS if budget.amount and taken * 100 >= budget.amount * percent]
    if not reached:
        return
    row = {"budget_name": budget.name, "origin": origin, "period_start": use.span.key}
    query = sa.select(BUDGET_ALERTS.c.percent).where(*(BUDGET_ALERTS.c[name] == row[name] for name in row))
    recorded = set(db.scalars(query))
    for percent in reached:
        if percent not in recorded:
            db.execute(BUDGET_ALERTS.insert().values(row | {"percent": percent}))
            yield BudgetAlert(
                budget=budget.name,
                percent=percent,
                amount=budget.amount,
                taken=taken,
                period=use.span.when,
                ends_at=use.span.ends_at,
            )


def _read_budget(row: Any) -> Budget:
    return Budget(
        name=row.name,
        amount=Decimal(row.amount),
        period=row.period,
        time_zone=row.time_zone,
        models=tuple(row.models.split(",")) if row.models else (),
    )
