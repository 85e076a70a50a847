"""Description of the video models for `videogen models` and the gateway, without the registry's internals."""

from datetime import date
from decimal import Decimal
from typing import Literal

from pydantic import BaseModel, ConfigDict

from videogen.registry.model_spec import Continuous, Inputs, ModelSpec, Price, Registry


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class Durations(_Answer):
    """The lengths in seconds that can be requested. `lengths` is empty where any from `min` to `max` can."""

    mode: Literal["discrete", "continuous"]
    min: float
    max: float
    lengths: tuple[float, ...]


class Prices(_Answer):
    """The price in USD. Exactly one of the three is not None; `per_clip` may be a table by requested seconds."""

    per_second: Decimal | None
    per_clip: Decimal | dict[float, Decimal] | None
    per_gpu_second: Decimal | None
    as_of: date
    basis: Literal["exact", "estimated"]
    note: str


class ReferenceImageLimits(_Answer):
    """Maximum number of reference images that are sent unchanged, and the inputs that this requires."""

    max: int
    requires: Inputs


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
    """Price of a clip with sound; None means that the model has no option for sound."""
    references: ReferenceImageLimits | None
    """None means that no reference is sent unchanged."""
    composes_references: bool
    """Whether other references are composed into one start frame. If false, they are dropped."""
    takes_image: bool
    image_required: bool
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
