"""A prediction in progress: wait for its end, cancel it, and record its cost."""

import asyncio
import logging
import time
from contextlib import suppress
from dataclasses import dataclass, replace

import anyio

from videogen.errors import (
    AccountError,
    CallError,
    ClipCancelledError,
    ClipError,
    GoneError,
    InputRejectedError,
    ModerationError,
    PredictionAbortedError,
    PredictionCanceledError,
    PredictionFailedError,
    RunInterruptedError,
    UnreachableError,
    VideogenError,
)
from videogen.events import ClipProgress
from videogen.execution.billing import compute_cost, find_unexpected_bill
from videogen.execution.cancel_switch import make_cancel_message
from videogen.execution.context import RunContext
from videogen.execution.poll_schedule import PollSchedule
from videogen.journal.attempts import Attempt
from videogen.planning.requests import ClipRequest
from videogen.providers.base import Prediction

logger = logging.getLogger(__name__)

PROGRESS_INTERVAL_S = 2.0
CLEAN_UP_S = 8.0
"""Time that an interrupted clip has to cancel its prediction."""


@dataclass
class ActivePrediction:
    """The prediction of one attempt at a clip, until it is delivered or has failed."""

    request: ClipRequest
    run: RunContext
    attempt: Attempt
    prediction: Prediction
    """As the provider described it last."""
    monotonic_start: float
    """Time of its creation on the monotonic clock, in seconds."""

    async def wait_until_succeeded(self, timer: asyncio.Timeout) -> None:
        """Poll until the prediction has succeeded. Raise the `ClipError` of any other end."""
        schedule, prediction = self.run.poll_schedules[self.request.prediction.endpoint], self.prediction
        progress = _Progress(self, schedule)
        with self.run.poller.track(prediction, schedule, self.monotonic_start) as pending:
            while not prediction.ended:
                await progress.wait(pending.ended, pending.poll_delay_s(), prediction.status)
                prediction = pending.ended.result() if pending.ended.done() else await self._poll(timer)
        if prediction.status == "succeeded" and prediction.run_s:
            schedule.observe_run(prediction.run_s)
        await self._record_ended(prediction)
        if prediction.status != "succeeded":
            raise make_failure(prediction)

    async def _poll(self, timer: asyncio.Timeout | None = None) -> Prediction:
        """Get the prediction by its id. No status code of a gateway ends the polling, only the deadline does."""
        return await self.run.gate.call_with_retries(
            lambda: self.run.provider.get(self.prediction.id), tries=None, timer=timer, also=(GoneError,)
        )

    async def cancel_and_confirm(self) -> None:
        """Cancel the prediction remotely, and wait for its end: it may have succeeded in the meantime.

        A prediction with an unknown status counts as canceled here, because otherwise no later run could get past it.

        Raises:
            UnreachableError: the end cannot be confirmed. The attempt stays open.
        """
        prediction_id, scene_id = self.prediction.id, self.request.scene.id
        prediction: Prediction | None = None
        try:
            async with asyncio.timeout(CLEAN_UP_S):
                with suppress(CallError, ClipError):  # whatever became of the cancel, the prediction tells
                    await self.run.gate.call_with_retries(lambda: self.run.provider.cancel(prediction_id))
                while not (prediction := await self._poll()).ended:
                    await asyncio.sleep(0.5)
        except (TimeoutError, CallError, AccountError):
            if prediction is None or prediction.has_known_status:
                problem = f"prediction {prediction_id} could not be cancelled; it may still be running"
                logger.warning("%s: %s", scene_id, problem)
                raise UnreachableError(problem) from None
            prediction = replace(prediction, status="canceled")
        logger.info("%s: asked to cancel prediction %s, its status is %s", scene_id, prediction_id, prediction.status)
        await self._record_ended(prediction)

    async def cancel_on_interrupt(self) -> None:
        """Cancel the prediction of an interrupted run, or of a cancelled clip, remotely.

        If it succeeded meanwhile, leave it to the next run."""
        if self.run.leaves_running and self.request.scene.id not in self.run.cancelled:
            return
        with anyio.move_on_after(CLEAN_UP_S, shield=True):
            await self.cancel_and_confirm()
            if self.prediction.status != "succeeded":
                await self.record_end(make_stop_reason(self.request, self.run, "the run was interrupted"))

    async def record_cost(self) -> None:
        """Record the cost of the ended prediction, and how certain it is."""
        await self._record_ended(self.prediction)

    async def _record_ended(self, prediction: Prediction) -> None:
        cost, basis = compute_cost(self.request, prediction, self.run.provider.capabilities)
        if bill := find_unexpected_bill(self.request, prediction, cost):
            self.run.unexpected_bills[prediction.id] = bill
        journal = self.run.journal
        record = journal.record_success if prediction.status == "succeeded" else journal.record_cost
        self.attempt = await record(self.attempt, cost, basis)
        self.prediction = prediction
        self.run.notify_settled()
        await self.run.note_cost()

    async def record_end(self, error: VideogenError, *, of_run: str | None = None) -> None:
        """Record that the attempt is over. `of_run` is as in `AttemptStore.record_end`."""
        await record_end(self.run, self.attempt, error, of_run=of_run)


def make_stop_reason(request: ClipRequest, run: RunContext, interrupted: str) -> VideogenError:
    """Return why a person has stopped an attempt: a command has cancelled the clip, or the run was `interrupted`."""
    if request.scene.id in run.cancelled:
        return ClipCancelledError(make_cancel_message())
    return RunInterruptedError(interrupted)


async def record_end(run: RunContext, attempt: Attempt, error: VideogenError, *, of_run: str | None = None) -> None:
    await run.journal.record_end(attempt, error=error.code, message=str(error), of_run=of_run)


class _Progress:
    """Waits between polls, and emits the clip's progress every `PROGRESS_INTERVAL_S`. The fraction never decreases."""

    def __init__(self, active: ActivePrediction, schedule: PollSchedule) -> None:
        self._active, self._schedule = active, schedule
        self._fraction = 0.0
        self._emit_at = time.monotonic() + PROGRESS_INTERVAL_S

    async def wait(self, ended: asyncio.Future[Prediction], seconds: float, status: str) -> None:
        """Wait until the prediction is known to have ended, but at most this many seconds."""
        until = time.monotonic() + seconds
        while (now := time.monotonic()) < until and not ended.done():
            if now >= self._emit_at:
                self._emit(now - self._active.monotonic_start, status)
                self._emit_at = now + PROGRESS_INTERVAL_S
            await asyncio.wait([ended], timeout=min(until, self._emit_at) - now)

    def _emit(self, elapsed_s: float, status: str) -> None:
        request = self._active.request
        expected_s = self._schedule.estimate_duration_s(request.typical_run_s)  # other clips of the run change it
        self._fraction = max(self._fraction, min(0.95, elapsed_s / expected_s))
        self._active.run.events.emit(
            ClipProgress(
                clip_index=request.clip_index,
                scene_id=request.scene.id,
                prediction_id=self._active.prediction.id,
                status=status,
                elapsed=round(elapsed_s, 1),
                remaining=round(max(0.0, expected_s - elapsed_s), 1),
                fraction=round(self._fraction, 3),
            )
        )


def make_failure(prediction: Prediction) -> ClipError:
    """Return the error of a prediction that ended without output."""
    message = f"prediction {prediction.id} {prediction.status}: {prediction.error or 'no reason given'}"
    if prediction.status == "aborted":
        return PredictionAbortedError(message)
    if prediction.status == "canceled":
        return PredictionCanceledError(message)
    if prediction.failure == "moderation":
        return ModerationError(message)
    return InputRejectedError(message) if prediction.failure == "input" else PredictionFailedError(message)
