"""Which length to ask a model for, so that a clip is never too short for its place.

Seconds are compared at 1 ms, so that float noise cannot tip a choice (5.000000000000002 is 5).
"""

from collections.abc import Iterable


def choose_smallest_covering(sizes: Iterable[float], wanted_s: float) -> float:
    """The smallest of `sizes` that is at least `wanted_s`, else the largest."""
    ordered = sorted(sizes)
    return next((size for size in ordered if _ms(size) >= _ms(wanted_s)), ordered[-1])


def choose_discrete_duration(target_s: float, sizes: Iterable[float]) -> float:
    """Maximum-buffer strategy: a fixed size that covers the target (5 and 10: up to 5 s ask for 5, above for 10)."""
    return choose_smallest_covering(sizes, target_s)


def apply_buffer(target_s: float, buffer: float, *, min_s: float, max_s: float) -> float:
    """Percentage-buffer strategy: `target × buffer`, not below `min_s` and not above `max_s`."""
    return round(max(min_s, min(target_s * buffer, max_s)), 3)


def calculate_shortfall(target_s: float, got_s: float) -> float:
    """Seconds by which `got_s` misses the target; 0 where it reaches it."""
    return max(0.0, (_ms(target_s) - _ms(got_s)) / 1000)


def is_within_tolerance(wanted_s: float, got_s: float, tolerance_s: float) -> bool:
    """Whether the two differ by no more than the tolerance."""
    return abs(_ms(wanted_s) - _ms(got_s)) <= _ms(tolerance_s)


def calculate_cost_impact(target_s: float, requested_s: float) -> float:
    """Percent by which the request is longer, and so dearer, than the target; 0 where it is not."""
    return round(max(0.0, requested_s / target_s - 1) * 100, 1)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
