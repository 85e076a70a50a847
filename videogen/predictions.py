"""The remote half of a clip's life: a prediction is found again or created, waited for, and cancelled when given up."""

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import anyio

from videogen.clip import ClipRequest
from videogen.crashpoints import reached
from videogen.errors import (
    AccountError,
    CallError,
    ClipError,
    GoneError,
    ModerationError,
    OutcomeUnknownError,
    PredictionAbortedError,
    PredictionCanceledError,
    PredictionFailedError,
    UnreachableError,
    VideogenError,
)
from videogen.events import ClipProgress, ClipStarted
from videogen.journal import Attempt, CostBasis
from videogen.pace import Pace
from videogen.ports import Prediction
from videogen.run import Run

PROGRESS_EVERY_S = 2.0
CANCEL_AFTER_MARGIN_S = 30.0
"""The provider's own deadline is this far behind the clip's timeout: it matters only when we are gone."""
CLEAN_UP_S = 8.0
"""How long an interrupted clip may take to cancel its prediction."""
RESUMED_S = 30.0
"""How long a prediction that is found again has at least, whatever the wall clock says of its age."""
CLOCK_SKEW = timedelta(minutes=2)
OUTPUTS_KEPT = timedelta(hours=1)
"""How long the provider keeps outputs: https://replicate.com/docs/topics/predictions/data-retention"""


@dataclass(frozen=True)
class Running:
    """An attempt and its prediction. `began` is when it was created, on the monotonic clock in seconds."""

    attempt: Attempt
    prediction: Prediction
    began: float


# -- found again, or created ------------------------------------------------------------------------------------------


async def started(request: ClipRequest, run: Run) -> Running:
    """The attempt to go on with: one that is open, also from an earlier run, else a new one.

    Raises:
        ClipError: no prediction can be created for this request now; the attempt is ended or left open in the journal.
        AccountError: none can be created for any.
    """
    attempt = run.journal.open_attempt(run.provider.origin, request.key)
    running = await _resumed(request, run, attempt) if attempt else None
    found_again = running is not None
    running = running or await _created(request, run)
    run.events.emit(
        ClipStarted(
            clip_index=request.clip_index,
            scene_id=request.scene.id,
            attempt=len(run.journal.attempts(run.id, request.scene.id)),
            prediction_id=running.prediction.id,
            resumed=found_again,
        )
    )
    return running


async def _resumed(request: ClipRequest, run: Run, attempt: Attempt) -> Running | None:
    """The prediction of an open attempt; None when there is none, and the attempt is over."""
    found = await (_found(run, attempt) if attempt.prediction_id else _lost(request, run, attempt))
    if found is None:
        bill(run, attempt, Decimal(0) if not attempt.prediction_id else attempt.price, "estimated")
        end(run, attempt, GoneError("the prediction of this attempt is not there any more, or never was"))
        return None
    attempt, prediction = found
    elapsed_s = (datetime.now(UTC) - attempt.intended_at).total_seconds()
    running = Running(attempt, prediction, began=_began(request, elapsed_s))
    if prediction.status in ("canceled", "aborted"):  # by an earlier run that was interrupted: no attempt of this one
        end(run, billed(request, run, running).attempt, _failure(prediction))
        return None
    return replace(running, attempt=run.journal.adopt(attempt, run_id=run.id, scene_id=request.scene.id))


def _began(request: ClipRequest, elapsed_s: float) -> float:
    """When a prediction of this age was created, on the monotonic clock, so that it has some time left in any case."""
    return time.monotonic() - max(0.0, min(elapsed_s, request.timeout_s - RESUMED_S))


async def _found(run: Run, attempt: Attempt) -> tuple[Attempt, Prediction] | None:
    try:
        return attempt, await run.calls.repeat(lambda: run.provider.get(str(attempt.prediction_id)))
    except GoneError:
        return None
    except CallError as exc:
        raise UnreachableError(f"prediction {attempt.prediction_id} cannot be looked up: {exc}") from exc


async def _lost(request: ClipRequest, run: Run, attempt: Attempt) -> tuple[Attempt, Prediction] | None:
    """A run was killed between the intent and the id: if the prediction exists, it is in the account's list."""
    try:
        return await _adopted(request, run, await _sendable(request, run), attempt)
    except CallError as exc:
        raise UnreachableError(f"whether a prediction was created cannot be looked up: {exc}") from exc


async def _created(request: ClipRequest, run: Run) -> Running:
    inputs = await _sendable(request, run)
    await run.calls.admit_create()
    reached("before-intent")
    attempt = run.journal.intend(
        request, run_id=run.id, origin=run.provider.origin, folder=run.folder, max_cost=run.max_cost
    )
    reached("after-intent")
    if run.recovering and (forgotten := await _forgotten(request, run, inputs, attempt)):
        return forgotten
    creating = asyncio.ensure_future(_create(request, run, inputs, attempt))
    try:
        attempt, prediction = await asyncio.shield(creating)
    except asyncio.CancelledError:
        await _created_in_vain(request, run, creating)
        raise
    except (ClipError, AccountError) as exc:
        if not isinstance(exc, UnreachableError):  # else it may have been accepted: the next run looks for it
            bill(run, attempt, Decimal(0), "known")
            end(run, attempt, exc)
        raise
    return Running(attempt, prediction, began=time.monotonic())


async def _create(
    request: ClipRequest, run: Run, inputs: Mapping[str, Any], attempt: Attempt
) -> tuple[Attempt, Prediction]:
    """Creates a prediction and journals its id. A lost answer is looked for before anything is created again."""

    async def create() -> tuple[Attempt, Prediction]:
        try:
            prediction = await run.provider.create(
                request.replicate, request.version, inputs, cancel_after_s=request.timeout_s + CANCEL_AFTER_MARGIN_S
            )
        except OutcomeUnknownError:
            if adopted := await _adopted(request, run, inputs, attempt):
                return adopted
            raise
        reached("after-create")
        if claimed := run.journal.created(attempt, prediction.id, prediction.created_at):
            reached("after-id")
            return claimed, prediction
        if adopted := await _adopted(request, run, inputs, attempt):
            return adopted  # an identical clip lost its answer and took our prediction: what it lost is ours
        raise OutcomeUnknownError(f"prediction {prediction.id} belongs to another clip")

    try:
        return await run.calls.repeat(create)
    except CallError as exc:
        raise UnreachableError(f"no prediction could be created: {exc}") from exc


async def _created_in_vain(
    request: ClipRequest, run: Run, creating: "asyncio.Future[tuple[Attempt, Prediction]]"
) -> None:
    """Interrupted while creating: the prediction may be accepted any moment, so it is waited for and then cancelled."""
    try:
        with anyio.move_on_after(CLEAN_UP_S, shield=True):
            attempt, prediction = await creating
            await cancel_interrupted(request, run, Running(attempt, prediction, time.monotonic()))
    except VideogenError:
        pass  # the attempt stays open: the next run looks for it
    finally:
        creating.cancel()


async def _forgotten(request: ClipRequest, run: Run, inputs: Mapping[str, Any], attempt: Attempt) -> Running | None:
    """What a run paid for whose journal is lost, as long as the provider still has its output."""

    def is_worth_it(prediction: Prediction) -> bool:
        return prediction.status == "succeeded" and not prediction.data_removed if prediction.ended else True

    try:
        found = await _adopted(request, run, inputs, attempt, since=OUTPUTS_KEPT, accept=is_worth_it)
    except CallError as exc:
        raise UnreachableError(f"whether this clip was paid for before cannot be looked up: {exc}") from exc
    if found is None:
        return None
    attempt, prediction = found
    created_at = prediction.created_at or attempt.intended_at
    return Running(attempt, prediction, began=_began(request, (datetime.now(UTC) - created_at).total_seconds()))


async def _adopted(
    request: ClipRequest,
    run: Run,
    inputs: Mapping[str, Any],
    attempt: Attempt,
    *,
    since: timedelta = CLOCK_SKEW,
    accept: Callable[[Prediction], bool] = lambda _: True,
) -> tuple[Attempt, Prediction] | None:
    """The account's prediction with these inputs that no attempt has, made this attempt's; None when there is none.

    Args:
        since: how long before the attempt's intent it may have been created.
    """

    now, created_after = datetime.now(UTC), attempt.intended_at - since
    if attempt.intended_at > now:  # the clock was set back: when it was created is not known
        created_after = now - OUTPUTS_KEPT

    async def search() -> tuple[Attempt, Prediction] | None:
        async for prediction in run.provider.list_since(created_after):
            if not accept(prediction) or not _answers(request, inputs, prediction):
                continue
            if adopted := run.journal.created(attempt, prediction.id, prediction.created_at):
                return adopted, prediction
        return None

    return await run.calls.repeat(search)


def _answers(request: ClipRequest, inputs: Mapping[str, Any], prediction: Prediction) -> bool:
    """Whether the prediction has this request's model and inputs. Pictures are not compared: the provider may show them
    under other addresses than they were sent with."""
    if request.version not in (None, prediction.version) or prediction.model not in ("", request.replicate):
        return False
    comparable = {name: value for name, value in inputs.items() if value == request.inputs.get(name)}
    shown = {name: value for name, value in prediction.input.items() if name in comparable}
    return bool(shown) and all(comparable[name] == value for name, value in shown.items())


async def _sendable(request: ClipRequest, run: Run) -> dict[str, Any]:
    """The request's inputs with an address in place of each picture's name."""
    urls = {name: await run.images.url(image) for name, image in request.images.items()}

    def replaced(value: Any) -> Any:
        if isinstance(value, list):
            return [replaced(item) for item in value]
        return urls.get(value, value) if isinstance(value, str) else value

    return {name: replaced(value) for name, value in request.inputs.items()}


# -- waited for -------------------------------------------------------------------------------------------------------


async def finished(request: ClipRequest, run: Run, running: Running, timer: asyncio.Timeout) -> Running:
    """Polls until the prediction has succeeded. Raises the `ClipError` of any other end."""
    pace, prediction = run.paces[request.replicate], running.prediction
    progress = _Progress(request, run, running, pace)
    with run.poller.awaiting(prediction, pace, running.began) as awaited:
        while not prediction.ended:
            await progress.wait(awaited.ended, awaited.asked_in_s(), prediction.status)
            prediction = awaited.ended.result() if awaited.ended.done() else await _asked_for(run, prediction.id, timer)
    if prediction.status == "succeeded" and prediction.run_s:
        pace.learn(prediction.run_s)
    running = billed(request, run, replace(running, prediction=prediction))
    if prediction.status != "succeeded":
        raise _failure(prediction)
    return running


async def _asked_for(run: Run, prediction_id: str, timer: asyncio.Timeout) -> Prediction:
    return await run.calls.repeat(lambda: run.provider.get(prediction_id), tries=None, timer=timer)


class _Progress:
    """Waits between polls, and tells every two seconds how far the clip is; what it tells never goes back."""

    def __init__(self, request: ClipRequest, run: Run, running: Running, pace: Pace) -> None:
        self._request, self._run, self._running, self._pace = request, run, running, pace
        self._fraction = 0.0
        self._tell_at = time.monotonic() + PROGRESS_EVERY_S

    async def wait(self, ended: asyncio.Future[Prediction], seconds: float, status: str) -> None:
        """Until the prediction is known to have ended, for at most so many seconds."""
        until = time.monotonic() + seconds
        while (now := time.monotonic()) < until and not ended.done():
            if now >= self._tell_at:
                self._tell(now - self._running.began, status)
                self._tell_at = now + PROGRESS_EVERY_S
            await asyncio.wait([ended], timeout=min(until, self._tell_at) - now)

    def _tell(self, elapsed_s: float, status: str) -> None:
        expected_s = self._pace.expected_s(self._request.typical_run_s)  # which the other clips of the run change
        self._fraction = max(self._fraction, min(0.95, elapsed_s / expected_s))
        self._run.events.emit(
            ClipProgress(
                clip_index=self._request.clip_index,
                scene_id=self._request.scene.id,
                prediction_id=self._running.prediction.id,
                status=status,
                elapsed=round(elapsed_s, 1),
                remaining=round(max(0.0, expected_s - elapsed_s), 1),
                fraction=round(self._fraction, 3),
            )
        )


def _failure(prediction: Prediction) -> ClipError:
    """The error of a prediction that ended without output."""
    message = f"prediction {prediction.id} {prediction.status}: {prediction.error or 'no reason given'}"
    if prediction.status == "aborted":
        return PredictionAbortedError(message)
    if prediction.status == "canceled":
        return PredictionCanceledError(message)
    if prediction.error and ("sensitive" in prediction.error.lower() or "(E005)" in prediction.error):
        return ModerationError(message)
    return PredictionFailedError(message)


# -- cancelled --------------------------------------------------------------------------------------------------------


async def cancelled(request: ClipRequest, run: Run, running: Running) -> Running:
    """The prediction after it was cancelled remotely: looked at again, since it may have succeeded in the meantime.

    Raises `UnreachableError` when its end cannot be confirmed; the attempt stays open then.
    """
    prediction_id = running.prediction.id
    try:
        async with asyncio.timeout(CLEAN_UP_S):
            await _cancel(run, prediction_id)
            while not (prediction := await run.calls.repeat(lambda: run.provider.get(prediction_id), tries=None)).ended:
                await asyncio.sleep(0.5)
    except (TimeoutError, CallError, AccountError):
        raise UnreachableError(f"prediction {prediction_id} could not be cancelled; it may still be running") from None
    return billed(request, run, replace(running, prediction=prediction))


async def _cancel(run: Run, prediction_id: str) -> None:
    """A cancel that fails is not the last word: the prediction is looked at afterwards."""
    with suppress(CallError, ClipError):
        await run.calls.repeat(lambda: run.provider.cancel(prediction_id))


async def cancel_interrupted(request: ClipRequest, run: Run, running: Running) -> None:
    """Cancels remotely what an interrupted run leaves behind; what succeeded meanwhile is left for the next run."""
    with anyio.move_on_after(CLEAN_UP_S, shield=True):
        running = await cancelled(request, run, running)
        if running.prediction.status != "succeeded":
            run.journal.ended(running.attempt, error="interrupted", message="the run was interrupted")


# -- paid for, ended --------------------------------------------------------------------------------------------------


def billed(request: ClipRequest, run: Run, running: Running) -> Running:
    """Records what a prediction that ended has cost, and how sure that is."""
    cost, basis = _cost(request, running.prediction)
    succeeded = running.prediction.status == "succeeded"
    return replace(running, attempt=run.journal.billed(running.attempt, cost, basis, succeeded=succeeded))


def bill(run: Run, attempt: Attempt, cost: Decimal, basis: CostBasis) -> None:
    run.journal.billed(attempt, cost, basis, succeeded=False)


def end(run: Run, attempt: Attempt, error: VideogenError) -> None:
    run.journal.ended(attempt, error=error.code, message=str(error))


def _cost(request: ClipRequest, prediction: Prediction) -> tuple[Decimal, CostBasis]:
    if not prediction.started:
        return Decimal(0), "known"
    if request.gpu_cost_per_s is not None:
        if prediction.predict_time_s is None:
            return request.cost, "estimated"
        return (request.gpu_cost_per_s * Decimal(str(prediction.predict_time_s))).quantize(Decimal("0.000001")), "known"
    if prediction.status == "failed":
        return Decimal(0), "estimated"
    return request.cost, "known" if prediction.status == "succeeded" else "estimated"
