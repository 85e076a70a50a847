"""The expenses of all jobs, as the attempts in the journal record them."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import sqlalchemy as sa

from videogen.journal.base import JournalBase, as_utc, split_keys
from videogen.journal.database import sanitize_json
from videogen.journal.schema import ATTEMPTS, RUNS
from videogen.journal.spending import find_most
from videogen.results.expenses import Expense, Outcome

CANCELED_CODES = frozenset({"canceled", "aborted", "timeout", "interrupted", "cancelled"})
"""Codes of errors that end an attempt whose prediction was canceled: by us, by another client, or by its deadline."""
_COLUMNS = (
    ATTEMPTS.c.prediction_id,
    ATTEMPTS.c.intended_at,
    ATTEMPTS.c.created_at,
    ATTEMPTS.c.origin,
    ATTEMPTS.c.job_id,
    ATTEMPTS.c.run_id,
    ATTEMPTS.c.begun_by,
    ATTEMPTS.c.scene_id,
    ATTEMPTS.c.model,
    ATTEMPTS.c.state,
    ATTEMPTS.c.error_code,
    ATTEMPTS.c.price,
    ATTEMPTS.c.cost,
    ATTEMPTS.c.cost_basis,
    ATTEMPTS.c.reserved,
    ATTEMPTS.c.token,
)


class SpendLog(JournalBase):
    """Lists expenses."""

    def list_origins(self) -> list[str]:
        """Return the provider accounts of all runs and attempts, in alphabetical order."""
        query = sa.union(sa.select(ATTEMPTS.c.origin), sa.select(RUNS.c.origin))
        return sorted(self._read(lambda db: list(db.scalars(query))))

    def find_expenses(
        self,
        origins: Collection[str],
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        job_id: str | None = None,
    ) -> list[Expense]:
        """Return the expenses at these accounts, oldest first.

        An attempt without a prediction that certainly cost nothing is no expense.

        Args:
            since: the time at or after which predictions were created; None means from the beginning.
            until: the time before which they were created; None means until now.
            job_id: the job that paid for them; None means all jobs.
        """
        began = sa.func.coalesce(ATTEMPTS.c.begun_by, ATTEMPTS.c.run_id)
        job = sa.func.coalesce(ATTEMPTS.c.job_id, RUNS.c.job_id, ATTEMPTS.c.run_id)
        at = sa.func.coalesce(ATTEMPTS.c.created_at, ATTEMPTS.c.intended_at)
        query = sa.select(*_COLUMNS, began.label("payer"), job.label("job")).outerjoin(RUNS, RUNS.c.id == began)
        query = query.where(ATTEMPTS.c.origin.in_(origins)).order_by(at, ATTEMPTS.c.id)
        lost = sa.select(RUNS).where(RUNS.c.unrecorded_cost.is_not(None), RUNS.c.origin.in_(origins))
        if job_id is not None:
            query, lost = query.where(job == sanitize_json(job_id)), lost.where(RUNS.c.job_id == sanitize_json(job_id))
        if since is not None:
            query = query.where(at >= since.astimezone(UTC))
        if until is not None:
            query = query.where(at < until.astimezone(UTC))

        def work(db: sa.Connection) -> list[Expense]:
            attempts = [_make_expense(row) for row in db.execute(query) if row.prediction_id or _find_reserved(row)]
            runs, adopted = db.execute(lost.order_by(RUNS.c.started_at)).all(), _sum_adopted(db)
            unrecorded = [_make_unrecorded(row, adopted) for row in runs]
            return attempts + [each for each in unrecorded if each.billed and _is_within(each.at, since, until)]

        return sorted(self._read(work), key=lambda each: each.at)

    def find_known_predictions(self, origin: str, prediction_ids: Sequence[str]) -> set[str]:
        """Return those of the predictions that an attempt at this account has."""
        query = sa.select(ATTEMPTS.c.prediction_id).where(ATTEMPTS.c.origin == origin)
        names = [sanitize_json(each) for each in prediction_ids]

        def work(db: sa.Connection) -> set[str]:
            return {
                name
                for some in split_keys(names)
                for name in db.scalars(query.where(ATTEMPTS.c.prediction_id.in_(some)))
                if name is not None
            }

        return self._read(work)


def find_outcome(*, state: str, error_code: str | None, cost: Decimal | None, cost_basis: str | None) -> Outcome:
    """Return what became of an attempt's prediction.

    | outcome | the attempt |
    | --- | --- |
    | `delivered` | has become a clip |
    | `undelivered` | has succeeded and is paid for, and its clip is not delivered: the next run downloads it |
    | `running` | is not known to have ended: its prediction is running, or its run was lost meanwhile |
    | `failed` | has ended without a clip, and cost nothing |
    | `failed_billed` | has ended without a clip, and cost something: a bad output, or GPU time until its failure |
    | `canceled` | was canceled: by an interruption, a command, a deadline or another client; it may be billed |
    | `undeterminable` | has ended, and nobody knows its cost: its create was not answered, or its end not seen |

    `unrecorded` is the outcome of an expense that is no attempt, see `Expense`.
    """
    if state == "delivered":
        return "delivered"
    if state == "succeeded":
        return "undelivered"
    if state != "ended" and cost is None:
        return "running"
    if cost is None or cost_basis == "undeterminable":
        return "undeterminable"
    if error_code in CANCELED_CODES:
        return "canceled"
    return "failed_billed" if cost > 0 else "failed"


def _make_expense(row: Any) -> Expense:
    cost = None if row.cost is None else Decimal(row.cost)
    outcome = find_outcome(state=row.state, error_code=row.error_code, cost=cost, cost_basis=row.cost_basis)
    if row.prediction_id is None and row.state == "ended":  # its create was not answered, and it was not found
        outcome, cost = "undeterminable", None
    return Expense(
        prediction_id=row.prediction_id,
        at=as_utc(row.created_at or row.intended_at),
        origin=row.origin,
        job_id=row.job,
        run_id=row.payer,
        scene_id=row.scene_id,
        model=row.model,
        outcome=outcome,
        error_code=row.error_code,
        planned=Decimal(row.price),
        billed=None if outcome in ("running", "undeterminable") else cost,
        cost_basis=row.cost_basis,
        reserved=_find_reserved(row),
        token=row.token,
    )


def _is_within(at: datetime, since: datetime | None, until: datetime | None) -> bool:
    return (since is None or at >= since) and (until is None or at < until)


def _find_reserved(row: Any) -> Decimal:
    """Return the most that an attempt may cost beyond its recorded cost."""
    return (find_most(row) - Decimal(row.cost or 0)) or Decimal(0)


def _sum_adopted(db: sa.Connection) -> dict[tuple[str, str], Decimal]:
    """Return the costs of the predictions that runs of a lost journal created, by job and account.

    Each of them is part of an unrecorded cost, and an attempt, too, since a later run has found it.
    """
    query = sa.select(*_COLUMNS).where(
        ATTEMPTS.c.begun_by.is_not(None), ATTEMPTS.c.begun_by.not_in(sa.select(RUNS.c.id))
    )
    adopted = defaultdict[tuple[str, str], Decimal](Decimal)
    for row in db.execute(query):
        adopted[row.job_id, row.origin] += find_most(row)
    return adopted


def _make_unrecorded(row: Any, adopted: dict[tuple[str, str], Decimal]) -> Expense:
    """Return the unrecorded cost of a job without the predictions that were adopted since."""
    key, cost = (row.job_id, row.origin), Decimal(row.unrecorded_cost)
    known = min(cost, adopted.get(key, Decimal(0)))
    adopted[key] = adopted.get(key, Decimal(0)) - known
    return Expense(
        prediction_id=None,
        at=as_utc(row.started_at).astimezone(UTC),
        origin=row.origin,
        job_id=row.job_id,
        run_id=row.id,
        scene_id=None,
        model=None,
        outcome="unrecorded",
        error_code=None,
        planned=None,
        billed=cost - known,
        cost_basis="known",
        reserved=Decimal(0),
        token=None,
    )
