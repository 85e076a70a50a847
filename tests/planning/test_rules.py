"""The problems for which a job is refused, and the doubts that its plan mentions."""

from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest

from tests.support.builders import small_registry
from videogen.errors import ValidationError
from videogen.job.model import Job
from videogen.planning.plan import Plan
from videogen.planning.planner import build_plan
from videogen.planning.rules import find_budget_problems, find_problems, shorten_address, validate_budget
from videogen.registry.load import read_registry
from videogen.registry.model_spec import Registry

AS_OF = date(2026, 11, 1)
PICTURES = {"prompt": "text", "image": "start"}
REGISTRY = small_registry(
    plain={},
    wide={"aspect_ratios": {"16:9": {}, "1:1": {}, "9:16": {}}},
    pictured={"parameters": {**PICTURES, "image_required": True}},
    smooth={"duration": {"mode": "continuous", "min": 1, "max": 8, "input": "seconds"}},
)


def scene(name: str = "a", target_s: float = 5, **fields: Any) -> dict[str, Any]:
    return {"id": name, "prompt": name, "target_duration": target_s, **fields}


def job_of(*scenes: dict[str, Any], **fields: Any) -> Job:
    return Job.model_validate({"model": "plain", "scenes": scenes or [scene()], **fields})


def problems_of(*scenes: dict[str, Any], **fields: Any) -> list[tuple[str, str]]:
    return [(problem.where, problem.message) for problem in find_problems(job_of(*scenes, **fields), REGISTRY)]


def warnings_of(
    *scenes: dict[str, Any], registry: Registry = REGISTRY, today: date | None = None, **fields: Any
) -> tuple[str, ...]:
    return build_plan(job_of(*scenes, **fields), registry, digests={"x.png": "1", "y.png": "2"}, today=today).warnings


# -- models and fallbacks ---------------------------------------------------------------------------------------------


def test_an_unknown_model_is_found_where_it_stands() -> None:
    there = "there are: plain, wide, pictured, smooth"
    assert problems_of(model="plane") == [
        ("model", f"'plane' is not in the registry; {there}; did you mean 'plain'?"),
    ]
    assert problems_of(models=["wide", "nobody"]) == [("models.1", f"'nobody' is not in the registry; {there}")]


def test_a_problem_of_a_compared_model_names_that_model() -> None:
    assert problems_of(models=["wide", "pictured"]) == [
        (
            "scenes.0.scene_reference_url",
            "pictured needs a start image: give scene 'a' a start_image or a scene_reference_url",
        )
    ]


def test_each_fallback_that_cannot_replace_the_model_is_found_where_it_stands() -> None:
    """Unknown, tried before, or not able to make a scene; those that can are no problem."""
    fallbacks = ["nobody", "wide", "plain", "wide", "pictured"]
    assert problems_of(fallback_models=fallbacks) == [
        (
            "fallback_models.0",
            "'nobody' is not in the registry; there are: plain, wide, pictured, smooth",
        ),
        ("fallback_models.2", "plain is tried before already"),
        ("fallback_models.3", "wide is tried before already"),
        ("fallback_models.4", "pictured needs a start image: give scene 'a' a start_image or a scene_reference_url"),
    ]
    assert problems_of(fallback_models=["wide", "smooth"]) == []


def test_a_required_picture_may_be_of_any_kind() -> None:
    assert problems_of(scene(), scene("b"), model="pictured") == [
        (f"scenes.{index}.scene_reference_url", f"pictured needs a start image: give scene {name!r} a start_image or a "
         "scene_reference_url")
        for index, name in enumerate("ab")
    ]  # fmt: skip
    assert problems_of(scene(scene_reference_url="x.png"), model="pictured") == []
    assert problems_of(scene(character_reference_urls=["x.png"]), model="pictured") == []


# -- ratios -----------------------------------------------------------------------------------------------------------


def test_a_ratio_that_is_left_to_the_model_is_no_shape_to_suggest() -> None:
    job = job_of(model="seedance-2.5", aspect_ratio="16:10")
    (problem,) = find_problems(job, read_registry())
    assert str(problem.message).endswith("did you mean '16:9'?")


@pytest.mark.parametrize(
    ("asked", "suggestion"),
    [
        pytest.param("16x9", "; did you mean '16:9'?", id="spelt-alike"),
        pytest.param("16:10", "; did you mean '16:9'?", id="nearly-the-same-shape"),
        pytest.param("1920:1080", "; did you mean '16:9'?", id="in-pixels"),
        pytest.param("10:16", "; did you mean '9:16'?", id="upright"),
        pytest.param("10:10", "; did you mean '1:1'?", id="square"),
        pytest.param("21:9", "", id="another-shape"),
        pytest.param("4:3", "", id="none-of-the-shape"),
        pytest.param("cinema", "", id="no-ratio"),
        pytest.param("2٠:2٠", "", id="other-digits"),
    ],
)
def test_a_ratio_is_suggested_by_its_shape_or_its_spelling(asked: str, suggestion: str) -> None:
    message = f"wide does not support {asked!r}; it supports 16:9, 1:1, 9:16{suggestion}"
    assert problems_of(model="wide", aspect_ratio=asked) == [("aspect_ratio", message)]


def test_a_ratio_that_no_model_supports_is_found_beside_an_unknown_model() -> None:
    """Else it would be found only after the model's name was corrected."""
    assert problems_of(model="nobody", aspect_ratio="16:10")[1:] == [
        ("aspect_ratio", "no model supports '16:10'; did you mean '16:9'?")
    ]
    assert len(problems_of(model="nobody", aspect_ratio="1:1")) == 1
    assert len(problems_of(model="plain", aspect_ratio="1:1")) == 1


# -- durations --------------------------------------------------------------------------------------------------------


def test_a_scene_that_is_too_long_is_to_be_split() -> None:
    assert problems_of(scene(target_s=12), scene("b", 12.001), scene("c", 31)) == [
        (
            "scenes.1.target_duration",
            "plain makes at most 10 s, more than 2 s short of 12.001 s: split the scene into 2 of 6 s",
        ),
        (
            "scenes.2.target_duration",
            "plain makes at most 10 s, more than 2 s short of 31 s: split the scene into 4 of 7.75 s",
        ),
    ]


def test_the_tolerance_of_the_job_comes_before_that_of_the_registry() -> None:
    assert problems_of(scene(target_s=11), duration_tolerance=0) == [
        (
            "scenes.0.target_duration",
            "plain makes at most 10 s, more than 0 s short of 11 s: split the scene into 2 of 5.5 s",
        )
    ]
    assert problems_of(scene(target_s=15), duration_tolerance=5) == []


def test_a_continuous_model_makes_scenes_up_to_its_longest() -> None:
    assert problems_of(scene(target_s=8.5), model="smooth", duration_tolerance=0.5) == []
    assert problems_of(scene(target_s=9), model="smooth", duration_tolerance=0.5) == [
        (
            "scenes.0.target_duration",
            "smooth makes at most 8 s, more than 0.5 s short of 9 s: split the scene into 2 of 4.5 s",
        )
    ]


# -- the budget -------------------------------------------------------------------------------------------------------


def planned(*scenes: dict[str, Any], spent: str = "0", **fields: Any) -> Plan:
    return build_plan(job_of(*scenes, **fields), REGISTRY).with_prior_cost(Decimal(spent))


def budget_problems_of(plan: Plan, *, fresh: bool = True) -> list[tuple[str, str]]:
    return [(problem.where, problem.message) for problem in find_budget_problems(plan, fresh=fresh)]


def test_a_plan_that_costs_its_cap_is_allowed_and_one_cent_more_is_not() -> None:
    assert budget_problems_of(planned(max_cost="0.50")) == []
    assert budget_problems_of(planned(max_cost="0.49")) == [
        (
            "max_cost",
            "the plan costs $0.50, $0.01 above the cap of $0.49: --max-cost 0.50",
        )
    ]
    assert budget_problems_of(planned()) == []
    assert budget_problems_of(planned(spent="9")) == []


def test_a_fresh_run_must_be_able_to_make_the_cheapest_clip() -> None:
    """Else it would replace a finished film by failures. Without `fresh`, the clips fail one by one."""
    clips = scene(), scene("b", 9)
    enough = planned(*clips, max_cost="1.60", spent="1.10")
    short = planned(*clips, max_cost="1.60", spent="1.11")
    assert budget_problems_of(enough) == []
    assert budget_problems_of(short, fresh=False) == []
    assert list(find_budget_problems(short)) == []
    assert budget_problems_of(short) == [
        (
            "max_cost",
            "spent so far $1.11 of $1.60, this run $1.50: the remaining $0.49 does not cover any clip, so that --fresh "
            "would make nothing. --max-cost 2.61 covers every clip",
        )
    ]
    validate_budget(short)
    with pytest.raises(ValidationError, match="--fresh would make nothing"):
        validate_budget(short, fresh=True)


def test_a_run_that_keeps_clips_is_not_held_up_by_the_budget() -> None:
    """It replaces nothing by failures. One that makes nothing costs nothing."""
    short = planned(scene(), scene("b", 9), max_cost="1.60", spent="1.60")
    keys = [request.key for request in short.requests]
    assert budget_problems_of(short.with_reuse({keys[0]})) == []
    assert budget_problems_of(short.with_reuse(set(keys))) == []


# -- doubts -----------------------------------------------------------------------------------------------------------


def test_a_minimum_above_the_number_of_clips_is_warned_of() -> None:
    assert warnings_of(min_clips=2) == ("min_clips: 2 is more than the 1 clip of this job: all of them are needed",)
    assert warnings_of(takes=2, min_clips=3) == (
        "min_clips: 3 is more than the 2 clips of this job: all of them are needed",
    )
    assert warnings_of(takes=2, min_clips=2) == ()
    assert warnings_of(min_clips="100%") == ()


@pytest.mark.parametrize("variable", ["{name}", "{{ name }}", "${city}", "{scene.title}"])
def test_a_variable_that_was_left_in_a_prompt_is_warned_of(variable: str) -> None:
    sent = "is sent as it is: variables are not filled in"
    fields: dict[str, Any] = {"prompt": f"in {variable} at night", "negative_prompt": f"no {variable}"}
    registry = small_registry(plain={"parameters": {"prompt": "text", "negative_prompt": "not"}})
    assert warnings_of(scene(), scene("b", **fields), registry=registry) == (
        f"scenes.1.prompt: {variable} {sent}",
        f"scenes.1.negative_prompt: {variable} {sent}",
    )
    assert warnings_of(scene("b", prompt="{an open brace, and no variable"), registry=registry) == ()


def test_the_first_five_variables_are_named_and_the_others_counted() -> None:
    def left_in(count: int) -> list[str]:
        return [
            each.split(":")[0] for each in warnings_of(*(scene(f"s{n}", prompt=f"{{x}} {n}") for n in range(count)))
        ]

    five = [f"scenes.{number}.prompt" for number in range(5)]
    assert left_in(5) == five
    assert len(left_in(6)) == 6
    assert left_in(7) == [*five, "and 2 more prompts have variables in braces"]


def test_prices_of_fallbacks_and_of_sound_age_as_well() -> None:
    """Each is told once, for the price that is paid: of sound if there is sound."""
    old = {"per_second": "0.20", "as_of": AS_OF, "basis": "exact"}
    new = {"per_second": "0.20", "as_of": AS_OF + timedelta(days=9), "basis": "exact"}
    registry = small_registry(
        plain={"price": new, "audio": {"inputs": {"sound": True}, "price": old}},
        other={"price": old, "audio": {"inputs": {"sound": True}, "price": new}},
    )
    today = AS_OF + timedelta(days=91)
    fields: dict[str, Any] = {"fallback_models": ["other"], "registry": registry, "today": today}
    words = "its price of 2026-11-01 is 91 days old, look it up at https://example.com"
    assert warnings_of(scene(), scene("b"), **fields) == (f"other: {words}/other",)
    assert warnings_of(scene(), scene("b"), audio=True, **fields) == (f"plain: {words}/plain",)
    assert warnings_of(**{**fields, "today": today - timedelta(days=1)}) == ()
    assert warnings_of(**{**fields, "today": None}) == ()


def test_a_timeout_below_the_usual_time_is_warned_of() -> None:
    """A timeout of just that time is not."""
    assert warnings_of(timeout_seconds=59.5) == ("the timeout of 59.5 s is below the 60 s that plain typically needs",)
    assert warnings_of(timeout_seconds=60) == ()


@pytest.mark.parametrize(
    ("parameters", "fields", "warning"),
    [
        (
            {"prompt": "text"},
            {"scene_reference_url": "x.png"},
            "references are dropped, the model takes no images",
        ),
        ({"prompt": "text"}, {"negative_prompt": "fog"}, "the negative prompt is not sent"),
        ({"prompt": "text"}, {"seed": 0}, "the seed is not sent"),
        ({}, {}, "the prompt is not sent, the model takes only an image"),
        ({"prompt": "text"}, {"target_duration": 11}, "shorter than the target within the tolerance"),
    ],
)
def test_what_a_model_cannot_do_for_a_scene_is_warned_of(
    parameters: dict[str, Any], fields: dict[str, Any], warning: str
) -> None:
    """With the scenes that ask for it, and not where the model can do it."""
    limited = small_registry(plain={"parameters": parameters})
    others: dict[str, Any] = {} if not parameters else {"target_duration": 10}
    asked = scene(**others), scene("b") | fields
    scenes = "b" if parameters else "a, b"
    assert warnings_of(*asked, registry=limited) == (f"plain: {warning} ({scenes})",)
    able = {**PICTURES, "negative_prompt": "not", "seed": "seed"}
    sizes = {"mode": "discrete", "sizes": [5, 10, 11], "input": "seconds"}
    assert warnings_of(*asked, registry=small_registry(plain={"parameters": able, "duration": sizes})) == ()


def test_sound_that_a_model_cannot_make_is_warned_of() -> None:
    price = {"per_clip": "1", "as_of": AS_OF, "basis": "exact"}
    able = small_registry(plain={"audio": {"inputs": {"sound": True}, "price": price}})
    assert warnings_of(audio=True) == ("plain: sound is wanted, but the model cannot be asked for it (a)",)
    assert warnings_of(audio=True, registry=able) == ()


def test_a_long_address_is_shortened() -> None:
    """A `data:` address may have millions of characters."""
    assert shorten_address("x" * 100) == "x" * 100
    assert shorten_address("ab" * 50 + "c") == "ab" * 30 + "…"


def test_a_price_that_is_not_known_is_told_loudly() -> None:
    """With the amount that the plan counts on, and the address of the price; its age does not matter then."""
    price = {"per_second": "1.00", "as_of": AS_OF, "basis": "unknown"}
    registry = small_registry(plain={"price": price})
    (warning,) = warnings_of(scene("a"), scene("b"), registry=registry, today=AS_OF + timedelta(days=400), min_clips=1)
    source = registry.models["plain"].source
    assert warning.startswith("THE PRICE OF plain IS NOT KNOWN: the $10.00 of its clips are a guess on the high side")
    assert f"Look the price up at {source}" in warning
    plan = build_plan(job_of(), registry, digests={})
    assert not plan.cost_is_exact
