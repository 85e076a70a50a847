"""What a video model takes and what it costs, as `models.toml` declares it."""

from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from videogen import durations
from videogen.documents import read_document
from videogen.errors import Problem, ValidationError

Inputs = dict[str, str | bool | int | float]
"""Inputs of a prediction, as sent."""

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Money = Annotated[Decimal, Field(ge=0, allow_inf_nan=False)]
AspectRatio = Annotated[str, Field(pattern=r"^[1-9]\d{0,2}:[1-9]\d{0,2}$")]
FrameSize = tuple[
    Annotated[int, Field(ge=64, le=4096, multiple_of=2)], Annotated[int, Field(ge=64, le=4096, multiple_of=2)]
]

FRAME_SIZES: dict[str, tuple[int, int]] = {
    "16:9": (1280, 720),
    "9:16": (720, 1280),
    "1:1": (1024, 1024),
    "4:3": (1152, 864),
    "3:4": (864, 1152),
}


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Size(_Table):
    """A fixed length and the inputs that ask for it."""

    seconds: Positive
    inputs: Inputs | None = None
    """None means: the length itself, under the duration's `input`."""


class Discrete(_Table):
    """The model makes clips of a few fixed lengths."""

    mode: Literal["discrete"]
    sizes: Annotated[tuple[Size, ...], Field(min_length=1)]
    input: str | None = None

    @field_validator("sizes", mode="before")
    @classmethod
    def _numbers_are_sizes(cls, value: Any) -> Any:
        if not isinstance(value, list):
            return value
        return [{"seconds": size} if isinstance(size, int | float) else size for size in value]

    @model_validator(mode="after")
    def _every_size_can_be_asked_for(self) -> Self:
        if self.input is None and any(size.inputs is None for size in self.sizes):
            raise ValueError("needs `input`, the name of the input that takes the length, or `inputs` for every size")
        return self

    @property
    def lengths(self) -> tuple[float, ...]:
        """The lengths in seconds that can be asked for."""
        return tuple(size.seconds for size in self.sizes)

    def buffered(self, target_s: float, _buffer: float) -> float:
        return durations.discrete_duration(target_s, self.lengths)

    def requested(self, buffered_s: float) -> float:
        return buffered_s

    def inputs(self, requested_s: float) -> Inputs:
        size = next(size for size in self.sizes if size.seconds == requested_s)
        return size.inputs if size.inputs is not None else {str(self.input): plain_seconds(requested_s)}


class Continuous(_Table):
    """The model makes clips of any length from `min` to `max` seconds, or of those in it that its endpoint accepts."""

    mode: Literal["continuous"]
    min: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    max: Positive
    accepts: tuple[Positive, ...] | None = None
    input: str

    @model_validator(mode="after")
    def _bounds_are_in_order(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        if self.accepts is not None and not self.accepts:
            raise ValueError("accepts is empty: leave it out where any length is accepted")
        return self

    @property
    def lengths(self) -> tuple[float, ...]:
        """The lengths in seconds that can be asked for; empty where any is accepted."""
        return self.accepts or ()

    def buffered(self, target_s: float, buffer: float) -> float:
        return durations.buffered_duration(target_s, buffer, min_s=self.min, max_s=self.max)

    def requested(self, buffered_s: float) -> float:
        return durations.smallest_covering(self.accepts, buffered_s) if self.accepts else buffered_s

    def inputs(self, requested_s: float) -> Inputs:
        return {self.input: plain_seconds(requested_s)}


class Parameters(_Table):
    """What the endpoint calls what a scene has; None means that it takes no such thing."""

    prompt: str | None = None
    negative_prompt: str | None = None
    image: str | None = None
    """Start frame."""
    image_required: bool = False
    seed: str | None = None

    @model_validator(mode="after")
    def _required_image_has_a_name(self) -> Self:
        if self.image_required and self.image is None:
            raise ValueError("image_required needs `image`, the name of the input that takes it")
        return self


class References(_Table):
    """The endpoint takes a list of reference images when all inputs in `requires` have these values."""

    input: str
    max: Annotated[int, Field(ge=1)]
    requires: Inputs = {}


class Price(_Table):
    """USD per second of requested video, per clip (one, or by requested seconds), or per second of GPU time."""

    per_second: Money | None = None
    per_clip: Money | dict[float, Money] | None = None
    per_gpu_second: Money | None = None
    as_of: date
    basis: Literal["exact", "estimated"]
    note: str = ""

    @model_validator(mode="after")
    def _one_price(self) -> Self:
        given = [self.per_second, self.per_clip, self.per_gpu_second]
        if sum(price is not None for price in given) != 1:
            raise ValueError("give exactly one of per_second, per_clip, per_gpu_second")
        return self

    @property
    def follows_length(self) -> bool:
        """Whether a longer clip costs more."""
        return self.per_second is not None or isinstance(self.per_clip, dict)

    def of(self, requested_s: float, gpu_s: float) -> Decimal:
        """USD for one clip of `requested_s` seconds that took `gpu_s` seconds to make."""
        if self.per_second is not None:
            return self.per_second * Decimal(str(requested_s))
        if self.per_gpu_second is not None:
            return (self.per_gpu_second * Decimal(str(gpu_s))).quantize(Decimal("0.000001"))
        if isinstance(self.per_clip, dict):
            return self.per_clip[requested_s]
        assert self.per_clip is not None
        return self.per_clip


class Sound(_Table):
    """How the endpoint is asked for a clip with sound, and what one costs then."""

    inputs: Annotated[Inputs, Field(min_length=1)]
    """Sent over those of a silent clip."""
    price: Price


class Delivery(_Table):
    """What the endpoint cannot be told and is made true after the download."""

    fps: Annotated[float, Field(ge=1, le=120)] | None = None
    sizes: dict[AspectRatio, FrameSize] = {}


class ModelSpec(_Table):
    """One video model. Times are seconds."""

    replicate: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*/[a-z0-9][a-z0-9._-]*$")]
    version: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    """Community models are run by version; None means an official model."""
    source: str
    typical_run_seconds: Positive
    timeout_seconds: Positive | None = None
    duration: Annotated[Discrete | Continuous, Field(discriminator="mode")]
    aspect_ratios: Annotated[dict[AspectRatio, Inputs], Field(min_length=1)]
    parameters: Parameters
    references: References | None = None
    fixed: Inputs = {}
    ignored: tuple[str, ...] = ()
    """Names of inputs that are sent though the endpoint does not know them."""
    price: Price
    """Of a clip without sound, where `audio` says what one with it costs."""
    audio: Sound | None = None
    """None means that the endpoint cannot be asked for sound."""
    frame_sizes: dict[AspectRatio, FrameSize] = {}
    """Size in pixels of the start frame that is sent, where the usual one does not do."""
    delivery: Delivery = Delivery()

    @model_validator(mode="after")
    def _price_covers_all_sizes(self) -> Self:
        lengths = self.duration.lengths
        for price in (self.price, self.audio.price) if self.audio else (self.price,):
            if not isinstance(table := price.per_clip, dict):
                continue
            missing = ", ".join(f"{length:g}" for length in lengths if length not in table)
            if missing or not lengths:
                raise ValueError(f"price.per_clip has no price for {missing or 'every length between min and max'} s")
        return self

    @model_validator(mode="after")
    def _frame_sizes_are_known(self) -> Self:
        if unknown := [r for r in self.aspect_ratios if r not in {**FRAME_SIZES, **self.frame_sizes}]:
            raise ValueError(f"frame_sizes must name the size in pixels for {', '.join(unknown)}")
        return self

    def frame_size(self, aspect_ratio: str) -> tuple[int, int]:
        """Width and height in pixels of a start frame in that ratio."""
        return self.frame_sizes.get(aspect_ratio) or FRAME_SIZES[aspect_ratio]


class Defaults(_Table):
    """What applies where neither the job nor the model says otherwise. Times are seconds."""

    timeout_seconds: Positive = 120.0
    attempts: Annotated[int, Field(ge=1, le=10)] = 3
    concurrency: Annotated[int, Field(ge=1, le=100)] = 5
    duration_buffer: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 1.25
    duration_tolerance: Annotated[float, Field(ge=0)] = 2.0
    min_clips: Annotated[int, Field(ge=1)] = 3


class Registry(_Table):
    """All models that can be asked, by the name a job uses."""

    defaults: Defaults = Defaults()
    models: Annotated[dict[str, ModelSpec], Field(min_length=1)]

    def model(self, name: str) -> ModelSpec:
        """Raises `ValidationError` naming the models there are."""
        if name not in self.models:
            raise ValidationError(
                [Problem(f"{name!r} is not in the registry; there are: {', '.join(self.models)}", where="model")]
            )
        return self.models[name]


def registry_path() -> Path:
    """The `models.toml` that came with videogen: in the wheel beside this module, in a checkout one folder up."""
    packaged = Path(__file__).with_name("models.toml")
    return packaged if packaged.exists() else Path(__file__).parent.parent / "models.toml"


def read_registry(path: Path | None = None) -> Registry:
    """The registry in the TOML file at `path`, by default the one that came with videogen.

    Raises:
        ValidationError: every problem of the file, each with its line and column.
    """
    return read_document(path or registry_path()).parse(Registry)


def plain_seconds(seconds: float) -> int | float:
    """5.0 as 5: endpoints that take whole seconds refuse a float."""
    return int(seconds) if seconds == int(seconds) else seconds
