"""Simulated time on a machine that is slower than the simulation, and past states. No test waits for a clock."""

import asyncio
import threading
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from videogen.emulator import EmulatorSettings
from videogen.emulator.catalogue import MODELS
from videogen.emulator.ledger import Ledger
from videogen.emulator.predictions import EmulatedPrediction, PredictionStore
from videogen.emulator.rendering.pool import RenderPool
from videogen.emulator.rendering.spec import RenderSpec
from videogen.emulator.uploads import Uploads

SEEDANCE = MODELS["bytedance/seedance-1-pro"]
INPUT = {"prompt": "x", "resolution": "1080p", "duration": 5}
MANY_TURNS = 200
"""Turns of the event loop after which everything has happened that does not wait for a film."""


class HeldRenderPool(RenderPool):
    """A studio whose threads begin to render when they are let go."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.go = threading.Event(), threading.Event()

    def _render(self, spec: RenderSpec, start: Image.Image | None, end: Image.Image | None) -> Path:
        self.begun.set()
        self.go.wait()
        path = self.folder / f"{spec.digest}.mp4"
        path.write_bytes(b"film")
        return path


class Bench:
    """Predictions on a held studio, with simulated time that takes no time at all."""

    def __init__(self, **settings: Any) -> None:
        self.ledger, self.render_pool = Ledger(), HeldRenderPool()
        given = EmulatorSettings(**{"time_scale": 0, "latency_s": (60, 60), "queue_s": (1, 1)} | settings)
        self.predictions = PredictionStore(given, self.ledger, self.render_pool, Uploads(self.render_pool.folder))

    def create(self, cancel_after_s: int, **more: Any) -> EmulatedPrediction:
        return self.predictions.create(SEEDANCE, INPUT | more, cancel_after_s=cancel_after_s)


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.render_pool.go.set()
    made.render_pool.close()


async def pass_turns() -> None:
    """Let everything happen that can."""
    for _ in range(MANY_TURNS):
        await asyncio.sleep(0)


async def test_rendering_makes_no_prediction_late(bench: Bench) -> None:
    """Of many that take 61 simulated seconds and may take 62, none is canceled though not one is rendered in time."""
    made = [bench.create(cancel_after_s=62, seed=seed) for seed in range(1, 10)]
    await pass_turns()
    assert {prediction.status for prediction in made} == {"processing"}
    bench.render_pool.go.set()
    for prediction in made:
        await prediction.ended.wait()
    assert [prediction.status for prediction in made] == ["succeeded"] * 9
    assert {prediction.predict_time_s for prediction in made} == {60}
    assert {prediction.total_time_s for prediction in made} == {61}
    assert all(prediction.completed_ns <= prediction.deadline_ns for prediction in made)  # type: ignore[operator]
    assert sum(entry.billed for entry in bench.ledger.entries.values()) == 9 * Decimal("0.75")


async def test_rendering_hides_behind_the_latency() -> None:
    """A clip is rendered as soon as its prediction runs, not at the end of its time, so that it is finished in time."""
    bench = Bench(time_scale=1, latency_s=(9999, 9999), queue_s=(0, 0))
    prediction = bench.create(cancel_after_s=60)
    assert await asyncio.to_thread(bench.render_pool.begun.wait, 60)
    assert prediction.status == "processing"
    bench.render_pool.go.set()
    bench.predictions.close()
    bench.render_pool.close()


@pytest.mark.parametrize(
    ("cancel_after_s", "status", "predict_time_s", "billed"),
    [(60, "canceled", 59, "0.75"), (5, "canceled", 4, "0.75")],
    ids=["just-before-the-end", "early"],
)
async def test_a_deadline_before_the_end_is_met_however_slow_the_machine(
    bench: Bench, cancel_after_s: int, status: str, predict_time_s: float, billed: str
) -> None:
    """A prediction over its deadline in simulated time is canceled at that time, without its clip."""
    prediction = bench.create(cancel_after_s)
    await prediction.ended.wait()
    assert (prediction.status, prediction.predict_time_s) == (status, predict_time_s)
    assert bench.ledger.entries[prediction.id].billed == Decimal(billed)


async def test_a_deadline_before_the_start_aborts() -> None:
    """For free."""
    bench = Bench(queue_s=(10, 10))
    prediction = bench.create(cancel_after_s=5)
    await prediction.ended.wait()
    assert (prediction.status, bench.ledger.entries[prediction.id].billed) == ("aborted", Decimal(0))
    bench.render_pool.close()


async def test_a_user_can_cancel_what_is_still_rendered(bench: Bench) -> None:
    """Its simulated time is over but its clip is not finished. A cancel ends it, and it is billed."""
    prediction = bench.create(cancel_after_s=62)
    await pass_turns()
    bench.predictions.cancel(prediction)
    assert prediction.status == "canceled"
    assert bench.ledger.entries[prediction.id].billed == Decimal("0.75")


AN_HOUR_NS = 3600 * 10**9


@pytest.mark.parametrize(
    ("as_of_s", "shown"),
    [
        (1800, ("succeeded", True, True, "http://x/files/")),
        (5400, ("processing", True, False, "None")),
        (9000, ("starting", False, False, "None")),
    ],
    ids=["ended", "running", "not-started"],
)
async def test_the_past_is_shown_as_it_was(as_of_s: int, shown: tuple[str, bool, bool, str]) -> None:
    """A prediction that was created three hours ago, began two hours ago and ended an hour ago."""
    bench = Bench(time_scale=1e-6, output_ttl_s=1e12)
    prediction = bench.create(cancel_after_s=62)
    bench.render_pool.go.set()
    await prediction.ended.wait()
    prediction.created_ns -= 3 * AN_HOUR_NS
    assert prediction.started_ns
    assert prediction.completed_ns
    prediction.started_ns -= 2 * AN_HOUR_NS
    prediction.completed_ns -= AN_HOUR_NS
    body = bench.predictions.make_body(prediction, "http://x", as_of_s=as_of_s)
    status, has_start, has_end, output = shown
    assert (body["status"], "started_at" in body) == (status, has_start)
    assert ("completed_at" in body) == ("metrics" in body) == has_end
    assert str(body["output"]).startswith(output)
    assert [found.id for found in bench.predictions.list_newest_first(as_of_s=as_of_s)] == [prediction.id]
    assert bench.predictions.list_newest_first(as_of_s=3 * 3600 + 60) == []
    bench.render_pool.close()
