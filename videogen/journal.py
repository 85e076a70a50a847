"""What was asked, paid for and received: the memory that makes a re-run free.

A row of `attempts` is written *before* its prediction is created (the intent), completed with the prediction's id as
soon as it is known, and ended with what came of it and what it cost. `deliveries` says which clip keys are on disk.
"""

import asyncio
import functools
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import takewhile
from pathlib import Path
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar

import sqlalchemy as sa

from videogen.clip import Clip, ClipRequest, digest
from videogen.database import OUTAGE_S, Database, make_private, sanitize_json
from videogen.errors import (
    BudgetError,
    ClaimedError,
    DeliveredError,
    JobLockedError,
    JournalError,
    LeaseLostError,
    UnreadableJournalError,
)
from videogen.migrations import HEAD, VERSIONS, create_schema, read_version, upgrade_schema

P = ParamSpec("P")
T = TypeVar("T")

LEASE_S = 20.0
"""A run that has not been seen for so long is dead, and what it had begun is free for others: see `_Watch`."""

AttemptState = Literal["intended", "created", "succeeded", "delivered", "ended"]
TRANSITIONS: Mapping[AttemptState, Mapping[AttemptState, tuple[str, ...]]] = {
    "intended": {
        "intended": ("take_over_attempt", "confirm_intent", "record_cost"),
        "created": ("record_prediction",),
        "ended": ("record_end",),
    },
    "created": {
        "created": ("take_over_attempt", "record_cost"),
        "succeeded": ("record_cost",),
        "ended": ("record_end",),
    },
    "succeeded": {
        "succeeded": ("take_over_attempt", "record_cost"),
        "delivered": ("record_delivery",),
        "ended": ("record_end",),
    },
    "delivered": {
        "succeeded": ("forget_delivery",),
    },
    "ended": {},
}
"""From each state of an attempt, those that may come next, and the methods of `Journal` that lead there."""
OPEN_STATES: tuple[AttemptState, ...] = ("intended", "created", "succeeded")
CostBasis = Literal["known", "estimated", "undeterminable"]
Event = tuple[int, str, dict[str, Any]]
"""Number, type and payload."""
KEPT_TICKETS = timedelta(hours=1)
"""How long the tickets of a run are kept that is not seen any more: it may only have been cut off."""
CLOSING_S = 2.0
"""How long calls that are begun may still take when the journal is closed."""
KEYS_AT_ONCE = 500
"""In one query: databases take a limited number of parameters."""
CONTACT_GAP_S = 10.0
"""Who was out of touch with the database for longer has not watched the leases meanwhile."""
RECENT_EVENTS = 500
"""Every clip in the making has told its progress among this many latest events of its run."""

JUDGED = frozenset({"complete", "partial", "failed"})
"""Verdicts of runs that came to their end."""

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
    sa.Column("prediction_id", sa.String(64).with_variant(sa.Text, "postgresql")),
    sa.Column("intended_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("created_at", sa.DateTime(timezone=True)),
    sa.Column("ended_at", sa.DateTime(timezone=True)),
    sa.Column("price", sa.String(32), nullable=False),
    sa.Column("cost", sa.String(32)),
    sa.Column("cost_basis", sa.String(16)),
    sa.Column("error_code", sa.String(32)),
    sa.Column("error_message", sa.Text),
    sa.Column("job_id", sa.String(80), index=True),
    sa.Column("reserved", sa.String(32)),
    sa.Column("token", sa.String(32), index=True, unique=True),
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
    sa.Column("token", sa.String(32), index=True, unique=True),
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
    """None until the run is judged, and for ever when it was killed; `interrupted` when it was interrupted."""
    model: str | None
    completed: int
    """How many clips are delivered or failed, `failed` how many of them failed."""
    failed: int
    total: int
    last_event: int
    """Number of the latest event; 0 where there is none yet."""
    seen_at: datetime
    """When it last was alive."""
    is_over: bool
    """Whether no more events will come."""


@dataclass(frozen=True, slots=True)
class DeliveryRecord:
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

    Every method is one transaction, committed when it returns. It is repeated while a database server is away, for a
    minute at most, and then has happened once; who only watches does not wait. Raises `JournalError` when the database
    cannot be used, and `SettingsError` when the URL is none.

    The methods that lead an attempt from state to state (see `TRANSITIONS`) raise `LeaseLostError` when it is no longer
    in a state, or of the run, that they may change: another run has gone on with it. To repeat one changes nothing.
    """

    def __init__(self, url: str, *, read_only: bool = False, clock: Callable[[], datetime] | None = None) -> None:
        """`clock` stands in for the database's clock, by which leases are kept."""
        self._db = Database(url, is_patient=not read_only)
        self._clock = clock
        self._watch = _Watch(clock or _now)
        self.quarantined: str | None = None
        """Why the file that was here was not used, and where it is kept; None when all is well."""
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
        """From now on nothing is waited for: what waits fails soon, and what comes is tried once."""
        self._db.give_up()

    # -- runs and their leases ----------------------------------------------------------------------------------------

    def start_run(
        self, run_id: str, *, job_id: str, origin: str, folder: str, recovering: bool = False, exclusive: bool = False
    ) -> None:
        """`recovering`: the runs before this one are not known any more, see `knows`.

        `alone`: nothing but this journal keeps another run out of the folder. Raises `JobLockedError` where there is
        one.
        """
        row = sanitize_json({"id": run_id, "job_id": job_id, "origin": origin, "folder": folder}) | {
            "recovering": recovering
        }
        is_this_one = (_runs.c.id == run_id, _runs.c.job_id == row["job_id"], _runs.c.folder == row["folder"])

        def work(db: sa.Connection) -> None:
            if db.execute(sa.select(_runs.c.id).where(*is_this_one)).one_or_none():
                return
            now = self._now_by_shared_clock(db)
            if exclusive and (holder := self._find_live_holder(db, folder)):
                raise JobLockedError(f"another run holds {folder}: run {holder[0]}, which is alive")
            db.execute(_slots.delete().where(_slots.c.run_id.in_(_select_stale_runs(now))))
            db.execute(_runs.insert().values(row | {"started_at": now, "seen_at": now}))

        self._insert(work, exclusive=exclusive)

    def get_holder_last_seen(self, folder: str) -> datetime | None:
        """When the run in this folder was last seen; None where there is none, or a dead one."""
        holder = self._read(lambda db: self._find_live_holder(db, folder))
        return holder[1] if holder else None

    def heartbeat(self, run_id: str) -> None:
        """The run is alive; to be said well within `LEASE_S`. Raises `LeaseLostError` when it was taken over."""

        def work(db: sa.Connection) -> None:
            run = _find_run_row(db, run_id)
            if run is not None and run.ended_at is None:
                self._renew(db, run)

        self._run(work)

    def release_lease(self, run_id: str) -> None:
        """The run's process has let go of it: what it had begun is free for others at once."""
        mine = _runs.update().where(_runs.c.id == run_id, _runs.c.ended_at.is_(None))
        long_ago = timedelta(seconds=LEASE_S + OUTAGE_S)
        self._run(lambda db: db.execute(mine.values(seen_at=self._now_by_shared_clock(db) - long_ago)))

    def has_complete_history(self, folder: str) -> bool:
        """Whether what earlier runs of this folder did is all in here: there was one, and if that had lost its memory,
        one that came to its end."""
        query = sa.select(_runs.c.recovering, _runs.c.ended_at, _runs.c.verdict).where(_runs.c.folder == folder)
        runs = self._read(lambda db: db.execute(query.order_by(_runs.c.started_at.desc())).all())
        return any(not run.recovering or (run.ended_at and run.verdict != "interrupted") for run in runs)

    def end_run(self, run_id: str, *, verdict: str) -> None:
        mine = _runs.update().where(_runs.c.id == run_id)
        self._run(lambda db: db.execute(mine.values(ended_at=self._now_by_shared_clock(db), verdict=verdict)))

    # -- limits over all runs -----------------------------------------------------------------------------------------

    def set_limit(self, name: str, slots: int) -> None:
        """Creates the limit, or changes its number of slots, also for runs that are going on."""

        def work(db: sa.Connection) -> None:
            changed = db.execute(_limits.update().where(_limits.c.name == name).values(slots=slots))
            if not changed.rowcount:
                db.execute(_limits.insert().values(name=name, slots=slots))

        self._run(work, exclusive=True)

    def find_limit(self, name: str) -> Limit | None:
        """The limit and who uses it; None where there is none of this name."""

        def work(db: sa.Connection) -> tuple[int | None, list[Any]]:
            slots = db.execute(sa.select(_limits.c.slots).where(_limits.c.name == name)).scalar()
            return slots, self._live_tickets(db, name)

        slots, tickets = self._read(work)
        if slots is None:
            return None
        jobs = {ticket.run_id: ticket.job_id for ticket in tickets}
        held = Counter(ticket.run_id for ticket in tickets if ticket.taken)
        waiting = Counter(ticket.run_id for ticket in tickets if not ticket.taken)
        return Limit(name, slots, tuple(SlotUse(run, job, held[run], waiting[run]) for run, job in jobs.items()))

    def sync_tickets(self, limit: str, run_id: str, *, held: Collection[int], waiting: int) -> list[int]:
        """The tickets that are now granted to a run: it holds those in `held`, and waits for `waiting` more.

        First come, first served, over all runs; a run counts as long as it is alive. What a lost answer has granted is
        not in `held` the next time, and so is free again: who asks repeats it, and this method does not.
        """

        def work(db: sa.Connection) -> list[int]:
            locked = sa.select(_limits.c.slots).where(_limits.c.name == limit).with_for_update()
            slots = db.execute(locked).scalar_one()
            _set_tickets(db, limit, run_id, held, waiting)
            tickets = self._live_tickets(db, limit)
            free = slots - sum(ticket.taken for ticket in tickets)
            first = [ticket for ticket in tickets if not ticket.taken][: max(0, free)]
            granted = [ticket.ticket for ticket in first if ticket.run_id == run_id]
            db.execute(_slots.update().where(_slots.c.ticket.in_(granted)).values(taken=True))
            return granted

        return self._run(work, is_repeated=False)

    # -- deliveries ---------------------------------------------------------------------------------------------------

    def find_delivery(self, origin: str, key: str) -> DeliveryRecord | None:
        return self.find_deliveries(origin, [key]).get(key)

    def find_deliveries(self, origin: str, keys: Sequence[str]) -> dict[str, DeliveryRecord]:
        """Those of the clips that were delivered, by key."""
        query = sa.select(_deliveries).where(_deliveries.c.origin == origin)
        rows = self._read(
            lambda db: [
                row for some in _split(keys) for row in db.execute(query.where(_deliveries.c.clip_key.in_(some)))
            ]
        )
        return {row.clip_key: DeliveryRecord(folder=row.folder, clip=Clip.model_validate(row.clip)) for row in rows}

    def forget_delivery(self, origin: str, key: str, *, made_since: datetime | None = None) -> None:
        """The delivered file is gone or no longer what it was.

        Args:
            made_since: the attempt that brought it is open again if its prediction was created after this time: its
                output can still be downloaded. None reopens none.
        """
        gone = _deliveries.delete().where(_deliveries.c.origin == origin, _deliveries.c.clip_key == key)
        brought = sa.select(sa.func.max(_attempts.c.id)).where(
            _attempts.c.origin == origin,
            _attempts.c.clip_key == key,
            _attempts.c.state.in_(_states_before("forget_delivery", "succeeded")),
            _attempts.c.prediction_id.is_not(None),
        )

        def work(db: sa.Connection) -> None:
            if db.execute(gone).rowcount and made_since is not None:
                reopened = _attempts.update().where(_attempts.c.id.in_(brought), _attempts.c.created_at > made_since)
                db.execute(reopened.values(state="succeeded", ended_at=None))

        self._run(work)

    def import_delivery(self, key: str, *, origin: str, folder: str, clip: Clip) -> None:
        """Records a clip that is known to have been delivered, though not from this journal."""
        self._run(lambda db: _replace_delivery(db, key, origin, folder, clip), exclusive=True)

    # -- attempts -----------------------------------------------------------------------------------------------------

    def find_open_attempt(self, origin: str, key: str) -> Attempt | None:
        """The latest attempt at this clip, if it has not ended: it may have been paid for."""
        query = sa.select(_attempts).where(*_conditions_of_open(origin, key)).order_by(_attempts.c.id.desc()).limit(1)
        row = self._read(lambda db: db.execute(query).one_or_none())
        return None if row is None else _read_attempt(row)

    def find_keys_in_flight(self, origin: str, keys: Sequence[str]) -> set[str]:
        """The keys of the clips with an attempt that has not ended."""
        query = sa.select(_attempts.c.clip_key).where(_attempts.c.origin == origin, _attempts.c.state.in_(OPEN_STATES))

        def work(db: sa.Connection) -> set[str]:
            parts = (db.execute(query.where(_attempts.c.clip_key.in_(some))).scalars() for some in _split(keys))
            return {key for part in parts for key in part}

        return self._read(work)

    def is_claimed(self, key: str, *, origin: str, folder: str) -> bool:
        """Whether a live run of another folder is at this clip. (An earlier run of the same folder is dead: it is
        locked.)"""
        query = sa.select(_runs.c.seen_at).join(_attempts, _attempts.c.run_id == _runs.c.id)
        query = query.where(*_conditions_of_open(origin, key), _runs.c.folder != folder)
        return self._read(lambda db: db.execute(query.where(*self._conditions_of_live(db))).first() is not None)

    def has_prediction(self, prediction_id: str, *, origin: str | None = None) -> bool:
        """Return whether an attempt has this prediction, at this origin or, with None, at any."""
        query = sa.select(_attempts.c.id).where(_attempts.c.prediction_id == sanitize_json(prediction_id))
        if origin is not None:
            query = query.where(_attempts.c.origin == origin)
        return self._read(lambda db: db.execute(query).first() is not None)

    def record_intent(
        self,
        request: ClipRequest,
        *,
        run_id: str,
        origin: str,
        folder: str,  # noqa: ARG002 - a run's folder is in its own row
        max_cost: Decimal | None = None,
        at: datetime | None = None,
        reserve: Decimal | None = None,
        replaces_delivery: bool = False,
    ) -> Attempt:
        """Records that a prediction is about to be created for this request, and reserves what it can cost.

        Args:
            max_cost: USD that all runs of the job together may cost at most.
            at: now, by the provider's clock.
            reserve: USD that the prediction can cost at most; None means its price.
            replaces_delivery: the clip may be made anew although it was delivered.

        Raises:
            ClaimedError: there is an open attempt at this clip, of a run that is alive or not: look again.
            DeliveredError: another run has delivered this clip meanwhile.
            BudgetError: what the job has spent and reserved would then be more than `max_cost`.
            LeaseLostError: another run took this one's work over, or it has ended.
        """
        token = uuid.uuid4().hex
        most = request.cost if reserve is None else reserve
        values = {
            "run_id": run_id,
            "origin": origin,
            "clip_key": request.key,
            "scene_id": sanitize_json(request.scene.id),
            "input_digest": digest(sanitize_json(request.inputs)),
            "state": "intended",
            "intended_at": at or _now(),
            "price": str(request.cost),
            "reserved": str(most),
            "token": token,
        }

        def work(db: sa.Connection) -> Attempt:
            made = db.execute(sa.select(_attempts).where(_attempts.c.token == token)).one_or_none()
            if made is not None:  # the answer to an earlier commit was lost
                return _read_attempt(made)
            run = self._hold_lease(db, run_id)
            if db.execute(sa.select(_attempts.c.id).where(*_conditions_of_open(origin, request.key))).first():
                raise ClaimedError("another attempt at this very clip is open")
            if not replaces_delivery and _is_delivered(db, origin, request.key):
                raise DeliveredError("another run has delivered this very clip meanwhile")
            job_id = run_id if run is None else run.job_id
            if max_cost is not None:
                _check_budget(_find_costs(db, job_id, origin), run_id, most, max_cost)
            return _read_attempt(
                db.execute(_attempts.insert().values(values | {"job_id": job_id}).returning(*_attempts.c)).one()
            )

        return self._run(work, exclusive=True)

    def confirm_intent(self, attempt: Attempt, *, at: datetime | None = None) -> Attempt:
        """Renews the lease, and with `at` the time of the intent; to be called right before a create is sent, after
        any pause. Raises `LeaseLostError` when the attempt is no longer this run's, or no longer only intended."""

        def work(db: sa.Connection) -> Attempt:
            self._hold_lease(db, attempt.run_id)
            return _transition(db, attempt, "confirm_intent", intended_at=at or attempt.intended_at)

        return self._run(work)

    def take_over_attempt(self, attempt: Attempt, *, run_id: str, scene_id: str) -> Attempt:
        """Makes an open attempt of an earlier run one of this run, for this scene.

        What it costs still counts for the job whose run began it.

        Raises:
            ClaimedError: another run, which is alive, was quicker, or the attempt has ended meanwhile: look again.
            LeaseLostError: another run took this one's work over, or it has ended.
        """

        def work(db: sa.Connection) -> Attempt:
            run = self._hold_lease(db, run_id)
            live_others = sa.select(_runs.c.id).where(*self._conditions_of_live(db))
            if run is not None:  # the lock of the folder says that its earlier runs are dead
                is_earlier = sa.and_(_runs.c.folder == run.folder, _runs.c.started_at <= run.started_at)
                live_others = live_others.where(sa.not_(is_earlier))
            is_free = sa.or_(_attempts.c.run_id == run_id, _attempts.c.run_id.not_in(live_others))
            values = {"run_id": run_id, "scene_id": sanitize_json(scene_id), "job_id": _select_job_of_attempt()}
            update = _attempts.update().where(_attempts.c.id == attempt.id, is_free).values(values)
            update = update.where(_attempts.c.state.in_(_states_before("take_over_attempt"))).returning(*_attempts.c)
            row = db.execute(update).one_or_none()
            if row is None:
                raise ClaimedError("another run goes on with this very clip, or has ended it")
            return _read_attempt(row)

        return self._run(work)

    def record_prediction(self, attempt: Attempt, prediction_id: str, created_at: datetime | None) -> Attempt | None:
        """Records the id of the attempt's prediction: from here on it can always be found again.

        None when another attempt has that prediction already.
        """
        values = {"prediction_id": sanitize_json(prediction_id), "created_at": created_at or _now()}
        try:
            return self._run(
                lambda db: _transition(db, attempt, "record_prediction", "created", same=("prediction_id",), **values)
            )
        except JournalError as exc:
            if isinstance(exc.__cause__, sa.exc.IntegrityError):
                return None
            raise

    def record_cost(self, attempt: Attempt, cost: Decimal, basis: CostBasis, *, succeeded: bool) -> Attempt:
        """Records what the attempt's prediction cost in the end; when it succeeded, what is left to do is free."""
        values = {"cost": str(cost), "cost_basis": basis}
        to: AttemptState | None = "succeeded" if succeeded else None
        return self._run(lambda db: _transition(db, attempt, "record_cost", to, **values))

    def record_end(self, attempt: Attempt, *, error: str, message: str, of_run: str | None = None) -> Attempt:
        """Records that nothing more will come of this attempt. What was not billed by now is undeterminable.

        Args:
            of_run: the run among whose attempts it counts from now on, the one that began it; None means that it stays
                with the run that ends it.
        """
        values = {
            "run_id": of_run or attempt.run_id,
            "cost_basis": sa.func.coalesce(_attempts.c.cost_basis, "undeterminable"),
            "error_code": sanitize_json(error)[:32],
            "error_message": sanitize_json(message),
            "ended_at": _now(),
        }
        return self._run(lambda db: _transition(db, attempt, "record_end", "ended", same=("error_code",), **values))

    def record_delivery(self, attempt: Attempt, request: ClipRequest, *, origin: str, folder: str, clip: Clip) -> None:
        """Records the clip; from here on its key is free."""

        def work(db: sa.Connection) -> None:
            _transition(db, attempt, "record_delivery", "delivered", same=(), ended_at=_now())
            _replace_delivery(db, request.key, origin, folder, clip)

        self._run(work, exclusive=True)

    def find_running_attempts(self, run_id: str) -> list[Attempt]:
        """The attempts of a run whose prediction may be running, oldest first."""
        query = sa.select(_attempts).where(_attempts.c.run_id == run_id, _attempts.c.state.in_(("intended", "created")))
        return self._read(lambda db: [_read_attempt(row) for row in db.execute(query.order_by(_attempts.c.id))])

    def find_attempts(self, run_id: str, scene_id: str) -> list[Attempt]:
        """The attempts of a run at a scene, with all its models, oldest first."""
        query = sa.select(_attempts).where(
            _attempts.c.run_id == run_id, _attempts.c.scene_id == sanitize_json(scene_id)
        )
        return self._read(lambda db: [_read_attempt(row) for row in db.execute(query.order_by(_attempts.c.id))])

    # -- money --------------------------------------------------------------------------------------------------------

    def get_spending(self, run_id: str) -> tuple[Decimal, Decimal]:
        """What a run has spent, and what is reserved for predictions that have not ended. USD."""
        query = sa.select(_attempts.c.state, _attempts.c.price, _attempts.c.cost).where(_attempts.c.run_id == run_id)
        rows = self._read(lambda db: db.execute(query).all())
        spent = sum((Decimal(row.cost) for row in rows if row.cost is not None), Decimal(0))
        open_ = [row for row in rows if row.cost is None and row.state in OPEN_STATES]
        return spent, sum((Decimal(row.price) for row in open_), Decimal(0))

    def get_job_spending(self, job_id: str, origin: str) -> tuple[Decimal, Decimal]:
        """What all runs of a job have spent, and what they may have to pay beyond that: for predictions that have not
        ended, and for those whose bill is not certain. The sum of both is held against `max_cost`. USD."""
        costs = self._read(lambda db: _find_costs(db, job_id, origin))
        spent = sum((cost.booked for cost in costs), Decimal(0))
        return spent, sum((cost.at_most for cost in costs), Decimal(0)) - spent

    # -- events, and who watches --------------------------------------------------------------------------------------

    def add_event(self, run_id: str, type_: str, payload: Mapping[str, Any]) -> int:
        """Records an event and returns its number."""
        token = uuid.uuid4().hex
        row = {"run_id": run_id, "type": type_, "payload": sanitize_json(dict(payload)), "at": _now(), "token": token}

        def work(db: sa.Connection) -> int:
            made = db.execute(sa.select(_events.c.id).where(_events.c.token == token)).scalar()
            if made is None:
                made = db.execute(_events.insert().values(row).returning(_events.c.id)).scalar_one()
            return int(made)

        return self._insert(work)

    def read_events(self, run_id: str, *, after: int = 0, limit: int | None = None) -> list[Event]:
        """A run's events after a number, in order; the first `limit` of them."""
        query = _select_events(run_id).where(_events.c.id > after).order_by(_events.c.id).limit(limit)
        return self._read(lambda db: [_read_event(row) for row in db.execute(query)])

    def snapshot_events(self, run_id: str) -> list[Event]:
        """The events that tell how far a run is: all but the progress that newer progress has overtaken."""
        recent = _select_events(run_id).order_by(_events.c.id.desc()).limit(RECENT_EVENTS)

        def work(db: sa.Connection) -> list[Event]:
            latest = [_read_event(row) for row in db.execute(recent)][::-1]
            first = latest[0][0] if latest else 0
            older = _select_events(run_id).where(_events.c.id < first, _events.c.type != "clip.progress")
            return [*(_read_event(row) for row in db.execute(older.order_by(_events.c.id))), *latest]

        return self._read(work)

    def list_runs(self, *, limit: int, before: str | None = None) -> list[RunRecord]:
        """The latest runs, newest first; with `before` those that started before that run."""
        query = _select_run_records().order_by(_runs.c.started_at.desc(), _runs.c.id.desc()).limit(limit)
        if before is not None:
            mark = sa.select(_runs.c.started_at, _runs.c.id).where(_runs.c.id == before).subquery()
            query = query.join(
                mark, sa.tuple_(_runs.c.started_at, _runs.c.id) < sa.tuple_(mark.c.started_at, mark.c.id)
            )
        return self._read(lambda db: [_read_run_record(row) for row in db.execute(query)])

    def find_run(self, run_id: str) -> RunRecord | None:
        row = self._read(lambda db: db.execute(_select_run_records().where(_runs.c.id == run_id)).one_or_none())
        return None if row is None else _read_run_record(row)

    def get_interrupted_cost(self, run_id: str) -> Decimal:
        """What the predictions cost that were cancelled because the run was interrupted. USD."""
        query = sa.select(_attempts.c.cost).where(
            _attempts.c.run_id == run_id, _attempts.c.error_code == "interrupted", _attempts.c.cost.is_not(None)
        )
        return self._read(lambda db: sum(map(Decimal, db.scalars(query)), Decimal(0)))

    def find_delivered_clip(self, run_id: str, scene_id: str) -> DeliveryRecord | None:
        """The clip that a run delivered, or reused, for a scene."""
        query = sa.select(_runs.c.folder, _events.c.payload).join(_runs, _runs.c.id == _events.c.run_id)
        query = query.where(
            _events.c.run_id == run_id,
            _events.c.type == "clip.completed",
            _events.c.payload["scene_id"].as_string() == sanitize_json(scene_id),
        )
        row = self._read(lambda db: db.execute(query.order_by(_events.c.id.desc()).limit(1)).one_or_none())
        if row is None:
            return None
        clip = {name: value for name, value in row.payload.items() if name in Clip.model_fields}
        return DeliveryRecord(folder=row.folder, clip=Clip.model_validate(clip))

    def find_deliveries_in(self, origin: str, folder: str) -> list[DeliveryRecord]:
        """All clips that were delivered into a folder, whichever job asked for them."""
        query = sa.select(_deliveries).where(_deliveries.c.origin == origin, _deliveries.c.folder == folder)
        rows = self._read(lambda db: db.execute(query).all())
        return [DeliveryRecord(row.folder, Clip.model_validate(row.clip)) for row in rows]

    def find_last_attempts(self, origin: str, keys: Sequence[str]) -> dict[str, Attempt]:
        """The latest attempts that brought these clips, by key, wherever their files are now."""
        query = sa.select(_attempts).where(_attempts.c.origin == origin, _attempts.c.state == "delivered")
        query = query.where(_attempts.c.prediction_id.is_not(None)).order_by(_attempts.c.id)

        def work(db: sa.Connection) -> list[Any]:
            return [row for some in _split(keys) for row in db.execute(query.where(_attempts.c.clip_key.in_(some)))]

        return {row.clip_key: _read_attempt(row) for row in self._read(work)}

    def find_fresh_keys(self, origin: str, folder: str) -> set[str]:
        """Keys of the clips that a `--fresh` run of this folder delivered which was not judged, and those after it.

        Empty once a run of the folder was judged: the next `--fresh` makes every clip anew then.
        """
        is_fresh = _events.c.payload["fresh"].as_boolean()
        query = sa.select(_runs.c.id, _runs.c.verdict, is_fresh.label("fresh")).where(_runs.c.folder == folder)
        begun = sa.and_(_events.c.run_id == _runs.c.id, _events.c.type == "run.started")
        query = query.outerjoin(_events, begun).where(_runs.c.origin == origin).order_by(_runs.c.started_at.desc())
        delivered = sa.select(_attempts.c.clip_key).where(_attempts.c.state == "delivered")

        def work(db: sa.Connection) -> set[str]:
            unjudged = list(takewhile(lambda run: run.verdict not in JUDGED, db.execute(query)))
            fresh = [number for number, run in enumerate(unjudged, 1) if run.fresh]
            since = [run.id for run in unjudged[: max(fresh, default=0)]]
            return set(db.scalars(delivered.where(_attempts.c.run_id.in_(since))))

        return self._read(work)

    # -- leases -------------------------------------------------------------------------------------------------------

    def _hold_lease(self, db: sa.Connection, run_id: str) -> Any:
        """The run's row, its lease renewed; None where the run was never started. Raises `LeaseLostError`."""
        run = _find_run_row(db, run_id)
        if run is None:
            return None
        if run.ended_at is not None:
            raise LeaseLostError(f"run {run_id} has ended: nothing more can be created for it")
        self._renew(db, run)
        return run

    def _renew(self, db: sa.Connection, run: Any) -> None:
        later = sa.select(_runs.c.id).where(_runs.c.folder == run.folder, _runs.c.started_at > run.started_at)
        if other := db.execute(later.limit(1)).scalar():
            raise LeaseLostError(
                f"run {run.id} was not heard of for longer than {LEASE_S:g} s, and run {other} took over its folder "
                f"{run.folder}: look at that one"
            )
        db.execute(_runs.update().where(_runs.c.id == run.id).values(seen_at=self._now_by_shared_clock(db)))

    def _conditions_of_live(self, db: sa.Connection) -> tuple[sa.ColumnElement[bool], ...]:
        """The conditions under which a run is alive.

        While the database was away, or this process asleep, no run could renew its lease. So a lease only counts as
        expired when it was watched for as long as it lasts, or when it is older than any outage that a run outlives.
        """
        is_watched = self._watch.contact_s() >= LEASE_S
        lasts_s = LEASE_S if is_watched else LEASE_S + OUTAGE_S
        return _runs.c.ended_at.is_(None), _runs.c.seen_at > self._now_by_shared_clock(db) - timedelta(seconds=lasts_s)

    def _find_live_holder(self, db: sa.Connection, folder: str) -> tuple[str, datetime] | None:
        """The live run of a folder, and when it was last seen."""
        query = sa.select(_runs.c.id, _runs.c.seen_at).where(_runs.c.folder == folder, *self._conditions_of_live(db))
        row = db.execute(query.order_by(_runs.c.seen_at.desc()).limit(1)).one_or_none()
        return (row.id, _utc(row.seen_at)) if row else None

    def _live_tickets(self, db: sa.Connection, limit: str) -> list[Any]:
        """The tickets of the runs that are alive, oldest first."""
        query = sa.select(_slots.c.ticket, _slots.c.taken, _slots.c.run_id, _runs.c.job_id)
        query = query.join(_runs, _runs.c.id == _slots.c.run_id)
        query = query.where(_slots.c.limit_name == limit, *self._conditions_of_live(db)).order_by(_slots.c.ticket)
        return list(db.execute(query))

    def _now_by_shared_clock(self, db: sa.Connection) -> datetime:
        """Now, by the one clock that all runs of this journal share: a server's own."""
        if self._clock or self._db.is_sqlite:
            return (self._clock or _now)()
        now: datetime = db.execute(sa.select(sa.func.clock_timestamp())).scalar_one()
        return now

    # -- transactions -------------------------------------------------------------------------------------------------

    def _run(self, work: Callable[[sa.Connection], T], *, exclusive: bool = False, is_repeated: bool = True) -> T:
        result = self._db.run(work, exclusive=exclusive, is_repeated=is_repeated)
        self._watch.note()
        return result

    def _read(self, work: Callable[[sa.Connection], T]) -> T:
        result = self._db.run(work, reads_only=True)
        self._watch.note()
        return result

    def _insert(self, work: Callable[[sa.Connection], T], *, exclusive: bool = False) -> T:
        """`work` inserts a row unless it is there. A commit whose answer was lost may come through in between."""
        try:
            return self._run(work, exclusive=exclusive)
        except JournalError as exc:
            if not isinstance(exc.__cause__, sa.exc.IntegrityError):
                raise
        return self._run(work, exclusive=exclusive)

    def _make_tables(self, db: sa.Connection) -> None:
        version = read_version(db)
        if version is None and db.dialect.has_table(db, "attempts"):
            raise UnreadableJournalError(f"the journal at {self._db.display_url} is of an older videogen")
        if version is not None and version not in VERSIONS:
            raise UnreadableJournalError(f"the journal at {self._db.display_url} is of a newer videogen")
        if version is None:
            create_schema(db, metadata)
        elif version != HEAD:
            upgrade_schema(db)
        if self._db.is_sqlite and db.exec_driver_sql("PRAGMA quick_check(1)").scalar() != "ok":
            raise UnreadableJournalError(f"the journal at {self._db.display_url} is damaged")

    def _quarantine(self, error: JournalError) -> None:
        """Moves the database file, and what belongs to it, out of the way; it is kept for a person to look at."""
        self._db.close()
        file = self._db.file
        if file is None:
            raise error
        kept = f"{file}.set-aside-{_now():%Y%m%d-%H%M%S}"
        for ending in ("", "-wal", "-shm"):
            with suppress(FileNotFoundError):
                Path(f"{file}{ending}").rename(kept + ending)
                Path(kept + ending).chmod(0o600)
        make_private(file)
        self.quarantined = f"{error}; it is kept as {kept}"


def _make_awaitable(
    method: Callable[Concatenate[Journal, P], T],
) -> "Callable[Concatenate[AsyncJournal, P], Coroutine[Any, Any, T]]":
    name = method.__name__

    async def call(self: "AsyncJournal", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._call(functools.partial(getattr(self.journal, name), *args, **kwargs))

    call.__name__, call.__doc__ = name, method.__doc__
    return call


class AsyncJournal:
    """A journal for an event loop, which goes on while the database is slow, locked or away.

    Calls are made in a thread of their own, in the order in which they are begun. A call that is begun is finished,
    also when nobody awaits it any more: who is cancelled meanwhile may go on calling.
    """

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")

    start_run = _make_awaitable(Journal.start_run)
    get_holder_last_seen = _make_awaitable(Journal.get_holder_last_seen)
    heartbeat = _make_awaitable(Journal.heartbeat)
    release_lease = _make_awaitable(Journal.release_lease)
    end_run = _make_awaitable(Journal.end_run)
    find_delivery = _make_awaitable(Journal.find_delivery)
    forget_delivery = _make_awaitable(Journal.forget_delivery)
    find_open_attempt = _make_awaitable(Journal.find_open_attempt)
    is_claimed = _make_awaitable(Journal.is_claimed)
    has_prediction = _make_awaitable(Journal.has_prediction)
    record_intent = _make_awaitable(Journal.record_intent)
    confirm_intent = _make_awaitable(Journal.confirm_intent)
    take_over_attempt = _make_awaitable(Journal.take_over_attempt)
    record_prediction = _make_awaitable(Journal.record_prediction)
    record_cost = _make_awaitable(Journal.record_cost)
    record_end = _make_awaitable(Journal.record_end)
    record_delivery = _make_awaitable(Journal.record_delivery)
    find_running_attempts = _make_awaitable(Journal.find_running_attempts)
    find_attempts = _make_awaitable(Journal.find_attempts)
    get_spending = _make_awaitable(Journal.get_spending)
    get_job_spending = _make_awaitable(Journal.get_job_spending)
    add_event = _make_awaitable(Journal.add_event)
    read_events = _make_awaitable(Journal.read_events)

    async def aclose(self, *, within_s: float = CLOSING_S) -> None:
        """Closes the journal after the calls that are begun. They have so many seconds; then they are given up."""
        closing = asyncio.ensure_future(self._call(self.journal.close))
        await asyncio.wait([closing], timeout=within_s)
        if not closing.done():
            self.journal.give_up()
        await closing
        self._thread.shutdown(wait=False)

    async def _call(self, call: Callable[[], T]) -> T:
        calling = asyncio.get_running_loop().run_in_executor(self._thread, call)
        calling.add_done_callback(_ignore_error)
        return await asyncio.shield(calling)


def _ignore_error(calling: "asyncio.Future[Any]") -> None:
    """Takes note of an error that nobody awaits any more, so that asyncio does not report it."""
    if not calling.cancelled():
        calling.exception()


class _Watch:
    """How long this process has been in touch with the database, without a gap that could hide a heartbeat."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._since = self._last = datetime.min.replace(tzinfo=UTC)

    def note(self) -> None:
        """The database has answered."""
        now = self._clock()
        if not self._is_near(now):
            self._since = now
        self._last = now

    def contact_s(self) -> float:
        now = self._clock()
        return (now - self._since).total_seconds() if self._is_near(now) else 0.0

    def _is_near(self, now: datetime) -> bool:
        return 0 <= (now - self._last).total_seconds() <= CONTACT_GAP_S


@dataclass(frozen=True, slots=True)
class _Cost:
    """What one attempt of a job costs. USD."""

    run_id: str
    booked: Decimal
    at_most: Decimal
    """What is booked where the bill is certain, else at least what was reserved."""
    is_running: bool
    """Whether it may still turn out lower."""


def _find_costs(db: sa.Connection, job_id: str, origin: str) -> list[_Cost]:
    """What the attempts cost that any run of a job began."""
    runs = sa.select(_runs.c.id).where(_runs.c.job_id == job_id)
    is_of_old = sa.and_(_attempts.c.job_id.is_(None), _attempts.c.run_id.in_(runs))
    query = sa.select(_attempts).where(_attempts.c.origin == origin, sa.or_(_attempts.c.job_id == job_id, is_of_old))
    return [_make_cost(row) for row in db.execute(query)]


def _make_cost(row: Any) -> _Cost:
    booked = Decimal(row.cost or 0)
    if row.cost_basis == "known":
        return _Cost(row.run_id, booked, at_most=booked, is_running=False)
    at_most = max(booked, Decimal(row.reserved or row.price))
    return _Cost(row.run_id, booked, at_most, is_running=row.state in ("intended", "created"))


def _check_budget(costs: Sequence[_Cost], run_id: str, most: Decimal, max_cost: Decimal) -> None:
    """Raises `BudgetError` where one more prediction, which costs `most`, could take the job above `max_cost`."""
    taken = sum((cost.at_most for cost in costs), Decimal(0))
    if taken + most <= max_cost:
        return
    running = sum((cost.at_most for cost in costs if cost.is_running and cost.run_id == run_id), Decimal(0))
    raise BudgetError(
        f"{_format_usd(taken)} of {_format_usd(max_cost)} are spent or reserved for this job; this prediction could "
        f"cost up to {_format_usd(most)} more",
        may_free=running > 0 and taken - running + most <= max_cost,
    )


def _format_usd(amount: Decimal) -> str:
    """With cents, and with fractions of them where there are any."""
    exponent = amount.normalize().as_tuple().exponent
    return f"${amount:.{max(2, -int(exponent))}f}"


def _conditions_of_open(origin: str, key: str) -> tuple[sa.ColumnElement[bool], ...]:
    """The conditions of an attempt at this clip that has not ended."""
    return _attempts.c.origin == origin, _attempts.c.clip_key == key, _attempts.c.state.in_(OPEN_STATES)


def _states_before(method: str, to: AttemptState | None = None) -> list[AttemptState]:
    """The states in which a method may find an attempt that it leads to the state `to`; None stands for the same."""
    return [state for state, following in TRANSITIONS.items() if method in following.get(to or state, ())]


def _transition(
    db: sa.Connection,
    attempt: Attempt,
    method: str,
    to: AttemptState | None = None,
    *,
    same: Collection[str] | None = None,
    **values: Any,
) -> Attempt:
    """The attempt after a transition, which is made only if it is this run's and in a state that allows it.

    A transition to another state may have been made already, its answer lost: it is the same one when the values named
    by `same` are.
    """
    mine = (_attempts.c.id == attempt.id, _attempts.c.run_id == attempt.run_id)
    values |= {"state": to} if to else {}
    update = _attempts.update().where(*mine, _attempts.c.state.in_(_states_before(method, to)))
    row = db.execute(update.values(values).returning(*_attempts.c)).one_or_none()
    if row is None and same is not None:
        run_id = values.get("run_id", attempt.run_id)
        is_done = (_attempts.c.run_id == run_id, _attempts.c.state == to)
        is_same = (_attempts.c[name] == values[name] for name in same)
        query = sa.select(_attempts).where(_attempts.c.id == attempt.id, *is_done, *is_same)
        row = db.execute(query).one_or_none()
    if row is None:
        raise LeaseLostError(
            f"attempt {attempt.id} of run {attempt.run_id} has ended, or another run goes on with it: {method} is not "
            "recorded"
        )
    return _read_attempt(row)


def _find_run_row(db: sa.Connection, run_id: str) -> Any:
    """The run's row; None where there is none."""
    return db.execute(sa.select(_runs).where(_runs.c.id == run_id)).one_or_none()


def _is_delivered(db: sa.Connection, origin: str, key: str) -> bool:
    query = sa.select(_deliveries.c.folder).where(_deliveries.c.origin == origin, _deliveries.c.clip_key == key)
    return db.execute(query).first() is not None


def _select_job_of_attempt() -> sa.ColumnElement[str]:
    """The job whose run began an attempt; attempts of older versions say only which run that was."""
    of_run = sa.select(_runs.c.job_id).where(_runs.c.id == _attempts.c.run_id).scalar_subquery()
    return sa.func.coalesce(_attempts.c.job_id, of_run, _attempts.c.run_id)


def _replace_delivery(db: sa.Connection, key: str, origin: str, folder: str, clip: Clip) -> None:
    row = {"origin": origin, "clip_key": key, "folder": folder, "clip": sanitize_json(clip.model_dump(mode="json"))}
    db.execute(_deliveries.delete().where(_deliveries.c.origin == origin, _deliveries.c.clip_key == key))
    db.execute(_deliveries.insert().values(**row, delivered_at=_now()))


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


def _select_stale_runs(now: datetime) -> sa.Select[Any]:
    """Ids of the runs that ended, or have not been seen for so long that they will not come back."""
    return sa.select(_runs.c.id).where(sa.or_(_runs.c.ended_at.is_not(None), _runs.c.seen_at < now - KEPT_TICKETS))


def _split(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    return (keys[start : start + KEYS_AT_ONCE] for start in range(0, len(keys), KEYS_AT_ONCE))


def _read_attempt(row: Any) -> Attempt:
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


def _select_events(run_id: str) -> sa.Select[Any]:
    return sa.select(_events.c.id, _events.c.type, _events.c.payload).where(_events.c.run_id == run_id)


def _read_event(row: Any) -> Event:
    return row.id, row.type, row.payload


def _select_run_records() -> sa.Select[Any]:
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
            last.c.payload["failed"].as_integer().label("failed"),
            last.c.payload["total"].as_integer().label("total"),
        )
        .select_from(_runs)
        .outerjoin(first, first.c.id == number)
        .outerjoin(last, last.c.id == last_number)
    )


def _read_run_record(row: Any) -> RunRecord:
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
        failed=row.failed or 0,
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
