"""What a clip costs, and which lengths and inputs a model is asked for."""

from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from tests.support.builders import small_registry
from videogen.registry.lengths import Continuous, Discrete
from videogen.registry.model_spec import ModelSpec
from videogen.registry.prices import Price


def price_of(**fields: Any) -> Price:
    return Price.model_validate({"as_of": date(2026, 11, 1), "basis": "exact", **fields})


def spec_of(**fields: Any) -> ModelSpec:
    return small_registry(mine=fields).get_model("mine")


@pytest.mark.parametrize(
    ("price", "usd", "follows_length"),
    [
        pytest.param({"per_second": "0.07"}, "0.525", True, id="per-second"),
        pytest.param({"per_clip": "0.28"}, "0.28", False, id="per-clip"),
        pytest.param({"per_clip": {5: "0.28", 7.5: "0.42"}}, "0.42", True, id="per-clip-by-length"),
        pytest.param({"per_gpu_second": "0.0014"}, "0.0168", False, id="per-gpu-second"),
    ],
)
def test_each_kind_of_price_is_calculated_from_its_own_time(
    price: dict[str, Any], usd: str, follows_length: bool
) -> None:
    """A clip of 7.5 s that took 12 s of GPU time. Only some prices are higher for a longer clip."""
    assert price_of(**price).calculate_cost(7.5, 12, {}) == Decimal(usd)
    assert price_of(**price).follows_length({}) is follows_length


def test_a_price_of_zero_is_a_price() -> None:
    """Models that cost nothing are run as any other."""
    for price in ({"per_second": 0}, {"per_clip": 0}, {"per_gpu_second": 0}):
        assert price_of(**price).calculate_cost(5, 5, {}) == 0
    assert price_of(per_second=0).follows_length({})


def test_gpu_time_is_billed_to_the_millionth_of_a_dollar() -> None:
    cost = price_of(per_gpu_second="0.0014").calculate_cost(5, 1.23456, {})
    assert str(cost) == "0.001728"


def test_a_float_never_becomes_a_price() -> None:
    """0.1 × 3 is 0.3, whatever binary fractions make of it."""
    assert str(price_of(per_second="0.1").calculate_cost(3.3, 0, {})) == "0.33"
    assert str(price_of(per_gpu_second="0.1").calculate_cost(0, 3.3, {})) == "0.330000"


@pytest.mark.parametrize("prices", [(), ("per_second", "per_clip"), ("per_second", "per_gpu_second")])
def test_a_price_is_of_exactly_one_kind(prices: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="give exactly one of per_second, per_clip, per_gpu_second"):
        price_of(**dict.fromkeys(prices, "1"))


@pytest.mark.parametrize(
    ("duration", "missing"),
    [
        pytest.param({"mode": "discrete", "sizes": [5, 10], "input": "s"}, "10", id="size"),
        pytest.param({"mode": "discrete", "sizes": [5, 7.5, 10], "input": "s"}, "7.5, 10", id="sizes"),
        pytest.param({"mode": "continuous", "max": 8, "accepts": [5, 6], "input": "s"}, "6", id="accepted"),
        pytest.param(
            {"mode": "continuous", "max": 8, "input": "s"}, "every length between min and max", id="continuous"
        ),
    ],
)
def test_every_length_has_a_price(duration: dict[str, Any], missing: str) -> None:
    price = {"per_clip": {5: "1"}, "as_of": date(2026, 11, 1), "basis": "exact"}
    for fields in ({"price": price}, {"audio": {"inputs": {"sound": True}, "price": price}}):
        with pytest.raises(ValueError, match=f"has no price for {missing} s"):
            spec_of(duration=duration, **fields)


def discrete(*sizes: Any, name: str | None = "seconds") -> Discrete:
    return Discrete.model_validate({"mode": "discrete", "sizes": sizes, "input": name})


def continuous(**fields: Any) -> Continuous:
    return Continuous.model_validate({"mode": "continuous", "min": 2, "max": 8, "input": "seconds", **fields})


def test_fixed_lengths_are_not_buffered() -> None:
    """The smallest that covers the target is the buffer."""
    model = discrete(5, 10)
    assert model.lengths == (5, 10)
    assert [model.apply_buffer(target, 2.0) for target in (4, 5, 6, 11)] == [5, 5, 10, 10]
    assert model.choose_length(10) == 10


def test_a_length_is_asked_for_by_its_own_inputs_or_by_name() -> None:
    """A whole number of seconds is sent as one, because endpoints reject a float."""
    model = discrete(5, {"seconds": 2.5, "inputs": {"frames": 20}}, {"seconds": 7, "inputs": {}}, 1.5)
    assert model.make_inputs(2.5) == {"frames": 20}
    assert model.make_inputs(7) == {}
    assert model.make_inputs(1.5) == {"seconds": 1.5}
    asked = model.make_inputs(5.0)
    assert (asked, type(asked["seconds"])) == ({"seconds": 5}, int)


@pytest.mark.parametrize("sizes", [(5,), ({"seconds": 5, "inputs": {"n": 1}}, 10)])
def test_a_length_that_cannot_be_asked_for_is_refused(sizes: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match="needs `input`"):
        discrete(*sizes, name=None)
    assert discrete({"seconds": 5, "inputs": {"n": 1}}, name=None).make_inputs(5) == {"n": 1}


def test_any_length_is_buffered_within_the_models_bounds() -> None:
    model = continuous()
    assert model.lengths == ()
    assert [model.apply_buffer(target, 1.25) for target in (1, 4, 6.4, 8)] == [2, 5, 8, 8]
    assert model.choose_length(5.1) == 5.1
    assert model.make_inputs(5.5) == {"seconds": 5.5}
    assert isinstance(model.make_inputs(5.0)["seconds"], int)


def test_of_the_accepted_lengths_the_smallest_that_covers_is_asked_for() -> None:
    model = continuous(accepts=[4, 6, 8])
    assert model.lengths == (4, 6, 8)
    assert [model.choose_length(buffered) for buffered in (2, 4, 4.1, 9)] == [4, 4, 6, 8]


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"min": 9}, "min 9.0 is above max 8.0"), ({"accepts": []}, "accepts is empty: leave it out")],
)
def test_bounds_that_leave_no_length_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        continuous(**fields)
    assert continuous(min=8).apply_buffer(1, 1) == 8


def test_the_start_frame_has_the_models_size_or_the_usual_one() -> None:
    spec = spec_of(frame_sizes={"16:9": [1024, 576]})
    assert (spec.get_frame_size("16:9"), spec.get_frame_size("9:16")) == ((1024, 576), (720, 1280))
