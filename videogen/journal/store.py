"""The record of requests, predictions and deliveries that makes a re-run free.

A row of `attempts` is written *before* its prediction is created (the intent), completed with the prediction's id as
soon as that is known, and ended with its result and cost. `deliveries` lists the clip keys that are on disk.
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
from typing import Any, Concatenate, ParamSpec, TypeVar

import sqlalchemy as sa

from videogen.errors import (
    BudgetError,
    ClaimedError,
    DeliveredError,
    JobLockedError,
    JournalError,
    LeaseLostError,
    UnreadableJournalError,
)
from videogen.journal.attempts import OPEN_STATES, TRANSITIONS, Attempt, AttemptState, CostBasis
from videogen.journal.database import OUTAGE_S, Database, make_private, sanitize_json
from videogen.journal.migrations import HEAD, VERSIONS, create_schema, read_version, upgrade_schema
from videogen.journal.schema import _attempts, _deliveries, _events, _limits, _runs, _slots, metadata
from videogen.planning.requests import ClipRequest, digest
from videogen.results.clip import Clip
from videogen.text import format_money

P = ParamSpec("P")
T = TypeVar("T")

LEASE_S = 20.0
"""A run that has not been seen for this long is dead, and other runs may take over its work: see `_Watch`."""
Event = tuple[int, str, dict[str, Any]]
"""Number, type and payload."""
KEPT_TICKETS = timedelta(hours=1)
"""The tickets of a run that is not seen any more are kept for this long: it may only have been cut off."""
CLOSING_S = 2.0
"""Time that calls in progress have when the journal is closed."""
KEYS_AT_ONCE = 500
"""Keys in one query: databases take a limited number of parameters."""
CONTACT_GAP_S = 10.0
"""A process that was out of touch with the database for longer has not watched the leases meanwhile."""
RECENT_EVENTS = 500
"""Each clip in progress has an event among this many latest events of its run."""

JUDGED = frozenset({"complete", "partial", "failed"})
"""Verdicts of runs that were completed."""


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


@dataclass(frozen=True, slots=True)
class DeliveryRecord:
    """A delivered clip, and the address of the job folder that its paths are relative to."""

    folder: str
    clip: Clip


@dataclass(frozen=True, slots=True)
class SlotUse:
    """A live run's part in a limit: the slots that it holds, and the slots that it waits for."""

    run_id: str
    job_id: str
    held: int
    waiting: int


@dataclass(frozen=True, slots=True)
class Limit:
    """The number of slots of a limit, and the live runs that use it, in the order of their tickets."""

    name: str
    slots: int
    used_by: tuple[SlotUse, ...]


class Journal:
    """The journal at a SQLAlchemy URL (`sqlite:///…`, `postgresql+psycopg://…`). Missing tables are created.

    A SQLite file that is damaged, or of another version, is moved away and replaced by a new one. A read-only journal
    never does this, because a run may still be writing the file.

    Every method is one transaction, committed when it returns. While a database server is unreachable, it is retried
    for a minute at most, and takes effect once; a read-only journal does not wait. Methods raise `JournalError` if the
    database cannot be used, and `SettingsError` if the URL is invalid.

    The methods that change the state of an attempt (see `TRANSITIONS`) raise `LeaseLostError` if the attempt is no
    longer in a state, or of the run, that they may change: another run has continued it. To repeat such a call changes
    nothing.
    """

    def __init__(self, url: str, *, read_only: bool = False, clock: Callable[[], datetime] | None = None) -> None:
        """Open the journal.

        Args:
            read_only: neither wait for the database nor replace a damaged file.
            clock: replaces the database's clock, which leases are measured by.
        """
        self._db = Database(url, is_patient=not read_only)
        self._clock = clock
        self._watch = _Watch(clock or _now)
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

    # -- runs and their leases ----------------------------------------------------------------------------------------

    def start_run(
        self,
        run_id: str,
        *,
        job_id: str,
        origin: str,
        folder: str,
        recovering: bool = False,
        unrecorded_cost: Decimal = Decimal(0),
        exclusive: bool = False,
    ) -> None:
        """Record a new run.

        Args:
            recovering: the journal does not know the runs before this one, see `has_complete_history`.
            unrecorded_cost: USD that the job has cost without this journal's knowledge, because an earlier journal was
                lost. It counts for the job's budget from now on.
            exclusive: only this journal keeps other runs out of the folder.

        Raises:
            JobLockedError: with `exclusive`, another run of the folder is alive.
        """
        row = sanitize_json({"id": run_id, "job_id": job_id, "origin": origin, "folder": folder}) | {
            "recovering": recovering,
            "unrecorded_cost": str(unrecorded_cost) if unrecorded_cost else None,
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
        """Return when the live run in this folder was last seen, or None if there is no live run."""
        holder = self._read(lambda db: self._find_live_holder(db, folder))
        return holder[1] if holder else None

    def heartbeat(self, run_id: str) -> None:
        """Renew the run's lease. Call this well within `LEASE_S`. Raise `LeaseLostError` if another run took over."""

        def work(db: sa.Connection) -> None:
            run = _find_run_row(db, run_id)
            if run is not None and run.ended_at is None:
                self._renew(db, run)

        self._run(work)

    def release_lease(self, run_id: str) -> None:
        """Let other runs continue this run's work at once, because its process has ended."""
        mine = _runs.update().where(_runs.c.id == run_id, _runs.c.ended_at.is_(None))
        long_ago = timedelta(seconds=LEASE_S + OUTAGE_S)
        self._run(lambda db: db.execute(mine.values(seen_at=self._now_by_shared_clock(db) - long_ago)))

    def has_complete_history(self, folder: str) -> bool:
        """Return whether the journal knows all earlier runs of this folder. That holds if it has one that started
        with a complete history, or one that recovered and then came to its end."""
        query = sa.select(_runs.c.recovering, _runs.c.ended_at, _runs.c.verdict).where(_runs.c.folder == folder)
        runs = self._read(lambda db: db.execute(query.order_by(_runs.c.started_at.desc())).all())
        return any(not run.recovering or (run.ended_at and run.verdict != "interrupted") for run in runs)

    def end_run(self, run_id: str, *, verdict: str) -> None:
        mine = _runs.update().where(_runs.c.id == run_id)
        self._run(lambda db: db.execute(mine.values(ended_at=self._now_by_shared_clock(db), verdict=verdict)))

    # -- limits over all runs -----------------------------------------------------------------------------------------

    def set_limit(self, name: str, slots: int) -> None:
        """Create the limit, or change its number of slots, also for runs in progress."""

        def work(db: sa.Connection) -> None:
            changed = db.execute(_limits.update().where(_limits.c.name == name).values(slots=slots))
            if not changed.rowcount:
                db.execute(_limits.insert().values(name=name, slots=slots))

        self._run(work, exclusive=True)

    def find_limit(self, name: str) -> Limit | None:
        """Return the limit and its users, or None if there is no limit of this name."""

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
        """Return the tickets that are now granted to a run. It holds those in `held`, and waits for `waiting` more.

        Slots are granted in order of request over all live runs. If the answer is lost, its tickets are not in `held`
        the next time, and so are free again. Therefore the caller repeats the call, and this method does not.
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
        """Return those of the clips that were delivered, by key."""
        query = sa.select(_deliveries).where(_deliveries.c.origin == origin)
        rows = self._read(
            lambda db: [
                row for some in _split(keys) for row in db.execute(query.where(_deliveries.c.clip_key.in_(some)))
            ]
        )
        return {row.clip_key: DeliveryRecord(folder=row.folder, clip=Clip.model_validate(row.clip)) for row in rows}

    def forget_delivery(self, origin: str, key: str, *, made_since: datetime | None = None) -> None:
        """Forget a delivery whose file is missing or has changed.

        Args:
            made_since: reopen the attempt that made the clip if its prediction was created after this time, because its
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
        """Record a clip that was delivered by a run that this journal does not know."""
        self._run(lambda db: _replace_delivery(db, key, origin, folder, clip), exclusive=True)

    # -- attempts -----------------------------------------------------------------------------------------------------

    def find_open_attempt(self, origin: str, key: str) -> Attempt | None:
        """Return the latest attempt at this clip if it has not ended: it may have been paid for."""
        query = sa.select(_attempts).where(*_conditions_of_open(origin, key)).order_by(_attempts.c.id.desc()).limit(1)
        row = self._read(lambda db: db.execute(query).one_or_none())
        return None if row is None else _read_attempt(row)

    def find_keys_in_flight(self, origin: str, keys: Sequence[str], *, begun_after: datetime | None = None) -> set[str]:
        """Return the keys of the clips with an attempt that has not ended, and that was begun after this time."""
        query = sa.select(_attempts.c.clip_key).where(_attempts.c.origin == origin, _attempts.c.state.in_(OPEN_STATES))
        if begun_after is not None:
            query = query.where(_attempts.c.intended_at > begun_after)

        def work(db: sa.Connection) -> set[str]:
            parts = (db.execute(query.where(_attempts.c.clip_key.in_(some))).scalars() for some in _split(keys))
            return {key for part in parts for key in part}

        return self._read(work)

    def is_claimed(self, key: str, *, origin: str, folder: str) -> bool:
        """Return whether a live run of another folder works on this clip. (An earlier run of the same folder is
        dead, because the folder is locked.)"""
        query = sa.select(_runs.c.seen_at).join(_attempts, _attempts.c.run_id == _runs.c.id)
        query = query.where(*_conditions_of_open(origin, key), _runs.c.folder != folder)
        return self._read(lambda db: db.execute(query.where(*self._conditions_of_live(db))).first() is not None)

    def has_prediction(self, prediction_id: str, *, origin: str | None = None) -> bool:
        """Return whether an attempt has this prediction at this origin; None means at any origin."""
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
        """Record that a prediction is about to be created for this request, and reserve the most it can cost.

        Args:
            max_cost: USD that all runs of the job together may cost at most.
            at: the current time by the provider's clock.
            reserve: USD that the prediction can cost at most; None means its price.
            replaces_delivery: the clip may be made again although it was delivered.

        Raises:
            ClaimedError: there is an open attempt at this clip, of a live or a dead run. Look again.
            DeliveredError: another run has delivered this clip meanwhile.
            BudgetError: the job would have spent and reserved more than `max_cost`.
            LeaseLostError: another run took over this run's work, or this run has ended.
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
        """Renew the lease, and with `at` the time of the intent. Call this right before a create is sent, after any
        pause.

        Raises:
            LeaseLostError: the attempt no longer belongs to this run, or is no longer only intended.
        """

        def work(db: sa.Connection) -> Attempt:
            self._hold_lease(db, attempt.run_id)
            return _transition(db, attempt, "confirm_intent", intended_at=at or attempt.intended_at)

        return self._run(work)

    def take_over_attempt(self, attempt: Attempt, *, run_id: str, scene_id: str) -> Attempt:
        """Assign an open attempt of an earlier run to this run and scene.

        Its cost still counts for the job whose run began it.

        Raises:
            ClaimedError: another live run was quicker, or the attempt has ended meanwhile. Look again.
            LeaseLostError: another run took over this run's work, or this run has ended.
        """

        def work(db: sa.Connection) -> Attempt:
            run = self._hold_lease(db, run_id)
            live_others = sa.select(_runs.c.id).where(*self._conditions_of_live(db))
            if run is not None:  # the lock of the folder says that its earlier runs are dead
                is_earlier = sa.and_(_runs.c.folder == run.folder, _runs.c.started_at <= run.started_at)
                live_others = live_others.where(sa.not_(is_earlier))
            is_free = sa.or_(_attempts.c.run_id == run_id, _attempts.c.run_id.not_in(live_others))
            values = {
                "run_id": run_id,
                "scene_id": sanitize_json(scene_id),
                "job_id": _select_job_of_attempt(),
                "begun_by": sa.func.coalesce(_attempts.c.begun_by, _attempts.c.run_id),
            }
            update = _attempts.update().where(_attempts.c.id == attempt.id, is_free).values(values)
            update = update.where(_attempts.c.state.in_(_states_before("take_over_attempt"))).returning(*_attempts.c)
            row = db.execute(update).one_or_none()
            if row is None:
                raise ClaimedError("another run goes on with this very clip, or has ended it")
            return _read_attempt(row)

        return self._run(work)

    def record_prediction(
        self, attempt: Attempt, prediction_id: str, created_at: datetime | None, *, begun_by: str | None = None
    ) -> Attempt | None:
        """Record the id of the attempt's prediction. From here on it can always be found again.

        Return None if another attempt has that prediction already.

        Args:
            begun_by: the run that created the prediction, if this journal does not know that run. Its cost is then
                part of `unrecorded_cost`, see `start_run`.
        """
        values = {"prediction_id": sanitize_json(prediction_id), "created_at": created_at or _now()}
        values |= {"begun_by": sanitize_json(begun_by)} if begun_by else {}
        try:
            return self._run(
                lambda db: _transition(db, attempt, "record_prediction", "created", same=("prediction_id",), **values)
            )
        except JournalError as exc:
            if isinstance(exc.__cause__, sa.exc.IntegrityError):
                return None
            raise

    def record_cost(self, attempt: Attempt, cost: Decimal, basis: CostBasis, *, succeeded: bool) -> Attempt:
        """Record the final cost of the attempt's prediction. If it succeeded, the remaining steps are free."""
        values = {"cost": str(cost), "cost_basis": basis}
        to: AttemptState | None = "succeeded" if succeeded else None
        return self._run(lambda db: _transition(db, attempt, "record_cost", to, **values))

    def record_end(self, attempt: Attempt, *, error: str, message: str, of_run: str | None = None) -> Attempt:
        """Record that the attempt is over. If no cost was recorded by now, it is undeterminable.

        Args:
            of_run: the run that the attempt counts for from now on, which is the one that began it. None means that it
                stays with the run that ends it.
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
        """Record the clip. From here on, reusing its key is free."""

        def work(db: sa.Connection) -> None:
            _transition(db, attempt, "record_delivery", "delivered", same=(), ended_at=_now())
            _replace_delivery(db, request.key, origin, folder, clip)

        self._run(work, exclusive=True)

    def find_running_attempts(self, run_id: str) -> list[Attempt]:
        """Return the attempts of a run whose prediction may be running, oldest first."""
        query = sa.select(_attempts).where(_attempts.c.run_id == run_id, _attempts.c.state.in_(("intended", "created")))
        return self._read(lambda db: [_read_attempt(row) for row in db.execute(query.order_by(_attempts.c.id))])

    def find_attempts(self, run_id: str, scene_id: str) -> list[Attempt]:
        """Return the attempts of a run at a scene, with all its models, oldest first."""
        query = sa.select(_attempts).where(
            _attempts.c.run_id == run_id, _attempts.c.scene_id == sanitize_json(scene_id)
        )
        return self._read(lambda db: [_read_attempt(row) for row in db.execute(query.order_by(_attempts.c.id))])

    # -- money --------------------------------------------------------------------------------------------------------

    def get_spending(self, run_id: str) -> tuple[Decimal, Decimal]:
        """Return the costs of a run so far, and the reservations for its predictions that have not ended, in USD.

        Predictions that it continues count for the run that began them.
        """
        began = sa.func.coalesce(_attempts.c.begun_by, _attempts.c.run_id)
        query = sa.select(_attempts.c.state, _attempts.c.price, _attempts.c.cost).where(began == run_id)
        rows = self._read(lambda db: db.execute(query).all())
        spent = sum((Decimal(row.cost) for row in rows if row.cost is not None), Decimal(0))
        open_ = [row for row in rows if row.cost is None and row.state in OPEN_STATES]
        return spent, sum((Decimal(row.price) for row in open_), Decimal(0))

    def get_job_spending(self, job_id: str, origin: str) -> tuple[Decimal, Decimal]:
        """Return what all runs of a job have spent, and what they may have to pay beyond that, in USD.

        The second amount covers predictions that have not ended, and those with an uncertain cost. `max_cost` limits
        the sum of both.
        """
        costs = self._read(lambda db: _find_costs(db, job_id, origin))
        spent = sum((cost.booked for cost in costs), Decimal(0))
        return spent, sum((cost.at_most for cost in costs), Decimal(0)) - spent

    # -- events, and queries for viewers ------------------------------------------------------------------------------

    def add_event(self, run_id: str, type_: str, payload: Mapping[str, Any]) -> int:
        """Record an event and return its number."""
        token = uuid.uuid4().hex
        row = {"run_id": run_id, "type": type_, "payload": sanitize_json(dict(payload)), "at": _now(), "token": token}

        def work(db: sa.Connection) -> int:
            made = db.execute(sa.select(_events.c.id).where(_events.c.token == token)).scalar()
            if made is None:
                made = db.execute(_events.insert().values(row).returning(_events.c.id)).scalar_one()
            return int(made)

        return self._insert(work)

    def read_events(self, run_id: str, *, after: int = 0, limit: int | None = None) -> list[Event]:
        """Return a run's events after a number, in order, and at most the first `limit` of them."""
        query = _select_events(run_id).where(_events.c.id > after).order_by(_events.c.id).limit(limit)
        return self._read(lambda db: [_read_event(row) for row in db.execute(query)])

    def snapshot_events(self, run_id: str) -> list[Event]:
        """Return the events that show the state of a run: all except progress that newer progress has superseded."""
        recent = _select_events(run_id).order_by(_events.c.id.desc()).limit(RECENT_EVENTS)

        def work(db: sa.Connection) -> list[Event]:
            latest = [_read_event(row) for row in db.execute(recent)][::-1]
            first = latest[0][0] if latest else 0
            older = _select_events(run_id).where(_events.c.id < first, _events.c.type != "clip.progress")
            return [*(_read_event(row) for row in db.execute(older.order_by(_events.c.id))), *latest]

        return self._read(work)

    def list_runs(self, *, limit: int, before: str | None = None) -> list[RunRecord]:
        """Return the latest runs, newest first. With `before`, return those that started before that run."""
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
        """Return the cost of the predictions that were cancelled because the run was interrupted, in USD."""
        query = sa.select(_attempts.c.cost).where(
            _attempts.c.run_id == run_id, _attempts.c.error_code == "interrupted", _attempts.c.cost.is_not(None)
        )
        return self._read(lambda db: sum(map(Decimal, db.scalars(query)), Decimal(0)))

    def find_delivered_clip(self, run_id: str, scene_id: str) -> DeliveryRecord | None:
        """Return the clip that a run delivered, or reused, for a scene."""
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
        """Return all clips that were delivered into a folder, by any job."""
        query = sa.select(_deliveries).where(_deliveries.c.origin == origin, _deliveries.c.folder == folder)
        rows = self._read(lambda db: db.execute(query).all())
        return [DeliveryRecord(row.folder, Clip.model_validate(row.clip)) for row in rows]

    def find_last_attempts(self, origin: str, keys: Sequence[str]) -> dict[str, Attempt]:
        """Return the latest attempts that made these clips, by key, wherever their files are now."""
        query = sa.select(_attempts).where(_attempts.c.origin == origin, _attempts.c.state == "delivered")
        query = query.where(_attempts.c.prediction_id.is_not(None)).order_by(_attempts.c.id)

        def work(db: sa.Connection) -> list[Any]:
            return [row for some in _split(keys) for row in db.execute(query.where(_attempts.c.clip_key.in_(some)))]

        return {row.clip_key: _read_attempt(row) for row in self._read(work)}

    def find_fresh_keys(self, origin: str, folder: str) -> set[str]:
        """Return the keys of the clips that an unjudged `--fresh` run of this folder delivered, and the runs after it.

        The result is empty once a run of the folder was judged: the next `--fresh` then makes every clip again.
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
        """Renew the run's lease and return its row, or None if the run was never started. Raise `LeaseLostError`."""
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
                f"run {run.id} was not seen for more than {LEASE_S:g} s, and run {other} took over its folder "
                f"{run.folder}: look at that run"
            )
        db.execute(_runs.update().where(_runs.c.id == run.id).values(seen_at=self._now_by_shared_clock(db)))

    def _conditions_of_live(self, db: sa.Connection) -> tuple[sa.ColumnElement[bool], ...]:
        """Return the conditions under which a run is alive.

        While the database was unreachable, or this process asleep, no run could renew its lease. Therefore a lease only
        counts as expired if it was watched for as long as it lasts, or if it is older than any outage that a run
        survives.
        """
        is_watched = self._watch.contact_s() >= LEASE_S
        lasts_s = LEASE_S if is_watched else LEASE_S + OUTAGE_S
        return _runs.c.ended_at.is_(None), _runs.c.seen_at > self._now_by_shared_clock(db) - timedelta(seconds=lasts_s)

    def _find_live_holder(self, db: sa.Connection, folder: str) -> tuple[str, datetime] | None:
        """Return the live run of a folder, and when it was last seen."""
        query = sa.select(_runs.c.id, _runs.c.seen_at).where(_runs.c.folder == folder, *self._conditions_of_live(db))
        row = db.execute(query.order_by(_runs.c.seen_at.desc()).limit(1)).one_or_none()
        return (row.id, _utc(row.seen_at)) if row else None

    def _live_tickets(self, db: sa.Connection, limit: str) -> list[Any]:
        """Return the tickets of the live runs, oldest first."""
        query = sa.select(_slots.c.ticket, _slots.c.taken, _slots.c.run_id, _runs.c.job_id)
        query = query.join(_runs, _runs.c.id == _slots.c.run_id)
        query = query.where(_slots.c.limit_name == limit, *self._conditions_of_live(db)).order_by(_slots.c.ticket)
        return list(db.execute(query))

    def _now_by_shared_clock(self, db: sa.Connection) -> datetime:
        """Return the current time by the one clock that all runs of this journal share: the database server's own."""
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
        if self._db.is_sqlite and db.exec_driver_sql("PRAGMA quick_check(1)").scalar() != "ok":
            raise UnreadableJournalError(f"the journal at {self._db.display_url} is damaged")

    def _quarantine(self, error: JournalError) -> None:
        """Move the database file and its companions away. They are kept for inspection."""
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
    """A journal for an event loop, which goes on while the database is slow, locked or unreachable.

    Calls run in a thread of their own, in the order in which they begin. A call that has begun is completed even if its
    caller is cancelled, and a cancelled caller may make further calls.
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
        """Close the journal after the calls in progress. They are given up after `within_s`."""
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
    """Retrieve the exception of a call that is no longer awaited, so that asyncio does not report it."""
    if not calling.cancelled():
        calling.exception()


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


@dataclass(frozen=True, slots=True)
class _Cost:
    """The cost of one attempt of a job, or of its runs that another journal recorded, in USD."""

    run_id: str
    booked: Decimal
    at_most: Decimal
    """The recorded cost if it is certain, else at least the reservation."""
    is_running: bool
    """Whether the cost may still turn out lower."""


def _find_costs(db: sa.Connection, job_id: str, origin: str) -> list[_Cost]:
    """Return the costs of the attempts that any run of a job began, and those of runs that another journal recorded."""
    runs = sa.select(_runs.c.id).where(_runs.c.job_id == job_id)
    is_of_old = sa.and_(_attempts.c.job_id.is_(None), _attempts.c.run_id.in_(runs))
    is_recorded = sa.or_(_attempts.c.begun_by.is_(None), _attempts.c.begun_by.in_(sa.select(_runs.c.id)))
    is_of_job = sa.or_(_attempts.c.job_id == job_id, is_of_old)
    query = sa.select(_attempts).where(_attempts.c.origin == origin, is_of_job, is_recorded)
    unrecorded = sa.select(_runs.c.id, _runs.c.unrecorded_cost).where(
        _runs.c.job_id == job_id, _runs.c.origin == origin, _runs.c.unrecorded_cost.is_not(None)
    )
    lost = [
        _Cost(row.id, amount := Decimal(row.unrecorded_cost), amount, is_running=False)
        for row in db.execute(unrecorded)
    ]
    return [*lost, *(_make_cost(row) for row in db.execute(query))]


def _make_cost(row: Any) -> _Cost:
    booked = Decimal(row.cost or 0)
    if row.cost_basis == "known":
        return _Cost(row.run_id, booked, at_most=booked, is_running=False)
    at_most = max(booked, Decimal(row.reserved or row.price))
    return _Cost(row.run_id, booked, at_most, is_running=row.state in ("intended", "created"))


def _check_budget(costs: Sequence[_Cost], run_id: str, most: Decimal, max_cost: Decimal) -> None:
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


def _conditions_of_open(origin: str, key: str) -> tuple[sa.ColumnElement[bool], ...]:
    """Return the conditions of an attempt at this clip that has not ended."""
    return _attempts.c.origin == origin, _attempts.c.clip_key == key, _attempts.c.state.in_(OPEN_STATES)


def _states_before(method: str, to: AttemptState | None = None) -> list[AttemptState]:
    """Return the states in which a method accepts an attempt that it leads to the state `to`; None means the same
    state."""
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
    """Return the attempt after a transition. It requires that the attempt belongs to this run and is in an allowed
    state.

    A transition to another state may have been made already, with its answer lost. It counts as the same one if the
    values named by `same` are equal.
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
    """Return the run's row, or None if there is none."""
    return db.execute(sa.select(_runs).where(_runs.c.id == run_id)).one_or_none()


def _is_delivered(db: sa.Connection, origin: str, key: str) -> bool:
    query = sa.select(_deliveries.c.folder).where(_deliveries.c.origin == origin, _deliveries.c.clip_key == key)
    return db.execute(query).first() is not None


def _select_job_of_attempt() -> sa.ColumnElement[str]:
    """Return the job whose run began an attempt. Attempts of older versions only record the run."""
    of_run = sa.select(_runs.c.job_id).where(_runs.c.id == _attempts.c.run_id).scalar_subquery()
    return sa.func.coalesce(_attempts.c.job_id, of_run, _attempts.c.run_id)


def _replace_delivery(db: sa.Connection, key: str, origin: str, folder: str, clip: Clip) -> None:
    row = {"origin": origin, "clip_key": key, "folder": folder, "clip": sanitize_json(clip.model_dump(mode="json"))}
    db.execute(_deliveries.delete().where(_deliveries.c.origin == origin, _deliveries.c.clip_key == key))
    db.execute(_deliveries.insert().values(**row, delivered_at=_now()))


def _set_tickets(db: sa.Connection, limit: str, run_id: str, held: Collection[int], waiting: int) -> None:
    """Set a run's tickets to those it holds and `waiting` more. The oldest waiting ones keep their place."""
    mine = sa.select(_slots).where(_slots.c.limit_name == limit, _slots.c.run_id == run_id).order_by(_slots.c.ticket)
    tickets = db.execute(mine).all()
    returned = [ticket.ticket for ticket in tickets if ticket.taken and ticket.ticket not in held]
    queued = [ticket.ticket for ticket in tickets if not ticket.taken]
    if gone := returned + queued[waiting:]:
        db.execute(_slots.delete().where(_slots.c.ticket.in_(gone)))
    if new := waiting - len(queued[:waiting]):
        db.execute(_slots.insert(), [{"limit_name": limit, "run_id": run_id, "taken": False}] * new)


def _select_stale_runs(now: datetime) -> sa.Select[Any]:
    """Return the ids of the runs that have ended, or have not been seen for so long that they will not come back."""
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
        begun_by=row.begun_by,
    )


def _select_events(run_id: str) -> sa.Select[Any]:
    return sa.select(_events.c.id, _events.c.type, _events.c.payload).where(_events.c.run_id == run_id)


def _read_event(row: Any) -> Event:
    return row.id, row.type, row.payload


def _select_run_records() -> sa.Select[Any]:
    """Return the runs, joined with their first and their last event."""
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
    """Return the time with its zone, which SQLite does not store."""
    return value if value.tzinfo else value.replace(tzinfo=UTC)
