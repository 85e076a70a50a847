"""Parts of a film follow each other to the frame."""

from fractions import Fraction
from pathlib import Path

import av
import pytest
from PIL import Image

from videogen.media import FilmPart, concatenate

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(("fps", "rate"), [(23.976, Fraction(24_000, 1001)), (29.97, Fraction(30_000, 1001))])
def test_a_rounded_frame_rate_becomes_the_exact_one(tmp_path: Path, fps: float, rate: Fraction) -> None:
    """A manifest has three digits of it, and a film at 23.976 would drift from its clips."""
    parts = [FilmPart(seconds, lambda size: Image.new("RGB", size)) for seconds in (1.3, 0.7)]
    concatenate(parts, tmp_path / "film.mp4", size=(64, 36), fps=fps)
    with av.open(str(tmp_path / "film.mp4")) as container:
        (stream,) = container.streams.video
        assert (stream.average_rate, stream.frames) == (rate, round(2 * rate))
