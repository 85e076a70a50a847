"""Find the prediction of a clip, or create it: every step is in the journal before the next one begins."""

import asyncio
import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import anyio

from videogen.errors import (
    AccountError,
    BudgetError,
    CallError,
    GoneError,
    InputRejectedError,
    OutcomeUnknownError,
    PausedError,
    UnreachableError,
    VideogenError,
)
from videogen.events import ClipStarted
from videogen.execution.account_search import AccountSearch
from videogen.execution.billing import estimate_most
from videogen.execution.context import RunContext
from videogen.execution.prediction import CLEAN_UP_S, ActivePrediction, make_failure, make_stop_reason, record_end
from videogen.failpoints import crash_if_requested
from videogen.journal.attempts import Attempt
from videogen.journal.schema import CostBasis
from videogen.planning.requests import ClipRequest
from videogen.providers.base import Prediction

logger = logging.getLogger(__name__)

INTENT_VALID_S = 1.0
"""For this long after its intent was recorded, a create is sent without asking the journal again whether the attempt
still belongs to this run."""
CANCEL_AFTER_MARGIN_S = 30.0
"""The provider's own deadline is this much later than the clip's timeout. It only matters when this process is gone."""
NOT_SENT = "interrupted before the create was sent"
MIN_RESUMED_S = 30.0
"""Time that a resumed prediction has left at least, whatever its age is by the wall clock."""


async def start_or_resume(request: ClipRequest, run: RunContext) -> ActivePrediction:
    """Return the attempt to continue: one that is open, also from an earlier run, or else a new one.

    Raises:
        ClipError: no prediction can be created for this request now. The attempt is ended, or left open in the journal.
        AccountError: no prediction can be created for any request.
    """
    attempt = await run.journal.find_open_attempt(run.provider.origin, request.key)
    active = await _resume(request, run, attempt) if attempt else None
    found_again = active is not None
    active = active or await _create_new(request, run)
    try:
        attempts = await run.journal.find_attempts(run.id, request.scene.id)
    except asyncio.CancelledError:
        await active.cancel_on_interrupt()
        raise
    run.events.emit(
        ClipStarted(
            clip_index=request.clip_index,
            scene_id=request.scene.id,
            attempt=len(attempts),
            prediction_id=active.prediction.id,
            resumed=found_again,
        )
    )
    return active


async def _resume(request: ClipRequest, run: RunContext, attempt: Attempt) -> ActivePrediction | None:
    """Return the prediction of an open attempt, or None if it has none. The attempt is ended then."""
    began_by = attempt.run_id
    attempt = await run.journal.take_over_attempt(attempt, run_id=run.id, scene_id=request.scene.id)
    found = await (
        _get_recorded_prediction(run, attempt)
        if attempt.prediction_id
        else _find_unrecorded_prediction(request, run, attempt)
    )
    if found is None:
        logger.info(
            "%s: nothing is left of the attempt of run %s, a new prediction is needed", request.scene.id, began_by
        )
        await _record_cost(run, attempt, Decimal(0) if not attempt.prediction_id else attempt.price, "estimated")
        gone = GoneError("the prediction of this attempt no longer exists, or never did")
        await record_end(run, attempt, gone, of_run=began_by)
        return None
    attempt, prediction = found
    started = _monotonic_start(request, run.age_s(attempt.intended_at))
    active = ActivePrediction(request, run, attempt, prediction, monotonic_start=started)
    whose = "this run" if began_by == run.id else f"run {began_by}"
    logger.info(
        "%s: found prediction %s of %s, its status is %s", request.scene.id, prediction.id, whose, prediction.status
    )
    if prediction.status in ("canceled", "aborted"):  # by an earlier run that was interrupted: no attempt of this one
        await active.record_cost()
        await active.record_end(make_failure(prediction), of_run=began_by)
        return None
    return active


def _monotonic_start(request: ClipRequest, elapsed_s: float) -> float:
    """Return the time on the monotonic clock at which a prediction of this age was created, adjusted to leave it
    `MIN_RESUMED_S`."""
    return time.monotonic() - max(0.0, min(elapsed_s, request.prediction.timeout_s - MIN_RESUMED_S))


async def _get_recorded_prediction(run: RunContext, attempt: Attempt) -> tuple[Attempt, Prediction] | None:
    """Return the prediction of an attempt, or None once the provider can no longer have it.

    A 404 is final only then. It may come from a gateway on the way, or from a replica that does not know the id yet.
    """
    prediction_id = str(attempt.prediction_id)
    try:
        async with asyncio.timeout(run.patience.id_s or None):
            is_old = run.has_outlived_outputs(attempt.created_at or attempt.intended_at)
            also = () if is_old or not run.patience.id_s else (GoneError,)
            return attempt, await run.gate.call_with_retries(lambda: run.provider.get(prediction_id), also=also)
    except GoneError as exc:
        if run.has_outlived_outputs(attempt.created_at or attempt.intended_at):
            return None
        raise _make_lookup_error(prediction_id, exc) from exc
    except (CallError, TimeoutError) as exc:
        raise _make_lookup_error(prediction_id, exc) from exc


def _make_lookup_error(prediction_id: str, exc: BaseException) -> UnreachableError:
    reason = str(exc) or "no answer"
    return UnreachableError(
        f"prediction {prediction_id} of an earlier run cannot be looked up: {reason}. It may be paid for, so no other "
        "one is created. Run the job again later"
    )


async def _find_unrecorded_prediction(
    request: ClipRequest, run: RunContext, attempt: Attempt
) -> tuple[Attempt, Prediction] | None:
    """Search the account's list for the prediction of a run that was killed between recording its intent and its id."""
    return await AccountSearch(request, run, await resolve_inputs(request, run), attempt).find_lost_create()


async def _create_new(request: ClipRequest, run: RunContext) -> ActivePrediction:
    inputs = await resolve_inputs(request, run)
    await run.gate.wait_for_create()
    if run.recovering and (forgotten := await _find_despite_lost_journal(request, run, inputs)):
        return forgotten
    crash_if_requested("before-intent")
    attempt, cancel_after_s = await _record_intent(request, run)
    crash_if_requested("after-intent")
    pending = PendingCreate(request, run, inputs, attempt, cancel_after_s)
    creating = asyncio.ensure_future(pending.create_with_retries())
    try:
        attempt, prediction = await asyncio.shield(creating)
    except asyncio.CancelledError:
        await pending.cancel(creating)
        raise
    return ActivePrediction(request, run, attempt, prediction, monotonic_start=time.monotonic())


async def _find_despite_lost_journal(
    request: ClipRequest, run: RunContext, inputs: Mapping[str, Any]
) -> ActivePrediction | None:
    """Return a prediction of an earlier run that the journal does not know. It is paid for, so nothing is reserved."""
    attempt = await _intend(request, run, reserve=Decimal(0), max_cost=None)
    found = None
    try:
        found = await AccountSearch(request, run, inputs, attempt).find_despite_lost_journal()
    finally:
        if found is None:  # a search that finds nothing is no attempt of this run
            nothing = GoneError("no earlier run created it")
            with anyio.move_on_after(CLEAN_UP_S, shield=True):
                await _end_without_cost(run, attempt, nothing, of_run=f"search of {run.id}")
    if found is None:
        return None
    attempt, prediction = found
    started = _monotonic_start(request, run.age_s(prediction.created_at or attempt.intended_at))
    return ActivePrediction(request, run, attempt, prediction, monotonic_start=started)


async def _record_intent(request: ClipRequest, run: RunContext) -> tuple[Attempt, float]:
    """Record a new attempt and reserve the most it can cost. Return it with the seconds after which the provider ends
    it.

    If the budget is exhausted only by reservations of clips in progress, wait until one of them is settled.
    """
    while True:
        settled = run.settled
        cancel_after_s, reserve = await _limit_cost(request, run)
        try:
            attempt = await _intend(request, run, reserve=reserve, max_cost=run.max_cost)
        except BudgetError as exc:
            if not exc.may_free or not run.in_progress:
                raise
            logger.info("%s: waiting until another clip is settled: %s", request.scene.id, exc)
            await settled.wait()
        else:
            return attempt, cancel_after_s


async def _intend(request: ClipRequest, run: RunContext, *, reserve: Decimal, max_cost: Decimal | None) -> Attempt:
    """Record a new attempt and note its cost. If an interruption comes in between, end the attempt."""
    intending = asyncio.ensure_future(_record_and_note(request, run, reserve, max_cost))
    try:
        return await asyncio.shield(intending)
    except asyncio.CancelledError:
        with anyio.move_on_after(CLEAN_UP_S, shield=True), suppress(VideogenError):
            await _end_without_cost(run, await intending, make_stop_reason(request, run, NOT_SENT))
        raise


async def _record_and_note(
    request: ClipRequest, run: RunContext, reserve: Decimal, max_cost: Decimal | None
) -> Attempt:
    attempt = await run.journal.record_intent(
        request,
        run_id=run.id,
        origin=run.provider.origin,
        folder=run.folder,
        max_cost=max_cost,
        at=run.provider.now(),
        reserve=reserve,
        replaces_delivery=request.key in run.force_keys,
        budgets=run.budgets,
    )
    for alert in attempt.alerts:
        run.events.emit(alert)
    if reserve:
        run.in_progress.add(request.key)  # before the note is written: clips that need the room wait meanwhile
    await run.note_cost(attempt)
    return attempt


async def _limit_cost(request: ClipRequest, run: RunContext) -> tuple[float, Decimal]:
    """Return the seconds that a prediction may run, and the most that it can cost then, in USD.

    If the run's predictions of this model were billed higher than planned, so may this one be.

    A model that is billed by GPU time may run longer than expected. Under a budget, its remote deadline is set so that
    it cannot cost more than the rest of the budget, provided that the rest covers the expected cost.
    """
    longest_s = request.prediction.timeout_s + CANCEL_AFTER_MARGIN_S
    rate = request.prediction.gpu_cost_per_s
    rests = [] if rate is None else await _find_rests(request, run)
    if rate is None or not rests:
        return longest_s, estimate_most(request, run.unexpected_bills.values())
    left = max(min(rests), request.cost)
    affordable_s = max(float(left / rate), run.provider.capabilities.shortest_deadline_s)
    run_s = min(longest_s, affordable_s)
    return run_s, max(request.cost, (rate * Decimal(str(round(run_s, 3)))).quantize(Decimal("0.000001")))


async def _find_rests(request: ClipRequest, run: RunContext) -> list[Decimal]:
    """Return the rests of the job's cap and of the shared budgets, in USD. Empty if nothing limits the cost."""
    rests = []
    if run.max_cost is not None:
        spent, reserved = await run.journal.get_job_spending(run.job_id, run.provider.origin)
        rests.append(run.max_cost - spent - reserved)
    if run.budgets:
        at = run.provider.now()
        rest = await run.journal.get_rest_of_budgets(run.budgets, request.model, run.provider.origin, at=at)
        rests += [] if rest is None else [rest]
    return rests


async def resolve_inputs(request: ClipRequest, run: RunContext) -> dict[str, Any]:
    """Return the request's inputs, with the name of each image replaced by its URL."""
    urls = {name: await run.images.url(image) for name, image in request.prediction.images.items()}

    def insert_urls(value: Any) -> Any:
        if isinstance(value, list):
            return [insert_urls(item) for item in value]
        return urls.get(value, value) if isinstance(value, str) else value

    return {name: insert_urls(value) for name, value in request.prediction.inputs.items()}


@dataclass
class PendingCreate:
    """The create of one attempt. It is sent again if it certainly was not accepted; if that is unknown, the
    prediction is searched for."""

    request: ClipRequest
    run: RunContext
    inputs: Mapping[str, Any]
    attempt: Attempt
    cancel_after_s: float
    is_sent: bool = field(default=False, init=False)
    """Whether a prediction may exist that is not in the journal."""
    _confirmed_at: float = field(default_factory=time.time, init=False)
    """Time at which the journal last confirmed that the attempt is ours. On the wall clock, because that goes on
    while the machine sleeps."""

    async def create_with_retries(self) -> tuple[Attempt, Prediction]:
        """Return the attempt with its prediction, whose id is in the journal.

        Raises:
            AccountError, InputRejectedError: the provider refused. The attempt is ended and cost nothing.
            UnreachableError: the create may have been accepted, and the prediction cannot be found now. The attempt
                stays open.
        """
        try:
            return await self.run.gate.call_with_retries(self._create_once)
        except CallError as exc:
            if not self.is_sent:
                await _end_without_cost(self.run, self.attempt, exc)
            raise UnreachableError(f"no prediction could be created: {exc}") from exc

    async def _create_once(self) -> tuple[Attempt, Prediction]:
        request, run = self.request, self.run
        await self._confirm()
        self.is_sent = True
        try:
            prediction = await run.provider.create(
                request.prediction.endpoint, request.prediction.version, self.inputs, cancel_after_s=self.cancel_after_s
            )
        except OutcomeUnknownError:
            if found := await self._search().find_lost_create():
                return found
            self.is_sent = False
            raise
        except (InputRejectedError, AccountError) as exc:
            await _end_without_cost(self.run, self.attempt, exc)
            raise
        except CallError:  # not sent, or refused for now
            self.is_sent = False
            raise
        logger.info("%s: created prediction %s with %s", request.scene.id, prediction.id, request.model)
        crash_if_requested("after-create")
        if claimed := await run.journal.record_prediction(self.attempt, prediction.id, prediction.created_at):
            crash_if_requested("after-id")
            return claimed, prediction
        # An identical clip lost its answer and took our prediction. We take the one that it lost.
        if found := await self._search().find_lost_create():
            return found
        raise OutcomeUnknownError(f"prediction {prediction.id} belongs to another clip")

    async def _confirm(self) -> None:
        """Wait until the create may be sent, and make sure that the attempt still is of this run. Else end it."""
        run = self.run
        try:
            await run.gate.wait_for_create()
            if not 0 <= time.time() - self._confirmed_at < INTENT_VALID_S:
                self.attempt = await run.journal.confirm_intent(self.attempt, at=run.provider.now())
                self._confirmed_at = time.time()
                run.gate.require_create()
        except PausedError as exc:  # an intent that waits for the end of a pause is no attempt of this run
            if not self.is_sent:
                await _end_without_cost(self.run, self.attempt, exc, of_run=f"pause of {run.id}")
            raise
        except VideogenError as exc:
            if not self.is_sent:
                await _end_without_cost(self.run, self.attempt, exc)
            raise

    def _search(self) -> AccountSearch:
        return AccountSearch(self.request, self.run, self.inputs, self.attempt)

    async def cancel(self, creating: "asyncio.Future[tuple[Attempt, Prediction]]") -> None:
        """Clean up after an interrupt during a create: wait for a create that is under way, cancel its prediction, and
        send no other."""
        try:
            with anyio.move_on_after(CLEAN_UP_S, shield=True):
                if not self.is_sent:
                    creating.cancel()
                    with suppress(asyncio.CancelledError, VideogenError):
                        await creating
                    reason = make_stop_reason(self.request, self.run, NOT_SENT)
                    await _end_without_cost(self.run, self.attempt, reason)
                    return
                attempt, prediction = await creating
                started = ActivePrediction(self.request, self.run, attempt, prediction, time.monotonic())
                await started.cancel_on_interrupt()
        except VideogenError:
            pass  # the attempt stays open: the next run looks for it
        finally:
            creating.cancel()


async def _record_cost(run: RunContext, attempt: Attempt, cost: Decimal, basis: CostBasis) -> None:
    await run.journal.record_cost(attempt, cost, basis)
    run.notify_settled()
    await run.note_cost()


async def _end_without_cost(
    run: RunContext, attempt: Attempt, reason: VideogenError, *, of_run: str | None = None
) -> None:
    """End an attempt that certainly has no prediction. `of_run` is as in `AttemptStore.record_end`."""
    with suppress(VideogenError):
        await _record_cost(run, attempt, Decimal(0), "known")
        await record_end(run, attempt, reason, of_run=of_run)
