"""Frame rates are exact, and lengths in frames do not drift."""

from fractions import Fraction

import pytest

from videogen.media import count_frames, find_exact_frame_rate


@pytest.mark.parametrize(
    ("fps", "rate"),
    [
        (23.976, Fraction(24_000, 1001)),
        (23.98, Fraction(24_000, 1001)),
        (24000 / 1001, Fraction(24_000, 1001)),
        (23.998, Fraction(24)),
        (24.0, Fraction(24)),
        (25, Fraction(25)),
        (29.97, Fraction(30_000, 1001)),
        (30.002, Fraction(30)),
        (59.94, Fraction(60_000, 1001)),
        (119.88, Fraction(120_000, 1001)),
        (16, Fraction(16)),
        (12.5, Fraction(25, 2)),
        (0.5, Fraction(1, 2)),
    ],
)
def test_a_rounded_rate_stands_for_an_exact_one(fps: float, rate: Fraction) -> None:
    """As a manifest and people round it."""
    assert find_exact_frame_rate(fps) == rate


def test_rounding_errors_do_not_add_up() -> None:
    """Each part ends at the frame that is nearest to its end."""
    counts = count_frames([0.435] * 40, Fraction(24))
    assert counts[:4] == [10, 11, 10, 11]
    ends = [sum(counts[: place + 1]) for place in range(40)]
    assert all(abs(end - 10.44 * (place + 1)) <= 0.5 for place, end in enumerate(ends))


def test_a_part_may_have_no_frame() -> None:
    assert count_frames([0.01, 0.01, 0.03], Fraction(24)) == [0, 0, 1]
