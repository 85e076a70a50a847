"""Description of the video models for `videogen models` and the gateway, without the registry's internals."""

from datetime import date
from decimal import Decimal
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from videogen.registry.lengths import Continuous
from videogen.registry.model_spec import ModelSpec, Registry
from videogen.registry.prices import Price, PriceBasis
from videogen.registry.tables import Inputs


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, defer_build=True)


class Durations(_Answer):
    """The lengths in seconds that can be requested. `lengths` is empty where any from `min` to `max` can.

    `automatic` has the inputs that leave the length to the model, or None if it cannot be left to it.
    """

    mode: Literal["discrete", "continuous"]
    min: float
    max: float
    lengths: tuple[float, ...]
    automatic: Inputs | None = None


class PriceRowInfo(_Answer):
    """The price in USD of clips with certain inputs. One of the two is not None."""

    when: Inputs
    per_second: Decimal | None
    per_clip: Decimal | dict[float, Decimal] | None


class Prices(_Answer):
    """The price in USD. One of the first three is not None, or there are rows; `per_clip` may be a table by requested
    seconds."""

    per_second: Decimal | None
    per_clip: Decimal | dict[float, Decimal] | None
    per_gpu_second: Decimal | None
    rows: tuple[PriceRowInfo, ...] = ()
    """Prices by the inputs that are sent; each clip fits exactly one row."""
    as_of: date
    basis: PriceBasis
    note: str


class ReferenceImageLimits(_Answer):
    """Maximum number of reference images that are sent unchanged, and the inputs that this requires."""

    max: int
    requires: Inputs
    excludes: tuple[str, ...] = ()
    """Frames with which they are not accepted."""
    required: bool = False
    """Whether the model requires them."""


class ModelInfo(_Answer):
    """One model of the registry. Times are seconds."""

    id: str
    """The name that a job uses."""
    replicate: str
    version: str | None
    """Id of the version that is run; None means an official model."""
    source: str
    aspect_ratios: tuple[str, ...]
    durations: Durations
    price: Prices
    audio_price: Prices | None
    """Price of a clip with sound; None means that the model has no option for sound, or that `price` covers it."""
    audio: Literal["always", "on request", "none"]
    """When clips have sound."""
    audio_inputs: Inputs
    """Inputs that request sound."""
    tiers: dict[str, Inputs]
    """Named qualities, and the inputs that request each."""
    default_tier: str | None
    conditions: tuple[dict[str, Any], ...]
    """What is different when a clip is asked for in a certain way, as in the registry."""
    refused_pictures: str | None
    """What the model refuses to see in pictures, as far as known."""
    retires: date | None
    """The day from which the model cannot be run any more; None means that none is known."""
    successor: str | None
    references: ReferenceImageLimits | None
    """None means that no reference is sent unchanged."""
    composes_references: bool
    """Whether other references are composed into one start frame. If false, they are dropped."""
    takes_image: bool
    image_required: bool
    takes_end_image: bool
    end_image_needs_start: bool
    """Whether an end frame is accepted only together with a start frame."""
    longest_prompt: int | None
    """Most characters that a prompt may have; None means that no limit is known."""
    takes_prompt: bool
    takes_negative_prompt: bool
    takes_seed: bool
    typical_run_seconds: float
    timeout_seconds: float
    fixed_inputs: Inputs
    """Inputs that are sent with every clip."""
    ratio_inputs: dict[str, Inputs]
    """Inputs that are sent for each ratio."""
    ignored_inputs: tuple[str, ...]
    """Names of those inputs that the endpoint ignores."""


class ModelList(_Answer):
    """All models of the registry."""

    models: tuple[ModelInfo, ...]


def describe_models(registry: Registry) -> ModelList:
    """Return the descriptions of all models."""
    return ModelList(models=tuple(describe_model(name, registry) for name in registry.models))


def describe_model(name: str, registry: Registry) -> ModelInfo:
    """Return the description of one model. Raise `ValidationError` with the known names if there is none."""
    spec = registry.get_model(name)
    parameters, references = spec.parameters, spec.references
    return ModelInfo(
        id=name,
        replicate=spec.replicate,
        version=spec.version,
        source=spec.source,
        aspect_ratios=tuple(spec.aspect_ratios),
        durations=_describe_durations(spec),
        price=_describe_price(spec.price),
        audio_price=_describe_price(spec.audio.price) if spec.audio and spec.audio.price else None,
        audio="none" if spec.audio is None else "always" if spec.audio.always else "on request",
        audio_inputs=spec.audio.inputs if spec.audio else {},
        tiers=spec.tiers,
        default_tier=spec.default_tier,
        conditions=tuple(when.model_dump(mode="json", exclude_defaults=True) for when in spec.when),
        refused_pictures=spec.refused_pictures,
        retires=spec.retires,
        successor=spec.successor,
        references=ReferenceImageLimits.model_validate(references.model_dump(exclude={"input"}))
        if references
        else None,
        composes_references=parameters.image is not None,
        takes_image=parameters.image is not None or references is not None,
        image_required=parameters.image_required,
        takes_end_image=parameters.end_image is not None,
        end_image_needs_start=parameters.end_image_needs_start,
        longest_prompt=parameters.longest_prompt,
        takes_prompt=parameters.prompt is not None,
        takes_negative_prompt=parameters.negative_prompt is not None,
        takes_seed=parameters.seed is not None,
        typical_run_seconds=spec.typical_run_seconds,
        timeout_seconds=spec.timeout_seconds or registry.defaults.timeout_seconds,
        fixed_inputs=spec.fixed,
        ratio_inputs=spec.aspect_ratios,
        ignored_inputs=spec.ignored,
    )


def _describe_durations(spec: ModelSpec) -> Durations:
    duration = spec.duration
    lengths = tuple(sorted(duration.lengths))
    if isinstance(duration, Continuous) and not lengths:
        return Durations(
            mode=duration.mode, min=duration.min, max=duration.max, lengths=(), automatic=duration.automatic
        )
    return Durations(mode=duration.mode, min=lengths[0], max=lengths[-1], lengths=lengths, automatic=duration.automatic)


def _describe_price(price: Price) -> Prices:
    return Prices.model_validate(price.model_dump())
