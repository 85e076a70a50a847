"""Films that the tests of a folder share."""

from collections.abc import Callable
from pathlib import Path

import av
import pytest
from PIL import Image

from tests.support.builders import make_moving, write_film
from videogen.media import ConformResult, conform


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("films")


@pytest.fixture(scope="session")
def whole(folder: Path) -> Path:
    """Two seconds at 24 frames a second, 320x180, its header before its pictures."""
    return write_film(folder / "whole.mp4")


@pytest.fixture(scope="session")
def heard(folder: Path) -> Path:
    """One second of noise to see and to hear."""
    return write_film(folder / "heard.mp4", frames=24, sound=True)


@pytest.fixture(scope="session")
def slow(folder: Path) -> Path:
    """Three seconds at 8 frames a second, 208x120: nearly, but not quite, 16:9."""
    return write_film(folder / "slow.mp4", size=(208, 120), fps=8, frames=24)


def shown(frame: av.VideoFrame) -> Image.Image:
    """The frame as a player shows it that reads it as bt709."""
    image = frame.to_image(src_colorspace="ITU709")  # type: ignore[no-untyped-call]
    assert isinstance(image, Image.Image)
    return image


def still(size: tuple[int, int], color: tuple[int, int, int] | None) -> Callable[[int], Image.Image]:
    picture = make_moving(size)(0) if color is None else Image.new("RGB", size, color)
    return lambda index: picture


def reframe(
    source: Path,
    out: Path,
    *,
    ratio: tuple[int, int] | None = None,
    fps: float | None = None,
    size: tuple[int, int] | None = None,
    keep_audio: bool = True,
    tolerance: float = 0.01,
) -> ConformResult | None:
    """`conform` with nothing asked for but what is named."""
    return conform(source, out, ratio=ratio, fps=fps, size=size, keep_audio=keep_audio, tolerance=tolerance)
