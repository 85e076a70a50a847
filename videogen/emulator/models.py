"""The definition of a model: input schema, price, run time and the format of its clips."""

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple

from videogen.emulator.api_errors import InvalidField
from videogen.emulator.schemas import Inputs, Property, fill_defaults, find_invalid_fields, make_openapi_schema


class PixelSize(NamedTuple):
    """Width and height in pixels."""

    width_px: int
    height_px: int


class ClipFormat(NamedTuple):
    """The measures of a delivered clip."""

    size: PixelSize
    frames: int
    fps: Fraction
    audio: bool = False

    @property
    def duration_s(self) -> Fraction:
        """Length of the clip in seconds."""
        return self.frames / self.fps


class ModelError(Exception):
    """A failure of the model: the prediction gets `status: failed` and the message as its `error`."""


def get_billing_metrics(inputs: Inputs) -> dict[str, Any]:
    """Return the members of `metrics` that an official model is billed by; `inputs` is the input that is billed.

    Source: published metrics of finished predictions of bytedance/seedance-1-lite.
    """
    billed: dict[str, Any] = {"video_output_count": 1}
    if "duration" in inputs:
        billed["video_output_duration_seconds"] = float(inputs["duration"])
    if "resolution" in inputs:
        billed["resolution_target"] = inputs["resolution"]
    if "generate_audio" in inputs:
        billed["with_audio"] = inputs["generate_audio"]
    if "mode" in inputs:
        billed["model_variant"] = inputs["mode"]
    return billed


@dataclass(frozen=True, slots=True)
class EmulatedModel:
    """A model of the catalogue. Its functions take the effective input, which has all defaults filled in."""

    owner: str
    name: str
    description: str
    properties: Mapping[str, Property]
    required: tuple[str, ...]
    get_format: Callable[[Inputs, PixelSize | None], ClipFormat]
    """Takes the effective input and the size of the start image, or None without one."""
    run_s: tuple[float, float]
    """Typical range of the time in `processing`, in seconds."""
    price: Callable[[Inputs], Decimal | None] | None = None
    """Returns the price of one output in USD, or None if it is not known. None means billed by GPU time."""
    gpu_usd_per_s: Decimal = Decimal(0)
    find_conflict: Callable[[Inputs], str | None] = lambda _inputs: None
    """Returns the error text if inputs that are valid on their own conflict, else None."""
    get_billing_metrics: Callable[[Inputs], dict[str, Any]] = get_billing_metrics
    """Returns the members of `metrics` that an official model is billed by."""
    start_images: tuple[str, ...] = ()
    """Image inputs that can be the start image; the first one that is given is used."""
    end_images: tuple[str, ...] = ()
    """Image inputs that can be the last frame; the first one that is given is used."""
    other_files: tuple[str, ...] = ()
    """Inputs that take a URL of a file other than an image."""
    version: str | None = None
    """The only version of a community model. None means an official model, which is run by name."""
    cold_s: float = 0.0
    """Seconds that a community model takes to boot for its first prediction."""
    published_version: str | None = None
    """The version that is published. None means `version`, or the digest of the schema."""
    document: Mapping[str, Any] | None = None
    """The OpenAPI document that is published. None means that it is made of the properties."""

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
        """64 hex digits: the version of a community model, or the digest of an official model's schema."""
        return (
            self.published_version
            or self.version
            or hashlib.sha256(json.dumps(self.make_openapi_schema()).encode()).hexdigest()
        )

    def make_openapi_schema(self) -> dict[str, Any]:
        """Return the version's OpenAPI document with `components.schemas.Input`."""
        return dict(self.document) if self.document else make_openapi_schema(self.properties, self.required)

    def find_invalid_fields(self, given: Inputs) -> list[InvalidField]:
        """Return all problems of an input, an empty list if it is valid."""
        return find_invalid_fields(given, self.properties, self.required)

    def fill_defaults(self, given: Inputs) -> dict[str, Any]:
        """Return the effective input: the input as the model sees it."""
        return fill_defaults(given, self.properties)

    def has_known_price(self, inputs: Inputs) -> bool:
        """Return whether the price of this effective input is known."""
        return bool(self.gpu_usd_per_s) if self.price is None else self.price(inputs) is not None

    def get_image_urls(self, inputs: Inputs) -> dict[str, list[str]]:
        """Return the URLs of the given image inputs by name; lists keep their order."""
        found: dict[str, list[str]] = {}
        for name, plain in self.properties.items():
            value = inputs.get(name) if name not in self.other_files else None
            if plain.get("format") == "uri" and value:
                found[name] = [value]
            elif plain.get("items", {}).get("format") == "uri" and value:
                found[name] = list(value)
        return found


def round_to_even(length_px: float) -> int:
    """Return the nearest even number of pixels, at least 2."""
    return max(2, round(length_px / 2) * 2)


def scale_to_area(reference: PixelSize, ratio: PixelSize) -> PixelSize:
    """Return an even size with about the area of `reference` and the shape of `ratio`, at most 2.5:1 either way."""
    aspect = min(2.5, max(0.4, ratio.width_px / ratio.height_px))
    area = reference.width_px * reference.height_px
    return PixelSize(round_to_even(math.sqrt(area * aspect)), round_to_even(math.sqrt(area / aspect)))
