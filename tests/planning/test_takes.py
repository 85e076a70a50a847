"""Plans of some scenes only, and of scenes that continue the chosen take of another one."""

from collections.abc import Mapping

import pytest

from tests.support.builders import job_of, small_registry
from videogen.job.choices import add_takes, parse_choices
from videogen.planning.plan import Plan
from videogen.planning.planner import build_plan

REGISTRY = small_registry(quick={"parameters": {"prompt": "text", "image": "first"}})
JOB = job_of(
    {"id": "storm"},
    {"id": "ship", "continues": "storm"},
    {"id": "rescue", "continues": "ship"},
    {"id": "pier"},
    model="quick",
)
TAKES = add_takes(JOB, parse_choices('[storm.takes.2]\nprompt = "A heavy storm"\n'))


def ids(plan: Plan) -> list[str]:
    return [request.scene.id for request in plan.requests]


def plan(chosen: Mapping[str, str] | None = None) -> Plan:
    return build_plan(TAKES, REGISTRY, chosen=chosen)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (("pier",), ["pier"]),
        (("rescue",), ["storm", "ship", "rescue"]),
        (("storm",), ["storm", "storm.take-2"]),
        (("storm.take-2", "pier"), ["storm.take-2", "pier"]),
    ],
)
def test_a_selection_has_all_that_its_clips_are_made_from(wanted: tuple[str, ...], expected: list[str]) -> None:
    assert ids(plan().select(wanted)) == expected


def test_clips_that_are_there_stay_in_the_plan() -> None:
    whole = plan()
    delivered = {request.key for request in whole.requests if request.scene.id in ("ship", "pier")}
    selected = whole.with_reuse(delivered).select(("storm.take-2",))
    assert ids(selected) == ["storm.take-2", "ship", "pier"]
    assert [request.scene.id for request in selected.to_make] == ["storm.take-2"]


def test_a_scene_waits_for_the_chosen_take_and_its_key_stays() -> None:
    """So that it is stale, and not another clip that would be paid for."""
    before, after = ({each.scene.id: each for each in made.requests} for made in (plan(), plan(CHOSEN)))
    assert (before["ship"].upstream_ids, after["ship"].upstream_ids) == (("storm",), ("storm.take-2",))
    assert {name: each.key for name, each in before.items()} == {name: each.key for name, each in after.items()}
    (frame,) = after["ship"].frames_of_clips
    assert (frame.scene_id, frame.clip_key) == ("storm.take-2", before["storm"].key)


def test_takes_have_keys_of_their_own() -> None:
    keys = [request.key for request in plan().requests]
    assert len(set(keys)) == len(keys)


def test_takes_do_not_count_for_the_clips_that_are_needed() -> None:
    job = TAKES.model_copy(update={"min_clips": "100%"})
    assert build_plan(job, REGISTRY).min_clips == 4


CHOSEN = {"storm": "storm.take-2"}
