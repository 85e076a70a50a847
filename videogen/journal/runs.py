"""The runs in the journal, and their leases."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import sqlalchemy as sa

from videogen.errors import (
    JobLockedError,
)
from videogen.journal.base import LEASE_S, JournalBase, as_utc, find_run_row
from videogen.journal.database import OUTAGE_S, sanitize_json
from videogen.journal.schema import EVENTS, RUNS, SLOTS

KEPT_TICKETS = timedelta(hours=1)
"""The tickets of a run that is not seen any more are kept for this long: it may only have been cut off."""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run as the journal stores it."""

    id: str
    job_id: str
    origin: str
    folder: str
    """The job's folder. The paths of the clips are relative to it."""
    started_at: datetime
    ended_at: datetime | None
    verdict: str | None
    """None until the run is judged, and permanently if it was killed. `interrupted` if it was interrupted."""
    model: str | None
    completed: int
    """Number of clips that are delivered or failed; `failed` is the number of those that failed."""
    failed: int
    total: int
    last_event: int
    """Number of the latest event; 0 if there is none yet."""
    seen_at: datetime
    """When the run was last known to be alive."""
    is_over: bool
    """Whether no more events will come."""


class RunStore(JournalBase):
    """Starts and ends runs, renews their leases, and lists them."""

    def start_run(
        self,
        run_id: str,
        *,
        job_id: str,
        origin: str,
        folder: str,
        recovering: bool = False,
        unrecorded_cost: Decimal | None = None,
        exclusive: bool = False,
    ) -> None:
        """Record a new run.

        Args:
            recovering: the journal does not know the runs before this one, see `has_complete_history`.
            unrecorded_cost: USD that the job has cost without this journal's knowledge, because an earlier journal was
                lost. It counts for the job's budget from now on. None if the journal knows everything.
            exclusive: only this journal keeps other runs out of the folder.

        Raises:
            JobLockedError: with `exclusive`, another run of the folder is alive.
        """
        row = sanitize_json({"id": run_id, "job_id": job_id, "origin": origin, "folder": folder}) | {
            "recovering": recovering,
            "unrecorded_cost": None if unrecorded_cost is None else str(unrecorded_cost),
        }
        is_this_one = (RUNS.c.id == run_id, RUNS.c.job_id == row["job_id"], RUNS.c.folder == row["folder"])

        def work(db: sa.Connection) -> None:
            if db.execute(sa.select(RUNS.c.id).where(*is_this_one)).one_or_none():
                return
            now = self._now_by_shared_clock(db)
            if exclusive and (holder := self._find_live_holder(db, folder)):
                raise JobLockedError(f"another run holds {folder}: run {holder[0]}, which is alive")
            db.execute(SLOTS.delete().where(SLOTS.c.run_id.in_(_select_stale_runs(now))))
            db.execute(RUNS.insert().values(row | {"started_at": now, "seen_at": now}))

        self._insert(work, exclusive=exclusive)

    def get_holder_last_seen(self, folder: str) -> datetime | None:
        """Return when the live run in this folder was last seen, or None if there is no live run."""
        holder = self._read(lambda db: self._find_live_holder(db, folder))
        return holder[1] if holder else None

    def heartbeat(self, run_id: str) -> None:
        """Renew the run's lease. Call this well within `LEASE_S`. Raise `LeaseLostError` if another run took over."""

        def work(db: sa.Connection) -> None:
            run = find_run_row(db, run_id)
            if run is not None and run.ended_at is None:
                self._renew(db, run)

        self._run(work)

    def release_lease(self, run_id: str) -> None:
        """Let other runs continue this run's work at once, because its process has ended."""
        mine = RUNS.update().where(RUNS.c.id == run_id, RUNS.c.ended_at.is_(None))
        long_ago = timedelta(seconds=LEASE_S + OUTAGE_S)
        self._run(lambda db: db.execute(mine.values(seen_at=self._now_by_shared_clock(db) - long_ago)))

    def has_complete_history(self, folder: str) -> bool:
        """Return whether the journal knows all earlier runs of this folder. That holds if it has one that started
        with a complete history, or one that recovered and then came to its end."""
        query = sa.select(RUNS.c.recovering, RUNS.c.ended_at, RUNS.c.verdict).where(RUNS.c.folder == folder)
        runs = self._read(lambda db: db.execute(query.order_by(RUNS.c.started_at.desc())).all())
        return any(not run.recovering or (run.ended_at and run.verdict != "interrupted") for run in runs)

    def end_run(self, run_id: str, *, verdict: str) -> None:
        mine = RUNS.update().where(RUNS.c.id == run_id)
        self._run(lambda db: db.execute(mine.values(ended_at=self._now_by_shared_clock(db), verdict=verdict)))

    def list_runs(self, *, limit: int, before: str | None = None, folder: str | None = None) -> list[RunRecord]:
        """Return the latest runs, newest first. With `before`, return those that started before that run, and with
        `folder`, those of that job's folder."""
        query = _select_run_records().order_by(RUNS.c.started_at.desc(), RUNS.c.id.desc()).limit(limit)
        if folder is not None:
            query = query.where(RUNS.c.folder == folder)
        if before is not None:
            mark = sa.select(RUNS.c.started_at, RUNS.c.id).where(RUNS.c.id == before).subquery()
            query = query.join(mark, sa.tuple_(RUNS.c.started_at, RUNS.c.id) < sa.tuple_(mark.c.started_at, mark.c.id))
        return self._read(lambda db: [_read_run_record(row) for row in db.execute(query)])

    def find_runs_by_prefix(self, prefix: str, *, limit: int = 2) -> list[RunRecord]:
        """Return the runs whose ids begin with this text, newest first."""
        query = _select_run_records().where(RUNS.c.id.startswith(sanitize_json(prefix), autoescape=True))
        query = query.order_by(RUNS.c.started_at.desc()).limit(limit)
        return self._read(lambda db: [_read_run_record(row) for row in db.execute(query)])

    def find_last_run(self, job_id: str, *, is_seen: bool = False) -> RunRecord | None:
        """Return the newest run of a job, or None. With `is_seen`, return the newest one that `is_seen`."""
        query = _select_run_records().where(RUNS.c.job_id == sanitize_json(job_id))
        query = query.order_by(RUNS.c.started_at.desc(), RUNS.c.id.desc()).limit(1)

        def work(db: sa.Connection) -> Any:
            return db.execute(query.where(*self._conditions_of_seen(db)) if is_seen else query).one_or_none()

        row = self._read(work)
        return None if row is None else _read_run_record(row)

    def is_seen(self, run_id: str) -> bool:
        """Return whether a run has not ended, and has renewed its lease within `LEASE_S`."""
        query = sa.select(RUNS.c.id).where(RUNS.c.id == run_id)
        return self._read(lambda db: db.execute(query.where(*self._conditions_of_seen(db))).first() is not None)

    def find_run(self, run_id: str) -> RunRecord | None:
        row = self._read(lambda db: db.execute(_select_run_records().where(RUNS.c.id == run_id)).one_or_none())
        return None if row is None else _read_run_record(row)


def _select_stale_runs(now: datetime) -> sa.Select[Any]:
    """Return the ids of the runs that have ended, or have not been seen for so long that they will not come back."""
    return sa.select(RUNS.c.id).where(sa.or_(RUNS.c.ended_at.is_not(None), RUNS.c.seen_at < now - KEPT_TICKETS))


def _select_run_records() -> sa.Select[Any]:
    """Return the runs, joined with their first and their last event."""
    first, last = EVENTS.alias("first"), EVENTS.alias("last")
    number = sa.select(sa.func.min(EVENTS.c.id)).where(EVENTS.c.run_id == RUNS.c.id).scalar_subquery()
    last_number = sa.select(sa.func.max(EVENTS.c.id)).where(EVENTS.c.run_id == RUNS.c.id).scalar_subquery()
    return (
        sa.select(
            RUNS,
            first.c.payload["model"].as_string().label("model"),
            last.c.id.label("last_number"),
            last.c.type.label("last_type"),
            last.c.at.label("last_at"),
            last.c.payload["completed"].as_integer().label("completed"),
            last.c.payload["failed"].as_integer().label("failed"),
            last.c.payload["total"].as_integer().label("total"),
        )
        .select_from(RUNS)
        .outerjoin(first, first.c.id == number)
        .outerjoin(last, last.c.id == last_number)
    )


def _read_run_record(row: Any) -> RunRecord:
    return RunRecord(
        id=row.id,
        job_id=row.job_id,
        origin=row.origin,
        folder=row.folder,
        started_at=as_utc(row.started_at),
        ended_at=as_utc(row.ended_at) if row.ended_at else None,
        verdict=row.verdict,
        model=row.model,
        completed=row.completed or 0,
        failed=row.failed or 0,
        total=row.total or 0,
        last_event=row.last_number or 0,
        seen_at=as_utc(max(row.last_at or row.seen_at, row.seen_at)),
        is_over=row.last_type == "run.completed",
    )
