"""What a plan costs, what it reuses, and what it says of itself."""

from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from tests.support.builders import small_registry
from videogen.job.model import Job
from videogen.planning.plan import Plan
from videogen.planning.planner import build_plan
from videogen.text import format_money

PER_CLIP = {"per_clip": {5: "2.00", 10: "3.00"}, "as_of": date(2026, 11, 1), "basis": "estimated"}
REGISTRY = small_registry(cheap={}, dear={"price": PER_CLIP})
NEVER = "no-such-key"


def scene(name: str, target_s: float = 5, **fields: Any) -> dict[str, Any]:
    return {"id": name, "prompt": name, "target_duration": target_s, **fields}


def planned(*scenes: dict[str, Any], **fields: Any) -> Plan:
    job = Job.model_validate({"id": "film", "model": "cheap", "attempts": 2, "scenes": scenes, **fields})
    return build_plan(job, REGISTRY)


def ids(requests: tuple[Any, ...]) -> list[str]:
    return [request.scene.id for request in requests]


def test_a_plan_costs_what_its_first_predictions_cost() -> None:
    """$0.10 a second: 5 s, and 10 s for a target of 7 s; the worst case is all attempts, and those of the fallback."""
    plan = planned(scene("a"), scene("b", 7))
    assert (plan.total_cost, plan.worst_case_cost) == (Decimal("1.50"), Decimal("3.00"))
    with_fallback = planned(scene("a"), scene("b", 7), fallback_models=["dear"])
    assert (with_fallback.total_cost, with_fallback.worst_case_cost) == (Decimal("1.50"), Decimal("13.00"))


def test_what_is_delivered_is_reused_and_free() -> None:
    plan = planned(scene("a"), scene("b", 7))
    again = plan.with_reuse({plan.requests[0].key})
    assert (again.reused, again.resumed) == (frozenset({"a"}), frozenset())
    assert (ids(again.to_make), ids(again.to_create)) == (["b"], ["b"])
    assert (again.total_cost, again.worst_case_cost) == (Decimal("1.00"), Decimal("2.00"))
    assert plan.with_reuse({NEVER}) == plan


def test_a_plan_that_makes_nothing_costs_an_amount_of_nothing() -> None:
    """It is money, which is formatted as such, and no mere number."""
    plan = planned(scene("a"))
    again = plan.with_reuse({plan.requests[0].key})
    assert (format_money(again.total_cost), format_money(again.worst_case_cost)) == ("$0.00", "$0.00")


def test_what_an_earlier_run_began_is_continued_and_not_paid_for_again() -> None:
    """It is still made, and only its first prediction is paid for already."""
    plan = planned(scene("a"), scene("b", 7), scene("c", 9))
    keys = [request.key for request in plan.requests]
    again = plan.with_reuse({keys[2]}, paid=set(keys), resumable={keys[1], keys[2]})
    assert (again.reused, again.resumed) == (frozenset({"c"}), frozenset({"b"}))
    assert (ids(again.to_make), ids(again.to_create)) == (["a", "b"], ["a"])
    assert (again.total_cost, again.worst_case_cost) == (Decimal("0.50"), Decimal("2.00"))


def test_a_prediction_that_is_gone_is_paid_for_again() -> None:
    """The account was billed for it, but nothing can be fetched from there."""
    plan = planned(scene("a"))
    again = plan.with_reuse(set(), paid={plan.requests[0].key})
    assert (again.resumed, again.total_cost) == (frozenset(), Decimal("0.50"))


@pytest.mark.parametrize("way", ["delivered", "paid"])
def test_a_scene_that_a_fallback_made_stays_with_it(way: str) -> None:
    """Else the clip would be made once more by the first model. The other scene is not touched."""
    plan = planned(scene("a"), scene("b"), fallback_models=["dear"])
    key = plan.requests[0].fallbacks[0].key
    again = plan.with_reuse({key}) if way == "delivered" else plan.with_reuse(set(), paid={key}, resumable={key})
    assert [request.model for request in again.requests] == ["dear", "cheap"]
    assert (again.reused, again.resumed) == (({"a"}, frozenset()) if way == "delivered" else (frozenset(), {"a"}))


def test_a_delivered_alternative_comes_before_one_that_is_only_paid_for() -> None:
    plan = planned(scene("a"), fallback_models=["dear"])
    own, fallback = (each.key for each in plan.requests[0].alternatives)
    again = plan.with_reuse({fallback}, paid={own})
    assert (again.requests[0].model, again.reused) == ("dear", frozenset({"a"}))


def test_a_clip_is_kept_although_its_scene_has_changed() -> None:
    """As `--retry-failed` does with the clips of the last run. Ids of scenes that the job no longer has do no harm."""
    plan = planned(scene("a"), scene("b"))
    again = plan.with_reuse(set(), kept={"b", "z"}, resumable={plan.requests[1].key})
    assert (again.reused, again.resumed, ids(again.to_create)) == (frozenset({"b"}), frozenset(), ["a"])


def test_requests_of_an_earlier_version_are_kept_where_their_clips_exist() -> None:
    new, old = planned(scene("a"), scene("b")), planned(scene("a", 9), scene("b", 9))
    kept = new.with_kept_requests(old, made={old.requests[0].key, new.requests[1].key})
    assert kept.requests == (old.requests[0], new.requests[1])
    assert kept.model_copy(update={"requests": new.requests}) == new


def test_plans_of_different_scenes_are_not_mixed() -> None:
    with pytest.raises(ValueError, match="shorter"):
        planned(scene("a"), scene("b")).with_kept_requests(planned(scene("a")), made=set())


def test_warnings_are_added_behind_those_of_the_plan() -> None:
    assert planned(scene("a")).with_warnings("one").with_warnings("two", "three").warnings == ("one", "two", "three")


def test_the_rest_of_the_budget_is_never_negative() -> None:
    plan = planned(scene("a"), max_cost="0.70")
    assert plan.remaining_budget == Decimal("0.70")
    assert plan.with_prior_cost(Decimal("0.10"), Decimal("0.20")).remaining_budget == Decimal("0.40")
    assert plan.with_prior_cost(Decimal("0.90")).remaining_budget == 0
    assert planned(scene("a")).with_prior_cost(Decimal(1)).remaining_budget is None


def test_a_rest_that_covers_the_plan_exactly_is_enough() -> None:
    plan = planned(scene("a"), max_cost="0.70")
    enough, short = plan.with_prior_cost(Decimal("0.20")), plan.with_prior_cost(Decimal("0.15"), Decimal("0.06"))
    assert (enough.warnings, enough.spent_before, enough.reserved_before) == ((), Decimal("0.20"), Decimal(0))
    assert (short.spent_before, short.reserved_before) == (Decimal("0.21"), Decimal("0.06"))
    assert short.warnings == (
        "spent so far $0.15 and $0.06 reserved of $0.70, this run $0.50: clips that the remaining $0.49 does not cover "
        "will fail with `budget`. --max-cost 0.71 covers all of them",
    )
    assert planned(scene("a")).with_prior_cost(Decimal(9)).warnings == ()


def test_the_expected_time_fills_the_slots_longest_first() -> None:
    """Three scenes of one minute in two slots; two slots need no longer for one scene less."""
    plan = planned(scene("a"), scene("b"), scene("c"), concurrency=2)
    assert plan.expected_s == 120
    assert plan.with_reuse({plan.requests[0].key}).expected_s == 60
    assert plan.with_reuse({request.key for request in plan.requests}).expected_s == 0


def test_the_buffer_is_averaged_over_all_clips() -> None:
    """One of three clips is a quarter longer than its target."""
    assert planned(scene("a", 4), scene("b"), scene("c")).buffer_cost_impact == 8.3


def test_the_summary_tells_all_of_a_plan() -> None:
    """Programs read it: `plan --json` prints it."""
    plan = planned(scene("a"), scene("b", 7, original_target_duration=8), fallback_models=["dear"], max_cost=9)
    resumed = plan.with_reuse(set(), resumable={plan.requests[1].key})
    summary = resumed.with_prior_cost(Decimal("1.25"), Decimal("0.75")).summary()
    references: dict[str, list[str]] = {"used": [], "composed": [], "dropped": []}
    assert summary == {
        "job_id": "film",
        "model": "cheap",
        "aspect_ratio": "16:9",
        "total_cost": "0.500",
        "spent_before": "2.00",
        "reserved_before": "0.75",
        "cost_is_exact": True,
        "worst_case_cost": "12.000",
        "expected_seconds": 60,
        "buffer_cost_impact": 21.4,
        "warnings": [],
        "scenes": [
            {
                "scene_id": "a",
                "target_duration": 5,
                "original_target_duration": 5,
                "buffered_duration": 5,
                "requested_duration": 5,
                "inputs": {"ratio": "wide", "seconds": 5, "text": "a"},
                "references": references,
                "cost": "0.500",
                "cost_is_exact": True,
                "buffer_cost_impact": 0.0,
                "reused": False,
                "resumed": False,
                "fallbacks": [{"model": "dear", "requested_duration": 5, "cost": "2.00"}],
            },
            {
                "scene_id": "b",
                "target_duration": 7,
                "original_target_duration": 8,
                "buffered_duration": 10,
                "requested_duration": 10,
                "inputs": {"ratio": "wide", "seconds": 10, "text": "b"},
                "references": references,
                "cost": "0",
                "cost_is_exact": True,
                "buffer_cost_impact": 42.9,
                "reused": False,
                "resumed": True,
                "fallbacks": [{"model": "dear", "requested_duration": 10, "cost": "3.00"}],
            },
        ],
    }


def test_the_summary_tells_what_is_reused_and_what_is_estimated() -> None:
    plan = planned(scene("a"), scene("b"), model="dear")
    rows = plan.with_reuse({plan.requests[0].key}).summary()["scenes"]
    assert [(row["reused"], row["resumed"], row["cost"]) for row in rows] == [
        (True, False, "0"),
        (False, False, "2.00"),
    ]
    assert [row["cost_is_exact"] for row in rows] == [False, False]
    assert not plan.cost_is_exact
    assert plan.with_reuse({request.key for request in plan.requests}).cost_is_exact
