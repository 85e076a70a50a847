"""The amounts that runs and jobs have spent and reserved."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import sqlalchemy as sa

from videogen.errors import (
    BudgetError,
)
from videogen.journal.base import JournalBase
from videogen.journal.schema import ATTEMPTS, COST_COLUMNS, OPEN_STATES, RUNS
from videogen.text import format_money


class SpendingStore(JournalBase):
    """Sums up the costs of attempts."""

    def get_spending(self, run_id: str) -> tuple[Decimal, Decimal]:
        """Return the costs of a run so far, and the reservations for its predictions that have not ended, in USD.

        Predictions that it continues count for the run that began them.
        """
        began = sa.func.coalesce(ATTEMPTS.c.begun_by, ATTEMPTS.c.run_id)
        query = sa.select(ATTEMPTS.c.state, ATTEMPTS.c.price, ATTEMPTS.c.cost).where(began == run_id)
        rows = self._read(lambda db: db.execute(query).all())
        spent = sum((Decimal(row.cost) for row in rows if row.cost is not None), Decimal(0))
        open_ = [row for row in rows if row.cost is None and row.state in OPEN_STATES]
        return spent, sum((Decimal(row.price) for row in open_), Decimal(0))

    def get_job_spending(self, job_id: str, origin: str) -> tuple[Decimal, Decimal]:
        """Return what all runs of a job have spent, and what they may have to pay beyond that, in USD.

        The second amount covers predictions that have not ended, and those with an uncertain cost. `max_cost` limits
        the sum of both.
        """
        costs = self._read(lambda db: find_costs(db, job_id, origin))
        spent = sum((cost.booked for cost in costs), Decimal(0))
        return spent, sum((cost.at_most for cost in costs), Decimal(0)) - spent

    def get_interrupted_cost(self, run_id: str) -> Decimal:
        """Return the cost of the predictions that were cancelled because the run was interrupted, in USD."""
        query = sa.select(ATTEMPTS.c.cost).where(
            ATTEMPTS.c.run_id == run_id, ATTEMPTS.c.error_code == "interrupted", ATTEMPTS.c.cost.is_not(None)
        )
        return self._read(lambda db: sum(map(Decimal, db.scalars(query)), Decimal(0)))


@dataclass(frozen=True, slots=True)
class _Cost:
    """The cost of attempts of a job, or of its runs that another journal recorded, in USD."""

    run_id: str
    booked: Decimal
    at_most: Decimal
    """The recorded cost if it is certain, else at least the reservation."""
    is_running: bool
    """Whether the cost may still turn out lower."""


def find_costs(db: sa.Connection, job_id: str, origin: str) -> list[_Cost]:
    """Return the costs of the attempts that any run of a job began, and those of runs that another journal recorded.

    Attempts of one run with equal costs are one cost, because a job may have 100,000 attempts.
    """
    columns = [ATTEMPTS.c[name] for name in COST_COLUMNS]
    is_recorded = sa.or_(ATTEMPTS.c.begun_by.is_(None), ATTEMPTS.c.begun_by.in_(sa.select(RUNS.c.id)))
    select = sa.select(*columns, sa.func.count().label("number")).group_by(*columns)
    select = select.where(ATTEMPTS.c.origin == origin, is_recorded)
    runs = sa.select(RUNS.c.id).where(RUNS.c.job_id == job_id)
    of_old = select.where(ATTEMPTS.c.job_id.is_(None), ATTEMPTS.c.run_id.in_(runs))
    query = sa.union_all(select.where(ATTEMPTS.c.job_id == job_id), of_old)
    unrecorded = sa.select(RUNS.c.id, RUNS.c.unrecorded_cost).where(
        RUNS.c.job_id == job_id, RUNS.c.origin == origin, RUNS.c.unrecorded_cost.is_not(None)
    )
    lost = [
        _Cost(row.id, amount := Decimal(row.unrecorded_cost), amount, is_running=False)
        for row in db.execute(unrecorded)
    ]
    return [*lost, *(_make_cost(row) for row in db.execute(query))]


def _make_cost(row: Any) -> _Cost:
    booked, at_most = row.number * Decimal(row.cost or 0), row.number * find_most(row)
    is_running = row.cost_basis != "known" and row.state in ("intended", "created")
    return _Cost(row.run_id, booked, at_most, is_running)


def find_most(row: Any) -> Decimal:
    """Return the most that an attempt may turn out to cost, in USD."""
    booked = Decimal(row.cost or 0)
    return booked if row.cost_basis == "known" else max(booked, Decimal(row.reserved or row.price))


def check_budget(costs: Sequence[_Cost], run_id: str, most: Decimal, max_cost: Decimal) -> None:
    """Raise `BudgetError` if one more prediction that costs `most` could take the job above `max_cost`."""
    taken = sum((cost.at_most for cost in costs), Decimal(0))
    if taken + most <= max_cost:
        return
    running = sum((cost.at_most for cost in costs if cost.is_running and cost.run_id == run_id), Decimal(0))
    raise BudgetError(
        f"{format_money(taken)} of {format_money(max_cost)} are spent or reserved for this job; this prediction could "
        f"cost up to {format_money(most)} more",
        may_free=running > 0 and taken - running + most <= max_cost,
    )
