"""The local half of a clip: download, verify, measure, conform to the request, and put into its place."""

import asyncio
import glob
import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

from videogen import media
from videogen.errors import (
    BadOutputError,
    CallError,
    ClipError,
    DurationError,
    GoneError,
    NotSentError,
    OutputExpiredError,
    QualityError,
    RejectedError,
    SoundError,
    TransientError,
    UnreachableError,
    VideogenError,
)
from videogen.execution.context import RunContext
from videogen.execution.judging import JudgedClip
from videogen.execution.marking import make_record
from videogen.execution.prediction import ActivePrediction
from videogen.execution.recovery import is_intact
from videogen.execution.staleness import has_other_seam, is_stale
from videogen.failpoints import crash_if_requested
from videogen.journal.attempts import Attempt
from videogen.planning.requests import ClipRequest, ImageInput
from videogen.providers.base import Prediction
from videogen.registry import durations
from videogen.registry.tables import parse_ratio
from videogen.results.clip import Clip, get_planned_fields
from videogen.results.judgement import Judgement
from videogen.text import format_money, make_loggable

logger = logging.getLogger(__name__)

DOWNLOAD_TRIES = 3
MAX_SILENT_SHORTFALL_S = 0.1
"""A clip that is shorter than its target by more than this gets a warning."""


async def download_and_verify(
    run: RunContext, prediction: Prediction, timer: asyncio.Timeout
) -> tuple[Path, media.VideoInfo]:
    """Download the succeeded prediction's video and measure it. Download once more if the first result is no video.

    The timer belongs to the caller. It stands still while the video waits for a free decoder.

    Raises:
        OutputExpiredError: the provider no longer has the output.
        BadOutputError: the output was no whole video, twice. The raw bytes are kept.
        UnreachableError: the output could not be downloaded now. It is paid for, and the next run tries again.
    """
    try:
        return await _download_and_verify_once(run, prediction, timer)
    except BadOutputError as exc:
        logger.info("downloading the output of prediction %s again: %s", prediction.id, make_loggable(exc))
        await asyncio.sleep(run.patience.first_pause_s)
        return await _download_and_verify_once(run, prediction, timer)


async def _download_and_verify_once(
    run: RunContext, prediction: Prediction, timer: asyncio.Timeout
) -> tuple[Path, media.VideoInfo]:
    part = run.store.scratch(f"{prediction.id}.part")
    await _download(run, prediction, part)
    try:
        return part, await run.run_in_decoder(partial(_inspect, part, _poster_path(part)), timer=timer)
    except BadOutputError as exc:
        kept, what = _keep_rejected(part), str(exc).removeprefix(f"{part}: ")
        raise BadOutputError(
            f"the output of prediction {prediction.id} is no whole video: {what}; it is kept as .scratch/{kept.name}"
        ) from exc


async def _download(run: RunContext, prediction: Prediction, part: Path) -> None:
    """Download the prediction's output to `part`.

    If its URL is refused, or the answer has no output yet, ask the provider for a new URL, with growing pauses.
    """
    pauses, waited_s = run.patience.make_backoff(), 0.0
    while True:
        try:
            return await _download_once(run, prediction, part)
        except GoneError as exc:
            gone = exc
        if waited_s >= run.patience.output_s or prediction.holds_no_video:
            raise _make_missing_output_error(run, prediction, gone) from gone
        pause_s = pauses.next_s()
        reason = make_loggable(gone)
        logger.info(
            "the output of prediction %s is not there, asking again in %.1f s: %s", prediction.id, pause_s, reason
        )
        await asyncio.sleep(pause_s)
        waited_s += pause_s
        prediction = await _refresh_prediction(run, prediction)


async def _download_once(run: RunContext, prediction: Prediction, part: Path) -> None:
    if prediction.output_url is None:
        raise GoneError(f"prediction {prediction.id} succeeded without an output that could be a video")
    url = prediction.output_url
    try:
        await run.gate.call_with_retries(lambda: run.provider.download(url, part), tries=DOWNLOAD_TRIES)
    except (TransientError, NotSentError) as exc:
        raise UnreachableError(f"the output of prediction {prediction.id} could not be downloaded: {exc}") from exc


async def _refresh_prediction(run: RunContext, prediction: Prediction) -> Prediction:
    """Return the prediction with a new output URL. Raise `OutputExpiredError` if the provider says that it has
    removed the output."""
    try:
        fresh = await run.gate.call_with_retries(lambda: run.provider.get(prediction.id), tries=DOWNLOAD_TRIES)
    except GoneError:  # a gateway says so: the provider itself would say `data_removed`
        return prediction
    except CallError as exc:
        raise UnreachableError(f"prediction {prediction.id} cannot be looked up: {exc}") from exc
    if fresh.data_removed:
        raise OutputExpiredError(f"the provider no longer has the output of prediction {prediction.id}")
    return fresh


def _make_missing_output_error(run: RunContext, prediction: Prediction, gone: GoneError) -> ClipError:
    """Return the error for an output that did not come in all the time in which it was asked for."""
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


def _inspect(video: Path, poster: Path, stop: Event) -> media.VideoInfo:
    return media.inspect_video(video, poster=poster, stop=stop)


async def deliver(active: ActivePrediction, part: Path, measured: media.VideoInfo) -> Clip:
    """Put the clip under its final name and record it in the journal.

    Raises:
        DurationError, SoundError, QualityError: the clip is not as requested.
        StorageError: a file cannot be written.
    """
    request, run = active.request, active.run
    if problem := _find_duration_problem(request, measured.duration):
        _keep_rejected(part)
        raise DurationError(f"prediction {active.prediction.id}: {problem}")
    if request.audio and measured.sound == "damaged":
        kept = _keep_rejected(part)
        raise SoundError(
            f"prediction {active.prediction.id}: the picture is whole, but its sound is damaged; it is kept as"
            f" .scratch/{kept.name}; without `audio = true` the picture alone is delivered"
        )
    if request.strict_quality and measured.warnings:
        _keep_rejected(part)
        flaws = " and ".join(measured.warnings)
        raise QualityError(f"prediction {active.prediction.id}: the clip is {flaws} from start to end")
    picture = _poster_path(part)
    part, measured = await run.run_in_decoder(partial(_conform_and_mark, active, part, measured))
    judgement = await judge_clip(request, run, part)
    if judgement and await _should_retake(request, run, judgement):
        _keep_rejected(part)
        raise RejectedError(
            f"prediction {active.prediction.id}: the judge rejects the clip (score {judgement.score:g}): "
            f"{judgement.reason}"
        )
    if request.segment is None:
        run.delivering.add(request.scene.id)
    await asyncio.to_thread(run.store.put, picture, request.poster_path)
    crash_if_requested("before-rename")
    await asyncio.to_thread(run.store.put, part, request.video_path)
    crash_if_requested("after-rename")
    attempts = await run.journal.find_attempts(run.id, request.scene.id)
    if request.segment is not None:
        attempts = [attempt for attempt in attempts if attempt.clip_key == request.key]
    clip = make_clip(request, measured, attempts, run.upstreams, judgement=judgement)
    if active.prediction.id in run.unexpected_bills:
        clip = clip.model_copy(update={"warnings": (*clip.warnings, "billed")})
    run.force_keys.discard(request.key)
    await run.journal.record_delivery(active.attempt, request, origin=run.provider.origin, folder=run.folder, clip=clip)
    logger.debug("%s: delivered %s for %s", request.scene.id, request.video_path, format_money(clip.cost))
    run.store.scratch(f"{active.prediction.id}.rejected").unlink(missing_ok=True)  # it came whole in the end
    return clip


async def judge_clip(request: ClipRequest, run: RunContext, video: Path) -> Judgement | None:
    """Return what the run's judge says of the whole clip in this file; None if there is no judge, or no answer."""
    if run.judge is None or request.segment is not None:
        return None
    scene, judge = request.scene, run.judge
    try:
        image = find_start_image(request)
        start = await run.images.read(image) if image else None
        return await run.run_in_decoder(partial(judge, JudgedClip(video, scene.id, scene.prompt, start)))
    except VideogenError as exc:  # the clip is paid for and whole, whatever a judge says
        logger.warning("%s: no judgement: %s", scene.id, make_loggable(exc, hide=scene.prompt))
        return None


async def _should_retake(request: ClipRequest, run: RunContext, judgement: Judgement) -> bool:
    """Return whether another attempt is made instead of the judged clip, within the attempts and the budget."""
    if run.retake_below is None or (judgement.accept and judgement.score >= run.retake_below):
        return False
    attempts = await run.journal.find_attempts(run.id, request.scene.id)
    with_this_model = sum(attempt.clip_key == request.key for attempt in attempts) - run.attempts_before[request.key]
    if with_this_model >= request.attempts:
        return False
    if run.max_cost is None:
        return True
    spent, reserved = await run.journal.get_job_spending(run.job_id, run.provider.origin)
    return spent + reserved + request.prediction.cost <= run.max_cost


def find_start_image(request: ClipRequest) -> ImageInput | None:
    """Return the picture with which the clip was asked to begin; None if there is none."""
    if not (request.scene.has_start_frame or request.references.composed):
        return None
    prediction = request.parts[0].prediction
    sent = (prediction.images.get(value) for value in prediction.inputs.values() if isinstance(value, str))
    return next((image for image in sent if image is not None), None)


def _conform_and_mark(
    active: ActivePrediction, part: Path, measured: media.VideoInfo, stop: Event
) -> tuple[Path, media.VideoInfo]:
    """Return the video as requested and with its record. A segment has no record: the one after it depends on the bytes
    that the model made."""
    request, prediction = active.request, active.prediction
    part, measured = _conform(request, part, measured, stop)
    if request.segment is not None:
        return part, measured
    record = make_record(request, [prediction.id], prediction.created_at)
    return active.run.marker.mark(part, record, measured, stop)


def _conform(request: ClipRequest, part: Path, measured: media.VideoInfo, stop: Event) -> tuple[Path, media.VideoInfo]:
    """Return the video in the requested ratio, in the frame rate and size that its model takes no input for, and
    without sound unless it is wanted."""
    ratio = parse_ratio(request.aspect_ratio) or (measured.width, measured.height)
    out = part.with_suffix(".conformed.mp4")
    fps, size = request.deliver_fps, request.deliver_size
    done = media.conform(part, out, ratio=ratio, fps=fps, size=size, keep_audio=request.audio, stop=stop)
    if done is None:
        return part, measured
    measured = _inspect(out, _poster_path(part), stop)
    part.unlink()
    return out, replace(measured, notes=tuple(dict.fromkeys((*done.notes, *measured.notes))))


def _find_duration_problem(request: ClipRequest, actual_s: float) -> str | None:
    tolerance_s, target_s = request.tolerance_s, request.scene.target_duration
    if request.length_is_automatic and actual_s <= request.requested_duration:
        return None
    if not durations.is_within_tolerance(request.requested_duration, actual_s, tolerance_s):
        return f"{actual_s:.2f} s came for the {request.requested_duration:g} s asked for (±{tolerance_s:g} s)"
    if request.is_cut and not durations.reaches_cut(target_s, actual_s):
        return f"{actual_s:.2f} s came, and the next segment begins at {target_s:g} s"
    if durations.calculate_shortfall(target_s, actual_s) > tolerance_s:
        return f"{actual_s:.2f} s is more than {tolerance_s:g} s short of the target of {target_s:g} s"
    return None


def make_clip(
    request: ClipRequest,
    measured: media.VideoInfo,
    attempts: list[Attempt],
    upstreams: Mapping[str, Clip],
    *,
    judgement: Judgement | None = None,
) -> Clip:
    """Return the delivered clip of a request, with its measured values and the cost of its attempts.

    `upstreams` are the clips that it was made from, by the ids of their scenes.
    """
    frames = request.prediction.frames_of_clips if request.segment else request.frames_of_clips
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
        warnings=(*measured.warnings, *measured.notes, *(("short",) if short_s > MAX_SILENT_SHORTFALL_S else ())),
        created_at=max((attempt.created_at for attempt in attempts if attempt.created_at), default=None),
        delivered_at=datetime.now(UTC),
        accepted=judgement.accept if judgement else None,
        score=judgement.score if judgement else None,
        judge_reason=judgement.reason if judgement else None,
        made_from={frame.name: str(upstreams[str(frame.scene_id)].sha256) for frame in frames} or None,
        paid=sum((attempt.cost or Decimal(0) for attempt in attempts), Decimal(0)),
        **sum_attempts(attempts),
    )


def sum_attempts(attempts: list[Attempt]) -> dict[str, Any]:
    """Return the fields of a `Clip` that sum up its attempts, in USD and seconds."""
    began = min((attempt.intended_at for attempt in attempts), default=None)
    return {
        "cost": sum((attempt.cost or Decimal(0) for attempt in attempts), Decimal(0)),
        "paid_before": sum((attempt.cost or Decimal(0) for attempt in attempts if attempt.is_taken_over), Decimal(0)),
        "attempts": len(attempts),
        "retry_count": max(0, len(attempts) - 1),
        "generation_time": round(max(0.0, (datetime.now(UTC) - began).total_seconds()), 3) if began else 0.0,
        "prediction_ids": tuple(attempt.prediction_id for attempt in attempts if attempt.prediction_id),
    }


async def reuse_delivered(request: ClipRequest, run: RunContext) -> Clip | None:
    """Return the clip that was delivered before under this key, copied into this job's folder under this scene's name.

    Return None if there is none, or if its file has changed. Raise `StorageError` if the files cannot be read or
    copied.
    """
    delivery = await run.journal.find_delivery(run.provider.origin, request.key)
    if delivery is None or request.key in run.force_keys:
        return None
    is_outdated = has_other_seam(request, delivery.clip, run.upstreams) or (
        run.remakes_stale and is_stale(request, delivery.clip, run.upstreams)
    )
    if is_outdated or not delivery.clip.satisfies(request):
        run.force_keys.add(request.key)
        return None
    if not await asyncio.to_thread(is_intact, delivery, run.open_folder):
        where = make_loggable(delivery.folder)
        logger.warning("%s: the clip in %s is missing or has changed, it is made again", request.scene.id, where)
        made_since = run.provider.now() - run.provider.capabilities.outputs_kept
        await run.journal.forget_delivery(run.provider.origin, request.key, made_since=made_since)
        return None
    source = run.open_folder(delivery.folder)
    names = {delivery.clip.video_path: request.video_path, delivery.clip.poster_path: request.poster_path}
    for name, new_name in names.items():
        await asyncio.to_thread(run.store.take_over, source, str(name), new_name)
    logger.info("%s: reused the clip that was delivered to %s", request.scene.id, make_loggable(delivery.folder))
    diff = round((delivery.clip.actual_duration or 0.0) - request.scene.target_duration, 3)
    paths = {"video_path": request.video_path, "poster_path": request.poster_path}
    return mark_reused(delivery.clip).model_copy(update=get_planned_fields(request) | paths | {"duration_diff": diff})


def mark_reused(clip: Clip) -> Clip:
    """Return the clip as a run reports it that had nothing to do for it."""
    paid = clip.cost if clip.paid is None and not clip.reused else clip.paid
    return clip.model_copy(update={"reused": True, "paid": paid, **sum_attempts([])})


def _poster_path(part: Path) -> Path:
    """Return the path at which the inspection of a download writes its poster."""
    return part.with_suffix(".jpg")


def discard_scratch_files(run: RunContext, prediction: Prediction) -> None:
    """Remove the unfinished files of this prediction's clip, but not those that are kept for inspection."""
    part = run.store.scratch(f"{prediction.id}.part")
    for path in part.parent.glob(f"{glob.escape(part.stem)}.*"):
        if ".rejected" not in path.suffixes:
            path.unlink(missing_ok=True)


def _keep_rejected(part: Path) -> Path:
    """Keep a paid output that cannot be used, for inspection by a person. Return its new path."""
    return part.replace(part.with_suffix(".rejected"))
