"""What a person or a form needs to know of a video model: the registry, told without its own words."""

from datetime import date
from decimal import Decimal
from typing import Literal

from pydantic import BaseModel, ConfigDict

from videogen.registry import Continuous, Inputs, ModelSpec, Price, Registry


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class Durations(_Answer):
    """Seconds. `lengths` are all that can be asked for; empty where any from `min` to `max` can."""

    mode: Literal["discrete", "continuous"]
    min: float
    max: float
    lengths: tuple[float, ...]


class Prices(_Answer):
    """USD; the one that is not None applies, `per_clip` with its prices by requested seconds where they differ."""

    per_second: Decimal | None
    per_clip: Decimal | dict[float, Decimal] | None
    per_gpu_second: Decimal | None
    as_of: date
    basis: Literal["exact", "estimated"]
    note: str


class ReferenceImageLimits(_Answer):
    """How many reference images are taken as they are, and the inputs they need."""

    max: int
    requires: Inputs


class ModelInfo(_Answer):
    """One model of the registry. Times are seconds."""

    id: str
    """As a job names it."""
    replicate: str
    version: str | None
    """Which one of a community model is run; None: an official model."""
    source: str
    aspect_ratios: tuple[str, ...]
    durations: Durations
    price: Prices
    audio_price: Prices | None
    """Of a clip with sound; None: the model cannot be asked for sound."""
    references: ReferenceImageLimits | None
    """None: none is taken as it is."""
    composes_references: bool
    """Whether references that are not taken as they are become one start frame; else they are dropped."""
    takes_image: bool
    image_required: bool
    takes_prompt: bool
    takes_negative_prompt: bool
    takes_seed: bool
    typical_run_seconds: float
    timeout_seconds: float
    fixed_inputs: Inputs
    """Sent with every clip."""
    ratio_inputs: dict[str, Inputs]
    """Sent for each ratio."""
    ignored_inputs: tuple[str, ...]
    """Those of them that the endpoint ignores."""


class ModelList(_Answer):
    """All models of the registry."""

    models: tuple[ModelInfo, ...]


def describe_models(registry: Registry) -> ModelList:
    """What can be asked of each model."""
    return ModelList(models=tuple(describe_model(name, registry) for name in registry.models))


def describe_model(name: str, registry: Registry) -> ModelInfo:
    """What can be asked of one model. Raises `ValidationError` naming the models there are."""
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
        audio_price=_describe_price(spec.audio.price) if spec.audio else None,
        references=ReferenceImageLimits(max=references.max, requires=references.requires) if references else None,
        composes_references=parameters.image is not None,
        takes_image=parameters.image is not None or references is not None,
        image_required=parameters.image_required,
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
        return Durations(mode=duration.mode, min=duration.min, max=duration.max, lengths=())
    return Durations(mode=duration.mode, min=lengths[0], max=lengths[-1], lengths=lengths)


def _describe_price(price: Price) -> Prices:
    return Prices.model_validate(price.model_dump())
