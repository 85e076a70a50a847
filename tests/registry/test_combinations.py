"""Each model in each tier, ratio and length that it lists, with each kind of pictures: the endpoint takes the inputs,
and bills what the plan says."""

from collections.abc import Iterator, Mapping
from decimal import Decimal
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.registry.test_models import REFERENCES, assert_delivered, run_prepared
from tests.support.tokens import TOKEN
from videogen.app import prepare_job
from videogen.emulator import Emulator, EmulatorSettings, predictions, run_emulator
from videogen.emulator.catalogue import Catalogue
from videogen.emulator.models import ClipFormat, PixelSize, round_to_even
from videogen.emulator.rendering import encode as render
from videogen.emulator.rendering.spec import RenderSpec
from videogen.errors import ValidationError
from videogen.execution.options import RunOptions
from videogen.job.model import Job
from videogen.planning.planner import build_plan
from videogen.planning.requests import ClipRequest
from videogen.registry.load import read_registry
from videogen.registry.model_spec import ModelSpec

pytestmark = [pytest.mark.integration, pytest.mark.long]

REGISTRY, CATALOGUE = read_registry(), Catalogue()
LIGHTHOUSE, KEEPER = str(REFERENCES / "lighthouse.jpg"), str(REFERENCES / "keeper.png")
PICTURES: Mapping[str, dict[str, Any]] = {
    "none": {},
    "start": {"start_image": LIGHTHOUSE},
    "start-and-end": {"start_image": LIGHTHOUSE, "end_image": KEEPER},
    "references": {"scene_reference_url": LIGHTHOUSE, "character_reference_urls": [KEEPER]},
}
DIGESTS = {LIGHTHOUSE: "a" * 64, KEEPER: "b" * 64}


class Combination(NamedTuple):
    """What is asked of a model."""

    tier: str | None
    ratio: str
    seconds: float
    pictures: str

    def make_job(self, model: str) -> Job:
        target_s = round(self.seconds - 0.13, 3)  # a model may make a few frames less
        scene = {"id": "a", "prompt": "A pier", "target_duration": target_s, **PICTURES[self.pictures]}
        job = {"model": model, "aspect_ratio": self.ratio, "tier": self.tier, "scenes": [scene]}
        return Job.model_validate({name: value for name, value in job.items() if value is not None})


def list_values(spec: ModelSpec) -> tuple[list[Any], ...]:
    """The tiers, ratios, lengths and kinds of pictures that a model has."""
    names = spec.parameters
    kinds = {
        "none": not names.image_required,
        "start": names.image is not None,
        "start-and-end": names.image is not None and names.end_image is not None,
        "references": names.image is not None or spec.references is not None,
    }
    lengths = spec.duration.lengths or (spec.duration.min, spec.duration.max)  # type: ignore[union-attr]
    return list(spec.tiers) or [None], list(spec.aspect_ratios), list(lengths), [kind for kind in kinds if kinds[kind]]


def plan_clip(model: str, asked: Combination) -> ClipRequest | None:
    """The planned clip, or None if the registry says that it is not to be had."""
    try:
        plan = build_plan(asked.make_job(model), REGISTRY, digests=DIGESTS, buffer=1.0)
    except ValidationError:
        return None
    return plan.requests[0]


def find_refusals(spec: ModelSpec, inputs: Mapping[str, Any], images: Mapping[str, Any]) -> list[str]:
    """What the endpoint has against the inputs, whose images are given by name."""
    as_sent = {
        name: ["https://a.example/a.jpg" for _ in value] if isinstance(value, list) else "https://a.example/a.jpg"
        for name, value in inputs.items()
        if any(each in images for each in (value if isinstance(value, list) else [value]) if isinstance(each, str))
    }
    endpoint = CATALOGUE.find_model(spec.replicate)
    given = {**inputs, **as_sent}
    invalid = [f"{field['field']}: {field['description']}" for field in endpoint.find_invalid_fields(given)]
    conflict = None if invalid else endpoint.find_conflict(endpoint.fill_defaults(given))
    return [*invalid, conflict] if conflict else invalid


def find_bill(spec: ModelSpec, inputs: Mapping[str, Any]) -> Decimal | None:
    """The USD that the endpoint bills for a clip; None if its price is not known, or depends on its run time."""
    endpoint = CATALOGUE.find_model(spec.replicate)
    return endpoint.price(endpoint.fill_defaults(inputs)) if endpoint.price else None


@pytest.mark.parametrize("model", REGISTRY.models)
def test_the_endpoint_takes_every_combination_and_bills_the_planned_price(model: str) -> None:
    spec = REGISTRY.models[model]
    values = list_values(spec)
    planned = {asked: plan_clip(model, asked) for asked in map(Combination._make, product(*values))}
    wrong: list[tuple[Any, ...]] = []
    for asked, request in planned.items():
        if request is None:
            continue
        prediction = request.prediction
        wrong += [(asked, refusal) for refusal in find_refusals(spec, prediction.inputs, prediction.images)]
        bill = find_bill(spec, prediction.inputs)
        wrong += [(asked, prediction.cost, bill)] if bill is not None and bill != prediction.cost else []
    assert wrong == []
    made = [asked for asked, request in planned.items() if request]
    for number, every in enumerate(values):  # what is not to be had together is to be had otherwise
        assert {asked[number] for asked in made} == set(every)


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with run_emulator(EmulatorSettings(latency_s=(0.1, 0.1))) as server:
        yield server


def choose_combinations(model: str) -> list[Combination]:
    """Combinations in which each tier, ratio, length and kind of pictures of the model is at least once."""
    values = list_values(REGISTRY.models[model])
    chosen: list[Combination] = []
    seen: set[Any] = set()
    for asked in sorted(map(Combination._make, product(*values)), key=lambda asked: _mix(values, asked)):
        new = {(number, value) for number, value in enumerate(asked)} - seen
        if new and plan_clip(model, asked):
            chosen.append(asked)
            seen |= new
    return chosen


def _mix(values: tuple[list[Any], ...], asked: Combination) -> tuple[int, int]:
    """Sort the combinations along the diagonals of the table, in which all values change at once."""
    places = [every.index(value) for every, value in zip(values, asked, strict=True)]
    first = max(places)
    return sum(place != first % len(every) for place, every in zip(places, values, strict=True)), first


def make_smaller(clip_format: ClipFormat, **fields: Any) -> RenderSpec:
    """Have the emulator render a clip in half of its width and height, which is four times as quick to check."""
    size = PixelSize(*(round_to_even(pixels / 2) for pixels in clip_format.size))
    return RenderSpec(clip_format=clip_format._replace(size=size), **fields)


@pytest.mark.parametrize("model", REGISTRY.models)
async def test_every_value_is_delivered_as_asked_at_the_planned_price(
    model: str, tmp_path: Path, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPLICATE_API_TOKEN", TOKEN)
    monkeypatch.setenv("REPLICATE_BASE_URL", emulator.url)
    monkeypatch.setenv("VIDEO_GENERATOR_DURATION_BUFFER", "1")
    monkeypatch.setattr(render, "LOOP_S", 0.5)  # what is drawn does not matter here, and takes most of the time
    monkeypatch.setattr(predictions, "RenderSpec", make_smaller)
    for asked in choose_combinations(model):
        emulator.reset()
        prepared = await prepare_job(
            asked.make_job(model), RunOptions(out=str(tmp_path / "-".join(map(str, asked)).replace(":", "x")))
        )
        result = await run_prepared(prepared)
        (clip,), (made,) = result.clips, emulator.ledger()["predictions"]
        assert (clip.status, clip.warnings) == ("success", ()), (asked, clip)
        assert clip.requested_duration == pytest.approx(asked.seconds, abs=0.14)
        shape = asked.ratio if ":" in asked.ratio else f"{clip.width}:{clip.height}"  # a word leaves it to the model
        assert_delivered(shape, clip, Path(prepared.folder) / str(clip.video_path))
        if made["price_known"] and REGISTRY.models[model].price.per_gpu_second is None:
            assert Decimal(made["billed"]) == clip.cost == prepared.plan.total_cost, asked
