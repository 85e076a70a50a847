"""The changes that the refusal of a job above its cap names: each is planned again, and none is refused."""

import shlex
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.support.builders import small_registry
from videogen.errors import ValidationError
from videogen.job.model import Job
from videogen.planning.own_inputs import validate_inputs
from videogen.planning.plan import Plan
from videogen.planning.planner import build_plan
from videogen.planning.rules import validate_budget
from videogen.planning.ways_out import MAX_SCENES, WayOut, find_ways_out
from videogen.registry.load import read_registry
from videogen.registry.model_spec import Registry

SHIPPED = read_registry()
TODAY = max(spec.price.as_of for spec in SHIPPED.models.values())
PICTURES = {"prompt": "text", "image": "start"}
PRICED = {"as_of": date(2026, 11, 1), "basis": "exact"}
REGISTRY = small_registry(
    plain={"parameters": PICTURES},
    cheap={"parameters": PICTURES, "price": {"per_second": "0.04", **PRICED}},
    middling={"parameters": PICTURES, "price": {"per_second": "0.06", **PRICED}},
    dear={"parameters": PICTURES, "price": {"per_second": "0.30", **PRICED}},
    blind={"price": {"per_second": "0.05", **PRICED}},
    short={
        "parameters": PICTURES,
        "duration": {"mode": "discrete", "sizes": [5], "input": "seconds"},
        "price": {"per_second": "0.05", **PRICED},
    },
    guessed={"parameters": PICTURES, "price": {"per_second": "0.05", **PRICED, "basis": "unknown"}},
    tiered={
        "tiers": {"draft": {"size": "s"}, "standard": {"size": "m"}, "final": {"size": "l"}},
        "default_tier": "final",
        "price": {
            **PRICED,
            "rows": [
                {"when": {"size": "s"}, "per_second": "0.02"},
                {"when": {"size": "m"}, "per_second": "0.05"},
                {"when": {"size": "l"}, "per_second": "0.10"},
            ],
        },
    },
)


def plan(data: dict[str, Any], registry: Registry = REGISTRY, *, spent: str = "0") -> Plan:
    """Return the plan of a job that a person has written like this, as a run makes it."""
    job = Job.model_validate(data)
    validate_inputs(job, registry)
    digests = {url: url for scene in job.scenes for url in scene.picture_urls}
    return build_plan(job, registry, digests=digests, today=TODAY).with_prior_cost(Decimal(spent))


def ways_out_of(data: dict[str, Any], registry: Registry = REGISTRY, *, spent: str = "0") -> list[WayOut]:
    job, planned = Job.model_validate(data), plan(data, registry, spent=spent)
    assert planned.is_above_cap
    digests = {url: url for scene in job.scenes for url in scene.picture_urls}

    def make_plan(changed: Job) -> Plan:
        return build_plan(changed, registry, digests=digests, today=TODAY).with_prior_cost(Decimal(spent))

    return list(find_ways_out(planned, job, registry, make_plan=make_plan))


def told(ways: list[WayOut]) -> list[str]:
    return [way.describe() for way in ways]


def follow(way: WayOut, data: dict[str, Any], registry: Registry = REGISTRY, *, spent: str = "0") -> Plan:
    """Return the plan of the job with the flag of the way out, which must not be refused."""
    flag, value = shlex.split(way.flag)
    if flag == "--only":
        planned = plan(data, registry, spent=spent).select(value.split(","))
    else:
        planned = plan({**data, flag.removeprefix("--"): value}, registry, spent=spent)
    validate_budget(planned)
    return planned


def film(*lengths_s: float, **fields: Any) -> dict[str, Any]:
    scenes = [{"id": f"s{n}", "prompt": f"{n}", "target_duration": length} for n, length in enumerate(lengths_s)]
    return {"model": "plain", "scenes": scenes, **fields}


# -- which changes are named ------------------------------------------------------------------------------------------


def test_the_refusal_names_what_other_plans_cost() -> None:
    """$2.00 for four scenes: the models closest below the cap, and the scenes that it covers."""
    data = film(5, 5, 5, 5, max_cost="1.30")
    assert told(ways_out_of(data)) == ["--model middling $1.20", "--model blind $1.00", "--only s0,s1 $1.00"]
    planned = plan(data)
    with pytest.raises(ValidationError) as refused:
        validate_budget(planned, ways_out=told(ways_out_of(data)))
    assert str(refused.value) == (
        "max_cost: the plan costs $2.00, $0.70 above the cap of $1.30: --model middling $1.20, --model blind $1.00, "
        "--only s0,s1 $1.00, --max-cost 2.00"
    )


def test_each_cheaper_tier_of_the_model_is_named() -> None:
    data = film(5, 5, 5, 5, model="tiered", max_cost="1.10")
    assert told(ways_out_of(data))[:2] == ["--tier draft $0.40", "--tier standard $1.00"]
    assert [way for way in told(ways_out_of(data | {"max_cost": "0.90"})) if "tier" in way] == ["--tier draft $0.40"]


def test_a_model_that_cannot_make_a_scene_is_not_named() -> None:
    """A scene of ten seconds is too long for one of them."""
    ways = told(ways_out_of(film(5, 5, 5, 10, max_cost="1.60")))
    assert ways == ["--model middling $1.50", "--model blind $1.25", "--only s0,s1,s2 $1.50"]


def test_a_model_that_would_leave_something_out_is_not_named() -> None:
    """One takes no pictures; of another the price is not known."""
    data = film(5, 5, 5, 10, max_cost="1.60")
    data["scenes"][0]["scene_reference_url"] = "a.png"
    assert told(ways_out_of(data))[:2] == ["--model middling $1.50", "--model cheap $1.00"]


def test_a_model_that_does_not_take_an_input_of_the_job_is_not_named() -> None:
    data = film(5, 5, 5, 5, model="hailuo-2.3", inputs={"prompt_optimizer": False})
    for cost in (Decimal("0.20") * number for number in range(1, 6)):
        for way in ways_out_of(data | {"max_cost": str(cost)}, SHIPPED):
            follow(way, data | {"max_cost": str(cost)}, SHIPPED)
            assert way.only or way.job.model.startswith("hailuo-")


def test_the_scenes_that_a_scene_continues_are_named_with_it() -> None:
    data = film(5, 5, 5, max_cost="1.20")
    data["scenes"][0]["continues"] = "s2"
    (way,) = (way for way in ways_out_of(data) if way.only)
    assert (way.flag, way.plan.total_cost) == ("--only s0", Decimal("1.00"))
    assert [request.scene.id for request in follow(way, data).to_create] == ["s0", "s2"]


def test_the_money_that_is_spent_is_no_room() -> None:
    data = film(5, 5, 5, 5, max_cost="1.90")
    assert told(ways_out_of(data, spent="1.25")) == ["--only s0 $0.50"]
    assert told(ways_out_of(data, spent="1.90")) == []


def test_clips_that_are_there_cost_nothing_and_begun_ones_go_on() -> None:
    """Neither is paid for again; a begun one would be lost if the run left it out."""
    data = film(5, 5, 5, 5, max_cost="0.60")
    job, whole = Job.model_validate(data), plan(data)
    keys = [request.key for request in whole.requests]
    planned = whole.with_reuse({keys[0]}, paid={keys[3]}, resumable={keys[3]}).with_prior_cost(Decimal(0))
    ways = list(find_ways_out(planned, job, REGISTRY, make_plan=lambda changed: build_plan(changed, REGISTRY)))
    (way,) = (way for way in ways if way.only)
    assert (way.describe(), set(way.plan.resumed)) == ("--only s1,s3 $0.50", {"s3"})


def test_a_comparison_is_not_turned_into_one_model() -> None:
    ways = ways_out_of(film(5, 5, models=["plain", "dear"], max_cost="3.00"))
    assert told(ways) == ["--only s0.plain,s0.dear,s1.plain $2.50"]


def test_no_list_of_scenes_that_nobody_would_type_is_named() -> None:
    most = ways_out_of(film(*[5] * 60, max_cost=str(MAX_SCENES * Decimal("0.50"))))
    more = ways_out_of(film(*[5] * 60, max_cost=str((MAX_SCENES + 1) * Decimal("0.50"))))
    assert [len(way.only) for way in most if way.only] == [MAX_SCENES]
    assert [way.only for way in more if way.only] == []


# -- none is refused --------------------------------------------------------------------------------------------------

lengths = st.lists(st.sampled_from([2.0, 4.5, 5.0, 7.5, 8.0, 10.0, 14.0]), min_size=1, max_size=6)
shares = st.integers(1, 99).map(lambda percent: Decimal(percent) / 100)


@st.composite
def jobs(draw: st.DrawFn, registry: Registry) -> dict[str, Any]:
    """Draw a job of the shipped models with all that decides which model can make it."""
    data = film(*draw(lengths), model=draw(st.sampled_from(sorted(registry.models))))
    spec = registry.models[data["model"]]
    if draw(st.booleans()) and spec.tiers:
        data["tier"] = draw(st.sampled_from(sorted(spec.tiers)))
    data["aspect_ratio"] = draw(st.sampled_from(sorted(spec.aspect_ratios)))
    data["audio"] = draw(st.booleans())
    data["long_scenes"] = draw(st.sampled_from(["refuse", "continue"]))
    for index, scene in enumerate(data["scenes"]):
        of_scene: dict[str, Any] = {
            "scene_reference_url": "pier.png",
            "character_reference_urls": ["keeper.png"],
            "start_image": "first.png",
            "continues": f"s{max(0, index - 1)}",
            "seed": 7,
            "model": draw(st.sampled_from(sorted(registry.models))),
        }
        named = draw(st.sets(st.sampled_from(sorted(of_scene))))
        named -= {"start_image"} if index and "continues" in named else {"continues"}
        scene.update({name: of_scene[name] for name in named})
    return data


@given(jobs(SHIPPED), shares, shares)
def test_no_way_out_is_refused_and_each_costs_what_was_said(
    data: dict[str, Any], share: Decimal, spent_share: Decimal
) -> None:
    """Whatever the job is like: with a cap of a share of its price, of which another share is spent already."""
    try:
        cost = plan(data, SHIPPED).total_cost
    except ValidationError:
        assume(False)
    data["max_cost"] = str(cap := (cost * share).quantize(Decimal("0.001")))
    assume(cap < cost)
    spent = str((cap * spent_share).quantize(Decimal("0.001")))
    for way in ways_out_of(data, SHIPPED, spent=spent):
        followed = follow(way, data, SHIPPED, spent=spent)
        assert followed.total_cost == way.plan.total_cost <= cap - Decimal(spent)


@pytest.mark.parametrize("model", sorted(SHIPPED.models))
def test_from_each_shipped_model_there_is_a_way_out(model: str) -> None:
    """With a picture for each scene, as some models need one: half the price is enough for half the film at least."""
    spec = SHIPPED.models[model]
    data = film(*[5] * 4, model=model, aspect_ratio=next(iter(spec.aspect_ratios)))
    for scene in data["scenes"]:
        scene["scene_reference_url"] = f"{scene['id']}.png"
    data["max_cost"] = str(plan(data, SHIPPED).total_cost / 2)
    ways = ways_out_of(data, SHIPPED)
    assert ways[-1].flag == "--only s0,s1"
    for way in ways:
        assert follow(way, data, SHIPPED).total_cost == way.plan.total_cost
