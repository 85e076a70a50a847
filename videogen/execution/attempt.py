"""Make one clip: reuse it, or find or create its prediction, wait, download, verify and deliver.

Every step is in the journal before the next one begins, so that the next run can continue a run that was killed at any
point, without paying twice. One call of `attempt_clip` is one attempt, and an attempt is one prediction. The caller
decides whether to call it again after an error that `errors.is_retryable` accepts.
"""

import asyncio
import logging
import time
from contextlib import suppress
from pathlib import Path

from videogen.errors import (
    BadOutputError,
    ClaimedError,
    ClipError,
    ClipTimeoutError,
    DeliveredError,
    PausedError,
    StorageError,
    UnreachableError,
    VideogenError,
    is_fallback_allowed,
    is_retryable,
)
from videogen.events import ClipCompleted, ClipFailed, ClipRetrying
from videogen.execution.context import RunContext
from videogen.execution.creation import start_or_resume
from videogen.execution.delivery import (
    deliver,
    discard_scratch_files,
    download_and_verify,
    reuse_delivered,
    sum_attempts,
)
from videogen.execution.prediction import ActivePrediction
from videogen.execution.slots import Slot
from videogen.media import VideoInfo
from videogen.planning.requests import ClipRequest
from videogen.results.clip import Clip, ClipFailure
from videogen.text import make_loggable

logger = logging.getLogger(__name__)

CLAIM_POLL_S = 0.5
OUTPUT_MAY_REMAIN = (UnreachableError, StorageError, BadOutputError)
"""After these errors the provider may still have the prediction's output. The attempt stays open, and the next run
downloads the output again before it creates anything. (An output that is no video may have been the page of a
captive portal.)"""
LATE_DOWNLOAD_S = 120.0
"""A succeeded prediction is paid for, so its output is downloaded even after the clip's timeout, for this long."""


async def attempt_clip(request: ClipRequest, run: RunContext, slot: Slot) -> Clip:
    """Make one attempt at the clip. Reuse a delivered clip, or continue a prediction that was paid for before.

    `slot` is acquired before a prediction is created or continued, unless it is held already, and released as soon as
    the prediction has ended.

    Returns:
        The delivered clip. Its `reused` is true and its cost is 0 when its key was delivered before.

    Raises:
        ClipError: this attempt made no clip. `is_retryable` tells whether another attempt may succeed.
        AccountError: the account cannot be used for any clip.
    """
    async with run.key_locks[request.key]:
        try:
            clip = await _reuse_or_make(request, run, slot)
        except VideogenError as exc:
            await _emit_failure(request, run, exc)
            raise
        finally:
            slot.release()
            run.delivering.discard(request.scene.id)
            run.in_progress.discard(request.key)
            run.notify_settled()
    if request.segment is None:  # a long clip is completed when its segments are joined
        run.events.emit(ClipCompleted(clip=clip))
    return clip


async def _reuse_or_make(request: ClipRequest, run: RunContext, slot: Slot) -> Clip:
    """Wait until no run of another job works on the same clip, then return the clip: reused, or made here."""
    was_claimed = False
    while True:
        if not await run.journal.is_claimed(request.key, origin=run.provider.origin, folder=run.folder):
            with suppress(ClaimedError, DeliveredError):
                return await reuse_delivered(request, run) or await _make(request, run, slot)
            slot.release()
        if not was_claimed:
            was_claimed = True
            logger.info("%s: waiting, because the run of another job makes the same clip", request.scene.id)
        await asyncio.sleep(CLAIM_POLL_S)


async def _make(request: ClipRequest, run: RunContext, slot: Slot) -> Clip:
    active: ActivePrediction | None = None
    while active is None:
        await slot.acquire()
        if clip := await reuse_delivered(request, run):  # another job delivered it while this one waited
            return clip
        try:
            active = await start_or_resume(request, run)
        except PausedError:
            await _wait_until_resumed(request, run, slot)
    slot.leave_queue()
    try:
        part, measured = await _wait_and_download(active, slot)
        return await deliver(active, part, measured)
    except ClipError as exc:
        if isinstance(exc, StorageError):
            run.gate.stop_creates(exc)  # a clip that cannot be stored must not be paid for
            discard_scratch_files(run, active.prediction)
        if not isinstance(exc, OUTPUT_MAY_REMAIN):
            await active.record_end(exc)
        raise


async def _wait_until_resumed(request: ClipRequest, run: RunContext, slot: Slot) -> None:
    """Wait for the end of a pause, without a slot, which other runs may share, and without a reservation."""
    slot.give_back()
    run.in_progress.discard(request.key)
    run.notify_settled()
    logger.info("%s: waiting, because the run is paused", request.scene.id)
    await run.gate.wait_until_resumed()


async def _wait_and_download(active: ActivePrediction, slot: Slot) -> tuple[Path, VideoInfo]:
    """Wait until the prediction has succeeded, and return its whole video. The clip's timeout covers both steps."""
    elapsed_s = time.monotonic() - active.monotonic_start
    try:
        async with asyncio.timeout(active.request.prediction.timeout_s - elapsed_s) as timer:
            await active.wait_until_succeeded(timer)
            slot.release()
            return await download_and_verify(active.run, active.prediction, timer)
    except TimeoutError:
        return await _cancel_or_salvage(active)
    except asyncio.CancelledError:
        if not active.prediction.ended:
            await active.cancel_on_interrupt()
        raise


async def _cancel_or_salvage(active: ActivePrediction) -> tuple[Path, VideoInfo]:
    """Cancel a clip whose time is up. If its prediction succeeded all the same, it is paid for, and is kept."""
    if not active.prediction.ended:
        await active.cancel_and_confirm()
    prediction, timeout_s = active.prediction, active.request.prediction.timeout_s
    if prediction.status != "succeeded":
        raise ClipTimeoutError(
            f"timed out after {timeout_s:g} s; prediction {prediction.id} was {prediction.status}"
        ) from None
    try:
        async with asyncio.timeout(LATE_DOWNLOAD_S) as timer:
            return await download_and_verify(active.run, prediction, timer)
    except TimeoutError:
        raise UnreachableError(f"the output of prediction {prediction.id} could not be downloaded in time") from None


async def _emit_failure(request: ClipRequest, run: RunContext, exc: VideogenError) -> None:
    attempts = await run.journal.find_attempts(run.id, request.scene.id)
    with_this_model = sum(attempt.clip_key == request.key for attempt in attempts) - run.attempts_before[request.key]
    retried = is_retryable(exc) and with_this_model < request.attempts
    _log_failure(request, exc, number=len(attempts), retried=retried)
    if not retried and not should_fall_back(request, exc):
        if request.segment is None:
            run.events.emit(ClipFailed(clip=Clip.make_failed(request, exc, **sum_attempts(attempts))))
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


def _log_failure(request: ClipRequest, exc: VideogenError, *, number: int, retried: bool) -> None:
    scene_id, reason = request.scene.id, make_loggable(exc, hide=request.scene.prompt)
    if retried:
        logger.info("%s: attempt %d failed (%s), another one follows: %s", scene_id, number, exc.code, reason)
    elif should_fall_back(request, exc):
        model = request.fallbacks[0].model
        logger.warning("%s: %s failed (%s), falling back to %s: %s", scene_id, request.model, exc.code, model, reason)
    else:
        logger.warning("%s: the clip failed (%s): %s", scene_id, exc.code, reason)


def should_fall_back(request: ClipRequest, error: BaseException) -> bool:
    """Return whether the request's first fallback is tried after its last attempt ended with this error."""
    return bool(request.fallbacks) and is_fallback_allowed(error)
