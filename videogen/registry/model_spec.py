"""The registry of video models: their inputs, durations and prices, as declared in `models.toml`."""

import re
from datetime import date
from decimal import Decimal
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from videogen.errors import Problem, ValidationError
from videogen.job.model import Money
from videogen.registry import durations
from videogen.source_files.messages import Loc, did_you_mean, make_nested_value_error
from videogen.source_files.scalars import IS_BOOLEAN, IS_NUMBER, IS_WHOLE_NUMBER

Inputs = dict[str, str | bool | int | float]
"""Inputs of a prediction, by the names of the endpoint."""

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False), IS_NUMBER]


def _make_pattern_type(pattern: str, words: str) -> tuple[AfterValidator, WithJsonSchema]:
    """Return annotations that restrict a text to a pattern and describe it in words if it does not match."""

    def check_pattern(value: str) -> str:
        if not re.fullmatch(pattern, value, re.ASCII):
            raise ValueError(f"input should be {words}, not {value[:80]!r}")
        return value

    return AfterValidator(check_pattern), WithJsonSchema({"type": "string", "pattern": f"^{pattern}$"})


AspectRatio = Annotated[str, *_make_pattern_type(r"[1-9][0-9]{0,2}:[1-9][0-9]{0,2}", "a ratio such as 16:9")]
ReplicateName = Annotated[
    str, *_make_pattern_type(r"[a-z0-9][a-z0-9._-]*/[a-z0-9][a-z0-9._-]*", "owner/name as on Replicate")
]
VersionId = Annotated[str, *_make_pattern_type(r"[0-9a-f]{64}", "a version's 64 hex digits")]
_FrameLength = Annotated[int, Field(ge=64, le=4096, multiple_of=2), IS_WHOLE_NUMBER]
FrameSize = tuple[_FrameLength, _FrameLength]

FRAME_SIZES: dict[str, tuple[int, int]] = {
    "16:9": (1280, 720),
    "9:16": (720, 1280),
    "1:1": (1024, 1024),
    "4:3": (1152, 864),
    "3:4": (864, 1152),
}


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class FixedLength(_Table):
    """A fixed length and the inputs that request it."""

    seconds: Positive
    """The length."""
    inputs: Inputs | None = None
    """Inputs that request this length; None means the length itself, under the duration's `input`."""


def _as_fixed_length(value: Any) -> Any:
    return {"seconds": value} if isinstance(value, int | float) and not isinstance(value, bool) else value


class Discrete(_Table):
    """The model makes clips of a few fixed lengths."""

    mode: Literal["discrete"]
    sizes: Annotated[
        tuple[
            Annotated[FixedLength, BeforeValidator(_as_fixed_length, json_schema_input_type=Positive | FixedLength)],
            ...,
        ],
        Field(min_length=1),
    ]
    """The lengths, each a number of seconds, or a table of `seconds` and the `inputs` that request it."""
    input: str | None = None
    """Name of the input that takes the length; None where every length has its own inputs."""

    @model_validator(mode="after")
    def _every_size_can_be_asked_for(self) -> Self:
        if self.input is None and any(size.inputs is None for size in self.sizes):
            raise ValueError("needs `input`, the name of the input that takes the length, or `inputs` for every size")
        return self

    @property
    def lengths(self) -> tuple[float, ...]:
        """The lengths in seconds that can be requested."""
        return tuple(size.seconds for size in self.sizes)

    def apply_buffer(self, target_s: float, _buffer: float) -> float:
        return durations.choose_discrete_duration(target_s, self.lengths)

    def choose_length(self, buffered_s: float) -> float:
        return buffered_s

    def make_inputs(self, requested_s: float) -> Inputs:
        size = next(size for size in self.sizes if size.seconds == requested_s)
        return size.inputs if size.inputs is not None else {str(self.input): to_plain_number(requested_s)}


class Continuous(_Table):
    """The model makes clips of any length from `min` to `max` seconds, or of the lengths in `accepts`."""

    mode: Literal["continuous"]
    min: Annotated[float, Field(ge=0, allow_inf_nan=False), IS_NUMBER] = 0.0
    """Shortest length in seconds."""
    max: Positive
    """Longest length in seconds."""
    accepts: tuple[Positive, ...] | None = None
    """The lengths in seconds that the endpoint accepts; None where it accepts any."""
    input: str
    """Name of the input that takes the length."""

    @model_validator(mode="after")
    def _bounds_are_in_order(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        if self.accepts is not None and not self.accepts:
            raise ValueError("accepts is empty: leave it out where any length is accepted")
        return self

    @property
    def lengths(self) -> tuple[float, ...]:
        """The lengths in seconds that can be requested; empty where any is accepted."""
        return self.accepts or ()

    def apply_buffer(self, target_s: float, buffer: float) -> float:
        return durations.apply_buffer(target_s, buffer, min_s=self.min, max_s=self.max)

    def choose_length(self, buffered_s: float) -> float:
        return durations.choose_smallest_covering(self.accepts, buffered_s) if self.accepts else buffered_s

    def make_inputs(self, requested_s: float) -> Inputs:
        return {self.input: to_plain_number(requested_s)}


class Parameters(_Table):
    """Names of the endpoint's inputs for the fields of a scene; None means that there is no such input."""

    prompt: str | None = None
    """Name of the input that takes the prompt."""
    negative_prompt: str | None = None
    """Name of the input that takes the negative prompt."""
    image: str | None = None
    """Name of the input that takes the start frame."""
    image_required: Annotated[bool, IS_BOOLEAN] = False
    """Whether the model requires a start frame."""
    seed: str | None = None
    """Name of the input that takes the seed."""

    @model_validator(mode="after")
    def _required_image_has_a_name(self) -> Self:
        if self.image_required and self.image is None:
            raise ValueError("image_required needs `image`, the name of the input that takes it")
        return self


class References(_Table):
    """The endpoint accepts a list of reference images if all inputs in `requires` have these values."""

    input: str
    """Name of the input that takes the list."""
    max: Annotated[int, Field(ge=1), IS_WHOLE_NUMBER]
    """Maximum number of images. The references of a scene with more are composed into one start frame."""
    requires: Inputs = {}
    """Inputs and their values without which the list is not accepted."""


class Price(_Table):
    """The price in USD per second of requested video, per clip, or per second of GPU time. Exactly one is given."""

    per_second: Money | None = None
    """USD for a second of requested video."""
    per_clip: Money | dict[float, Money] | None = None
    """USD for a clip, or a table of prices by requested seconds."""
    per_gpu_second: Money | None = None
    """USD for a second of GPU time."""
    as_of: date
    """The day on which the price was looked up."""
    basis: Literal["exact", "estimated"]
    """`exact` means published by the provider, `estimated` means inferred; see `note`."""
    note: str = ""
    """Conditions of the price, or how it was estimated."""

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

    def calculate_cost(self, requested_s: float, gpu_s: float) -> Decimal:
        """Return the price in USD of a clip of `requested_s` seconds that took `gpu_s` seconds of GPU time."""
        if self.per_second is not None:
            return self.per_second * Decimal(str(requested_s))
        if self.per_gpu_second is not None:
            return (self.per_gpu_second * Decimal(str(gpu_s))).quantize(Decimal("0.000001"))
        if isinstance(self.per_clip, dict):
            return self.per_clip[requested_s]
        assert self.per_clip is not None
        return self.per_clip


class AudioOption(_Table):
    """The inputs that request a clip with sound, and its price."""

    inputs: Annotated[Inputs, Field(min_length=1)]
    """Inputs that are added to those of a silent clip, or override them."""
    price: Price
    """Price of a clip with sound."""


class DeliveryFormat(_Table):
    """Properties of the delivered clip that the endpoint has no input for. The clip is converted after the download."""

    fps: Annotated[float, Field(ge=1, le=120), IS_NUMBER] | None = None
    """Frames per second of the delivered clip; None leaves it unchanged."""
    sizes: dict[AspectRatio, FrameSize] = {}
    """Width and height in pixels of the delivered clip, by ratio. Other ratios are left unchanged."""


class ModelSpec(_Table):
    """One video model. Times are seconds."""

    replicate: ReplicateName
    """`owner/name` on Replicate."""
    version: VersionId | None = None
    """Id of the version to run, for a community model; None means an official model, which is run by name."""
    source: str
    """Address of the page that documents its inputs and price."""
    typical_run_seconds: Positive
    """Usual duration of a prediction, without the time in the queue."""
    timeout_seconds: Positive | None = None
    """A prediction is canceled after this time; None means the defaults' `timeout_seconds`."""
    duration: Annotated[Discrete | Continuous, Field(discriminator="mode")]
    """The lengths that can be requested, and the inputs for them."""
    aspect_ratios: Annotated[dict[AspectRatio, Inputs], Field(min_length=1)]
    """The ratios that can be requested, each with all inputs that request it."""
    parameters: Parameters
    references: References | None = None
    """The input for a list of reference images; None means that there is none, so that they are composed into one start
    frame."""
    fixed: Inputs = {}
    """Inputs that are sent with every prediction."""
    ignored: tuple[str, ...] = ()
    """Names of inputs that are sent although the endpoint does not know them."""
    price: Price
    """Price of a clip; if `audio` is given, of a clip without sound."""
    audio: AudioOption | None = None
    """How to request sound; None means that the endpoint has no option for it."""
    frame_sizes: dict[AspectRatio, FrameSize] = {}
    """Width and height in pixels of the start frame, by ratio, where they differ from the usual ones."""
    delivery: DeliveryFormat = DeliveryFormat()

    @model_validator(mode="after")
    def _price_covers_all_sizes(self) -> Self:
        lengths = self.duration.lengths
        prices: dict[Loc, Price] = {("price", "per_clip"): self.price}
        if self.audio:
            prices["audio", "price", "per_clip"] = self.audio.price
        for loc, price in prices.items():
            if not isinstance(table := price.per_clip, dict):
                continue
            missing = ", ".join(f"{length:g}" for length in lengths if length not in table)
            if missing or not lengths:
                raise make_nested_value_error(
                    {loc: f"has no price for {missing or 'every length between min and max'} s"}
                )
        return self

    @model_validator(mode="after")
    def _frame_sizes_are_known(self) -> Self:
        known = {**FRAME_SIZES, **self.frame_sizes}
        if unknown := [ratio for ratio in self.aspect_ratios if ratio not in known]:
            words = "frame_sizes must name the size in pixels for this ratio"
            raise make_nested_value_error({("aspect_ratios", ratio): words for ratio in unknown})
        return self

    def get_frame_size(self, aspect_ratio: str) -> tuple[int, int]:
        """Return width and height in pixels of a start frame in that ratio."""
        return self.frame_sizes.get(aspect_ratio) or FRAME_SIZES[aspect_ratio]


class Defaults(_Table):
    """Values that apply unless the job or the model has its own. Times are seconds."""

    timeout_seconds: Positive = 120.0
    """A prediction is canceled after this time."""
    attempts: Annotated[int, Field(ge=1, le=10), IS_WHOLE_NUMBER] = 3
    """Maximum number of predictions for a clip."""
    concurrency: Annotated[int, Field(ge=1, le=100), IS_WHOLE_NUMBER] = 5
    """Maximum number of concurrent predictions."""
    duration_buffer: Annotated[float, Field(ge=1, allow_inf_nan=False), IS_NUMBER] = 1.25
    """Multiplier for models of continuous duration."""
    duration_tolerance: Annotated[float, Field(ge=0, allow_inf_nan=False), IS_NUMBER] = 2.0
    """Seconds by which a clip may differ from the requested length, or fall short of its target."""
    min_clips: Annotated[int, Field(ge=1), IS_WHOLE_NUMBER] = 3
    """Minimum number of delivered clips; with fewer the job fails."""


class Registry(_Table):
    """All models that jobs can use, and the defaults."""

    defaults: Defaults = Defaults()
    models: Annotated[dict[str, ModelSpec], Field(min_length=1)]
    """The models, by the name that a job uses."""

    def get_model(self, name: str) -> ModelSpec:
        """Return a model. Raise `ValidationError` with the known names if there is none of that name."""
        if name not in self.models:
            raise ValidationError([Problem(self.describe_unknown_model(name), where="model")])
        return self.models[name]

    def describe_unknown_model(self, name: str) -> str:
        """Return the message for a name that is not in the registry."""
        return f"{name!r} is not in the registry; there are: {', '.join(self.models)}{did_you_mean(name, self.models)}"


def to_plain_number(seconds: float) -> int | float:
    """Return 5.0 as 5, because endpoints with whole seconds reject a float."""
    return int(seconds) if seconds == int(seconds) else seconds
