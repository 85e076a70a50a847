"""Make a clip that is longer than its model makes: its segments, one after another, joined to one."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from threading import Event

from videogen import media
from videogen.errors import DurationError, VideogenError
from videogen.events import ClipCompleted
from videogen.execution.cancel_switch import CancelSwitch
from videogen.execution.context import RunContext
from videogen.execution.delivery import judge_clip, make_clip, reuse_delivered
from videogen.execution.marking import make_record
from videogen.failpoints import crash_if_requested
from videogen.planning.requests import ClipRequest
from videogen.registry import durations
from videogen.results.clip import Clip, Segment
from videogen.storage.base import Store


async def make_long_clip(
    request: ClipRequest,
    run: RunContext,
    make_segment: Callable[[ClipRequest], Awaitable[Clip | BaseException]],
    switch: CancelSwitch,
) -> Clip | BaseException:
    """Return the clip of a request with segments, or the error because of which there is none.

    Each segment is delivered and recorded by itself, so that a run that is stopped between two of them pays for none
    twice. `make_segment` makes all attempts at one, and returns its clip or the last error. `switch` cancels the clip.
    """
    try:
        clip = await reuse_delivered(request, run)
        if clip is None:
            segments: list[Clip] = []
            for segment in request.segments:
                made = await make_segment(segment)
                if not isinstance(made, Clip):
                    return made
                run.upstreams[segment.part_id] = made
                segments.append(made)
            clip = await switch.guard(_join(request, run, segments))
    except VideogenError as exc:
        return exc
    finally:
        run.delivering.discard(request.scene.id)
    run.events.emit(ClipCompleted(clip=clip))
    return clip


async def _join(request: ClipRequest, run: RunContext, segments: list[Clip]) -> Clip:
    """Join the delivered segments to the clip, put it under its final name, and record it in the journal."""
    out = run.store.scratch(f"{request.name}.joined.mp4")
    picture = out.with_suffix(".jpg")
    measured = await run.run_in_decoder(partial(_join_and_inspect, request, segments, run.store, out, picture))
    target_s = request.scene.target_duration
    if not durations.is_within_tolerance(target_s, measured.duration, request.tolerance_s):
        out.unlink()
        raise DurationError(
            f"the {len(segments)} segments together are {measured.duration:.2f} s for the {target_s:g} s of the scene "
            f"(±{request.tolerance_s:g} s)"
        )
    created_at = max((made.created_at for made in segments if made.created_at), default=None)
    record = make_record(request, await _find_prediction_ids(request, run), created_at)
    out, measured = await run.run_in_decoder(partial(run.marker.mark, out, record, measured))
    judgement = await judge_clip(request, run, out)
    run.delivering.add(request.scene.id)
    await asyncio.to_thread(run.store.put, picture, request.poster_path)
    crash_if_requested("before-rename")
    await asyncio.to_thread(run.store.put, out, request.video_path)
    crash_if_requested("after-rename")
    attempts = await run.journal.find_attempts(run.id, request.scene.id)
    clip = make_clip(request, measured, attempts, run.upstreams, judgement=judgement)
    of_segments = (flaw for each in segments for flaw in each.warnings if flaw not in ("short", "transcoded"))
    clip = clip.model_copy(
        update={
            "segments": tuple(map(Segment.of, segments)),
            "retry_count": sum(made.retry_count for made in segments),
            "warnings": tuple(dict.fromkeys((*clip.warnings, *of_segments))),
        }
    )
    run.force_keys.discard(request.key)
    await run.journal.import_delivery(request.key, origin=run.provider.origin, folder=run.folder, clip=clip)
    return clip


async def _find_prediction_ids(request: ClipRequest, run: RunContext) -> list[str]:
    """Return the id of the prediction that made each segment, also in an earlier run."""
    found = [await run.journal.find_delivery(run.provider.origin, segment.key) for segment in request.segments]
    return [delivery.clip.prediction_ids[-1] for delivery in found if delivery and delivery.clip.prediction_ids]


def _join_and_inspect(
    request: ClipRequest, segments: list[Clip], store: Store, out: Path, picture: Path, stop: Event
) -> media.VideoInfo:
    parts = [
        (store.path(str(made.video_path)), segment.scene.target_duration)  # which may be downloaded
        for segment, made in zip(request.segments, segments, strict=True)
    ]
    media.join_clips(parts, out, keep_sound=request.audio, stop=stop)
    return media.inspect_video(out, poster=picture, stop=stop)
