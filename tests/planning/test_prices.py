"""The plan's price against what the emulator, which knows the models' true prices, writes on the bill."""

import asyncio
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.tokens import TOKEN
from videogen.emulator import Emulator, EmulatorSettings, run_emulator
from videogen.emulator.rendering import encode as render
from videogen.job.model import Job
from videogen.planning.plan import Plan
from videogen.planning.planner import build_plan
from videogen.planning.requests import ClipRequest
from videogen.providers.base import Prediction
from videogen.providers.replicate import ReplicateProvider
from videogen.registry.load import read_registry
from videogen.registry.model_spec import ModelSpec

pytestmark = pytest.mark.integration

REGISTRY = read_registry()
PICTURE = (Path(__file__).parents[2] / "examples" / "references" / "keeper.png").read_bytes()


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with pytest.MonkeyPatch.context() as patch, run_emulator(EmulatorSettings(latency_s=(0.01, 0.01))) as server:
        patch.setattr(render, "LOOP_S", 0.1)  # what is drawn does not matter here, and takes most of the time
        yield server


def longest_s(spec: ModelSpec) -> float:
    return max(spec.duration.lengths) if spec.duration.mode == "discrete" else spec.duration.max


@st.composite
def jobs(draw: st.DrawFn) -> Job:
    """One to three scenes of any length that the model can make, with any of its ratios, with or without sound."""
    name = draw(st.sampled_from(sorted(REGISTRY.models)))
    spec = REGISTRY.get_model(name)
    targets = st.floats(min_value=0.5, max_value=longest_s(spec)).map(lambda seconds: round(seconds, 2))
    scenes = [
        {"id": f"s{n}", "prompt": f"scene {n}", "take": n + 1, "target_duration": target, **picture(spec)}
        for n, target in enumerate(draw(st.lists(targets, min_size=1, max_size=3)))
    ]
    ratio = draw(st.sampled_from(sorted(spec.aspect_ratios)))
    fields = {"id": "film", "model": name, "aspect_ratio": ratio, "audio": draw(st.booleans()), "scenes": scenes}
    return Job.model_validate(fields)


def picture(spec: ModelSpec) -> dict[str, str]:
    return {"scene_reference_url": "keeper.png"} if spec.parameters.image_required else {}


@pytest.mark.parametrize("examples", [3, pytest.param(20, marks=pytest.mark.long)])
def test_what_is_planned_is_what_is_billed(examples: int, emulator: Emulator) -> None:
    """When nothing fails, to the cent; GPU time is billed as it was, at the rate that was planned with."""

    @settings(max_examples=examples, deadline=None, derandomize=True)
    @given(job=jobs(), buffer=st.sampled_from([1.0, 1.25, 2.0]))
    def plan_and_pay(job: Job, buffer: float) -> None:
        planned = build_plan(job, REGISTRY, digests={"keeper.png": "0" * 64}, buffer=buffer)
        emulator.reset()
        predictions = asyncio.run(made(planned, emulator))
        ledger = emulator.ledger()
        billed = Decimal(ledger["billed"])
        if not all(row["price_known"] for row in ledger["predictions"]):
            return  # the emulator invents no prices
        if any(request.prediction.gpu_cost_per_s for request in planned.requests):
            assert billed == sum(map(gpu_cost, planned.requests, predictions))
        else:
            assert billed == planned.total_cost

    plan_and_pay()


def gpu_cost(request: ClipRequest, prediction: Prediction) -> Decimal:
    assert request.prediction.gpu_cost_per_s
    assert prediction.predict_time_s
    return (request.prediction.gpu_cost_per_s * Decimal(str(prediction.predict_time_s))).quantize(Decimal("0.000001"))


async def made(planned: Plan, emulator: Emulator) -> list[Prediction]:
    """A prediction for each request, ended. What is billed does not depend on the download, which is left out."""
    provider = ReplicateProvider(TOKEN, base_url=emulator.url)
    address = await provider.upload(PICTURE, name="keeper.png", media_type="image/png")
    try:
        return [await ended(request, provider, address) for request in planned.to_create]
    finally:
        await provider.aclose()


async def ended(request: ClipRequest, provider: ReplicateProvider, picture_url: str) -> Prediction:
    inputs = {
        name: picture_url if value in request.prediction.images else value
        for name, value in request.prediction.inputs.items()
    }
    prediction = await provider.create(
        request.prediction.endpoint, request.prediction.version, inputs, cancel_after_s=60
    )
    while not prediction.ended:
        await asyncio.sleep(0.01)
        prediction = await provider.get(prediction.id)
    assert prediction.status == "succeeded", prediction.error
    return prediction
