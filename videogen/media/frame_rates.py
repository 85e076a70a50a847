"""Frame rates as exact fractions, and lengths in frames."""

from collections.abc import Iterable
from fractions import Fraction

_TOLERANCE_FPS = 0.005
"""A manifest has rates with three digits, and people write 23.98."""
_NTSC_RATES = tuple(Fraction(count * 1000, 1001) for count in (24, 30, 48, 60, 120))


def find_exact_frame_rate(fps: float) -> Fraction:
    """Return the rate that a rounded one stands for: 24000/1001 for 23.976 and 23.98, and 24 for 24.001."""
    known = (*_NTSC_RATES, Fraction(max(1, round(fps))))
    nearest = min(known, key=lambda rate: abs(rate - Fraction(fps)))
    return nearest if abs(nearest - Fraction(fps)) <= _TOLERANCE_FPS else Fraction(fps).limit_denominator(1001)


def count_frames(durations_s: Iterable[float], rate: Fraction) -> list[int]:
    """Return the number of frames of each part of a film.

    Each part ends at the frame that is nearest to the sum of the durations so far, so that rounding errors do not add
    up.
    """
    counts: list[int] = []
    due, frames = 0.0, 0
    for duration_s in durations_s:
        due += duration_s * rate
        counts.append(round(due) - frames)
        frames += counts[-1]
    return counts
