"""What was asked, paid for and received: the memory that makes a re-run free.

A row of `attempts` is written *before* its prediction is created (the intent), completed with the prediction's id as
soon as it is known, and ended with what came of it and what it cost. `deliveries` says which clip keys are on disk.
"""

import sqlite3
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa
from tenacity import retry, retry_if_exception, stop_after_delay, wait_fixed

from videogen.clip import Clip, ClipRequest, digest
from videogen.errors import (
    BudgetError,
    ClaimedError,
    JobLockedError,
    JournalError,
    SettingsError,
    UnreadableJournalError,
)
from videogen.migrations import HEAD, VERSIONS, create, stored_version, upgrade

ALONE = 8_473_001
"""The advisory lock of transactions that must not overlap in PostgreSQL."""
LEASE_S = 20.0
"""A run that has not been seen for so long is dead, and what it had begun is free for others."""

AttemptState = Literal["intended", "created", "succeeded", "delivered", "ended"]
OPEN_STATES: tuple[AttemptState, ...] = ("intended", "created", "succeeded")
CostBasis = Literal["known", "estimated", "undeterminable"]
Event = tuple[int, str, dict[str, Any]]
"""Number, type and payload."""
KEPT_TICKETS = timedelta(hours=1)
"""How long the tickets of a run are kept that is not seen any more: it may only have been cut off."""
KEYS_AT_ONCE = 500
"""In one query: databases take a limited number of parameters."""
RECENT_EVENTS = 500
"""Every clip in the making has told its progress among this many latest events of its run."""

metadata = sa.MetaData()

_runs = sa.Table(
    "runs",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("job_id", sa.String(80), nullable=False, index=True),
    sa.Column("origin", sa.String(255), nullable=False),
    sa.Column("folder", sa.Text, nullable=False),
    sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("ended_at", sa.DateTime(timezone=True)),
    sa.Column("verdict", sa.String(16)),
    sa.Column("recovering", sa.Boolean, nullable=False, default=False),
)

_attempts = sa.Table(
    "attempts",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("run_id", sa.String(64), nullable=False, index=True),
    sa.Column("origin", sa.String(255), nullable=False),
    sa.Column("clip_key", sa.String(32), nullable=False, index=True),
    sa.Column("scene_id", sa.String(80), nullable=False),
    sa.Column("input_digest", sa.String(64), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("prediction_id", sa.String(64)),
    sa.Column("intended_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("created_at", sa.DateTime(timezone=True)),
    sa.Column("ended_at", sa.DateTime(timezone=True)),
    sa.Column("price", sa.String(32), nullable=False),
    sa.Column("cost", sa.String(32)),
    sa.Column("cost_basis", sa.String(16)),
    sa.Column("error_code", sa.String(32)),
    sa.Column("error_message", sa.Text),
    sa.UniqueConstraint("origin", "prediction_id"),
)

_deliveries = sa.Table(
    "deliveries",
    metadata,
    sa.Column("origin", sa.String(255), primary_key=True),
    sa.Column("clip_key", sa.String(32), primary_key=True),
    sa.Column("folder", sa.Text, nullable=False),
    sa.Column("clip", sa.JSON, nullable=False),
    sa.Column("delivered_at", sa.DateTime(timezone=True), nullable=False),
)

_events = sa.Table(
    "events",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("run_id", sa.String(64), nullable=False, index=True),
    sa.Column("type", sa.String(32), nullable=False),
    sa.Column("payload", sa.JSON, nullable=False),
    sa.Column("at", sa.DateTime(timezone=True), nullable=False),
    sqlite_autoincrement=True,
)

_limits = sa.Table(
    "limits",
    metadata,
    sa.Column("name", sa.String(80), primary_key=True),
    sa.Column("slots", sa.Integer, nullable=False),
)

_slots = sa.Table(
    "slots",
    metadata,
    sa.Column("ticket", sa.Integer, primary_key=True),
    sa.Column("limit_name", sa.String(80), nullable=False, index=True),
    sa.Column("run_id", sa.String(64), nullable=False, index=True),
    sa.Column("taken", sa.Boolean, nullable=False),
    sqlite_autoincrement=True,
)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One prediction, from its intent to its end. Costs are USD."""

    id: int
    run_id: str
    clip_key: str
    state: AttemptState
    prediction_id: str | None
    intended_at: datetime
    created_at: datetime | None
    price: Decimal
    cost: Decimal | None


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run as the journal knows it."""

    id: str
    job_id: str
    origin: str
    folder: str
    """Of its job; the paths of its clips are relative to it."""
    started_at: datetime
    ended_at: datetime | None
    verdict: str | None
    """None until the run is judged, and for ever when it was interrupted."""
    model: str | None
    completed: int
    total: int
    last_event: int
    """Number of the latest event; 0 where there is none yet."""
    seen_at: datetime
    """When it last was alive."""
    is_over: bool
    """Whether no more events will come."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A clip that was delivered, and the address of the job folder its paths are relative to."""

    folder: str
    clip: Clip


@dataclass(frozen=True, slots=True)
class SlotUse:
    """A live run's part in a limit: slots held, and slots waited for."""

    run_id: str
    job_id: str
    held: int
    waiting: int


@dataclass(frozen=True, slots=True)
class Limit:
    """How many slots a limit has, and the live runs that use it, in the order of their tickets."""

    name: str
    slots: int
    used_by: tuple[SlotUse, ...]


class Journal:
    """The journal at a SQLAlchemy URL (`sqlite:///…`, `postgresql+psycopg://…`); its tables are made when missing.

    A SQLite file that is damaged, or of another version, is set aside and a new one begun, but not by who only watches:
    a run may be writing it.

    Every method is one transaction, committed when it returns. Raises `JournalError` when the database cannot be used.
    """

    def __init__(self, url: str, *, for_watching: bool = False) -> None:
        self._engine = _engine(url)
        self._is_sqlite = self._engine.dialect.name == "sqlite"
        self.set_aside: str | None = None
        """Why the file that was here was not used, and where it is kept; None when all is well."""
        if self._is_sqlite:
            with suppress(OSError):  # SQLite says what is wrong
                Path(self._engine.url.database or "").parent.mkdir(parents=True, exist_ok=True)
            sa.event.listen(self._engine, "connect", _set_up_sqlite)
            sa.event.listen(self._engine, "begin", _begin_sqlite)
        try:
            self._make_tables()
        except UnreadableJournalError as exc:
            if for_watching:
                raise
            self._set_aside(exc)
            self._make_tables()

    def close(self) -> None:
        self._engine.dispose()

    def start_run(
        self, run_id: str, *, job_id: str, origin: str, folder: str, recovering: bool = False, alone: bool = False
    ) -> None:
        """`recovering`: the runs before this one are not known any more, see `knows`.

        `alone`: nothing but this journal keeps another run out of the folder. Raises `JobLockedError` where there is
        one.
        """
        row = {"id": run_id, "job_id": job_id, "origin": origin, "folder": folder, "recovering": recovering}
        with self._transaction(alone=alone) as db:
            if alone and (holder := _holder(db, folder)):
                raise JobLockedError(f"another run holds {folder}: run {holder[0]}, which is alive")
            db.execute(_slots.delete().where(_slots.c.run_id.in_(_runs_of_old())))
            db.execute(_runs.insert().values(row | {"started_at": _now(), "seen_at": _now()}))

    def holder_seen(self, folder: str) -> datetime | None:
        """When the run in this folder was last seen; None where there is none, or a dead one."""
        with self._transaction() as db:
            holder = _holder(db, folder)
        return holder[1] if holder else None

    def beat(self, run_id: str) -> None:
        """The run is alive; to be said well within `LEASE_S`."""
        with self._transaction() as db:
            db.execute(_runs.update().where(_runs.c.id == run_id).values(seen_at=_now()))

    def left(self, run_id: str) -> None:
        """The run's process has let go of it: what it had begun is free for others at once."""
        with self._transaction() as db:
            mine = _runs.update().where(_runs.c.id == run_id, _runs.c.ended_at.is_(None))
            db.execute(mine.values(seen_at=_now() - timedelta(seconds=LEASE_S)))

    def knows(self, folder: str) -> bool:
        """Whether what earlier runs of this folder did is all in here: there was one, and if that had lost its memory,
        one that came to its end."""
        query = sa.select(_runs.c.recovering, _runs.c.ended_at).where(_runs.c.folder == folder)
        with self._reading() as db:
            runs = db.execute(query.order_by(_runs.c.started_at.desc())).all()
        return any(not run.recovering or run.ended_at for run in runs)

    def end_run(self, run_id: str, *, verdict: str) -> None:
        with self._transaction() as db:
            db.execute(_runs.update().where(_runs.c.id == run_id).values(ended_at=_now(), verdict=verdict))

    def set_limit(self, name: str, slots: int) -> None:
        """Creates the limit, or changes its number of slots, also for runs that are going on."""
        row = {"name": name, "slots": slots}
        with self._transaction(alone=True) as db:
            changed = db.execute(_limits.update().where(_limits.c.name == name).values(slots=slots))
            if not changed.rowcount:
                db.execute(_limits.insert().values(row))

    def limit(self, name: str) -> Limit | None:
        """The limit and who uses it; None where there is none of this name."""
        with self._reading() as db:
            slots = db.execute(sa.select(_limits.c.slots).where(_limits.c.name == name)).scalar()
            tickets = _live_tickets(db, name)
        if slots is None:
            return None
        jobs = {ticket.run_id: ticket.job_id for ticket in tickets}
        held = Counter(ticket.run_id for ticket in tickets if ticket.taken)
        waiting = Counter(ticket.run_id for ticket in tickets if not ticket.taken)
        return Limit(name, slots, tuple(SlotUse(run, job, held[run], waiting[run]) for run, job in jobs.items()))

    def share(self, limit: str, run_id: str, *, held: Collection[int], waiting: int) -> list[int]:
        """The tickets that are now granted to a run: it holds those in `held`, and waits for `waiting` more.

        First come, first served, over all runs; a run counts as long as it is alive. What a lost answer has granted is
        not in `held` the next time, and so is free again.
        """
        with self._transaction() as db:
            locked = sa.select(_limits.c.slots).where(_limits.c.name == limit).with_for_update()
            slots = db.execute(locked).scalar_one()
            _set_tickets(db, limit, run_id, held, waiting)
            tickets = _live_tickets(db, limit)
            free = slots - sum(ticket.taken for ticket in tickets)
            first = [ticket for ticket in tickets if not ticket.taken][: max(0, free)]
            granted = [ticket.ticket for ticket in first if ticket.run_id == run_id]
            db.execute(_slots.update().where(_slots.c.ticket.in_(granted)).values(taken=True))
        return granted

    def delivery(self, origin: str, key: str) -> Delivery | None:
        return self.deliveries(origin, [key]).get(key)

    def deliveries(self, origin: str, keys: Sequence[str]) -> dict[str, Delivery]:
        """Those of the clips that were delivered, by key."""
        query = sa.select(_deliveries).where(_deliveries.c.origin == origin)
        with self._reading() as db:
            rows = [
                row for some in _in_parts(keys) for row in db.execute(query.where(_deliveries.c.clip_key.in_(some)))
            ]
        return {row.clip_key: Delivery(folder=row.folder, clip=Clip.model_validate(row.clip)) for row in rows}

    def forget_delivery(self, origin: str, key: str) -> None:
        """The delivered file is gone or no longer what it was."""
        with self._transaction() as db:
            db.execute(_deliveries.delete().where(_deliveries.c.origin == origin, _deliveries.c.clip_key == key))

    def open_attempt(self, origin: str, key: str) -> Attempt | None:
        """The latest attempt at this clip, if it has not ended: it may have been paid for."""
        query = (
            sa.select(_attempts)
            .where(_attempts.c.origin == origin, _attempts.c.clip_key == key, _attempts.c.state.in_(OPEN_STATES))
            .order_by(_attempts.c.id.desc())
            .limit(1)
        )
        with self._reading() as db:
            row = db.execute(query).one_or_none()
        return None if row is None else _attempt(row)

    def begun(self, origin: str, keys: Sequence[str]) -> set[str]:
        """The keys of the clips with an attempt that has not ended."""
        query = sa.select(_attempts.c.clip_key).where(_attempts.c.origin == origin, _attempts.c.state.in_(OPEN_STATES))
        with self._reading() as db:
            parts = (db.execute(query.where(_attempts.c.clip_key.in_(some))).scalars() for some in _in_parts(keys))
            return {key for part in parts for key in part}

    def is_claimed(self, key: str, *, origin: str, folder: str) -> bool:
        """Whether a live run of another folder is at this clip. (An earlier run of the same folder is dead: it is
        locked.)"""
        with self._reading() as db:
            return _is_claimed(db, key, origin, folder)

    def intend(
        self, request: ClipRequest, *, run_id: str, origin: str, folder: str, max_cost: Decimal | None = None
    ) -> Attempt:
        """Records that a prediction is about to be created for this request, and so reserves its price.

        Raises:
            ClaimedError: a live run of another folder was quicker.
            BudgetError: what the run has spent and reserved would then be more than `max_cost`.
        """
        values = {
            "run_id": run_id,
            "origin": origin,
            "clip_key": request.key,
            "scene_id": request.scene.id,
            "input_digest": digest(request.inputs),
            "state": "intended",
            "intended_at": _now(),
            "price": str(request.cost),
        }
        with self._transaction(alone=True) as db:
            if _is_claimed(db, request.key, origin, folder):
                raise ClaimedError("another job's run is making this very clip")
            if max_cost is not None and (spent := _spent(db, run_id)) + request.cost > max_cost:
                raise BudgetError(f"${spent} are spent or reserved, ${request.cost} more would be above ${max_cost}")
            return _attempt(db.execute(_attempts.insert().values(values).returning(*_attempts.c)).one())

    def adopt(self, attempt: Attempt, *, run_id: str, scene_id: str) -> Attempt:
        """Makes an open attempt of an earlier run one of this run, for this scene."""
        return self._update(attempt, run_id=run_id, scene_id=scene_id)

    def created(self, attempt: Attempt, prediction_id: str, created_at: datetime | None) -> Attempt | None:
        """Records the id of the attempt's prediction: from here on it can always be found again.

        None when another attempt has that prediction already.
        """
        values = {"state": "created", "prediction_id": prediction_id, "created_at": created_at or _now()}
        try:
            return self._update(attempt, **values)
        except JournalError as exc:
            if isinstance(exc.__cause__, sa.exc.IntegrityError):
                return None
            raise

    def billed(self, attempt: Attempt, cost: Decimal, basis: CostBasis, *, succeeded: bool) -> Attempt:
        """Records what the attempt's prediction cost in the end; when it succeeded, what is left to do is free."""
        return self._update(
            attempt, state="succeeded" if succeeded else attempt.state, cost=str(cost), cost_basis=basis
        )

    def ended(self, attempt: Attempt, *, error: str, message: str) -> Attempt:
        """Records that nothing more will come of this attempt. What was not billed by now is undeterminable."""
        basis = sa.func.coalesce(_attempts.c.cost_basis, "undeterminable")
        return self._update(
            attempt, state="ended", ended_at=_now(), cost_basis=basis, error_code=error, error_message=message
        )

    def delivered(self, attempt: Attempt, request: ClipRequest, *, origin: str, folder: str, clip: Clip) -> None:
        """Records the clip; from here on its key is free."""
        with self._transaction() as db:
            db.execute(
                _attempts.update().where(_attempts.c.id == attempt.id).values(state="delivered", ended_at=_now())
            )
            _deliver(db, request.key, origin, folder, clip)

    def restore(self, key: str, *, origin: str, folder: str, clip: Clip) -> None:
        """Records a clip that is known to have been delivered, though not from this journal."""
        with self._transaction() as db:
            _deliver(db, key, origin, folder, clip)

    def open_attempts(self, run_id: str) -> list[Attempt]:
        """The attempts of a run whose prediction may be running, oldest first."""
        query = sa.select(_attempts).where(_attempts.c.run_id == run_id, _attempts.c.state.in_(("intended", "created")))
        with self._reading() as db:
            return [_attempt(row) for row in db.execute(query.order_by(_attempts.c.id))]

    def attempts(self, run_id: str, scene_id: str) -> list[Attempt]:
        """The attempts of a run at a scene, with all its models, oldest first."""
        query = sa.select(_attempts).where(_attempts.c.run_id == run_id, _attempts.c.scene_id == scene_id)
        with self._reading() as db:
            return [_attempt(row) for row in db.execute(query.order_by(_attempts.c.id))]

    def add_event(self, run_id: str, type_: str, payload: Mapping[str, Any]) -> int:
        """Records an event and returns its number."""
        row = {"run_id": run_id, "type": type_, "payload": dict(payload), "at": _now()}
        with self._transaction() as db:
            return int(db.execute(_events.insert().values(row).returning(_events.c.id)).scalar_one())

    def events(self, run_id: str, *, after: int = 0, limit: int | None = None) -> list[Event]:
        """A run's events after a number, in order; the first `limit` of them."""
        query = _events_of(run_id).where(_events.c.id > after).order_by(_events.c.id).limit(limit)
        with self._reading() as db:
            return [_event(row) for row in db.execute(query)]

    def telling_events(self, run_id: str) -> list[Event]:
        """The events that tell how far a run is: all but the progress that newer progress has overtaken."""
        recent = _events_of(run_id).order_by(_events.c.id.desc()).limit(RECENT_EVENTS)
        with self._reading() as db:
            latest = [_event(row) for row in db.execute(recent)][::-1]
            first = latest[0][0] if latest else 0
            older = _events_of(run_id).where(_events.c.id < first, _events.c.type != "clip.progress")
            return [*(_event(row) for row in db.execute(older.order_by(_events.c.id))), *latest]

    def runs(self, *, limit: int, before: str | None = None) -> list[RunRecord]:
        """The latest runs, newest first; with `before` those that started before that run."""
        query = _run_records().order_by(_runs.c.started_at.desc(), _runs.c.id.desc()).limit(limit)
        if before is not None:
            mark = sa.select(_runs.c.started_at, _runs.c.id).where(_runs.c.id == before).subquery()
            query = query.join(
                mark, sa.tuple_(_runs.c.started_at, _runs.c.id) < sa.tuple_(mark.c.started_at, mark.c.id)
            )
        with self._reading() as db:
            return [_run_record(row) for row in db.execute(query)]

    def find_run(self, run_id: str) -> RunRecord | None:
        with self._reading() as db:
            row = db.execute(_run_records().where(_runs.c.id == run_id)).one_or_none()
        return None if row is None else _run_record(row)

    def spending(self, run_id: str) -> tuple[Decimal, Decimal]:
        """What a run has spent, and what is reserved for predictions that have not ended. USD."""
        query = sa.select(_attempts.c.state, _attempts.c.price, _attempts.c.cost).where(_attempts.c.run_id == run_id)
        with self._reading() as db:
            rows = db.execute(query).all()
        spent = sum((Decimal(row.cost) for row in rows if row.cost is not None), Decimal(0))
        open_ = [row for row in rows if row.cost is None and row.state in OPEN_STATES]
        return spent, sum((Decimal(row.price) for row in open_), Decimal(0))

    def delivered_clip(self, run_id: str, scene_id: str) -> Delivery | None:
        """The clip that a run delivered, or reused, for a scene."""
        query = sa.select(_runs.c.folder, _events.c.payload).join(_runs, _runs.c.id == _events.c.run_id)
        query = query.where(
            _events.c.run_id == run_id,
            _events.c.type == "clip.completed",
            _events.c.payload["scene_id"].as_string() == scene_id,
        )
        with self._reading() as db:
            row = db.execute(query.order_by(_events.c.id.desc()).limit(1)).one_or_none()
        if row is None:
            return None
        clip = {name: value for name, value in row.payload.items() if name in Clip.model_fields}
        return Delivery(folder=row.folder, clip=Clip.model_validate(clip))

    def _update(self, attempt: Attempt, **values: Any) -> Attempt:
        update = _attempts.update().where(_attempts.c.id == attempt.id).values(values).returning(*_attempts.c)
        with self._transaction() as db:
            return _attempt(db.execute(update).one())

    def _make_tables(self) -> None:
        with self._transaction(alone=True) as db:
            version = stored_version(db)
            if version is None and db.dialect.has_table(db, "attempts"):
                raise UnreadableJournalError(f"the journal at {self._engine.url} is of an older videogen")
            if version is not None and version not in VERSIONS:
                raise UnreadableJournalError(f"the journal at {self._engine.url} is of a newer videogen")
            if version is None:
                create(db, metadata)
            elif version != HEAD:
                upgrade(db)
            if self._is_sqlite and db.exec_driver_sql("PRAGMA quick_check(1)").scalar() != "ok":
                raise UnreadableJournalError(f"the journal at {self._engine.url} is damaged")

    def _set_aside(self, error: JournalError) -> None:
        """Moves the database file, and what belongs to it, out of the way; it is kept for a person to look at."""
        self._engine.dispose()
        file = self._engine.url.database
        if not self._is_sqlite or not file:
            raise error
        kept = f"{file}.set-aside-{_now():%Y%m%d-%H%M%S}"
        for ending in ("", "-wal", "-shm"):
            with suppress(FileNotFoundError):
                Path(file + ending).rename(kept + ending)
        self.set_aside = f"{error}; it is kept as {kept}"

    @contextmanager
    def _transaction(self, *, alone: bool = False) -> Iterator[sa.Connection]:
        """`alone`: no other such transaction goes on meanwhile, of whichever process. In SQLite all are alone."""
        with self._begun(self._engine) as connection:
            if alone and not self._is_sqlite:
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(ALONE)))
            yield connection

    def _reading(self) -> AbstractContextManager[sa.Connection]:
        """A transaction that only reads, so that it neither waits for a writer nor keeps one waiting."""
        return self._begun(self._engine.execution_options(reads_only=True))

    @contextmanager
    def _begun(self, engine: sa.Engine) -> Iterator[sa.Connection]:
        try:
            with engine.begin() as connection:
                yield connection
        except sa.exc.SQLAlchemyError as exc:
            reason = getattr(exc, "orig", None) or exc
            if type(reason) is sqlite3.DatabaseError:  # not one of its subclasses: "malformed", "not a database"
                raise UnreadableJournalError(f"the journal at {self._engine.url} is damaged: {reason}") from exc
            raise JournalError(f"the journal at {self._engine.url} cannot be used: {reason}") from exc


def _engine(url: str) -> sa.Engine:
    try:
        return sa.create_engine(url, pool_pre_ping=True)
    except (sa.exc.ArgumentError, sa.exc.NoSuchModuleError) as exc:
        raise SettingsError(f"VIDEOGEN_JOURNAL_URL: {exc}; such as postgresql+psycopg://user@host/database") from exc
    except ImportError as exc:
        raise SettingsError(f"VIDEOGEN_JOURNAL_URL: {exc}; for PostgreSQL: pip install 'videogen[postgres]'") from exc


def _set_up_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # SQLAlchemy's `begin` event opens transactions, not the driver
    for pragma in ("busy_timeout=30000", "synchronous=FULL"):
        connection.execute(f"PRAGMA {pragma}")
    _use_wal(connection)


@retry(
    retry=retry_if_exception(lambda exc: isinstance(exc, sqlite3.OperationalError) and "locked" in str(exc)),
    wait=wait_fixed(0.05),
    stop=stop_after_delay(30),
    reraise=True,
)
def _use_wal(connection: Any) -> None:
    """SQLite does not wait by itself for another process that does the same to the same new file."""
    connection.execute("PRAGMA journal_mode=WAL")


def _deliver(db: sa.Connection, key: str, origin: str, folder: str, clip: Clip) -> None:
    row = {"origin": origin, "clip_key": key, "folder": folder, "clip": clip.model_dump(mode="json")}
    db.execute(_deliveries.delete().where(_deliveries.c.origin == origin, _deliveries.c.clip_key == key))
    db.execute(_deliveries.insert().values(**row, delivered_at=_now()))


def _is_claimed(db: sa.Connection, key: str, origin: str, folder: str) -> bool:
    query = sa.select(_runs.c.seen_at).join(_attempts, _attempts.c.run_id == _runs.c.id)
    query = query.where(_attempts.c.origin == origin, _attempts.c.clip_key == key, _attempts.c.state.in_(OPEN_STATES))
    seen = db.scalars(query.where(_runs.c.folder != folder, _runs.c.ended_at.is_(None)))
    return any(_is_alive(at) for at in seen)


def _holder(db: sa.Connection, folder: str) -> tuple[str, datetime] | None:
    """The live run of a folder, and when it was last seen."""
    query = sa.select(_runs.c.id, _runs.c.seen_at).where(_runs.c.folder == folder, _runs.c.ended_at.is_(None))
    row = db.execute(query.order_by(_runs.c.seen_at.desc()).limit(1)).one_or_none()
    return (row.id, _utc(row.seen_at)) if row and _is_alive(row.seen_at) else None


def _set_tickets(db: sa.Connection, limit: str, run_id: str, held: Collection[int], waiting: int) -> None:
    """Makes a run's tickets those it holds and `waiting` more; the oldest of those that wait keep their place."""
    mine = sa.select(_slots).where(_slots.c.limit_name == limit, _slots.c.run_id == run_id).order_by(_slots.c.ticket)
    tickets = db.execute(mine).all()
    returned = [ticket.ticket for ticket in tickets if ticket.taken and ticket.ticket not in held]
    queued = [ticket.ticket for ticket in tickets if not ticket.taken]
    if gone := returned + queued[waiting:]:
        db.execute(_slots.delete().where(_slots.c.ticket.in_(gone)))
    if new := waiting - len(queued[:waiting]):
        db.execute(_slots.insert(), [{"limit_name": limit, "run_id": run_id, "taken": False}] * new)


def _live_tickets(db: sa.Connection, limit: str) -> list[Any]:
    """The tickets of the runs that are alive, oldest first."""
    query = sa.select(_slots.c.ticket, _slots.c.taken, _slots.c.run_id, _runs.c.job_id, _runs.c.seen_at)
    query = query.join(_runs, _runs.c.id == _slots.c.run_id)
    query = query.where(_slots.c.limit_name == limit, _runs.c.ended_at.is_(None)).order_by(_slots.c.ticket)
    return [row for row in db.execute(query) if _is_alive(row.seen_at)]


def _in_parts(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    return (keys[start : start + KEYS_AT_ONCE] for start in range(0, len(keys), KEYS_AT_ONCE))


def _runs_of_old() -> sa.Select[Any]:
    """Ids of the runs that ended, or have not been seen for so long that they will not come back."""
    return sa.select(_runs.c.id).where(sa.or_(_runs.c.ended_at.is_not(None), _runs.c.seen_at < _now() - KEPT_TICKETS))


def _is_alive(seen_at: datetime) -> bool:
    return (_now() - _utc(seen_at)).total_seconds() < LEASE_S


def _begin_sqlite(connection: sa.Connection) -> None:
    reads_only = connection.get_execution_options().get("reads_only", False)
    connection.exec_driver_sql("BEGIN" if reads_only else "BEGIN IMMEDIATE")


def _spent(db: sa.Connection, run_id: str) -> Decimal:
    """What the run's attempts have cost, those that have not ended at their price."""
    query = sa.select(_attempts.c.price, _attempts.c.cost).where(_attempts.c.run_id == run_id)
    return sum((Decimal(row.price if row.cost is None else row.cost) for row in db.execute(query)), Decimal(0))


def _attempt(row: Any) -> Attempt:
    return Attempt(
        id=row.id,
        run_id=row.run_id,
        clip_key=row.clip_key,
        state=row.state,
        prediction_id=row.prediction_id,
        intended_at=_utc(row.intended_at),
        created_at=_utc(row.created_at) if row.created_at else None,
        price=Decimal(row.price),
        cost=None if row.cost is None else Decimal(row.cost),
    )


def _events_of(run_id: str) -> sa.Select[Any]:
    return sa.select(_events.c.id, _events.c.type, _events.c.payload).where(_events.c.run_id == run_id)


def _event(row: Any) -> Event:
    return row.id, row.type, row.payload


def _run_records() -> sa.Select[Any]:
    """Runs with what their first and their last event say."""
    first, last = _events.alias("first"), _events.alias("last")
    number = sa.select(sa.func.min(_events.c.id)).where(_events.c.run_id == _runs.c.id).scalar_subquery()
    last_number = sa.select(sa.func.max(_events.c.id)).where(_events.c.run_id == _runs.c.id).scalar_subquery()
    return (
        sa.select(
            _runs,
            first.c.payload["model"].as_string().label("model"),
            last.c.id.label("last_number"),
            last.c.type.label("last_type"),
            last.c.at.label("last_at"),
            last.c.payload["completed"].as_integer().label("completed"),
            last.c.payload["total"].as_integer().label("total"),
        )
        .select_from(_runs)
        .outerjoin(first, first.c.id == number)
        .outerjoin(last, last.c.id == last_number)
    )


def _run_record(row: Any) -> RunRecord:
    return RunRecord(
        id=row.id,
        job_id=row.job_id,
        origin=row.origin,
        folder=row.folder,
        started_at=_utc(row.started_at),
        ended_at=_utc(row.ended_at) if row.ended_at else None,
        verdict=row.verdict,
        model=row.model,
        completed=row.completed or 0,
        total=row.total or 0,
        last_event=row.last_number or 0,
        seen_at=_utc(max(row.last_at or row.seen_at, row.seen_at)),
        is_over=row.last_type == "run.completed",
    )


def _now() -> datetime:
    return datetime.now(UTC)


def _utc(value: datetime) -> datetime:
    """SQLite forgets the zone."""
    return value if value.tzinfo else value.replace(tzinfo=UTC)
