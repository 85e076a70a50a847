"""The cost of a prediction by what was billed for it, and what is said where that is not what was planned."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from tests.support.builders import job_of, request_of, small_registry
from videogen.execution.billing import (
    UnexpectedBill,
    compute_cost,
    describe_unexpected_bills,
    estimate_most,
    find_unexpected_bill,
)
from videogen.planning.planner import build_plan
from videogen.planning.requests import ClipRequest
from videogen.providers.base import BilledOutput, Capabilities, Prediction, Status

REPLICATE = Capabilities(outputs_kept=None, bills_failed=False, bills_canceled=True, shortest_deadline_s=5)  # type: ignore[arg-type]
AS_OF = {"as_of": "2026-11-01", "basis": "exact"}
DONE = Prediction("p", "succeeded")


def ask(*, audio: bool = False, audio_option: Any = None, **fields: Any) -> ClipRequest:
    """Return the request of five seconds to a model that costs $0.10 a second, but for what is given."""
    registry = small_registry(m={"audio": audio_option, **fields})
    return build_plan(job_of({}, model="m", audio=audio), registry).requests[0]


def book(request: ClipRequest, **billed: Any) -> tuple[str, str]:
    cost, basis = compute_cost(request, replace(DONE, billed=BilledOutput(**billed)), REPLICATE)
    return f"{cost:.3f}", basis


BY_LENGTH = {"per_clip": {5: "0.28", 10: "0.56"}, **AS_OF}
AUDIO = {"inputs": {"sound": True}, "price": {"per_second": "0.20", **AS_OF}}


@pytest.mark.parametrize(
    ("price", "billed", "usd", "basis"),
    [
        pytest.param(None, {}, "0.500", "known", id="nothing-told"),
        pytest.param(None, {"seconds": 5.0, "count": 1}, "0.500", "known", id="as-planned"),
        pytest.param(None, {"seconds": 10}, "1.000", "known", id="longer"),
        pytest.param(None, {"seconds": 2.5}, "0.250", "known", id="shorter"),
        pytest.param(None, {"seconds": 10, "count": 2}, "1.000", "known", id="seconds-of-all-videos"),
        pytest.param({"per_clip": "0.30", **AS_OF}, {"seconds": 10}, "0.300", "known", id="price-of-a-clip"),
        pytest.param({"per_clip": "0.30", **AS_OF}, {"count": 2}, "0.600", "known", id="two-clips"),
        pytest.param(BY_LENGTH, {"seconds": 4.875}, "0.280", "known", id="frames-less-than-the-table"),
        pytest.param(BY_LENGTH, {"seconds": 10.04}, "0.560", "known", id="another-length-of-the-table"),
        pytest.param(BY_LENGTH, {"seconds": 7.5}, "0.280", "estimated", id="not-in-the-table"),
    ],
)
def test_the_cost_follows_what_is_billed(price: Any, billed: dict[str, Any], usd: str, basis: str) -> None:
    """By the price of the model; where it has none for it, by the plan."""
    assert book(ask(**({"price": price} if price else {})), **billed) == (usd, basis)


def test_the_cost_follows_the_sound_that_is_billed() -> None:
    """Where the registry has both prices. Else the plan's is booked, as an estimate."""
    assert book(ask(), with_audio=True) == ("0.500", "estimated")
    assert book(ask(), with_audio=False) == ("0.500", "known")
    assert book(ask(audio_option=AUDIO), with_audio=True) == ("1.000", "known")
    assert book(ask(audio_option=AUDIO, audio=True), with_audio=False) == ("0.500", "known")
    assert book(ask(audio_option=AUDIO, audio=True), with_audio=True) == ("1.000", "known")


def test_a_price_in_another_resolution_is_not_known() -> None:
    request = ask(fixed={"resolution": "720p"})
    assert book(request, resolution="1080p") == ("0.500", "estimated")
    assert book(request, resolution="720P") == ("0.500", "known")
    assert book(ask(fixed={"resolution": "4k"}), resolution="2160p") == ("0.500", "known")
    assert book(ask(fixed={"resolution": "720p"}, ignored=["resolution"]), resolution="1080p") == ("0.500", "known")


PIXELS = [
    {"when": {"resolution": "720p"}, "per_second": "0.10"},
    {"when": {"resolution": "1080p"}, "per_second": "0.30"},
    {"when": {"resolution": "4k"}, "per_clip": "9"},
]
MODES = [
    {"when": {"mode": "standard"}, "per_second": "0.10"},
    {"when": {"mode": "pro"}, "per_second": "0.20"},
]


@pytest.mark.parametrize(
    ("rows", "fixed", "billed", "booked", "differences"),
    [
        pytest.param(PIXELS, {"resolution": "720p"}, {"resolution": "1080p"}, "1.500", "1080p", id="finer"),
        pytest.param(PIXELS, {"resolution": "1080p"}, {"resolution": "720p", "seconds": 4}, "0.400", "720p", id="less"),
        pytest.param(PIXELS, {"resolution": "1080p"}, {"resolution": "2160p"}, "9.000", "2160p", id="another-name"),
        pytest.param(MODES, {"mode": "standard"}, {"variant": "Pro"}, "1.000", "Pro", id="variant"),
        pytest.param(MODES, {"mode": "pro"}, {"variant": "pro"}, "1.000", None, id="as-asked"),
        pytest.param(MODES, {"mode": "pro"}, {"variant": "kling-v3"}, "1.000", None, id="a-variant-nobody-knows"),
    ],
)
def test_the_cost_follows_the_resolution_and_the_variant_that_are_billed(
    rows: Any, fixed: dict[str, Any], billed: dict[str, Any], booked: str, differences: str | None
) -> None:
    """By the rows of the registry; and the difference is told."""
    request = ask(price={"rows": rows, **AS_OF}, fixed=fixed)
    assert book(request, **billed) == (booked, "known")
    bill = find(request, **billed)
    assert (bill.differences[-1].partition(" ")[0] if bill else None) == differences


def test_a_price_of_two_differences_is_not_known() -> None:
    request = ask(price={"rows": PIXELS, **AS_OF}, fixed={"resolution": "720p"}, audio_option=AUDIO)
    assert book(request, resolution="1080p", with_audio=True) == ("0.500", "estimated")


def test_only_a_succeeded_prediction_is_billed_by_its_output() -> None:
    """GPU time stays what it is, whatever else is told."""
    billed = BilledOutput(seconds=10, count=3, with_audio=True)
    gpu = ask(price={"per_gpu_second": "0.01", **AS_OF})
    ran = replace(DONE, billed=billed, predict_time_s=30.0)
    assert compute_cost(gpu, ran, REPLICATE) == (Decimal("0.300000"), "known")
    assert find_unexpected_bill(gpu, ran, Decimal("0.3")) is None
    ends: list[tuple[Status, str]] = [("failed", "0"), ("canceled", "0.5")]
    for status, usd in ends:
        ended = Prediction("p", status, billed=billed)
        assert compute_cost(ask(), ended, REPLICATE) == (Decimal(usd), "estimated")
        assert find_unexpected_bill(ask(), ended, Decimal(9)) is None


def find(request: ClipRequest, **billed: Any) -> UnexpectedBill | None:
    prediction = replace(DONE, billed=BilledOutput(**billed))
    return find_unexpected_bill(request, prediction, compute_cost(request, prediction, REPLICATE)[0])


@pytest.mark.parametrize(
    ("billed", "differences"),
    [
        pytest.param({}, None, id="nothing-told"),
        pytest.param({"seconds": 5.0, "resolution": "720p", "with_audio": False, "count": 1}, None, id="as-planned"),
        pytest.param({"seconds": 5.042}, None, id="one-frame-more"),
        pytest.param({"variant": "pro"}, None, id="variant"),
        pytest.param({"seconds": 10}, ("10 s instead of 5 s",), id="seconds"),
        pytest.param({"seconds": 4}, ("4 s instead of 5 s",), id="less"),
        pytest.param({"resolution": "1080p"}, ("1080p instead of 720p",), id="resolution"),
        pytest.param({"with_audio": True}, ("with sound instead of without",), id="sound"),
    ],
)
def test_a_bill_that_differs_from_the_plan_is_found(billed: dict[str, Any], differences: tuple[str, ...]) -> None:
    """But not one for a few frames more."""
    bill = find(ask(fixed={"resolution": "720p"}), **billed)
    assert (bill.differences if bill else None) == differences


AUTOMATIC = {"mode": "discrete", "sizes": [5, 10], "input": "seconds", "automatic": {"seconds": -1}}


@pytest.mark.parametrize(
    ("billed", "booked", "differences"),
    [
        pytest.param({"seconds": 7}, ("0.700", "known"), None, id="shorter"),
        pytest.param({"seconds": 10}, ("1.000", "known"), None, id="longest"),
        pytest.param({}, ("1.000", "estimated"), None, id="nothing-told"),
        pytest.param({"seconds": 20}, ("2.000", "known"), ("20 s instead of 10 s",), id="longer"),
        pytest.param({"seconds": 7, "count": 2}, ("0.700", "known"), None, id="seconds-of-all-videos"),
    ],
)
def test_a_length_that_is_left_to_the_model_is_booked_as_it_comes(
    billed: dict[str, Any], booked: tuple[str, str], differences: tuple[str, ...] | None
) -> None:
    """Less than its longest clip is no sign of a stale price."""
    registry = small_registry(m={"duration": AUTOMATIC})
    request = build_plan(job_of({}, model="m", inputs={"seconds": -1}), registry).requests[0]
    assert (request.cost, book(request, **billed)) == (Decimal(1), booked)
    bill = find(request, **billed)
    assert (bill.differences if bill else None) == differences


def test_sound_that_the_model_always_has_is_no_difference_where_it_is_wanted() -> None:
    assert find(ask(audio=True), with_audio=True) is None
    assert find(ask(audio=True), with_audio=False) is None


def bill_of(scene: str, cost: str, planned: str = "0.35", *why: str, model: str = "kling-v2.6") -> UnexpectedBill:
    return UnexpectedBill(model, scene, Decimal(planned), Decimal(cost), why, f"https://replicate.com/{model}")


LONG = "10 s instead of 5 s"
STALE = "the registry's price looks stale, look it up at https://replicate.com/kling-v2.6"


@pytest.mark.parametrize(
    ("bills", "said"),
    [
        pytest.param([], (), id="none"),
        pytest.param(
            [bill_of("a", "0.70", "0.35", LONG)],
            (f"kling-v2.6: 1 clip was billed $0.70, not $0.35 as planned ({LONG}): {STALE}",),
            id="one",
        ),
        pytest.param(
            [bill_of(scene, "0.70", "0.35", LONG) for scene in "abc"],
            (f"kling-v2.6: 3 clips were billed $0.70 each, not $0.35 as planned ({LONG}): {STALE}",),
            id="the-same-thrice",
        ),
        pytest.param(
            [bill_of("a", "0.70", "0.35", LONG), bill_of("b", "0.50", "0.35", "with sound instead of without")],
            (
                "kling-v2.6: 2 clips were billed $1.20 together, not $0.70 as planned "
                f"({LONG}, with sound instead of without): {STALE}",
            ),
            id="different",
        ),
        pytest.param(
            [bill_of("a", "0.70", "0.35", LONG), bill_of("a", "0.70", "0.35", LONG)],
            (f"kling-v2.6: 1 clip was billed $1.40, not $0.70 as planned ({LONG}): {STALE}",),
            id="two-predictions-of-a-clip",
        ),
        pytest.param(
            [bill_of("a", "0.35", "0.35", "1080p instead of 720p")],
            (
                "kling-v2.6: 1 clip was billed 1080p instead of 720p: the registry's price may be wrong for that, "
                "look it up at https://replicate.com/kling-v2.6",
            ),
            id="another-resolution",
        ),
    ],
)
def test_one_sentence_tells_the_bills_of_a_model(bills: list[UnexpectedBill], said: tuple[str, ...]) -> None:
    assert describe_unexpected_bills(bills) == said
    other = bill_of("z", "2", "1", LONG, model="veo")
    assert len(describe_unexpected_bills([*bills, other])) == len(said) + 1


def test_a_model_that_bills_more_than_planned_may_do_so_again() -> None:
    """By the greatest factor so far; less is not expected again, and other models are not concerned."""
    request = request_of()  # $0.35
    own = request.model
    assert estimate_most(request, []) == Decimal("0.35")
    bills = [bill_of("a", "0.70", model=own), bill_of("b", "0.10", model=own), bill_of("c", "3.50", model="veo")]
    assert estimate_most(request, bills) == Decimal("0.70")
    assert estimate_most(request, bills[1:]) == Decimal("0.35")
    free = bill_of("d", "0.10", "0", model=own)
    assert estimate_most(request, [free]) == Decimal("0.35")
