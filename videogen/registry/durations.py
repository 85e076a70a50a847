"""Choose the length to request from a model, so that a clip is never too short for its place in the film.

Seconds are compared with a resolution of 1 ms, so that rounding errors do not matter (5.000000000000002 is 5).
"""

from collections.abc import Iterable

CUT_TOLERANCE_S = 0.05
"""Seconds by which a segment may end before its cut: a frame."""


def choose_smallest_covering(sizes: Iterable[float], wanted_s: float) -> float:
    """Return the smallest of `sizes` that is at least `wanted_s`, or the largest if none is."""
    ordered = sorted(sizes)
    return next((size for size in ordered if _ms(size) >= _ms(wanted_s)), ordered[-1])


def choose_discrete_duration(target_s: float, sizes: Iterable[float]) -> float:
    """Return the smallest fixed size that covers the target, or the largest: the maximum-buffer strategy.

    With sizes 5 and 10, a target of up to 5 s gives 5, and a longer one gives 10.
    """
    return choose_smallest_covering(sizes, target_s)


def apply_buffer(target_s: float, buffer: float, *, min_s: float, max_s: float) -> float:
    """Return `target_s × buffer`, limited to `min_s` and `max_s`: the percentage-buffer strategy."""
    return round(max(min_s, min(target_s * buffer, max_s)), 3)


def calculate_shortfall(target_s: float, got_s: float) -> float:
    """Return the seconds by which `got_s` is shorter than the target, at least 0."""
    return max(0.0, (_ms(target_s) - _ms(got_s)) / 1000)


def reaches_cut(cut_s: float, got_s: float) -> bool:
    """Return whether a segment is long enough to be cut there. A frame may be missing."""
    return calculate_shortfall(cut_s, got_s) <= CUT_TOLERANCE_S


def is_within_tolerance(wanted_s: float, got_s: float, tolerance_s: float) -> bool:
    """Return whether the two lengths differ by no more than the tolerance."""
    return abs(_ms(wanted_s) - _ms(got_s)) <= _ms(tolerance_s)


def calculate_cost_impact(target_s: float, requested_s: float) -> float:
    """Return the percentage by which the request is longer, and so costs more, than the target; at least 0."""
    return round(max(0.0, requested_s / target_s - 1) * 100, 1)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
