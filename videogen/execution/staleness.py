"""Stale clips: those that were made from a frame of another clip, which has been made again since."""

from collections.abc import Mapping

from videogen.planning.plan import Plan
from videogen.planning.requests import ClipRequest, ImageInput
from videogen.results.clip import Clip


def find_stale(plan: Plan, delivered: Mapping[str, Clip], kept: Mapping[str, Clip]) -> frozenset[str]:
    """Return the ids of the scenes whose delivered clips are stale, and of all scenes that depend on them.

    A clip is also stale if one that it was made from is missing, and will be made in this run.

    Args:
        plan: the plan, with the alternatives that were delivered.
        delivered: the delivered clips, by their keys.
        kept: the clips that stay whatever has changed, by the ids of their scenes.
    """
    stale: set[str] = set()
    current: dict[str, Clip] = {}
    for request in plan.schedule.upstreams_first:
        clip = kept.get(request.scene.id) or delivered.get(request.key)
        if clip is None:
            continue
        current[request.scene.id] = clip
        is_kept = request.scene.id in kept
        if not is_kept and (not stale.isdisjoint(request.upstream_ids) or is_stale(request, clip, current)):
            stale.add(request.scene.id)
    return frozenset(stale)


def is_stale(request: ClipRequest, clip: Clip, upstreams: Mapping[str, Clip]) -> bool:
    """Return whether a delivered clip was made from other clips than these, which are given by the ids of their
    scenes."""
    return _has_changed(request.frames_of_clips, clip, upstreams)


def has_other_seam(request: ClipRequest, clip: Clip, upstreams: Mapping[str, Clip]) -> bool:
    """Return whether a delivered segment continues another clip than the segment before it now has."""
    seams = tuple(frame for frame in request.prediction.frames_of_clips if frame.is_seam)
    return _has_changed(seams, clip, upstreams)


def _has_changed(frames: tuple[ImageInput, ...], clip: Clip, upstreams: Mapping[str, Clip]) -> bool:
    made_from = clip.made_from or {}
    return any(
        (upstream := upstreams.get(str(frame.scene_id))) is None or made_from.get(frame.name) != upstream.sha256
        for frame in frames
    )
