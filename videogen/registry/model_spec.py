"""The registry of video models: their inputs, durations and prices, as declared in `models.toml`."""

import json
from collections.abc import Iterator
from datetime import date
from itertools import product
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from videogen.errors import Problem, ValidationError
from videogen.registry.conditions import Asked, Terms, When, apply_conditions
from videogen.registry.extend import resolve_extends
from videogen.registry.lengths import Continuous, Discrete
from videogen.registry.prices import Price, PriceRow
from videogen.registry.tables import AspectRatio, FrameSize, Inputs, Positive, ReplicateName, Table, VersionId
from videogen.source_files.messages import Loc, did_you_mean, make_nested_value_error
from videogen.source_files.scalars import IS_BOOLEAN, IS_NUMBER, IS_WHOLE_NUMBER

MAX_LISTED_MODELS = 10
"""A message lists no more names of models than this."""
FRAME_SIZES: dict[str, tuple[int, int]] = {
    "16:9": (1280, 720),
    "9:16": (720, 1280),
    "1:1": (1024, 1024),
    "4:3": (1152, 864),
    "3:4": (864, 1152),
    "3:2": (1152, 768),
    "2:3": (768, 1152),
    "21:9": (1344, 576),
    "9:21": (576, 1344),
}


class Parameters(Table):
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
    end_image: str | None = None
    """Name of the input that takes the end frame."""
    end_image_needs_start: Annotated[bool, IS_BOOLEAN] = False
    """Whether an end frame is accepted only together with a start frame."""
    longest_prompt: Annotated[int, Field(ge=1), IS_WHOLE_NUMBER] | None = None
    """Most characters that a prompt may have; None means that no limit is known."""

    def list_names(self) -> dict[str, str]:
        """Return the field of a scene that each input takes, by the name of the input."""
        fields = {
            "prompt": "prompt",
            "negative_prompt": "negative_prompt",
            "image": "start_image",
            "end_image": "end_image",
            "seed": "seed",
        }
        return {name: field for own, field in fields.items() if (name := getattr(self, own)) is not None}

    @model_validator(mode="after")
    def _required_image_has_a_name(self) -> Self:
        if self.image_required and self.image is None:
            raise ValueError("image_required needs `image`, the name of the input that takes it")
        if self.end_image_needs_start and (self.end_image is None or self.image is None):
            raise ValueError("end_image_needs_start needs `image` and `end_image`, the names of the inputs")
        return self


class References(Table):
    """The endpoint accepts a list of reference images if all inputs in `requires` have these values."""

    input: str
    """Name of the input that takes the list."""
    max: Annotated[int, Field(ge=1), IS_WHOLE_NUMBER]
    """Maximum number of images. The references of a scene with more are composed into one start frame."""
    requires: Inputs = {}
    """Inputs and their values without which the list is not accepted."""
    excludes: tuple[Literal["start_image", "end_image"], ...] = ()
    """Frames with which the list is not accepted."""
    required: Annotated[bool, IS_BOOLEAN] = False
    """Whether the model requires the list."""


class AudioOption(Table):
    """The inputs that request a clip with sound, and its price."""

    inputs: Annotated[Inputs, Field(min_length=1)] = {}
    """Inputs that are added to those of a silent clip, or override them."""
    price: Price | None = None
    """Price of a clip with sound; None means that the model's price has it, by its rows or because sound is free."""
    always: Annotated[bool, IS_BOOLEAN] = False
    """Whether every clip has sound, so that there is nothing to request. It is removed if the job wants none."""

    @model_validator(mode="after")
    def _sound_can_be_asked_for(self) -> Self:
        if self.always == bool(self.inputs):
            raise ValueError("give either `inputs` that request sound, or `always = true`")
        if self.always and self.price:
            raise ValueError("a clip that always has sound has one price: leave out `price` here")
        return self


class DeliveryFormat(Table):
    """Properties of the delivered clip that the endpoint has no input for. The clip is converted after the download."""

    fps: Annotated[float, Field(ge=1, le=120), IS_NUMBER] | None = None
    """Frames per second of the delivered clip; None leaves it unchanged."""
    sizes: dict[AspectRatio, FrameSize] = {}
    """Width and height in pixels of the delivered clip, by ratio. Other ratios are left unchanged."""


class ModelSpec(Table):
    """One video model. Times are seconds."""

    extends: str | None = None
    """A model of the registry whose table this one changes: tables are merged, other values are replaced."""
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
    """Price of a clip; if `audio` has a price, of a clip without sound."""
    audio: AudioOption | None = None
    """How to request sound; None means that the endpoint has no option for it."""
    tiers: dict[str, Inputs] = {}
    """Named qualities, such as `draft` and `final`, each with the inputs that request it."""
    default_tier: str | None = None
    """The tier of jobs that ask for none. Required if there are tiers."""
    when: tuple[When, ...] = ()
    """What is different when a clip is asked for in a certain way. Each applies after those before it."""
    refused_pictures: str | None = None
    """What the model refuses to see in pictures, such as "photoreal faces"; None means that nothing is known. The plan
    warns if a scene gives it pictures."""
    retires: date | None = None
    """The day from which the model cannot be run any more; None means that none is known."""
    successor: str | None = None
    """The model of the registry that replaces it."""
    frame_sizes: dict[AspectRatio, FrameSize] = {}
    """Width and height in pixels of the start frame, by ratio, where they differ from the usual ones."""
    delivery: DeliveryFormat = DeliveryFormat()

    @model_validator(mode="after")
    def _price_covers_all_sizes(self) -> Self:
        lengths = self.duration.lengths
        prices: dict[Loc, Price] = {("price", "per_clip"): self.price}
        if self.audio and self.audio.price:
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
        if unknown := [ratio for ratio in self.aspect_ratios if ":" in ratio and ratio not in known]:
            words = "frame_sizes must name the size in pixels for this ratio"
            raise make_nested_value_error({("aspect_ratios", ratio): words for ratio in unknown})
        return self

    @model_validator(mode="after")
    def _default_is_a_tier(self) -> Self:
        wrong: dict[Loc, str] = {}
        if bool(self.tiers) != (self.default_tier is not None):
            wrong["default_tier",] = "and tiers belong together: name the tier of jobs that ask for none"
        elif self.default_tier is not None and self.default_tier not in self.tiers:
            wrong["default_tier",] = f"{self.default_tier!r} is no tier{did_you_mean(self.default_tier, self.tiers)}"
        if wrong:
            raise make_nested_value_error(wrong)
        return self

    @model_validator(mode="after")
    def _conditions_can_hold(self) -> Self:
        found = (
            (("when", index, *loc), message)
            for index, when in enumerate(self.when)
            for loc, message in self._find_condition_problems(when)
        )
        if wrong := dict[Loc, str](found):
            raise make_nested_value_error(wrong)
        return self

    def _find_condition_problems(self, when: When) -> Iterator[tuple[Loc, str]]:
        """Yield the reasons why a condition never holds, each with its field."""
        if when.references and self.references is None:
            yield ("references",), "never holds: this model takes no list of references"
        if when.audio and self.audio is None:
            yield ("audio",), "never holds: this model cannot be asked for sound"
        for tier in when.tier:
            if tier not in self.tiers:
                yield ("tier",), f"{tier!r} is no tier of this model{did_you_mean(tier, self.tiers)}"
        for ratio in when.aspect_ratio:
            if ratio not in self.aspect_ratios:
                yield ("aspect_ratio",), f"{ratio!r} is no ratio of this model"
        for name in ("lengths", "seconds"):
            unknown = [f"{length:g}" for length in getattr(when, name) or () if length not in self.duration.lengths]
            if unknown and not self.duration.lengths:
                yield (name,), "needs `accepts`: this model's duration lists no lengths"
            elif unknown:
                yield (name,), f"{', '.join(unknown)} s cannot be requested from this model"

    @model_validator(mode="after")
    def _every_clip_has_one_price(self) -> Self:
        if not self._list_rows():
            return self
        for asked in self._iterate_requests():
            terms = self.find_terms(asked)
            is_possible = terms.lengths is None or asked.seconds is None or asked.seconds in terms.lengths
            if is_possible and not terms.refused and (problem := self.find_price_problem(asked, terms.inputs)):
                raise make_nested_value_error({("price", "rows"): problem})
        return self

    def find_price_problem(self, asked: Asked, inputs: Inputs) -> str | None:
        """Return why a clip with these inputs has no price, or None if it has one."""
        rows = self.get_price(audio=asked.audio).find_rows(inputs)
        if len(rows) == 1:
            prices = rows[0].per_clip
            is_missing = isinstance(prices, dict) and asked.seconds is not None and asked.seconds not in prices
            return f"none for a clip of {asked.seconds:g} s" if is_missing else None
        shown = [f"{name} = {json.dumps(inputs[name])}" for name in self._list_priced_inputs() if name in inputs]
        return f"{len(rows) or 'no'} row{'s' * (len(rows) != 0)} for a clip with {', '.join(shown) or 'any inputs'}"

    def _list_priced_inputs(self) -> list[str]:
        """Return the names of the inputs on which the price depends."""
        return sorted({name for row in self._list_rows() for name in row.when})

    def _list_rows(self) -> list[PriceRow]:
        prices = [self.price, *([self.audio.price] if self.audio and self.audio.price else [])]
        return [row for price in prices for row in price.rows]

    def _iterate_requests(self) -> Iterator[Asked]:
        """Yield everything that a clip can ask of the model, as far as its price may depend on it."""
        facts = {name for when in self.when for name in when.model_fields_set}
        inputs = {*self._list_priced_inputs(), *(name for when in self.when for name in when.inputs)}
        by_ratio = "aspect_ratio" in facts or any(inputs & sent.keys() for sent in self.aspect_ratios.values())
        lengths = self.duration.lengths
        has_tables = any(isinstance(row.per_clip, dict) for row in self._list_rows())
        by_length = lengths and (
            has_tables or "seconds" in facts or inputs & self.duration.make_inputs(lengths[0]).keys()
        )
        frames = [(self.parameters.image_required, False, False)]
        if facts & {"start_image", "end_image", "references"}:
            flags = (False, True)
            frames += product(flags, flags, flags)
        for ratio, tier, audio, (start, end, references), seconds in product(
            list(self.aspect_ratios)[: None if by_ratio else 1],
            self.tiers or [None],
            [False, True] if self.audio else [False],
            frames,
            lengths if by_length else [None],
        ):
            yield Asked(ratio, tier, audio, start, end, references, seconds)

    def find_terms(self, asked: Asked, own: Inputs | None = None) -> Terms:
        """Return the inputs and limits of a clip that is asked for in this way.

        Args:
            asked: what the clip asks for. Its tier must be one of the model; an unknown ratio has no inputs.
            own: inputs that the job or the scene names itself.
        """
        inputs = {
            **self.fixed,
            **(self.tiers[asked.tier] if asked.tier else {}),
            **self.aspect_ratios.get(asked.aspect_ratio, {}),
            **(self.duration.make_inputs(asked.seconds) if asked.seconds is not None else {}),
            **(self.audio.inputs if asked.audio and self.audio else {}),
            **(own or {}),
        }
        return apply_conditions(self.when, asked, inputs, self.parameters.longest_prompt)

    def get_price(self, *, audio: bool) -> Price:
        """Return the price of a clip with or without sound."""
        return self.audio.price if audio and self.audio and self.audio.price else self.price

    def get_frame_size(self, aspect_ratio: str) -> tuple[int, int] | None:
        """Return width and height in pixels of a start frame in that ratio; None where the frame decides the ratio."""
        return self.frame_sizes.get(aspect_ratio) or FRAME_SIZES.get(aspect_ratio)


class Defaults(Table):
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


class Registry(Table):
    """All models that jobs can use, and the defaults."""

    defaults: Defaults = Defaults()
    models: Annotated[dict[str, ModelSpec], Field(min_length=1)]
    """The models, by the name that a job uses."""

    @model_validator(mode="before")
    @classmethod
    def _models_extend_others(cls, data: Any) -> Any:
        if not isinstance(data, dict) or not isinstance(models := data.get("models"), dict):
            return data
        return {**data, "models": resolve_extends(models)}

    @model_validator(mode="after")
    def _successors_are_known(self) -> Self:
        wrong: dict[Loc, str] = {}
        for name, spec in self.models.items():
            if spec.successor == name:
                wrong["models", name, "successor"] = "is this model itself"
            elif spec.successor and spec.successor not in self.models:
                meant = did_you_mean(spec.successor, self.models)
                wrong["models", name, "successor"] = f"{spec.successor!r} is not in the registry{meant}"
        if wrong:
            raise make_nested_value_error(wrong)
        return self

    def get_model(self, name: str) -> ModelSpec:
        """Return a model. Raise `ValidationError` with the known names if there is none of that name."""
        if name not in self.models:
            raise ValidationError([Problem(self.describe_unknown_model(name), where="model")])
        return self.models[name]

    def describe_unknown_model(self, name: str) -> str:
        """Return the message for a name that is not in the registry."""
        names = f"there are: {', '.join(self.models)}"
        if len(self.models) > MAX_LISTED_MODELS:
            names = f"`videogen models` lists the {len(self.models)} there are"
        return f"{name!r} is not in the registry; {names}{did_you_mean(name, self.models)}"
