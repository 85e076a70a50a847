"""The life of one clip: found again or created, waited for, downloaded, checked, delivered.

Every step is in the journal before the next one begins, so that a run killed anywhere is continued by the next one
without paying twice. One call of `generate` is one attempt, and an attempt is one prediction. Calling it again, after
an error that `errors.is_retryable` allows, is the caller's affair.
"""

import asyncio
import time
from contextlib import suppress
from pathlib import Path

from videogen.clip import Clip, ClipFailure, ClipRequest
from videogen.delivery import delivered, discard, fetched, reused, spent
from videogen.errors import (
    BadOutputError,
    ClaimedError,
    ClipError,
    ClipTimeoutError,
    DeliveredError,
    StorageError,
    UnreachableError,
    VideogenError,
    is_fallback_allowed,
    is_retryable,
)
from videogen.events import ClipCompleted, ClipFailed, ClipRetrying
from videogen.media import Measured
from videogen.predictions import Running, cancel_interrupted, cancelled, end, finished, started
from videogen.run import Run, Slot

CLAIM_LOOK_S = 0.5
LEAVES_OUTPUT = (UnreachableError, StorageError, BadOutputError)
"""After these the prediction's output may still be there: its attempt stays open, and the next run downloads it again
before it creates anything. (What came instead of a video may have been a captive portal's page.)"""
LATE_FETCH_S = 120.0
"""What is paid for is fetched even when its clip's time is up, for this long."""


async def generate(request: ClipRequest, run: Run, slot: Slot) -> Clip:
    """One attempt at the clip; what was paid for before is reused or continued.

    `slot` is taken before a prediction is created or continued, unless it is held already, and given back as soon as
    the prediction has ended.

    Returns:
        The delivered clip; `reused` and at no cost when its key was delivered before.

    Raises:
        ClipError: this attempt brought no clip; `is_retryable` says whether another one may.
        AccountError: the account cannot be used, for any clip.
    """
    async with run.keys[request.key]:
        try:
            clip = await _reused_or_made(request, run, slot)
        except VideogenError as exc:
            await _tell_failure(request, run, exc)
            raise
        finally:
            slot.give_back()
            run.in_progress.discard(request.key)
            run.tell_settled()
    run.events.emit(ClipCompleted(clip=clip))
    return clip


async def _reused_or_made(request: ClipRequest, run: Run, slot: Slot) -> Clip:
    """The clip, once no other job's run is making the same one: its clip is then reused."""
    while True:
        if not await run.journal.is_claimed(request.key, origin=run.provider.origin, folder=run.folder):
            with suppress(ClaimedError, DeliveredError):
                return await reused(request, run) or await _made(request, run, slot)
            slot.give_back()
        await asyncio.sleep(CLAIM_LOOK_S)


async def _made(request: ClipRequest, run: Run, slot: Slot) -> Clip:
    await slot.take()
    if clip := await reused(request, run):  # another job delivered it while this one waited
        return clip
    running = await started(request, run)
    slot.leave_queue()
    try:
        running, part, measured = await _finished_and_fetched(request, run, slot, running)
        return await delivered(request, run, running, part, measured)
    except ClipError as exc:
        if isinstance(exc, StorageError):
            run.calls.shut(exc)  # what cannot be stored must not be paid for
            discard(run, running.prediction)
        if not isinstance(exc, LEAVES_OUTPUT):
            await end(run, running.attempt, exc)
        raise


async def _finished_and_fetched(
    request: ClipRequest, run: Run, slot: Slot, running: Running
) -> tuple[Running, Path, Measured]:
    """The succeeded prediction and its whole video, both within the clip's timeout."""
    elapsed_s = time.monotonic() - running.began
    try:
        async with asyncio.timeout(request.timeout_s - elapsed_s) as timer:
            running = await finished(request, run, running, timer)
            slot.give_back()
            return running, *await fetched(run, running.prediction, timer)
    except TimeoutError:
        return await _given_up(request, run, running)
    except asyncio.CancelledError:
        if not running.prediction.ended:
            await cancel_interrupted(request, run, running)
        raise


async def _given_up(request: ClipRequest, run: Run, running: Running) -> tuple[Running, Path, Measured]:
    """Cancels a clip whose time is up; one that succeeded all the same is paid for, and kept."""
    if not running.prediction.ended:
        running = await cancelled(request, run, running)
    prediction = running.prediction
    if prediction.status != "succeeded":
        raise ClipTimeoutError(
            f"timed out after {request.timeout_s:g} s; prediction {prediction.id} was {prediction.status}"
        ) from None
    try:
        async with asyncio.timeout(LATE_FETCH_S) as timer:
            return running, *await fetched(run, prediction, timer)
    except TimeoutError:
        raise UnreachableError(f"the output of prediction {prediction.id} could not be downloaded in time") from None


async def _tell_failure(request: ClipRequest, run: Run, exc: VideogenError) -> None:
    attempts = await run.journal.attempts(run.id, request.scene.id)
    with_this_model = sum(attempt.clip_key == request.key for attempt in attempts)
    retried = is_retryable(exc) and with_this_model < request.attempts
    if not retried and not falls_back(request, exc):
        run.events.emit(ClipFailed(clip=Clip.make_failed(request, exc, **spent(attempts))))
        return
    run.events.emit(
        ClipRetrying(
            clip_index=request.clip_index,
            scene_id=request.scene.id,
            attempt=len(attempts),
            error=ClipFailure.from_error(exc),
            model=request.model if retried else request.fallbacks[0].model,
        )
    )


def falls_back(request: ClipRequest, error: BaseException) -> bool:
    """Whether the request's first fallback is tried after this end of its last attempt."""
    return bool(request.fallbacks) and is_fallback_allowed(error)
