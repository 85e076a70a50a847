"""The graph of a plan: its order, its waves, its longest path and its keys, for all graphs."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.support.builders import clip_of, job_of, small_registry
from videogen.execution.staleness import find_stale
from videogen.planning.plan import Plan
from videogen.planning.planner import build_plan
from videogen.planning.schedule import Schedule
from videogen.results.clip import Clip

FRAMES = {"prompt": "text", "image": "first", "end_image": "last"}
REGISTRY = small_registry(
    quick={"parameters": FRAMES, "typical_run_seconds": 7},
    slow={"parameters": FRAMES, "typical_run_seconds": 60},
)

Scenes = list[dict[str, Any]]


@st.composite
def graphs(draw: st.DrawFn, *, least: int = 1) -> Scenes:
    """Scenes of which each may continue and end on any that was drawn before it, in any order."""
    scenes: Scenes = []
    for number in range(draw(st.integers(least, 12))):
        others = st.none() | st.sampled_from([scene["id"] for scene in scenes]) if scenes else st.none()
        scene = {"id": f"n{number}", "model": draw(st.sampled_from(["quick", "slow"]))}
        scenes.append({**scene, "prompt": f"p{number}", "continues": draw(others), "ends_on": draw(others)})
    return draw(st.permutations(scenes))


def plan(scenes: Scenes, **fields: Any) -> Plan:
    return build_plan(job_of(*scenes, model="quick", **fields), REGISTRY)


def keys(scenes: Scenes) -> Mapping[str, str]:
    return {request.scene.id: request.key for request in plan(scenes).requests}


def upstreams(scene: dict[str, Any]) -> set[str]:
    return {scene["continues"], scene["ends_on"]} - {None}


def descendants(scenes: Scenes, of: str) -> set[str]:
    """Everything that is made from the clip of a scene, however indirectly."""
    found: set[str] = set()
    while new := {scene["id"] for scene in scenes if upstreams(scene) & (found | {of})} - found:
        found |= new
    return found


def seconds(scene: dict[str, Any]) -> float:
    return {"quick": 7.0, "slow": 60.0}[scene["model"]]


slots = st.integers(1, 6)


@given(graphs(least=2), st.data())
def test_no_cycle_is_accepted(scenes: Scenes, data: st.DataObject) -> None:
    """Whichever scene is made to wait for one that waits for it."""
    first = data.draw(st.sampled_from(scenes))
    last = data.draw(st.sampled_from([first["id"], *sorted(descendants(scenes, first["id"]))]))
    looped = [{**scene, "continues": last} if scene is first else scene for scene in scenes]
    with pytest.raises(ValidationError, match="is part of a cycle"):
        plan(looped)


@given(graphs())
def test_no_clip_comes_before_one_that_it_is_made_from(scenes: Scenes) -> None:
    order = [request.scene.id for request in plan(scenes).schedule.upstreams_first]
    assert all(order.index(each) < order.index(scene["id"]) for scene in scenes for each in upstreams(scene))


@given(graphs())
def test_the_requests_stay_in_the_order_of_the_job(scenes: Scenes) -> None:
    assert [request.scene.id for request in plan(scenes).requests] == [scene["id"] for scene in scenes]


@given(graphs())
def test_each_scene_is_in_one_wave(scenes: Scenes) -> None:
    waves = plan(scenes).schedule.waves
    assert sorted(each for wave in waves for each in wave) == sorted(scene["id"] for scene in scenes)
    assert all(waves)


@given(graphs())
def test_a_wave_needs_only_those_before_it_and_the_one_right_before(scenes: Scenes) -> None:
    wave_of = {each: number for number, wave in enumerate(plan(scenes).schedule.waves) for each in wave}
    for scene in scenes:
        assert wave_of[scene["id"]] == max((wave_of[each] + 1 for each in upstreams(scene)), default=0)


@given(graphs())
def test_the_critical_path_follows_edges_from_the_beginning_to_an_end(scenes: Scenes) -> None:
    by_id = {scene["id"]: scene for scene in scenes}
    path = plan(scenes).schedule.critical_path
    assert not upstreams(by_id[path[0]])
    assert all(before in upstreams(by_id[after]) for before, after in pairwise(path))
    assert not descendants(scenes, path[-1])


@given(graphs())
def test_no_path_takes_longer_than_the_critical_one(scenes: Scenes) -> None:
    by_id = {scene["id"]: scene for scene in scenes}
    schedule = plan(scenes).schedule
    assert max(schedule.paths_s.values()) == sum(seconds(by_id[each]) for each in schedule.critical_path)
    for scene in scenes:
        assert all(
            schedule.paths_s[each] >= schedule.paths_s[scene["id"]] + seconds(by_id[each]) for each in upstreams(scene)
        )


@given(graphs(), slots)
def test_a_run_takes_at_least_its_critical_path_and_its_work(scenes: Scenes, number: int) -> None:
    planned = plan(scenes, concurrency=number)
    assert planned.expected_s >= max(planned.schedule.paths_s.values())
    assert planned.expected_s * number >= sum(map(seconds, scenes))


@given(graphs(), slots)
def test_a_run_never_waits_with_all_slots_free(scenes: Scenes, number: int) -> None:
    """It takes no longer than one clip after another, nor than Graham's bound of a list schedule."""
    planned = plan(scenes, concurrency=number)
    work, path = sum(map(seconds, scenes)), max(planned.schedule.paths_s.values())
    assert planned.expected_s <= work / number + path * (1 - 1 / number) + 1e-6


@given(graphs())
def test_one_slot_makes_one_clip_after_another(scenes: Scenes) -> None:
    assert plan(scenes, concurrency=1).expected_s == sum(map(seconds, scenes))


@given(graphs())
def test_enough_slots_leave_only_the_critical_path(scenes: Scenes) -> None:
    planned = plan(scenes, concurrency=12)
    assert planned.expected_s == max(planned.schedule.paths_s.values())


@given(graphs(), st.data())
def test_a_clip_that_is_reused_takes_no_time(scenes: Scenes, data: st.DataObject) -> None:
    reused = data.draw(st.sets(st.sampled_from([scene["id"] for scene in scenes])))
    schedule = Schedule(plan(scenes).requests, reused)
    assert schedule.compute_expected_s(1) == sum(seconds(scene) for scene in scenes if scene["id"] not in reused)


@given(graphs())
def test_a_scene_that_needs_no_other_has_the_key_that_it_has_alone(scenes: Scenes) -> None:
    for scene in scenes:
        if not upstreams(scene):
            assert keys([scene])[scene["id"]] == keys(scenes)[scene["id"]]


@given(graphs(), st.randoms())
def test_keys_do_not_depend_on_the_order_of_the_job(scenes: Scenes, random: Any) -> None:
    mixed = list(scenes)
    random.shuffle(mixed)
    assert keys(mixed) == keys(scenes)


@given(graphs(), st.data())
def test_another_prompt_changes_the_keys_of_its_scene_and_its_dependents(scenes: Scenes, data: st.DataObject) -> None:
    """And of no other."""
    changed = data.draw(st.sampled_from(scenes))
    before, after = keys(scenes), keys([{**each, "prompt": "new"} if each is changed else each for each in scenes])
    different = {scene_id for scene_id in before if before[scene_id] != after[scene_id]}
    assert different == {changed["id"], *descendants(scenes, changed["id"])}


def deliver(planned: Plan) -> dict[str, Clip]:
    """All clips of the plan by their keys, each made from the others."""
    shas = {request.scene.id: request.key for request in planned.requests}
    return {
        request.key: clip_of(
            0,
            sha256=shas[request.scene.id],
            made_from={
                frame.name: shas[str(frame.scene_id)] for frame in request.prediction.images.values() if frame.scene_id
            },
        )
        for request in planned.requests
    }


@given(graphs())
def test_what_was_made_from_the_clips_that_are_there_is_not_stale(scenes: Scenes) -> None:
    planned = plan(scenes)
    assert find_stale(planned, deliver(planned), {}) == frozenset()


@given(graphs(), st.data())
def test_a_clip_that_is_made_again_makes_its_dependents_stale(scenes: Scenes, data: st.DataObject) -> None:
    """Exactly those, and the same if it is missing, or kept from another job."""
    planned = plan(scenes)
    again = data.draw(st.sampled_from(planned.requests))
    expected = descendants(scenes, again.scene.id)
    clips = deliver(planned)
    other = clips[again.key].model_copy(update={"sha256": "other"})
    missing = {key: clip for key, clip in clips.items() if key != again.key}
    assert find_stale(planned, {**clips, again.key: other}, {}) == expected
    assert find_stale(planned, missing, {}) == expected
    assert find_stale(planned, clips, {again.scene.id: other}) == expected
    remade = planned.with_reuse(clips).with_stale(frozenset(expected), remake=True)
    assert {request.scene.id for request in remade.to_create} == expected
    kept = planned.with_reuse(clips).with_stale(frozenset(expected), remake=False)
    assert kept.to_create == ()
