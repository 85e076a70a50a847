"""Split a scene that is longer than any clip of its model into segments that continue each other."""

from videogen.job.model import Job, Scene
from videogen.planning.requests import make_segment_id
from videogen.planning.terms import ClipTerms, find_clip_terms
from videogen.registry import durations
from videogen.registry.model_spec import ModelSpec

SEAM_MARGIN_S = 0.2
"""A segment is cut this long before its end, so that there is a frame at the cut if it comes a few frames short."""
MIN_SEGMENT_S = 1.0


def split_scene(job: Job, scene: Scene, spec: ModelSpec, *, buffer: float) -> tuple[Scene, ...]:
    """Return the scene itself, or its segments if it is too long for one clip and the job lets it continue.

    Each segment is a copy of the scene. Its target duration is its part of the clip, and all but the first continue the
    one before. All are as long as the model allows, but for the last one: fewer clips cost less.
    """
    found = find_clip_terms(job, scene, spec, buffer)
    if not can_continue(job, spec, found) or not is_too_long(scene, found):
        return (scene,)
    segments: list[Scene] = []
    left_s = scene.target_duration
    while True:
        last = _make_segment(scene, len(segments) + 1, left_s)
        if left_s <= find_clip_terms(job, last, spec, buffer).requested_s:
            return (*segments, last)
        segment = last.model_copy(update={"end_image": None, "ends_on": None})
        longest_s = find_clip_terms(job, segment, spec, buffer).requested_s
        length_s = max(MIN_SEGMENT_S, min(longest_s - SEAM_MARGIN_S, left_s - MIN_SEGMENT_S))
        segments.append(segment.model_copy(update={"target_duration": round(length_s, 3)}))
        left_s = round(left_s - length_s, 3)


def is_too_long(scene: Scene, found: ClipTerms, *, tolerance_s: float = 0.0) -> bool:
    """Return whether each clip of the model is shorter than the scene, by more than the tolerance."""
    return durations.calculate_shortfall(scene.target_duration, found.requested_s) > tolerance_s


def can_continue(job: Job, spec: ModelSpec, found: ClipTerms) -> bool:
    """Return whether the job lets long scenes continue, and the model can make the segments."""
    return job.long_scenes == "continue" and find_segment_problem(spec, found) is None


def find_segment_problem(spec: ModelSpec, found: ClipTerms) -> str | None:
    """Return why the model cannot continue a clip from a frame of it; None if it can."""
    if spec.parameters.image is None:
        return "it takes no start image"
    if found.length_is_automatic:
        return "it chooses the length by itself, so that nobody knows where to cut"
    if found.requested_s - SEAM_MARGIN_S < MIN_SEGMENT_S:
        return "its clips are too short"
    return None


def _make_segment(scene: Scene, number: int, length_s: float) -> Scene:
    """Return the segment that makes the rest of the scene."""
    changes: dict[str, object] = {"target_duration": length_s}
    if number > 1:
        changes |= {"start_image": None, "continues": make_segment_id(scene.id, number - 1)}
    return scene.model_copy(update=changes)
