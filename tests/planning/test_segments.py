"""Scenes that are longer than the model's clips: how they are split, and what of a plan they leave alone."""

from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.builders import job_of, small_registry
from videogen.errors import ValidationError
from videogen.planning.plan import Plan
from videogen.planning.planner import build_plan
from videogen.planning.requests import ClipRequest

FRAMES = {"prompt": "text", "image": "first", "end_image": "last"}
CONTINUOUS = {"mode": "continuous", "min": 3, "max": 12, "input": "seconds"}
REGISTRY = small_registry(
    sizes={"parameters": FRAMES},
    range={"parameters": FRAMES, "duration": CONTINUOUS},
    pictureless={},
)
LONGEST_S = {"sizes": 10, "range": 12}
models = st.sampled_from(sorted(LONGEST_S))
lengths_s = st.floats(0.1, 300).map(lambda value: round(value, 2))


def plan(*scenes: dict[str, Any], **fields: Any) -> Plan:
    return build_plan(job_of(*({"id": f"n{n}", **scene} for n, scene in enumerate(scenes)), **fields), REGISTRY)


def request(model: str, seconds: float, **scene: Any) -> ClipRequest:
    (made,) = plan({"target_duration": seconds, **scene}, model=model, long_scenes="continue").requests
    return made


@given(models, lengths_s)
def test_the_parts_are_together_as_long_as_the_scene(model: str, seconds: float) -> None:
    parts = request(model, seconds).parts
    assert sum(part.scene.target_duration for part in parts) == pytest.approx(seconds)
    assert all(part.scene.target_duration > 0 for part in parts)


@given(models, lengths_s)
def test_each_segment_is_longer_than_its_part(model: str, seconds: float) -> None:
    """So that there is a frame at the cut, from which the next one goes on."""
    *cut, last = request(model, seconds).parts
    assert all(part.requested_duration - part.scene.target_duration >= 0.199 for part in cut)
    assert last.requested_duration >= last.scene.target_duration


@given(models, lengths_s)
def test_no_more_segments_are_made_than_needed(model: str, seconds: float) -> None:
    """Fewer could not be as long, cuts included."""
    parts = request(model, seconds).parts
    longest_s = LONGEST_S[model]
    assert len(parts) == 1 or (len(parts) - 2) * (longest_s - 0.2) + longest_s < seconds + 1


@given(models, lengths_s)
def test_each_segment_goes_on_from_the_one_before(model: str, seconds: float) -> None:
    parts = request(model, seconds).parts
    for before, after in pairwise(parts):
        (frame,) = after.prediction.images.values()
        assert (frame.clip_key, frame.cut_s, frame.is_seam) == (before.key, before.scene.target_duration, True)


@given(models, lengths_s)
def test_the_price_is_that_of_all_segments(model: str, seconds: float) -> None:
    made = request(model, seconds)
    assert made.cost == sum((part.cost for part in made.parts), Decimal(0))
    assert made.worst_case_cost == made.cost * made.attempts
    assert made.requested_duration == sum(part.requested_duration for part in made.parts)


@given(models, st.floats(11, 300), st.floats(0.5, 9))
def test_a_longer_scene_is_another_clip(model: str, seconds: float, more_s: float) -> None:
    """Whose first segments may be the same."""
    assert request(model, seconds + 2).key != request(model, seconds + 2 + more_s).key


@given(st.lists(st.floats(0.5, 9).map(lambda value: round(value, 1)), min_size=1, max_size=5))
def test_scenes_that_fit_keep_their_keys(seconds: list[float]) -> None:
    """Whatever the job says of longer ones."""
    scenes = [{"target_duration": each, "prompt": f"p{n}"} for n, each in enumerate(seconds)]
    before, after = plan(*scenes, model="sizes"), plan(*scenes, model="sizes", long_scenes="continue")
    assert [each.key for each in before.requests] == [each.key for each in after.requests]
    assert before.summary() == after.summary()


def test_what_begins_and_ends_a_long_scene_begins_its_first_and_ends_its_last_segment() -> None:
    made = plan(
        {"target_duration": 5},
        {"target_duration": 24, "continues": "n0", "ends_on": "n2"},
        {"target_duration": 5, "prompt": "z"},
        model="sizes",
        long_scenes="continue",
    ).requests[1]
    first, *_, last = made.segments
    assert [frame.scene_id for frame in made.frames_of_clips] == ["n0", "n2"]
    assert list(first.prediction.inputs) == ["ratio", "seconds", "text", "first"]
    assert last.prediction.inputs.keys() > {"first", "last"}
    assert [part.requested_duration for part in made.segments] == [10, 10, 5]


def test_segments_that_were_made_cost_nothing_more() -> None:
    planned = plan({"target_duration": 24}, model="sizes", long_scenes="continue")
    (made,) = planned.requests
    first, second, third = made.segments
    assert planned.total_cost == Decimal("2.5")
    assert planned.with_reuse({first.key}).total_cost == Decimal("1.5")
    assert planned.with_reuse({first.key}, resumable={second.key}).total_cost == Decimal("0.5")
    all_made = planned.with_reuse({first.key, second.key, third.key})
    assert (all_made.total_cost, set(all_made.resumed), set(all_made.reused)) == (Decimal(0), {"n0"}, set())
    assert planned.with_reuse({made.key}).reused == {"n0"}


def test_stale_segments_are_paid_for_again_when_they_are_made_again() -> None:
    planned = plan({"target_duration": 24}, model="sizes", long_scenes="continue")
    (made,) = planned.requests
    there = planned.with_reuse({made.key, *(segment.key for segment in made.segments)})
    stale = frozenset({"n0"})
    assert there.with_stale(stale, remake=False).total_cost == Decimal(0)
    remade = there.with_stale(stale, remake=True)
    assert remade.total_cost == remade.get_remaining_cost(made) == Decimal("2.5")
    only_parts = planned.with_reuse({segment.key for segment in made.segments})
    assert only_parts.with_stale(stale, remake=True).total_cost == Decimal("2.5")


def test_a_segment_that_two_clips_begin_with_is_paid_for_once() -> None:
    planned = plan(
        {"target_duration": 24, "prompt": "the sea"},
        {"target_duration": 34, "prompt": "the sea"},
        model="sizes",
        long_scenes="continue",
    )
    parts = {part.key: part.cost for made in planned.requests for part in made.segments}
    assert len(parts) < sum(len(made.segments) for made in planned.requests)
    assert planned.total_cost == sum(parts.values())


def test_all_segments_but_the_last_have_to_reach_their_cut() -> None:
    made = request("sizes", 24)
    assert [part.is_cut for part in (made, *made.segments)] == [False, True, True, False]


def test_a_model_that_cannot_says_why() -> None:
    with pytest.raises(ValidationError, match="it cannot continue a clip, because it takes no start image: split"):
        request("pictureless", 24)
    with pytest.raises(ValidationError, match='or let it continue from clip to clip: long_scenes = "continue"'):
        plan({"target_duration": 24}, model="sizes")
