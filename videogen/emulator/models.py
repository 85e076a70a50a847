"""What a model is to the emulator: schema, price, run time, and the shape of what it delivers."""

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple

from videogen.emulator.problems import InvalidField
from videogen.emulator.schemas import Inputs, Property, fill_defaults, find_invalid_fields, make_openapi_schema


class PixelSize(NamedTuple):
    """Width and height in pixels."""

    width_px: int
    height_px: int


class ClipFormat(NamedTuple):
    """What a delivered clip measures."""

    size: PixelSize
    frames: int
    fps: Fraction
    audio: bool = False

    @property
    def duration_s(self) -> Fraction:
        """Length of the clip in seconds."""
        return self.frames / self.fps


class ModelError(Exception):
    """A model's refusal that surfaces as `status: failed`; the message is the prediction's `error`."""


@dataclass(frozen=True, slots=True)
class EmulatedModel:
    """One model of the catalogue. `shape` and `refusal` take the effective input, defaults filled in."""

    owner: str
    name: str
    description: str
    properties: Mapping[str, Property]
    required: tuple[str, ...]
    get_format: Callable[[Inputs, PixelSize | None], ClipFormat]
    """Of the effective input and the size of the start image, None without one."""
    run_s: tuple[float, float]
    """Typical time in `processing`, seconds."""
    price: Callable[[Inputs], Decimal] | None = None
    """USD for one output; None: billed by GPU time."""
    gpu_usd_per_s: Decimal = Decimal(0)
    find_conflict: Callable[[Inputs], str | None] = lambda _inputs: None
    """The error text if inputs that are valid one by one do not go together."""
    start_images: tuple[str, ...] = ()
    """Inputs whose picture the clip shows, the first given one wins."""
    other_files: tuple[str, ...] = ()
    """Inputs that take a URL of something else than an image."""
    version: str | None = None
    """The only version of a community model; None: an official model, which has no versions to run."""
    cold_s: float = 0.0
    """How long a community model takes to boot for its first prediction."""

    @property
    def full_name(self) -> str:
        """`owner/name`."""
        return f"{self.owner}/{self.name}"

    @property
    def official(self) -> bool:
        """Whether the model is run by name."""
        return self.version is None

    @property
    def version_id(self) -> str:
        """64 hex digits: the pinned version, or for official models one made from the schema."""
        return self.version or hashlib.sha256(json.dumps(self.make_openapi_schema()).encode()).hexdigest()

    def make_openapi_schema(self) -> dict[str, Any]:
        """The version's OpenAPI document with `components.schemas.Input`."""
        return make_openapi_schema(self.properties, self.required)

    def find_invalid_fields(self, given: Inputs) -> list[InvalidField]:
        """Everything wrong with an input, empty if nothing is."""
        return find_invalid_fields(given, self.properties, self.required)

    def fill_defaults(self, given: Inputs) -> dict[str, Any]:
        """The input as the model sees it."""
        return fill_defaults(given, self.properties)

    def get_billing_metrics(self, inputs: Inputs) -> dict[str, Any]:
        """Return what an official model's output is billed by, as members of `metrics`; `inputs` are effective ones.

        Source: the metrics of finished predictions of bytedance/seedance-1-lite that people published.
        """
        billed: dict[str, Any] = {"video_output_count": 1}
        if "duration" in inputs:
            billed["video_output_duration_seconds"] = float(inputs["duration"])
        if "resolution" in inputs:
            billed["resolution_target"] = inputs["resolution"]
        if "generate_audio" in inputs:
            billed["with_audio"] = inputs["generate_audio"]
        return billed

    def get_image_urls(self, inputs: Inputs) -> dict[str, list[str]]:
        """The image inputs that were given, by name; lists keep their order."""
        found: dict[str, list[str]] = {}
        for name, plain in self.properties.items():
            value = inputs.get(name) if name not in self.other_files else None
            if plain.get("format") == "uri" and value:
                found[name] = [value]
            elif plain.get("items", {}).get("format") == "uri" and value:
                found[name] = list(value)
        return found


def round_to_even(length_px: float) -> int:
    """The nearest even number of pixels, at least 2."""
    return max(2, round(length_px / 2) * 2)


def scale_to_area(reference: PixelSize, ratio: PixelSize) -> PixelSize:
    """The even size with about as many pixels as `reference` and the shape of `ratio`, at most 2.5 to 1 either way."""
    aspect = min(2.5, max(0.4, ratio.width_px / ratio.height_px))
    area = reference.width_px * reference.height_px
    return PixelSize(round_to_even(math.sqrt(area * aspect)), round_to_even(math.sqrt(area / aspect)))
