"""The counters of the ledger and the cost of predictions."""

from collections.abc import Callable, Iterator
from decimal import Decimal
from itertools import product
from pathlib import Path
from typing import Any

import httpx
import pytest

from videogen.emulator.catalogue import MODELS
from videogen.emulator.models import EmulatedModel

SEEDANCE = "bytedance/seedance-1-pro"
SMALL = {"prompt": "x", "resolution": "480p", "duration": 2}
SVD, COGVIDEOX = "stability-ai/stable-video-diffusion", "cuuupid/cogvideox-5b"


def test_the_peak_is_the_most_that_ran_at_once(launch: Any) -> None:
    """Three at once, one after them: the peak stays three, nothing is left running."""
    client = launch(latency_s=(0.5, 0.5))
    ids = [client.create(SEEDANCE, SMALL)["id"] for _ in range(3)]
    assert client.ledger()["running"] == 3
    for prediction_id in ids:
        client.until(prediction_id, {"succeeded"})
    client.run(SEEDANCE, SMALL)
    report = client.ledger()
    assert (report["peak"], report["running"], report["creates"]) == (3, 0, 4)
    assert [row["nth"] for row in report["predictions"]] == [1, 2, 3, 4]


def test_every_call_is_counted(launch: Any) -> None:
    """Creates that were refused do not count; polls, cancels, lists and served bytes do."""
    client = launch()
    client.post(SEEDANCE, {})
    done = client.run(SEEDANCE, SMALL)
    polls = client.entry(done["id"])["polls"]
    client.get(done["id"])
    client.http.get("/v1/predictions")
    client.http.post(done["urls"]["cancel"])
    whole = httpx.get(done["output"], trust_env=False, verify=False)
    httpx.get(done["output"], headers={"Range": "bytes=0-99"}, trust_env=False, verify=False)
    report, entry = client.ledger(), client.entry(done["id"])
    assert (report["creates"], report["cancels"], report["lists"]) == (1, 1, 1)
    assert report["polls"] == entry["polls"] == polls + 1 > 1
    assert report["bytes_served"] == entry["bytes_served"] == len(whole.content) + 100
    assert (entry["status"], entry["model"]) == ("succeeded", SEEDANCE)
    assert entry["completed_at"] == done["completed_at"]


def test_the_ledger_can_be_reset(launch: Any) -> None:
    """Counters become zero, running predictions stay running, and creates are numbered from 1 again."""
    client = launch(latency_s=(999, 999))
    client.create(SEEDANCE, SMALL)
    assert client.http.delete("/_emulator/ledger").status_code == 204
    report = client.ledger()
    assert (report["creates"], report["running"], report["peak"], report["predictions"]) == (0, 1, 1, [])
    second = client.create(SEEDANCE, SMALL)
    assert client.entry(second["id"])["nth"] == 1


PRICES = [
    pytest.param("kwaivgi/kling-v2.1", {"start_image": "REF", "duration": 10}, "0.50", id="kling-2.1"),
    pytest.param("kwaivgi/kling-v2.1", {"start_image": "REF", "mode": "pro"}, "0.45", id="kling-2.1-pro"),
    pytest.param("kwaivgi/kling-v2.5-turbo-pro", {}, "0.35", id="kling-2.5"),
    pytest.param("minimax/hailuo-2.3", {}, "0.28", id="hailuo-6s"),
    pytest.param("minimax/hailuo-2.3", {"duration": 10}, "0.56", id="hailuo-10s"),
    pytest.param("minimax/hailuo-2.3", {"resolution": "1080p"}, "0.49", id="hailuo-1080p"),
    pytest.param("wan-video/wan-2.5-i2v", {"image": "REF", "resolution": "480p"}, "0.25", id="wan"),
    pytest.param("google/veo-3.1", {"duration": 6}, "2.40", id="veo"),
    pytest.param("google/veo-3.1", {"duration": 6, "generate_audio": False}, "1.20", id="veo-silent"),
    pytest.param(SEEDANCE, {"duration": 7}, "1.05", id="seedance"),
]


@pytest.mark.parametrize(("model", "inputs", "usd"), PRICES)
def test_an_output_has_its_price(
    slow: Any, picture: Callable[..., str], model: str, inputs: dict[str, Any], usd: str
) -> None:
    """A prediction canceled while running costs as much as its whole output."""
    given = {name: picture() if value == "REF" else value for name, value in inputs.items()}
    created = slow.create(model, {"prompt": "x", **given})
    slow.until(created["id"], {"processing"})
    assert slow.entry(created["id"])["billed"] == "0"
    slow.http.post(created["urls"]["cancel"])
    assert Decimal(slow.entry(created["id"])["billed"]) == Decimal(usd)


def test_canceled_before_the_start_is_free(launch: Any) -> None:
    """Nothing ran, nothing is billed."""
    client = launch(queue_s=(999, 999))
    canceled = client.http.post(client.create(SEEDANCE, SMALL)["urls"]["cancel"]).json()
    assert (canceled["status"], client.ledger()["billed"]) == ("canceled", "0")


def test_a_succeeded_output_is_billed_once(launch: Any) -> None:
    """Polling, canceling afterwards and downloading add nothing."""
    client = launch()
    done = client.run(SEEDANCE, SMALL)
    client.http.post(done["urls"]["cancel"])
    client.run(SEEDANCE, SMALL)
    assert Decimal(client.ledger()["billed"]) == Decimal("0.12")


def test_community_models_cost_their_gpu_time(launch: Any, picture: Callable[..., str]) -> None:
    """In simulated seconds, for failures too."""
    client = launch(latency_s=(50, 50), time_scale=0.01)
    done = client.run(COGVIDEOX, {"prompt": "x"})
    assert Decimal(client.entry(done["id"])["billed"]) == Decimal("0.07")
    failed = client.run(SVD, {"input_image": "data:image/png;base64,AAAA"})
    assert failed["status"] == "failed"
    assert Decimal(0) < Decimal(client.entry(failed["id"])["billed"]) < Decimal("0.07")


def test_an_aborted_prediction_is_free(launch: Any) -> None:
    """Its deadline passed before it started."""
    client = launch(queue_s=(999, 999), time_scale=0.02)
    created = client.create(SEEDANCE, SMALL, Cancel_After="5s")
    client.until(created["id"], {"aborted"})
    assert client.ledger()["billed"] == "0"


OFFICIAL = [pytest.param(model, id=name) for name, model in MODELS.items() if model.official]


@pytest.mark.parametrize("model", OFFICIAL)
def test_the_metrics_are_what_the_ledger_bills(model: EmulatedModel) -> None:
    """The price of a clip with exactly these measures is the one of the clip, whatever is asked for."""
    for asked in _iterate_inputs(model):
        metrics = model.get_billing_metrics(asked)
        told = {name: metrics[metric] for name, metric in METRICS.items() if metric in metrics}
        assert told.keys() == METRICS.keys() & model.properties.keys()
        assert model.price is not None
        assert model.price({**model.fill_defaults({}), **told}) == model.price(asked)


METRICS = {
    "duration": "video_output_duration_seconds",
    "resolution": "resolution_target",
    "generate_audio": "with_audio",
    "mode": "model_variant",
}


def _iterate_inputs(model: EmulatedModel) -> Iterator[dict[str, Any]]:
    choices = {"duration": model.properties["duration"].get("enum", [2, 12]), "generate_audio": [True, False]}
    choices |= {name: plain["enum"] for name, plain in model.properties.items() if name in ("resolution", "mode")}
    names = [name for name in choices if name in model.properties]
    for values in product(*(choices[name] for name in names)):
        yield model.fill_defaults(dict(zip(names, values, strict=True)))


def test_a_rule_bills_another_output_than_was_made(launch: Any, tmp_path: Path) -> None:
    """In the ledger and in the metrics. What was asked for is shown as it is."""
    faults = tmp_path / "plan.toml"
    faults.write_text('[[rules]]\ndo = "bill"\ninputs = { duration = 10, resolution = "1080p" }\n')
    client = launch(faults=faults)
    done = client.run(SEEDANCE, SMALL)
    row = client.entry(done["id"])
    assert (Decimal(row["billed"]), row["effective_input"]["duration"]) == (Decimal("1.50"), 2)
    metrics = done["metrics"]
    assert (metrics["video_output_duration_seconds"], metrics["resolution_target"]) == (10.0, "1080p")
    assert Decimal(client.entry(client.run(SEEDANCE, SMALL)["id"])["billed"]) == Decimal("0.06")
