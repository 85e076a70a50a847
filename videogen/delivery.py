"""The local half of a clip's life: downloaded, checked whole, measured, made true to the request, put in its place."""

import asyncio
import glob
import json
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

from videogen import durations, media
from videogen.clip import Clip, ClipRequest, get_planned_fields
from videogen.crashpoints import crash_if_requested
from videogen.earlier import is_intact
from videogen.errors import (
    BadOutputError,
    CallError,
    ClipError,
    DurationError,
    GoneError,
    NotSentError,
    OutputExpiredError,
    QualityError,
    SoundError,
    TransientError,
    UnreachableError,
)
from videogen.journal import Attempt
from videogen.ports import Prediction
from videogen.predictions import Running
from videogen.run import Run

DOWNLOAD_TRIES = 3
SHORT_S = 0.1
"""How much shorter than its target a clip may be without a word."""


async def fetched(run: Run, prediction: Prediction, timer: asyncio.Timeout) -> tuple[Path, media.Measured]:
    """The succeeded prediction's video on disk, whole, and its measures; fetched once more when what came is no video.

    The timer is the caller's; while the video waits to be checked, behind others, it stands still.

    Raises:
        OutputExpiredError: the provider no longer has it.
        BadOutputError: it is no whole video, twice; the raw bytes are kept.
        UnreachableError: it could not be downloaded now; it is paid for, and the next run tries again.
    """
    try:
        return await _fetched(run, prediction, timer)
    except BadOutputError:
        await asyncio.sleep(run.patience.first_pause_s)
        return await _fetched(run, prediction, timer)


async def _fetched(run: Run, prediction: Prediction, timer: asyncio.Timeout) -> tuple[Path, media.Measured]:
    part = run.store.scratch(f"{prediction.id}.part")
    await _download(run, prediction, part)
    try:
        return part, await run.decode(partial(_check, part, _picture(part)), timer=timer)
    except BadOutputError as exc:
        kept, what = _keep_rejected(part), str(exc).removeprefix(f"{part}: ")
        raise BadOutputError(
            f"the output of prediction {prediction.id} is no whole video: {what}; it is kept as .scratch/{kept.name}"
        ) from exc


async def _download(run: Run, prediction: Prediction, part: Path) -> None:
    """Downloads the prediction's output to `part`.

    An address that is refused, or an output that is not told yet, is asked for again with growing pauses, at an address
    that the provider names anew each time.
    """
    pauses, waited_s = run.patience.make_backoff(), 0.0
    while True:
        try:
            return await _download_once(run, prediction, part)
        except GoneError as exc:
            gone = exc
        if waited_s >= run.patience.output_s or prediction.holds_no_video:
            raise _missing_output(run, prediction, gone) from gone
        pause_s = pauses.next_s()
        await asyncio.sleep(pause_s)
        waited_s += pause_s
        prediction = await _look_again(run, prediction)


async def _download_once(run: Run, prediction: Prediction, part: Path) -> None:
    if prediction.output_url is None:
        raise GoneError(f"prediction {prediction.id} succeeded without an output that could be a video")
    url = prediction.output_url
    try:
        await run.calls.repeat(lambda: run.provider.download(url, part), tries=DOWNLOAD_TRIES)
    except (TransientError, NotSentError) as exc:
        raise UnreachableError(f"the output of prediction {prediction.id} could not be downloaded: {exc}") from exc


async def _look_again(run: Run, prediction: Prediction) -> Prediction:
    """The prediction with a fresh address. Raises `OutputExpiredError` once the provider says that it has removed the
    output."""
    try:
        fresh = await run.calls.repeat(lambda: run.provider.get(prediction.id), tries=DOWNLOAD_TRIES)
    except GoneError:  # a hop's word: the provider's own would be `data_removed`
        return prediction
    except CallError as exc:
        raise UnreachableError(f"prediction {prediction.id} cannot be looked up: {exc}") from exc
    if fresh.data_removed:
        raise OutputExpiredError(f"the provider no longer has the output of prediction {prediction.id}")
    return fresh


def _missing_output(run: Run, prediction: Prediction, gone: GoneError) -> ClipError:
    """What it means that an output did not come in all the time that it was asked for."""
    ended_at = prediction.completed_at or prediction.created_at or run.provider.now()
    if run.has_outlived_outputs(ended_at) and not prediction.holds_no_video:
        return OutputExpiredError(f"the output of prediction {prediction.id} is not there any more: {gone}")
    if prediction.output_url is None:
        rejected = run.store.scratch(f"{prediction.id}.rejected.json")
        rejected.write_text(json.dumps(prediction.raw, indent=2), encoding="utf-8")
        return BadOutputError(f"{gone}; its answer is kept as .scratch/{rejected.name}")
    return UnreachableError(
        f"{gone}, though the provider says that it has the output of prediction {prediction.id}: it is paid for, and "
        "the next run asks for it again"
    )


def _check(video: Path, poster: Path, stop: Event) -> media.Measured:
    return media.check(video, poster=poster, stop=stop)


async def delivered(request: ClipRequest, run: Run, running: Running, part: Path, measured: media.Measured) -> Clip:
    """The clip, under its final name and in the journal. Raises `DurationError`, `QualityError`, `StorageError`."""
    if problem := _duration_problem(request, measured.duration):
        _keep_rejected(part)
        raise DurationError(f"prediction {running.prediction.id}: {problem}")
    if request.audio and measured.sound == "damaged":
        kept = _keep_rejected(part)
        raise SoundError(
            f"prediction {running.prediction.id}: the picture is whole, but its sound is damaged; it is kept as"
            f" .scratch/{kept.name}; without `audio = true` the picture alone is delivered"
        )
    if request.strict_quality and measured.warnings:
        _keep_rejected(part)
        flaws = " and ".join(measured.warnings)
        raise QualityError(f"prediction {running.prediction.id}: the clip is {flaws} from start to end")
    picture = _picture(part)
    part, measured = await run.decode(partial(_conformed, request, part, measured))
    await asyncio.to_thread(run.store.put, picture, request.poster_path)
    crash_if_requested("before-rename")
    await asyncio.to_thread(run.store.put, part, request.video_path)
    crash_if_requested("after-rename")
    clip = _clip(request, measured, await run.journal.attempts(run.id, request.scene.id))
    run.anew.discard(request.key)
    await run.journal.delivered(running.attempt, request, origin=run.provider.origin, folder=run.folder, clip=clip)
    run.store.scratch(f"{running.prediction.id}.rejected").unlink(missing_ok=True)  # it came whole in the end
    return clip


def _conformed(request: ClipRequest, part: Path, measured: media.Measured, stop: Event) -> tuple[Path, media.Measured]:
    """The video in the ratio asked for, in the frame rate and size that its model could not be told, and without sound
    where none is wanted."""
    width, height = (int(number) for number in request.aspect_ratio.split(":"))
    out = part.with_suffix(".conformed.mp4")
    fps, size = request.deliver_fps, request.deliver_size
    done = media.conform(part, out, ratio=(width, height), fps=fps, size=size, keep_audio=request.audio, stop=stop)
    if done is None:
        return part, measured
    measured = _check(out, _picture(part), stop)
    part.unlink()
    return out, replace(measured, notes=tuple(dict.fromkeys((*done.notes, *measured.notes))))


def _duration_problem(request: ClipRequest, actual_s: float) -> str | None:
    tolerance_s, target_s = request.tolerance_s, request.scene.target_duration
    if not durations.is_within_tolerance(request.requested_duration, actual_s, tolerance_s):
        return f"{actual_s:.2f} s came for the {request.requested_duration:g} s asked for (±{tolerance_s:g} s)"
    if durations.calculate_shortfall(target_s, actual_s) > tolerance_s:
        return f"{actual_s:.2f} s is more than {tolerance_s:g} s short of the target of {target_s:g} s"
    return None


def _clip(request: ClipRequest, measured: media.Measured, attempts: list[Attempt]) -> Clip:
    short_s = durations.calculate_shortfall(request.scene.target_duration, measured.duration)
    return Clip(
        **get_planned_fields(request),
        status="success",
        video_path=request.video_path,
        poster_path=request.poster_path,
        sha256=measured.sha256,
        actual_duration=round(measured.duration, 3),
        duration_diff=round(measured.duration - request.scene.target_duration, 3),
        width=measured.width,
        height=measured.height,
        fps=round(measured.fps, 3),
        frames=measured.frames,
        codec=measured.codec,
        has_audio=measured.has_audio,
        size_bytes=measured.size_bytes,
        warnings=(*measured.warnings, *measured.notes, *(("short",) if short_s > SHORT_S else ())),
        created_at=max((attempt.created_at for attempt in attempts if attempt.created_at), default=None),
        delivered_at=datetime.now(UTC),
        **spent(attempts),
    )


def spent(attempts: list[Attempt]) -> dict[str, Any]:
    """The fields of a `Clip` that say what its attempts took, in USD and seconds."""
    began = min((attempt.intended_at for attempt in attempts), default=None)
    return {
        "cost": sum((attempt.cost or Decimal(0) for attempt in attempts), Decimal(0)),
        "attempts": len(attempts),
        "retry_count": max(0, len(attempts) - 1),
        "generation_time": round(max(0.0, (datetime.now(UTC) - began).total_seconds()), 3) if began else 0.0,
        "prediction_ids": tuple(attempt.prediction_id for attempt in attempts if attempt.prediction_id),
    }


async def reused(request: ClipRequest, run: Run) -> Clip | None:
    """The clip that was delivered before under this key, now in this job's folder and under this scene's name.

    None where there is none, or where its file is no longer what it was. Raises `StorageError`.
    """
    delivery = await run.journal.delivery(run.provider.origin, request.key)
    if delivery is None or request.key in run.anew:
        return None
    if not request.accepts(delivery.clip):
        run.anew.add(request.key)
        return None
    if not await asyncio.to_thread(is_intact, delivery, run.folders):
        made_since = run.provider.now() - run.provider.outputs_kept
        await run.journal.forget_delivery(run.provider.origin, request.key, made_since=made_since)
        return None
    source = run.folders(delivery.folder)
    names = {delivery.clip.video_path: request.video_path, delivery.clip.poster_path: request.poster_path}
    for name, new_name in names.items():
        await asyncio.to_thread(run.store.take_over, source, str(name), new_name)
    diff = round((delivery.clip.actual_duration or 0.0) - request.scene.target_duration, 3)
    paths = {"video_path": request.video_path, "poster_path": request.poster_path}
    return as_reused(delivery.clip).model_copy(update=get_planned_fields(request) | paths | {"duration_diff": diff})


def as_reused(clip: Clip) -> Clip:
    """The clip as a run tells it that had nothing to do for it."""
    return clip.model_copy(update={"reused": True, **spent([])})


def _picture(part: Path) -> Path:
    """Where the check of a download leaves its poster."""
    return part.with_suffix(".jpg")


def discard(run: Run, prediction: Prediction) -> None:
    """Removes what is unfinished of this prediction's clip, but not what is kept for a person to look at."""
    part = run.store.scratch(f"{prediction.id}.part")
    for path in part.parent.glob(f"{glob.escape(part.stem)}.*"):
        if ".rejected" not in path.suffixes:
            path.unlink(missing_ok=True)


def _keep_rejected(part: Path) -> Path:
    """What was paid for and cannot be used is kept for a person to look at."""
    return part.replace(part.with_suffix(".rejected"))
