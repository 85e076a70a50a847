"""The life of an attempt: its states, and which method of the journal leads from one to the next."""

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

import sqlalchemy as sa

from videogen.errors import (
    ClaimedError,
    DeliveredError,
    JournalError,
    LeaseLostError,
)
from videogen.events import BudgetAlert
from videogen.journal.base import JournalBase, as_utc, split_keys, utc_now
from videogen.journal.budgets import book_attempt, check_shared_budgets, rebook_attempt
from videogen.journal.database import sanitize_json
from videogen.journal.deliveries import is_delivered, replace_delivery
from videogen.journal.schema import ATTEMPTS, DELIVERIES, OPEN_STATES, RUNS, AttemptState, CostBasis
from videogen.journal.spending import check_budget, find_costs
from videogen.planning.requests import ClipRequest, digest
from videogen.results.clip import Clip

TRANSITIONS: Mapping[AttemptState, Mapping[AttemptState, tuple[str, ...]]] = {
    "intended": {
        "intended": ("take_over_attempt", "confirm_intent", "record_cost"),
        "created": ("record_prediction",),
        "ended": ("record_end",),
    },
    "created": {
        "created": ("take_over_attempt", "record_cost"),
        "succeeded": ("record_success",),
        "ended": ("record_end",),
    },
    "succeeded": {
        "succeeded": ("take_over_attempt", "record_cost", "record_success"),
        "delivered": ("record_delivery",),
        "ended": ("record_end",),
    },
    "delivered": {
        "succeeded": ("forget_delivery",),
    },
    "ended": {},
}
"""For each state of an attempt, the states that may follow, and the methods of `Journal` that lead there."""


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
    token: str | None = None
    """Random text by which the attempt is known outside of this journal; None for attempts of older versions."""
    begun_by: str | None = None
    """The run that began the attempt, if another run has taken it over; else None."""
    alerts: tuple[BudgetAlert, ...] = ()
    """The alerts of shared budgets that the reservation of the attempt caused. They are told only once."""

    @property
    def is_taken_over(self) -> bool:
        """Whether an earlier run began, and paid for, this attempt."""
        return self.begun_by not in (None, self.run_id)


class AttemptStore(JournalBase):
    """Keeps the attempts. Each transition in `TRANSITIONS` is one method.

    These methods raise `LeaseLostError` if the attempt is no longer in a state, or of the run, that they may change:
    another run has continued it. To repeat such a call changes nothing.
    """

    def find_open_attempt(self, origin: str, key: str) -> Attempt | None:
        """Return the latest attempt at this clip if it has not ended: it may have been paid for."""
        query = sa.select(ATTEMPTS).where(*_conditions_of_open(origin, key)).order_by(ATTEMPTS.c.id.desc()).limit(1)
        row = self._read(lambda db: db.execute(query).one_or_none())
        return None if row is None else _read_attempt(row)

    def find_keys_in_flight(self, origin: str, keys: Sequence[str], *, begun_after: datetime | None = None) -> set[str]:
        """Return the keys of the clips with an attempt that has not ended, and that was begun after this time."""
        query = sa.select(ATTEMPTS.c.clip_key).where(ATTEMPTS.c.origin == origin, ATTEMPTS.c.state.in_(OPEN_STATES))
        if begun_after is not None:
            query = query.where(ATTEMPTS.c.intended_at > begun_after)

        def work(db: sa.Connection) -> set[str]:
            parts = (db.execute(query.where(ATTEMPTS.c.clip_key.in_(some))).scalars() for some in split_keys(keys))
            return {key for part in parts for key in part}

        return self._read(work)

    def is_claimed(self, key: str, *, origin: str, folder: str) -> bool:
        """Return whether a live run of another folder works on this clip. (An earlier run of the same folder is
        dead, because the folder is locked.)"""
        query = sa.select(RUNS.c.seen_at).join(ATTEMPTS, ATTEMPTS.c.run_id == RUNS.c.id)
        query = query.where(*_conditions_of_open(origin, key), RUNS.c.folder != folder)
        return self._read(lambda db: db.execute(query.where(*self._conditions_of_live(db))).first() is not None)

    def has_attempt(self, token: str) -> bool:
        """Return whether this journal has the attempt with this token."""
        query = sa.select(ATTEMPTS.c.id).where(ATTEMPTS.c.token == sanitize_json(token))
        return self._read(lambda db: db.execute(query).first() is not None)

    def has_prediction(self, prediction_id: str, *, origin: str | None = None) -> bool:
        """Return whether an attempt has this prediction at this origin; None means at any origin."""
        query = sa.select(ATTEMPTS.c.id).where(ATTEMPTS.c.prediction_id == sanitize_json(prediction_id))
        if origin is not None:
            query = query.where(ATTEMPTS.c.origin == origin)
        return self._read(lambda db: db.execute(query).first() is not None)

    def has_unknown_lookalike(self, request: ClipRequest, *, origin: str) -> bool:
        """Return whether an open attempt whose prediction is not known yet differs from this request only in its
        images."""
        query = sa.select(ATTEMPTS.c.id).where(
            ATTEMPTS.c.origin == origin,
            ATTEMPTS.c.state == "intended",
            ATTEMPTS.c.digest_without_images == request.prediction.digest_without_images,
            ATTEMPTS.c.input_digest != _digest_inputs(request),
        )
        return self._read(lambda db: db.execute(query).first() is not None)

    def find_running_attempts(self, run_id: str) -> list[Attempt]:
        """Return the attempts of a run whose prediction may be running, oldest first."""
        query = sa.select(ATTEMPTS).where(ATTEMPTS.c.run_id == run_id, ATTEMPTS.c.state.in_(("intended", "created")))
        return self._read(lambda db: [_read_attempt(row) for row in db.execute(query.order_by(ATTEMPTS.c.id))])

    def find_attempts(self, run_id: str, scene_id: str) -> list[Attempt]:
        """Return the attempts of a run at a scene, with all its models, oldest first."""
        query = sa.select(ATTEMPTS).where(ATTEMPTS.c.run_id == run_id, ATTEMPTS.c.scene_id == sanitize_json(scene_id))
        return self._read(lambda db: [_read_attempt(row) for row in db.execute(query.order_by(ATTEMPTS.c.id))])

    def find_last_attempts(self, origin: str, keys: Sequence[str]) -> dict[str, Attempt]:
        """Return the latest attempts that made these clips, by key, wherever their files are now."""
        query = sa.select(ATTEMPTS).where(ATTEMPTS.c.origin == origin, ATTEMPTS.c.state == "delivered")
        query = query.where(ATTEMPTS.c.prediction_id.is_not(None)).order_by(ATTEMPTS.c.id)

        def work(db: sa.Connection) -> list[Any]:
            return [row for some in split_keys(keys) for row in db.execute(query.where(ATTEMPTS.c.clip_key.in_(some)))]

        return {row.clip_key: _read_attempt(row) for row in self._read(work)}

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
        budgets: Sequence[str] = (),
    ) -> Attempt:
        """Record that a prediction is about to be created for this request, and reserve the most it can cost.

        Args:
            max_cost: USD that all runs of the job together may cost at most. A cap that a command has set for this run
                (`record_outcome`) replaces it. An attempt that reserves nothing is limited by `max_cost` only.
            at: the current time by the provider's clock.
            reserve: USD that the prediction can cost at most; None means its price.
            replaces_delivery: the clip may be made again although it was delivered.
            budgets: names of the shared budgets that the run counts for. The attempt counts for those of them that are
                for the request's model, in the period of its intent, whichever run continues it.

        Raises:
            ClaimedError: there is an open attempt at this clip, of a live or a dead run. Look again.
            DeliveredError: another run has delivered this clip meanwhile.
            BudgetError: the job would have spent and reserved more than `max_cost`, or the runs that count for one of
                the budgets more than that. Or one of the budgets does not exist.
            LeaseLostError: another run took over this run's work, or this run has ended.
        """
        token = uuid.uuid4().hex
        most = request.cost if reserve is None else reserve
        intended_at = at or utc_now()
        alerts: tuple[BudgetAlert, ...] = ()
        values = {
            "run_id": run_id,
            "origin": origin,
            "clip_key": request.key,
            "scene_id": sanitize_json(request.scene.id),
            "input_digest": _digest_inputs(request),
            "digest_without_images": request.prediction.digest_without_images,
            "state": "intended",
            "intended_at": intended_at,
            "price": str(request.cost),
            "model": sanitize_json(request.model),
            "reserved": str(most),
            "token": token,
        }

        def work(db: sa.Connection) -> Attempt:
            nonlocal alerts
            made = db.execute(sa.select(ATTEMPTS).where(ATTEMPTS.c.token == token)).one_or_none()
            if made is not None:  # the answer to an earlier commit was lost
                return replace(_read_attempt(made), alerts=alerts)
            run = self._hold_lease(db, run_id)
            if db.execute(sa.select(ATTEMPTS.c.id).where(*_conditions_of_open(origin, request.key))).first():
                raise ClaimedError("another attempt at this very clip is open")
            if not replaces_delivery and is_delivered(db, origin, request.key):
                raise DeliveredError("another run has delivered this very clip meanwhile")
            job_id = run_id if run is None else run.job_id
            has_own_cap = run is not None and run.max_cost is not None and most > 0
            cap = Decimal(run.max_cost) if has_own_cap else max_cost
            if cap is not None:
                check_budget(find_costs(db, job_id, origin), run_id, most, cap)
            uses = check_shared_budgets(
                db, budgets, origin=origin, run_id=run_id, model=request.model, most=most, at=intended_at
            )
            row = db.execute(ATTEMPTS.insert().values(values | {"job_id": job_id}).returning(*ATTEMPTS.c)).one()
            alerts = book_attempt(db, row.id, uses, origin=origin, most=most, at=intended_at)
            return replace(_read_attempt(row), alerts=alerts)

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
            live_others = sa.select(RUNS.c.id).where(*self._conditions_of_live(db))
            if run is not None:  # the lock of the folder says that its earlier runs are dead
                is_earlier = sa.and_(RUNS.c.folder == run.folder, RUNS.c.started_at <= run.started_at)
                live_others = live_others.where(sa.not_(is_earlier))
            is_free = sa.or_(ATTEMPTS.c.run_id == run_id, ATTEMPTS.c.run_id.not_in(live_others))
            values = {
                "run_id": run_id,
                "scene_id": sanitize_json(scene_id),
                "job_id": _select_job_of_attempt(),
                "begun_by": sa.func.coalesce(ATTEMPTS.c.begun_by, ATTEMPTS.c.run_id),
            }
            update = ATTEMPTS.update().where(ATTEMPTS.c.id == attempt.id, is_free).values(values)
            update = update.where(ATTEMPTS.c.state.in_(_states_before("take_over_attempt"))).returning(*ATTEMPTS.c)
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
        values = {"prediction_id": sanitize_json(prediction_id), "created_at": created_at or utc_now()}
        values |= {"begun_by": sanitize_json(begun_by)} if begun_by else {}
        try:
            return self._run(
                lambda db: _transition(db, attempt, "record_prediction", "created", same=("prediction_id",), **values)
            )
        except JournalError as exc:
            if isinstance(exc.__cause__, sa.exc.IntegrityError):
                return None
            raise

    def record_cost(self, attempt: Attempt, cost: Decimal, basis: CostBasis) -> Attempt:
        """Record the cost of the attempt's prediction in USD, and how certain it is."""
        return self._run(lambda db: _transition(db, attempt, "record_cost", cost=str(cost), cost_basis=basis))

    def record_success(self, attempt: Attempt, cost: Decimal, basis: CostBasis) -> Attempt:
        """Record that the prediction succeeded, and its cost in USD. The remaining steps are free."""
        values = {"cost": str(cost), "cost_basis": basis}
        return self._run(lambda db: _transition(db, attempt, "record_success", "succeeded", **values))

    def record_end(self, attempt: Attempt, *, error: str, message: str, of_run: str | None = None) -> Attempt:
        """Record that the attempt is over. If no cost was recorded by now, it is undeterminable.

        Args:
            of_run: the run that the attempt counts for from now on, which is the one that began it. None means that it
                stays with the run that ends it.
        """
        values = {
            "run_id": of_run or attempt.run_id,
            "cost_basis": sa.func.coalesce(ATTEMPTS.c.cost_basis, "undeterminable"),
            "error_code": sanitize_json(error)[:32],
            "error_message": sanitize_json(message),
            "ended_at": utc_now(),
        }
        return self._run(lambda db: _transition(db, attempt, "record_end", "ended", same=("error_code",), **values))

    def record_delivery(self, attempt: Attempt, request: ClipRequest, *, origin: str, folder: str, clip: Clip) -> None:
        """Record the clip. From here on, reusing its key is free."""

        def work(db: sa.Connection) -> None:
            _transition(db, attempt, "record_delivery", "delivered", same=(), ended_at=utc_now())
            replace_delivery(db, request.key, origin, folder, clip)

        self._run(work, exclusive=True)

    def forget_delivery(self, origin: str, key: str, *, made_since: datetime | None = None) -> None:
        """Forget a delivery whose file is missing or has changed.

        Args:
            made_since: reopen the attempt that made the clip if its prediction was created after this time, because its
                output can still be downloaded. None reopens none.
        """
        gone = DELIVERIES.delete().where(DELIVERIES.c.origin == origin, DELIVERIES.c.clip_key == key)
        brought = sa.select(sa.func.max(ATTEMPTS.c.id)).where(
            ATTEMPTS.c.origin == origin,
            ATTEMPTS.c.clip_key == key,
            ATTEMPTS.c.state.in_(_states_before("forget_delivery", "succeeded")),
            ATTEMPTS.c.prediction_id.is_not(None),
        )

        def work(db: sa.Connection) -> None:
            if db.execute(gone).rowcount and made_since is not None:
                reopened = ATTEMPTS.update().where(ATTEMPTS.c.id.in_(brought), ATTEMPTS.c.created_at > made_since)
                db.execute(reopened.values(state="succeeded", ended_at=None))

        self._run(work)


def _digest_inputs(request: ClipRequest) -> str:
    return digest(sanitize_json(request.prediction.inputs))


def _conditions_of_open(origin: str, key: str) -> tuple[sa.ColumnElement[bool], ...]:
    """Return the conditions of an attempt at this clip that has not ended."""
    return ATTEMPTS.c.origin == origin, ATTEMPTS.c.clip_key == key, ATTEMPTS.c.state.in_(OPEN_STATES)


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
    mine = (ATTEMPTS.c.id == attempt.id, ATTEMPTS.c.run_id == attempt.run_id)
    values |= {"state": to} if to else {}
    update = ATTEMPTS.update().where(*mine, ATTEMPTS.c.state.in_(_states_before(method, to)))
    row = db.execute(update.values(values).returning(*ATTEMPTS.c)).one_or_none()
    if row is not None and "cost_basis" in values:
        rebook_attempt(db, row)
    if row is None and same is not None:
        run_id = values.get("run_id", attempt.run_id)
        is_done = (ATTEMPTS.c.run_id == run_id, ATTEMPTS.c.state == to)
        is_same = (ATTEMPTS.c[name] == values[name] for name in same)
        query = sa.select(ATTEMPTS).where(ATTEMPTS.c.id == attempt.id, *is_done, *is_same)
        row = db.execute(query).one_or_none()
    if row is None:
        raise LeaseLostError(
            f"attempt {attempt.id} of run {attempt.run_id} has ended, or another run goes on with it: {method} is not "
            "recorded"
        )
    return _read_attempt(row)


def _select_job_of_attempt() -> sa.ColumnElement[str]:
    """Return the job whose run began an attempt. Attempts of older versions only record the run."""
    of_run = sa.select(RUNS.c.job_id).where(RUNS.c.id == ATTEMPTS.c.run_id).scalar_subquery()
    return sa.func.coalesce(ATTEMPTS.c.job_id, of_run, ATTEMPTS.c.run_id)


def _read_attempt(row: Any) -> Attempt:
    return Attempt(
        id=row.id,
        run_id=row.run_id,
        clip_key=row.clip_key,
        state=row.state,
        prediction_id=row.prediction_id,
        intended_at=as_utc(row.intended_at),
        created_at=as_utc(row.created_at) if row.created_at else None,
        price=Decimal(row.price),
        cost=None if row.cost is None else Decimal(row.cost),
        token=row.token,
        begun_by=row.begun_by,
    )
