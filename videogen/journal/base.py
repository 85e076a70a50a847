"""The base of the journal: opening it, its transactions, and the leases of runs."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from typing import Any, TypeVar

import sqlalchemy as sa

from videogen.errors import (
    JournalError,
    LeaseLostError,
    UnreadableJournalError,
)
from videogen.journal.database import OUTAGE_S, Database, make_private
from videogen.journal.migrations import HEAD, VERSIONS, create_schema, read_version, upgrade_schema
from videogen.journal.schema import RUNS, metadata

T = TypeVar("T")


LEASE_S = 20.0
"""A run that has not been seen for this long is dead, and other runs may take over its work: see `_Watch`."""


CONTACT_GAP_S = 10.0
"""A process that was out of touch with the database for longer has not watched the leases meanwhile."""


KEYS_AT_ONCE = 500
"""Keys in one query: databases take a limited number of parameters."""


class JournalBase:
    """Opens the journal, runs its transactions, and judges the leases of runs. See `Journal`."""

    def __init__(
        self,
        url: str,
        *,
        read_only: bool = False,
        clock: Callable[[], datetime] | None = None,
        given_up: Event | None = None,
        is_checked: bool = True,
    ) -> None:
        """Open the journal.

        Args:
            read_only: neither wait for the database nor replace a damaged file.
            clock: replaces the database's clock, which leases are measured by.
            given_up: ends the waiting for the database when it is set, as `give_up` does, also while the journal is
                being opened.
            is_checked: read all of a SQLite file to see whether it is damaged. Without that, damage shows when a part
                is read.
        """
        self._is_checked = is_checked
        self._db = Database(url, is_patient=not read_only, given_up=given_up)
        self._clock = clock
        self._watch = _Watch(clock or utc_now)
        self.quarantined: str | None = None
        """Why the previous file could not be used, and where it is kept; None if there was no problem."""
        if self._db.file:
            make_private(self._db.file)
        try:
            self._run(self._make_tables, exclusive=True)
        except UnreadableJournalError as exc:
            if read_only:
                raise
            self._quarantine(exc)
            self._run(self._make_tables, exclusive=True)

    def close(self) -> None:
        self._db.close()

    def give_up(self) -> None:
        """Stop waiting for the database: pending calls fail soon, and later ones are tried once."""
        self._db.give_up()

    def _hold_lease(self, db: sa.Connection, run_id: str) -> Any:
        """Renew the run's lease and return its row, or None if the run was never started. Raise `LeaseLostError`."""
        run = find_run_row(db, run_id)
        if run is None:
            return None
        if run.ended_at is not None:
            raise LeaseLostError(f"run {run_id} has ended: nothing more can be created for it")
        self._renew(db, run)
        return run

    def _renew(self, db: sa.Connection, run: Any) -> None:
        later = sa.select(RUNS.c.id).where(RUNS.c.folder == run.folder, RUNS.c.started_at > run.started_at)
        if other := db.execute(later.limit(1)).scalar():
            raise LeaseLostError(
                f"run {run.id} was not seen for more than {LEASE_S:g} s, and run {other} took over its folder "
                f"{run.folder}: look at that run"
            )
        db.execute(RUNS.update().where(RUNS.c.id == run.id).values(seen_at=self._now_by_shared_clock(db)))

    def _conditions_of_live(self, db: sa.Connection) -> tuple[sa.ColumnElement[bool], ...]:
        """Return the conditions under which a run is alive.

        While the database was unreachable, or this process asleep, no run could renew its lease. Therefore a lease only
        counts as expired if it was watched for as long as it lasts, or if it is older than any outage that a run
        survives.
        """
        is_watched = self._watch.contact_s() >= LEASE_S
        lasts_s = LEASE_S if is_watched else LEASE_S + OUTAGE_S
        return RUNS.c.ended_at.is_(None), RUNS.c.seen_at > self._now_by_shared_clock(db) - timedelta(seconds=lasts_s)

    def _conditions_of_seen(self, db: sa.Connection) -> tuple[sa.ColumnElement[bool], ...]:
        """Return the conditions under which a run has not ended, and has renewed its lease within `LEASE_S`."""
        since = self._now_by_shared_clock(db) - timedelta(seconds=LEASE_S)
        return RUNS.c.ended_at.is_(None), RUNS.c.seen_at > since

    def _find_live_holder(self, db: sa.Connection, folder: str) -> tuple[str, datetime] | None:
        """Return the live run of a folder, and when it was last seen."""
        query = sa.select(RUNS.c.id, RUNS.c.seen_at).where(RUNS.c.folder == folder, *self._conditions_of_live(db))
        row = db.execute(query.order_by(RUNS.c.seen_at.desc()).limit(1)).one_or_none()
        return (row.id, as_utc(row.seen_at)) if row else None

    def _now_by_shared_clock(self, db: sa.Connection) -> datetime:
        """Return the current time by the one clock that all runs of this journal share: the database server's own."""
        if self._clock or self._db.is_sqlite:
            return (self._clock or utc_now)()
        now: datetime = db.execute(sa.select(sa.func.clock_timestamp())).scalar_one()
        return now

    def _run(self, work: Callable[[sa.Connection], T], *, exclusive: bool = False, is_repeated: bool = True) -> T:
        result = self._db.run(work, exclusive=exclusive, is_repeated=is_repeated)
        self._watch.note()
        return result

    def _read(self, work: Callable[[sa.Connection], T], *, is_repeated: bool = True) -> T:
        result = self._db.run(work, reads_only=True, is_repeated=is_repeated)
        self._watch.note()
        return result

    def _insert(self, work: Callable[[sa.Connection], T], *, exclusive: bool = False) -> T:
        """Run `work`, which inserts a row unless it exists. Run it again if a commit whose answer was lost came in
        between."""
        try:
            return self._run(work, exclusive=exclusive)
        except JournalError as exc:
            if not isinstance(exc.__cause__, sa.exc.IntegrityError):
                raise
        return self._run(work, exclusive=exclusive)

    def _make_tables(self, db: sa.Connection) -> None:
        version = read_version(db)
        if version is None and db.dialect.has_table(db, "attempts"):
            raise UnreadableJournalError(
                f"the journal at {self._db.display_url} was made by an older version of videogen"
            )
        if version is not None and version not in VERSIONS:
            raise UnreadableJournalError(
                f"the journal at {self._db.display_url} was made by a newer version of videogen"
            )
        if version is None:
            create_schema(db, metadata)
        elif version != HEAD:
            upgrade_schema(db)
        if not self._db.is_sqlite or not self._is_checked:
            return
        if db.exec_driver_sql("PRAGMA quick_check(1)").scalar() != "ok":
            raise UnreadableJournalError(f"the journal at {self._db.display_url} is damaged")

    def _quarantine(self, error: JournalError) -> None:
        """Move the database file and its companions away. They are kept for inspection."""
        self._db.close()
        file = self._db.file
        if file is None:
            raise error
        kept = f"{file}.set-aside-{utc_now():%Y%m%d-%H%M%S}"
        for ending in ("", "-wal", "-shm"):
            with suppress(FileNotFoundError):
                Path(f"{file}{ending}").rename(kept + ending)
                Path(kept + ending).chmod(0o600)
        make_private(file)
        self.quarantined = f"{error}; it is kept as {kept}"


class _Watch:
    """Measures how long this process has been in touch with the database, without a gap that could hide a heartbeat."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._since = self._last = datetime.min.replace(tzinfo=UTC)

    def note(self) -> None:
        """Note that the database has answered."""
        now = self._clock()
        if not self._is_near(now):
            self._since = now
        self._last = now

    def contact_s(self) -> float:
        now = self._clock()
        return (now - self._since).total_seconds() if self._is_near(now) else 0.0

    def _is_near(self, now: datetime) -> bool:
        return 0 <= (now - self._last).total_seconds() <= CONTACT_GAP_S


def find_run_row(db: sa.Connection, run_id: str) -> Any:
    """Return the run's row, or None if there is none."""
    return db.execute(sa.select(RUNS).where(RUNS.c.id == run_id)).one_or_none()


def split_keys(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    return (keys[start : start + KEYS_AT_ONCE] for start in range(0, len(keys), KEYS_AT_ONCE))


def utc_now() -> datetime:
    return datetime.now(UTC)


def as_utc(value: datetime) -> datetime:
    """Return the time with its zone, which SQLite does not store."""
    return value if value.tzinfo else value.replace(tzinfo=UTC)
