"""What a video model takes and what it costs, as `models.toml` declares it."""

import re
from dataclasses import replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator
from pydantic import ValidationError as PydanticError

from videogen import durations
from videogen.complaints import Loc, describe_errors, did_you_mean, make_nested_value_error
from videogen.documents import SourceFile, read_source_file
from videogen.errors import Problem, ValidationError

Inputs = dict[str, str | bool | int | float]
"""Inputs of a prediction, as sent."""

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Money = Annotated[Decimal, Field(ge=0, allow_inf_nan=False)]


def _make_pattern_type(pattern: str, words: str) -> tuple[AfterValidator, WithJsonSchema]:
    """A constraint whose violation is told in words."""

    def fits(value: str) -> str:
        if not re.fullmatch(pattern, value, re.ASCII):
            raise ValueError(f"input should be {words}, not {value[:80]!r}")
        return value

    return AfterValidator(fits), WithJsonSchema({"type": "string", "pattern": f"^{pattern}$"})


AspectRatio = Annotated[str, *_make_pattern_type(r"[1-9][0-9]{0,2}:[1-9][0-9]{0,2}", "a ratio such as 16:9")]
ReplicateName = Annotated[
    str, *_make_pattern_type(r"[a-z0-9][a-z0-9._-]*/[a-z0-9][a-z0-9._-]*", "owner/name as on Replicate")
]
VersionId = Annotated[str, *_make_pattern_type(r"[0-9a-f]{64}", "a version's 64 hex digits")]
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
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class FixedLength(_Table):
    """A fixed length and the inputs that ask for it."""

    seconds: Positive
    """The length."""
    inputs: Inputs | None = None
    """None means: the length itself, under the duration's `input`."""


def _as_fixed_length(value: Any) -> Any:
    return {"seconds": value} if isinstance(value, int | float) else value


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
    """The lengths, each a number of seconds, or a table of `seconds` and the `inputs` that ask for it."""
    input: str | None = None
    """Name of the input that takes the length; None where every size has its own inputs."""

    @model_validator(mode="after")
    def _every_size_can_be_asked_for(self) -> Self:
        if self.input is None and any(size.inputs is None for size in self.sizes):
            raise ValueError("needs `input`, the name of the input that takes the length, or `inputs` for every size")
        return self

    @property
    def lengths(self) -> tuple[float, ...]:
        """The lengths in seconds that can be asked for."""
        return tuple(size.seconds for size in self.sizes)

    def apply_buffer(self, target_s: float, _buffer: float) -> float:
        return durations.choose_discrete_duration(target_s, self.lengths)

    def choose_length(self, buffered_s: float) -> float:
        return buffered_s

    def make_inputs(self, requested_s: float) -> Inputs:
        size = next(size for size in self.sizes if size.seconds == requested_s)
        return size.inputs if size.inputs is not None else {str(self.input): to_plain_number(requested_s)}


class Continuous(_Table):
    """The model makes clips of any length from `min` to `max` seconds, or of those in it that its endpoint accepts."""

    mode: Literal["continuous"]
    min: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Shortest length in seconds."""
    max: Positive
    """Longest length in seconds."""
    accepts: tuple[Positive, ...] | None = None
    """The lengths in seconds that the endpoint takes; None where it takes any."""
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
        """The lengths in seconds that can be asked for; empty where any is accepted."""
        return self.accepts or ()

    def apply_buffer(self, target_s: float, buffer: float) -> float:
        return durations.apply_buffer(target_s, buffer, min_s=self.min, max_s=self.max)

    def choose_length(self, buffered_s: float) -> float:
        return durations.choose_smallest_covering(self.accepts, buffered_s) if self.accepts else buffered_s

    def make_inputs(self, requested_s: float) -> Inputs:
        return {self.input: to_plain_number(requested_s)}


class Parameters(_Table):
    """What the endpoint calls what a scene has; None means that it takes no such thing."""

    prompt: str | None = None
    """Name of the input that takes the prompt."""
    negative_prompt: str | None = None
    """Name of the input that takes what should not be seen."""
    image: str | None = None
    """Name of the input that takes the start frame."""
    image_required: bool = False
    """Whether the model makes nothing without a start frame."""
    seed: str | None = None
    """Name of the input that takes the seed."""

    @model_validator(mode="after")
    def _required_image_has_a_name(self) -> Self:
        if self.image_required and self.image is None:
            raise ValueError("image_required needs `image`, the name of the input that takes it")
        return self


class References(_Table):
    """The endpoint takes a list of reference images when all inputs in `requires` have these values."""

    input: str
    """Name of the input that takes the list."""
    max: Annotated[int, Field(ge=1)]
    """How many it takes at most; a scene with more gets one composed start frame."""
    requires: Inputs = {}
    """Inputs without which the list is not taken."""


class Price(_Table):
    """USD per second of requested video, per clip (one, or by requested seconds), or per second of GPU time."""

    per_second: Money | None = None
    """USD for a second of requested video."""
    per_clip: Money | dict[float, Money] | None = None
    """USD for a clip, or a table of them by requested seconds."""
    per_gpu_second: Money | None = None
    """USD for a second of GPU time."""
    as_of: date
    """The day on which it was looked up."""
    basis: Literal["exact", "estimated"]
    """`exact`: published by the provider; `estimated`: inferred, see `note`."""
    note: str = ""
    """What it depends on, or what it is inferred from."""

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
        """USD for one clip of `requested_s` seconds that took `gpu_s` seconds to make."""
        if self.per_second is not None:
            return self.per_second * Decimal(str(requested_s))
        if self.per_gpu_second is not None:
            return (self.per_gpu_second * Decimal(str(gpu_s))).quantize(Decimal("0.000001"))
        if isinstance(self.per_clip, dict):
            return self.per_clip[requested_s]
        assert self.per_clip is not None
        return self.per_clip


class AudioOption(_Table):
    """How the endpoint is asked for a clip with sound, and what one costs then."""

    inputs: Annotated[Inputs, Field(min_length=1)]
    """Sent over those of a silent clip."""
    price: Price
    """Of a clip with sound."""


class DeliveryFormat(_Table):
    """What the endpoint cannot be told and is made true after the download."""

    fps: Annotated[float, Field(ge=1, le=120)] | None = None
    """Frames a second of the delivered clip; None leaves it as it comes."""
    sizes: dict[AspectRatio, FrameSize] = {}
    """Width and height in pixels of the delivered clip, by ratio; others are left as they come."""


class ModelSpec(_Table):
    """One video model. Times are seconds."""

    replicate: ReplicateName
    """`owner/name` on Replicate."""
    version: VersionId | None = None
    """Community models are run by version; None means an official model."""
    source: str
    """Where its inputs and price are documented."""
    typical_run_seconds: Positive
    """How long a prediction usually takes, without the time in the queue."""
    timeout_seconds: Positive | None = None
    """A prediction is canceled after this time; None means the defaults' `timeout_seconds`."""
    duration: Annotated[Discrete | Continuous, Field(discriminator="mode")]
    """Which lengths can be asked for, and how."""
    aspect_ratios: Annotated[dict[AspectRatio, Inputs], Field(min_length=1)]
    """The ratios that can be asked for, each with all inputs that ask for it."""
    parameters: Parameters
    references: References | None = None
    """None means that the endpoint takes no list of reference images: they are composed to one start frame."""
    fixed: Inputs = {}
    """Inputs that are sent with every prediction."""
    ignored: tuple[str, ...] = ()
    """Names of inputs that are sent though the endpoint does not know them."""
    price: Price
    """Of a clip without sound, where `audio` says what one with it costs."""
    audio: AudioOption | None = None
    """None means that the endpoint cannot be asked for sound."""
    frame_sizes: dict[AspectRatio, FrameSize] = {}
    """FixedLength in pixels of the start frame that is sent, where the usual one does not do."""
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
        """Width and height in pixels of a start frame in that ratio."""
        return self.frame_sizes.get(aspect_ratio) or FRAME_SIZES[aspect_ratio]


class Defaults(_Table):
    """What applies where neither the job nor the model says otherwise. Times are seconds."""

    timeout_seconds: Positive = 120.0
    """A prediction is canceled after this time."""
    attempts: Annotated[int, Field(ge=1, le=10)] = 3
    """How many predictions are made for a clip at most."""
    concurrency: Annotated[int, Field(ge=1, le=100)] = 5
    """How many clips are in the making at once."""
    duration_buffer: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 1.25
    """Multiplier for models of continuous duration."""
    duration_tolerance: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 2.0
    """How far a clip may be off the requested length, or short of its target."""
    min_clips: Annotated[int, Field(ge=1)] = 3
    """Fewer delivered clips fail a job."""


class Registry(_Table):
    """All models that can be asked, by the name a job uses."""

    defaults: Defaults = Defaults()
    models: Annotated[dict[str, ModelSpec], Field(min_length=1)]
    """By the name that a job uses."""

    def get_model(self, name: str) -> ModelSpec:
        """Raises `ValidationError` naming the models there are."""
        if name not in self.models:
            raise ValidationError([Problem(self.describe_unknown_model(name), where="model")])
        return self.models[name]

    def describe_unknown_model(self, name: str) -> str:
        """What to say of a model that is not there."""
        return f"{name!r} is not in the registry; there are: {', '.join(self.models)}{did_you_mean(name, self.models)}"


def find_registry_path() -> Path:
    """The `models.toml` that came with videogen: in the wheel beside this module, in a checkout one folder up."""
    packaged = Path(__file__).with_name("models.toml")
    return packaged if packaged.exists() else Path(__file__).parent.parent / "models.toml"


def read_registry(path: Path | None = None) -> Registry:
    """The shipped registry, extended and changed by the TOML file at `path`.

    Raises:
        ValidationError: every problem, each with the file, line and column where the value stands.
    """
    return parse_registry(load_registry_file(path))


def parse_registry(document: SourceFile) -> Registry:
    """The registry in the data of `load_registry_file`. Raises as `read_registry`."""
    try:
        return Registry.model_validate(document.data)
    except PydanticError as exc:
        raise document.errors_at(describe_registry_errors(exc, document)) from None


def load_registry_file(path: Path | None = None) -> SourceFile:
    """The data of `read_registry`, not looked at yet. Raises `ValidationError` where a file is not well-formed."""
    shipped = read_source_file(find_registry_path())
    if path is None:
        return shipped
    own = read_source_file(path)
    return replace(own, data=_merge(shipped.data, own.data), base=shipped)


def describe_registry_errors(error: PydanticError, document: SourceFile) -> list[tuple[Loc, str]]:
    """As `describe_errors`; of a model that has next to nothing it is said once that its name may be misspelt."""
    found = describe_errors(error, Registry, document.data, {})
    shipped = document.base.data["models"] if document.base else {}
    bare = {loc[:2] for loc, _ in found if len(loc) == 3 and loc[2] == "replicate" and loc[1] not in shipped}
    misspelt = {loc: text for loc in bare if (text := did_you_mean(str(loc[1]), shipped))}
    rest = [(loc, text) for loc, text in found if loc[:2] not in misspelt or text != "is required"]
    return [
        *((loc, f"is no shipped model, and no whole one of its own{text}") for loc, text in misspelt.items()),
        *rest,
    ]


_PRICES = ("per_second", "per_clip", "per_gpu_second")


def _merge(base: Any, own: Any) -> Any:
    """Tables are merged, what else stands in `own` replaces. Of what excludes each other only the own is left."""
    if not isinstance(base, dict) or not isinstance(own, dict):
        return own
    if {base.get("mode"), own.get("mode")} == {"discrete", "continuous"}:
        return own
    if any(name in own for name in _PRICES):
        base = {name: value for name, value in base.items() if name in own or name not in _PRICES}
    return {**base, **{name: _merge(base.get(name), value) for name, value in own.items()}}


def to_plain_number(seconds: float) -> int | float:
    """5.0 as 5: endpoints that take whole seconds refuse a float."""
    return int(seconds) if seconds == int(seconds) else seconds
