"""Clips that are quick to render, check and keep, for tests in which the picture does not matter."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from videogen.emulator import catalogue
from videogen.emulator.catalogue import SEEDANCE_1
from videogen.emulator.models import ClipFormat, PixelSize
from videogen.emulator.schemas import Inputs

ENDPOINT = "bytedance/seedance-1-pro"
SMALL = PixelSize(256, 144)


def get_small_format(inputs: Inputs, start: PixelSize | None) -> ClipFormat:
    """Return the format of Seedance. In 16:9 at 480p it is small and in 16:9 exactly, so that no clip is cropped."""
    clip = SEEDANCE_1.get_format(inputs, start)
    is_quick = inputs["resolution"] == "480p" and inputs["aspect_ratio"] == "16:9" and start is None
    return clip._replace(size=SMALL) if is_quick else clip


def make_small_clips() -> None:
    """Have the emulators of this process make small clips of the model `quick`."""
    catalogue.MODELS[ENDPOINT] = replace(SEEDANCE_1, get_format=get_small_format)


@pytest.fixture(scope="module", autouse=True)
def small_clips() -> Iterator[None]:
    """Make small clips in the tests of a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(catalogue.MODELS, ENDPOINT, SEEDANCE_1)  # which is there again afterwards
        make_small_clips()
        yield
