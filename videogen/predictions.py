"""The remote half of a clip's life: a prediction is found again or created, waited for, and cancelled when given up."""

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import anyio

from videogen.clip import ClipRequest
from videogen.crashpoints import crash_if_requested
from videogen.errors import (
    AccountError,
    BudgetError,
    CallError,
    ClipError,
    GoneError,
    InputRejectedError,
    ModerationError,
    OutcomeUnknownError,
    PredictionAbortedError,
    PredictionCanceledError,
    PredictionFailedError,
    RunInterruptedError,
    UnreachableError,
    VideogenError,
)
from videogen.events import ClipProgress, ClipStarted
from videogen.journal import Attempt, CostBasis
from videogen.matching import match_inputs
from videogen.pace import Pace
from videogen.ports import Prediction
from videogen.run import Run

PROGRESS_EVERY_S = 2.0
CONFIRMED_S = 1.0
"""How long after its intent a create is sent without asking the journal whether the attempt is still this run's."""
SHORTEST_CANCEL_AFTER_S = 5.0
"""Replicate takes no shorter deadline: https://replicate.com/docs/topics/predictions/lifecycle"""
CANCEL_AFTER_MARGIN_S = 30.0
"""The provider's own deadline is this far behind the clip's timeout: it matters only when we are gone."""
CLEAN_UP_S = 8.0
"""How long an interrupted clip may take to cancel its prediction."""
CLOCK_SKEW = timedelta(seconds=30)
"""How far a time that we noted by the provider's clock may be off."""
CREATE_TAKES_S = 60.0
"""How long a create may be on its way before it is given up, at most."""
RESUMED_S = 30.0
"""How long a prediction that is found again has at least, whatever the wall clock says of its age."""


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
    attempt = await run.journal.open_attempt(run.provider.origin, request.key)
    running = await _resumed(request, run, attempt) if attempt else None
    found_again = running is not None
    running = running or await _created(request, run)
    try:
        attempts = await run.journal.attempts(run.id, request.scene.id)
    except asyncio.CancelledError:
        await cancel_interrupted(request, run, running)
        raise
    run.events.emit(
        ClipStarted(
            clip_index=request.clip_index,
            scene_id=request.scene.id,
            attempt=len(attempts),
            prediction_id=running.prediction.id,
            resumed=found_again,
        )
    )
    return running


async def _resumed(request: ClipRequest, run: Run, attempt: Attempt) -> Running | None:
    """The prediction of an open attempt; None when there is none, and the attempt is over."""
    began_by = attempt.run_id
    attempt = await run.journal.adopt(attempt, run_id=run.id, scene_id=request.scene.id)
    found = await (_look_up(run, attempt) if attempt.prediction_id else _find_forgotten_create(request, run, attempt))
    if found is None:
        await bill(run, attempt, Decimal(0) if not attempt.prediction_id else attempt.price, "estimated")
        gone = GoneError("the prediction of this attempt is not there any more, or never was")
        await end(run, attempt, gone, of_run=began_by)
        return None
    attempt, prediction = found
    running = Running(attempt, prediction, began=_began(request, run.age_s(attempt.intended_at)))
    if prediction.status in ("canceled", "aborted"):  # by an earlier run that was interrupted: no attempt of this one
        await end(run, (await billed(request, run, running)).attempt, _failure(prediction), of_run=began_by)
        return None
    return running


def _began(request: ClipRequest, elapsed_s: float) -> float:
    """When a prediction of this age was created, on the monotonic clock, so that it has some time left in any case."""
    return time.monotonic() - max(0.0, min(elapsed_s, request.timeout_s - RESUMED_S))


async def _look_up(run: Run, attempt: Attempt) -> tuple[Attempt, Prediction] | None:
    """The prediction of an attempt; None once the provider can no longer have it.

    A 404 is believed only then: it may come from a hop on the way, or from a copy that does not know the id yet.
    """
    prediction_id = str(attempt.prediction_id)
    try:
        async with asyncio.timeout(run.patience.id_s or None):
            is_old = run.has_outlived_outputs(attempt.created_at or attempt.intended_at)
            also = () if is_old or not run.patience.id_s else (GoneError,)
            return attempt, await run.calls.repeat(lambda: run.provider.get(prediction_id), also=also)
    except GoneError as exc:
        if run.has_outlived_outputs(attempt.created_at or attempt.intended_at):
            return None
        raise _not_found_yet(prediction_id, exc) from exc
    except (CallError, TimeoutError) as exc:
        raise _not_found_yet(prediction_id, exc) from exc


def _not_found_yet(prediction_id: str, exc: BaseException) -> UnreachableError:
    reason = str(exc) or "no answer"
    return UnreachableError(
        f"prediction {prediction_id} of an earlier run cannot be looked up: {reason}. It may be paid for, so no other "
        "one is created; run the job again later"
    )


async def _find_forgotten_create(request: ClipRequest, run: Run, attempt: Attempt) -> tuple[Attempt, Prediction] | None:
    """A run was killed between the intent and the id: if the prediction exists, it is in the account's list."""
    return await _search_lost(request, run, await _sendable(request, run), attempt)


async def _created(request: ClipRequest, run: Run) -> Running:
    inputs = await _sendable(request, run)
    await run.calls.admit_create()
    crash_if_requested("before-intent")
    attempt, cancel_after_s = await _intend(request, run)
    crash_if_requested("after-intent")
    if run.recovering and (forgotten := await _forgotten(request, run, inputs, attempt)):
        return forgotten
    creation = _Creation(request, run, inputs, attempt, cancel_after_s)
    creating = asyncio.ensure_future(creation.repeat())
    try:
        attempt, prediction = await asyncio.shield(creating)
    except asyncio.CancelledError:
        await _created_in_vain(request, run, creation, creating)
        raise
    return Running(attempt, prediction, began=time.monotonic())


async def _intend(request: ClipRequest, run: Run) -> tuple[Attempt, float]:
    """A new attempt, its most possible cost reserved, and the seconds after which the provider must end it.

    Where only reservations of clips in progress stand in the way of the budget, waits until one of them is settled.
    """
    while True:
        settled = run.settled
        cancel_after_s, reserve = await _afford(request, run)
        intending = asyncio.ensure_future(
            run.journal.intend(
                request,
                run_id=run.id,
                origin=run.provider.origin,
                folder=run.folder,
                max_cost=run.max_cost,
                at=run.provider.now(),
                reserve=reserve,
                replaces_delivery=request.key in run.anew,
            )
        )
        try:
            attempt = await asyncio.shield(intending)
        except asyncio.CancelledError:
            with anyio.move_on_after(CLEAN_UP_S, shield=True), suppress(VideogenError):
                await end_for_nothing(
                    run, await intending, RunInterruptedError("interrupted before the create was sent")
                )
            raise
        except BudgetError as exc:
            if not exc.may_free or not run.in_progress:
                raise
            await settled.wait()
        else:
            run.in_progress.add(request.key)
            return attempt, cancel_after_s


async def _afford(request: ClipRequest, run: Run) -> tuple[float, Decimal]:
    """Seconds that a prediction may run, and the most that it can cost then.

    A model that is billed by GPU time may run longer than expected. Under a budget its remote deadline is set so that
    it cannot cost more than what is left of that, as long as what is left covers the expected cost.
    """
    longest_s = request.timeout_s + CANCEL_AFTER_MARGIN_S
    rate = request.gpu_cost_per_s
    if rate is None or run.max_cost is None:
        return longest_s, request.cost
    spent, reserved = await run.journal.job_spending(run.job_id, run.provider.origin)
    left = max(run.max_cost - spent - reserved, request.cost)
    affordable_s = max(float(left / rate), SHORTEST_CANCEL_AFTER_S)
    run_s = min(longest_s, affordable_s)
    return run_s, max(request.cost, (rate * Decimal(str(round(run_s, 3)))).quantize(Decimal("0.000001")))


@dataclass
class _Creation:
    """The create of one attempt: sent again where it certainly was not accepted, searched for where that is unknown."""

    request: ClipRequest
    run: Run
    inputs: Mapping[str, Any]
    attempt: Attempt
    cancel_after_s: float
    is_sent: bool = field(default=False, init=False)
    """Whether a prediction may exist that the journal does not know."""
    _confirmed_at: float = field(default_factory=time.time, init=False)
    """When the journal last said that the attempt is ours, on the wall clock: it goes on while the machine sleeps."""

    async def repeat(self) -> tuple[Attempt, Prediction]:
        """The attempt with its prediction, whose id is in the journal.

        Raises:
            AccountError, InputRejectedError: the provider refused; the attempt is ended, and cost nothing.
            UnreachableError: it may have been accepted, and cannot be found now; the attempt stays open.
        """
        try:
            return await self.run.calls.repeat(self._once)
        except CallError as exc:
            if not self.is_sent:
                await end_for_nothing(self.run, self.attempt, exc)
            raise UnreachableError(f"no prediction could be created: {exc}") from exc

    async def _once(self) -> tuple[Attempt, Prediction]:
        request, run = self.request, self.run
        try:
            await run.calls.admit_create()
            if not 0 <= time.time() - self._confirmed_at < CONFIRMED_S:
                self.attempt = await run.journal.confirm_intent(self.attempt, at=run.provider.now())
                self._confirmed_at = time.time()
        except VideogenError as exc:
            if not self.is_sent:
                await end_for_nothing(self.run, self.attempt, exc)
            raise
        self.is_sent = True
        try:
            prediction = await run.provider.create(
                request.replicate, request.version, self.inputs, cancel_after_s=self.cancel_after_s
            )
        except OutcomeUnknownError:
            if found := await _search_lost(request, run, self.inputs, self.attempt):
                return found
            self.is_sent = False
            raise
        except (InputRejectedError, AccountError) as exc:
            await end_for_nothing(self.run, self.attempt, exc)
            raise
        except CallError:  # not sent, or refused for now
            self.is_sent = False
            raise
        crash_if_requested("after-create")
        if claimed := await run.journal.created(self.attempt, prediction.id, prediction.created_at):
            crash_if_requested("after-id")
            return claimed, prediction
        # An identical clip lost its answer and took our prediction: what it lost is ours.
        if found := await _search_lost(request, run, self.inputs, self.attempt):
            return found
        raise OutcomeUnknownError(f"prediction {prediction.id} belongs to another clip")


async def _created_in_vain(
    request: ClipRequest, run: Run, creation: _Creation, creating: "asyncio.Future[tuple[Attempt, Prediction]]"
) -> None:
    """Interrupted while creating: a create that is under way is waited for and cancelled, and none is sent any more."""
    try:
        with anyio.move_on_after(CLEAN_UP_S, shield=True):
            if not creation.is_sent:
                creating.cancel()
                with suppress(asyncio.CancelledError, VideogenError):
                    await creating
                await end_for_nothing(
                    run, creation.attempt, RunInterruptedError("interrupted before the create was sent")
                )
                return
            attempt, prediction = await creating
            await cancel_interrupted(request, run, Running(attempt, prediction, time.monotonic()))
    except VideogenError:
        pass  # the attempt stays open: the next run looks for it
    finally:
        creating.cancel()


# -- searched for in the account's list -------------------------------------------------------------------------------


async def _search_lost(
    request: ClipRequest, run: Run, inputs: Mapping[str, Any], attempt: Attempt
) -> tuple[Attempt, Prediction] | None:
    """The prediction of a create whose answer was lost, made this attempt's; None when there certainly is none.

    A list may lag behind, and a gateway may give up before the provider accepts. So the list is looked at again and
    again, until `unknown_s` have passed and the list shows something newer, or `unknown_at_most_s` have. They count
    from now where the create may have been on its way until now, and else from its intent.

    Raises:
        UnreachableError: the list cannot be read, or a prediction may be this clip's or another one's. The attempt
            stays open, and nothing is created for it.
    """
    patience, pauses, began = run.patience, run.patience.make_backoff(), run.provider.now()
    created_after = attempt.intended_at - CLOCK_SKEW
    if attempt.intended_at > began:  # the clock that noted it was ahead: when the create was sent is not known
        created_after = began - run.provider.outputs_kept
    elif run.age_s(attempt.intended_at) > CREATE_TAKES_S + patience.unknown_at_most_s:
        began = attempt.intended_at
    while True:
        try:
            found, newest = await _search(request, run, inputs, attempt, created_after)
        except (CallError, AccountError) as exc:
            raise UnreachableError(f"whether a prediction was created cannot be looked up: {exc}") from exc
        if found:
            return found
        age_s, shows_newer = run.age_s(began), newest is not None and newest > began
        if age_s >= patience.unknown_at_most_s or (age_s >= patience.unknown_s and shows_newer):
            return None
        await asyncio.sleep(pauses.next_s())


async def _forgotten(request: ClipRequest, run: Run, inputs: Mapping[str, Any], attempt: Attempt) -> Running | None:
    """What a run paid for whose journal is lost, as long as the provider still has its output."""

    def is_worth_it(prediction: Prediction) -> bool:
        return prediction.status == "succeeded" and not prediction.data_removed if prediction.ended else True

    created_after = attempt.intended_at - run.provider.outputs_kept
    try:
        found, _ = await _search(request, run, inputs, attempt, created_after, accept=is_worth_it)
    except CallError as exc:
        raise UnreachableError(f"whether this clip was paid for before cannot be looked up: {exc}") from exc
    if found is None:
        return None
    attempt, prediction = found
    created_at = prediction.created_at or attempt.intended_at
    return Running(attempt, prediction, began=_began(request, run.age_s(created_at)))


async def _search(
    request: ClipRequest,
    run: Run,
    inputs: Mapping[str, Any],
    attempt: Attempt,
    created_after: datetime,
    accept: Callable[[Prediction], bool] = lambda _: True,
) -> tuple[tuple[Attempt, Prediction] | None, datetime | None]:
    """The account's prediction with these inputs that no attempt has, made this attempt's, and when the newest one that
    the list shows was created.

    Raises `UnreachableError` where a prediction fits that may as well be another clip's.
    """

    async def search() -> tuple[tuple[Attempt, Prediction] | None, datetime | None]:
        newest, unclear = None, None
        async for prediction in run.provider.list_since(created_after):
            newest = max(filter(None, (newest, prediction.created_at)), default=None)
            match = match_inputs(request, inputs, prediction, name_at=run.images.name_at)
            if match == "no" or not accept(prediction):
                continue
            if match == "unclear" and request.key in run.lookalikes:
                unclear = unclear or (
                    None if await run.journal.has_prediction(prediction.id, origin=origin) else prediction
                )
                continue
            if adopted := await run.journal.created(attempt, prediction.id, prediction.created_at):
                return (adopted, prediction), newest
        if unclear:
            raise _unclear(unclear, run)
        return None, newest

    origin = run.provider.origin
    return await run.calls.repeat(search)


def _unclear(prediction: Prediction, run: Run) -> UnreachableError:
    minutes = run.provider.outputs_kept.total_seconds() / 60
    return UnreachableError(
        f"prediction {prediction.id} may be this clip's or that of a scene with the same prompt and another picture: "
        "the provider does not show which. It is not used, and nothing is created; run the job again "
        f"{minutes:.0f} minutes later, or give the scenes different prompts"
    )


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
    running = await billed(request, run, replace(running, prediction=prediction))
    if prediction.status != "succeeded":
        raise _failure(prediction)
    return running


async def _asked_for(run: Run, prediction_id: str, timer: asyncio.Timeout) -> Prediction:
    """The prediction as its own address tells it. No status code on the way ends it: only its deadline does."""
    return await run.calls.repeat(lambda: run.provider.get(prediction_id), tries=None, timer=timer, also=(GoneError,))


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
    if prediction.failure == "moderation":
        return ModerationError(message)
    return InputRejectedError(message) if prediction.failure == "input" else PredictionFailedError(message)


# -- cancelled --------------------------------------------------------------------------------------------------------


async def cancelled(request: ClipRequest, run: Run, running: Running) -> Running:
    """The prediction after it was cancelled remotely: looked at again, since it may have succeeded in the meantime.

    Raises `UnreachableError` when its end cannot be confirmed; the attempt stays open then. A status that nobody knows
    counts as canceled here, else no later run would come past it.
    """
    prediction_id = running.prediction.id
    prediction: Prediction | None = None

    async def look() -> Prediction:
        return await run.calls.repeat(lambda: run.provider.get(prediction_id), tries=None, also=(GoneError,))

    try:
        async with asyncio.timeout(CLEAN_UP_S):
            await _cancel(run, prediction_id)
            while not (prediction := await look()).ended:
                await asyncio.sleep(0.5)
    except (TimeoutError, CallError, AccountError):
        if prediction is None or prediction.has_known_status:
            raise UnreachableError(
                f"prediction {prediction_id} could not be cancelled; it may still be running"
            ) from None
        prediction = replace(prediction, status="canceled")
    return await billed(request, run, replace(running, prediction=prediction))


async def _cancel(run: Run, prediction_id: str) -> None:
    """A cancel that fails is not the last word: the prediction is looked at afterwards."""
    with suppress(CallError, ClipError):
        await run.calls.repeat(lambda: run.provider.cancel(prediction_id))


async def cancel_interrupted(request: ClipRequest, run: Run, running: Running) -> None:
    """Cancels remotely what an interrupted run leaves behind; what succeeded meanwhile is left for the next run."""
    if run.leaves_running:
        return
    with anyio.move_on_after(CLEAN_UP_S, shield=True):
        running = await cancelled(request, run, running)
        if running.prediction.status != "succeeded":
            await run.journal.ended(running.attempt, error="interrupted", message="the run was interrupted")


# -- paid for, ended --------------------------------------------------------------------------------------------------


async def billed(request: ClipRequest, run: Run, running: Running) -> Running:
    """Records what a prediction that ended has cost, and how sure that is."""
    cost, basis = _cost(request, running.prediction)
    succeeded = running.prediction.status == "succeeded"
    attempt = await run.journal.billed(running.attempt, cost, basis, succeeded=succeeded)
    run.tell_settled()
    return replace(running, attempt=attempt)


async def bill(run: Run, attempt: Attempt, cost: Decimal, basis: CostBasis) -> None:
    await run.journal.billed(attempt, cost, basis, succeeded=False)
    run.tell_settled()


async def end_for_nothing(run: Run, attempt: Attempt, reason: VideogenError) -> None:
    """Ends an attempt of which certainly no prediction exists."""
    with suppress(VideogenError):
        await bill(run, attempt, Decimal(0), "known")
        await end(run, attempt, reason)


async def end(run: Run, attempt: Attempt, error: VideogenError, *, of_run: str | None = None) -> None:
    await run.journal.ended(attempt, error=error.code, message=str(error), of_run=of_run)


def _cost(request: ClipRequest, prediction: Prediction) -> tuple[Decimal, CostBasis]:
    """USD, and how sure that is. What is only estimated counts in a budget with all that was reserved for it."""
    if not prediction.started:
        return Decimal(0), "known"
    if request.gpu_cost_per_s is not None:
        if prediction.predict_time_s is None:
            return request.cost, "estimated"
        return (request.gpu_cost_per_s * Decimal(str(prediction.predict_time_s))).quantize(Decimal("0.000001")), "known"
    if prediction.status == "failed":
        return Decimal(0), "estimated"
    return request.cost, "known" if prediction.status == "succeeded" else "estimated"
