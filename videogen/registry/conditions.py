"""Conditions of a model, under which a clip has other inputs or limits."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from videogen.registry.tables import AspectRatio, Inputs, Positive, Table
from videogen.source_files.scalars import IS_BOOLEAN, IS_WHOLE_NUMBER


def _as_tuple(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else (value,)


_Boolean = Annotated[bool, IS_BOOLEAN] | None


@dataclass(frozen=True, slots=True)
class Asked:
    """The wishes of a clip, on which its terms depend."""

    aspect_ratio: str
    tier: str | None = None
    audio: bool = False
    start_image: bool = False
    end_image: bool = False
    references: bool = False
    """Whether a list of reference images is sent."""
    seconds: float | None = None
    """The length that is requested; None until it is chosen."""


class When(Table):
    """A change of inputs or limits if all conditions hold. Those that are left out always hold."""

    start_image: _Boolean = None
    """Whether a start frame is sent."""
    end_image: _Boolean = None
    """Whether an end frame is sent."""
    references: _Boolean = None
    """Whether a list of reference images is sent."""
    audio: _Boolean = None
    """Whether sound is asked for."""
    aspect_ratio: Annotated[
        tuple[AspectRatio, ...], BeforeValidator(_as_tuple, json_schema_input_type=AspectRatio | list[AspectRatio])
    ] = ()
    """A ratio, or a list of ratios, one of which is asked for."""
    tier: Annotated[tuple[str, ...], BeforeValidator(_as_tuple, json_schema_input_type=str | list[str])] = ()
    """A tier, or a list of tiers, one of which is asked for."""
    seconds: Annotated[
        tuple[Positive, ...], BeforeValidator(_as_tuple, json_schema_input_type=Positive | list[Positive])
    ] = ()
    """A length in seconds, or a list of lengths, one of which is requested."""
    inputs: Inputs = {}
    """Inputs that are sent with these values."""

    send: Inputs = {}
    """Inputs that are sent then. They take the place of others of the same name."""
    lengths: tuple[Positive, ...] | None = None
    """The lengths in seconds that can be requested then; None means all of the model."""
    longest_prompt: Annotated[int, Field(ge=1), IS_WHOLE_NUMBER] | None = None
    """Most characters that a prompt may have then; None means the model's own limit."""
    refuse: str = ""
    """Why such a clip cannot be made at all. Empty if it can."""

    @model_validator(mode="after")
    def _something_changes(self) -> "When":
        if not (self.send or self.lengths or self.longest_prompt or self.refuse):
            raise ValueError("changes nothing: give send, lengths, longest_prompt or refuse")
        if self.seconds and self.lengths:
            raise ValueError("lengths cannot depend on seconds: they are chosen before the length is known")
        return self

    def holds(self, asked: Asked, inputs: Inputs) -> bool:
        """Return whether all conditions hold for a clip with these inputs."""
        flags = (
            (self.start_image, asked.start_image),
            (self.end_image, asked.end_image),
            (self.references, asked.references),
            (self.audio, asked.audio),
        )
        choices: Iterable[tuple[tuple[Any, ...], Any]] = (
            (self.aspect_ratio, asked.aspect_ratio),
            (self.tier, asked.tier),
            (self.seconds, asked.seconds),
        )
        return (
            all(wanted is None or wanted == fact for wanted, fact in flags)
            and all(not wanted or fact in wanted for wanted, fact in choices)
            and self.inputs.items() <= inputs.items()
        )


@dataclass(frozen=True, slots=True)
class ChangedInput:
    """An input that a condition sent with another value than the one that was asked for."""

    name: str
    asked: Any
    sent: Any


@dataclass(frozen=True, slots=True)
class Terms:
    """The inputs and limits of a clip, after all conditions of its model."""

    inputs: Inputs
    changed: tuple[ChangedInput, ...] = ()
    lengths: frozenset[float] | None = None
    """The lengths in seconds that can be requested; None means all of the model."""
    longest_prompt: int | None = None
    refused: str = ""


def apply_conditions(conditions: Iterable[When], asked: Asked, inputs: Inputs, longest_prompt: int | None) -> Terms:
    """Return the terms of a clip: its inputs, changed by each condition that holds, in their order."""
    sent, changed, lengths, refused = dict(inputs), dict[str, ChangedInput](), None, ""
    for condition in conditions:
        if not condition.holds(asked, sent):
            continue
        for name, value in condition.send.items():
            if name in inputs and inputs[name] != value:
                changed[name] = ChangedInput(name, inputs[name], value)
        sent |= condition.send
        if condition.lengths is not None:
            lengths = frozenset(condition.lengths) if lengths is None else lengths & frozenset(condition.lengths)
            refused = refused or ("" if lengths else "its conditions leave no length for such a clip")
        if condition.longest_prompt is not None:
            longest_prompt = condition.longest_prompt
        refused = refused or condition.refuse
    return Terms(sent, tuple(changed.values()), lengths, longest_prompt, refused)
