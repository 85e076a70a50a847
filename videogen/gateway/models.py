"""What a form needs to know of a video model."""

from datetime import date
from decimal import Decimal
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from videogen.registry import Continuous, ModelSpec, Price


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


class ReferenceImages(_Answer):
    """How many reference images are taken as they are, and the inputs they need. Other models take one start frame."""

    max: int
    requires: dict[str, Any]


class Model(_Answer):
    """One model of the registry."""

    id: str
    """As a job names it."""
    replicate: str
    aspect_ratios: tuple[str, ...]
    durations: Durations
    price: Prices
    references: ReferenceImages | None
    takes_image: bool
    image_required: bool
    takes_prompt: bool
    takes_negative_prompt: bool
    takes_seed: bool
    typical_run_seconds: float


class Models(_Answer):
    models: tuple[Model, ...]


def model_of(name: str, spec: ModelSpec) -> Model:
    parameters, references = spec.parameters, spec.references
    return Model(
        id=name,
        replicate=spec.replicate,
        aspect_ratios=tuple(spec.aspect_ratios),
        durations=_durations(spec),
        price=_prices(spec.price),
        references=ReferenceImages(max=references.max, requires=references.requires) if references else None,
        takes_image=parameters.image is not None or references is not None,
        image_required=parameters.image_required,
        takes_prompt=parameters.prompt is not None,
        takes_negative_prompt=parameters.negative_prompt is not None,
        takes_seed=parameters.seed is not None,
        typical_run_seconds=spec.typical_run_seconds,
    )


def _durations(spec: ModelSpec) -> Durations:
    duration = spec.duration
    lengths = tuple(sorted(duration.lengths))
    if isinstance(duration, Continuous) and not lengths:
        return Durations(mode=duration.mode, min=duration.min, max=duration.max, lengths=())
    return Durations(mode=duration.mode, min=lengths[0], max=lengths[-1], lengths=lengths)


def _prices(price: Price) -> Prices:
    return Prices.model_validate(price.model_dump(exclude={"note"}))
