import pytest

from videogen.registry import durations
from videogen.registry.durations import (
    apply_buffer,
    calculate_cost_impact,
    calculate_shortfall,
    choose_discrete_duration,
    is_within_tolerance,
)


@pytest.mark.parametrize(
    ("target_s", "expected_s"),
    [
        pytest.param(3, 5, id="below"),
        pytest.param(5, 5, id="equal"),
        pytest.param(5.000000000000002, 5, id="float-noise"),
        pytest.param(5.001, 10, id="one-millisecond-above"),
        pytest.param(5.1, 10, id="above"),
        pytest.param(10, 10, id="largest"),
        pytest.param(11.5, 10, id="beyond-all"),
    ],
)
def test_a_discrete_model_is_asked_for_the_smallest_size_that_covers_the_target(
    target_s: float, expected_s: float
) -> None:
    """Sizes 5 and 10: up to 5 s ask for 5, above for 10, whatever the order they are declared in."""
    assert choose_discrete_duration(target_s, [10, 5]) == expected_s


@pytest.mark.parametrize(
    ("target_s", "buffer", "expected_s"),
    [
        pytest.param(6, 1.25, 7.5, id="buffered"),
        pytest.param(8, 1.25, 10.0, id="at-the-cap"),
        pytest.param(9, 1.25, 10.0, id="capped"),
        pytest.param(6, 1.0, 6.0, id="no-buffer"),
        pytest.param(1, 1.25, 2.0, id="raised-to-the-least"),
        pytest.param(3, 1.11147, 3.334, id="to-the-millisecond"),
    ],
)
def test_a_continuous_model_is_asked_for_target_times_buffer_within_its_bounds(
    target_s: float, buffer: float, expected_s: float
) -> None:
    """min(target × buffer, 10), not below what the model makes."""
    assert apply_buffer(target_s, buffer, min_s=2, max_s=10) == expected_s


def test_the_tolerance_is_inclusive_at_one_millisecond() -> None:
    """±2 s accepts 2.000 s off and refuses 2.001 s."""
    assert is_within_tolerance(5, 7.0000000001, 2)
    assert not is_within_tolerance(5, 7.001, 2)


def test_only_what_is_missing_is_a_shortfall() -> None:
    """Longer than the target is fine."""
    assert calculate_shortfall(6, 5.875) == 0.125
    assert calculate_shortfall(5, 10) == 0


def test_the_buffer_costs_what_the_request_is_longer_than_the_target() -> None:
    """7.5 s on a 5-or-10 model pays for a third more; a shorter request saves nothing on paper."""
    assert calculate_cost_impact(7.5, 10) == 33.3
    assert calculate_cost_impact(10, 8) == 0.0


def test_nothing_covers_when_all_are_smaller() -> None:
    """The largest is the best there is."""
    assert durations.choose_smallest_covering([4, 6, 8], 9.5) == 8
