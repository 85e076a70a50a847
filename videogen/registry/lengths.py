"""The lengths that a model makes, and the inputs that ask for them."""

from collections.abc import Container
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from videogen.registry import durations
from videogen.registry.tables import Inputs, Positive, Table, to_plain_number
from videogen.source_files.scalars import IS_NUMBER, IS_WHOLE_NUMBER


class FixedLength(Table):
    """A fixed length and the inputs that request it."""

    seconds: Positive
    """The length."""
    inputs: Inputs | None = None
    """Inputs that request this length; None means the length itself, under the duration's `input`."""


def _as_fixed_length(value: Any) -> Any:
    return {"seconds": value} if isinstance(value, int | float) and not isinstance(value, bool) else value


_Lengths = tuple[
    Annotated[FixedLength, BeforeValidator(_as_fixed_length, json_schema_input_type=Positive | FixedLength)], ...
]


MAX_LENGTHS = 1000
"""Most lengths that steps can give."""


class Steps(Table):
    """Lengths at equal distances."""

    min: Positive
    """Shortest length in seconds."""
    max: Positive
    """Longest length in seconds."""
    step: Positive = 1.0
    """Distance of two lengths in seconds."""

    @model_validator(mode="after")
    def _max_is_reached(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min {self.min:g} is above max {self.max:g}")
        number = (self.max - self.min) / self.step
        if number > MAX_LENGTHS:
            raise ValueError(f"gives more than {MAX_LENGTHS:,} lengths: use a longer step, or a continuous duration")
        if abs(number - round(number)) > 1e-6:
            last = self.min + int(number) * self.step
            raise ValueError(f"max {self.max:g} is not reached in steps of {self.step:g}: the last length is {last:g}")
        return self

    def list_lengths(self) -> list[FixedLength]:
        count = round((self.max - self.min) / self.step) + 1
        return [FixedLength(seconds=round(self.min + number * self.step, 3)) for number in range(count)]


class Frames(Table):
    """Lengths that are requested as a number of frames at a rate."""

    counts: Annotated[tuple[Annotated[int, Field(ge=1), IS_WHOLE_NUMBER], ...], Field(min_length=1)]
    """Numbers of frames that the endpoint takes."""
    input: str
    """Name of the input that takes the number of frames."""
    fps: Positive
    """Frames per second."""
    fps_input: str | None = None
    """Name of the input that takes the rate; None means that the rate cannot be chosen."""

    def list_lengths(self) -> list[FixedLength]:
        rate: Inputs = {self.fps_input: to_plain_number(self.fps)} if self.fps_input else {}
        return [
            FixedLength(seconds=round(count / self.fps, 3), inputs={self.input: count, **rate}) for count in self.counts
        ]


class _Duration(Table):
    automatic: Annotated[Inputs, Field(min_length=1)] | None = None
    """Inputs that leave the length to the model; None means that it cannot be left to it."""

    def is_left_to_model(self, own: Inputs) -> bool:
        """Return whether inputs of the job or the scene leave the length to the model."""
        return self.automatic is not None and self.automatic.items() <= own.items()


class Discrete(_Duration):
    """The model makes clips of a few fixed lengths: `sizes`, `steps` or `frames`."""

    mode: Literal["discrete"]
    sizes: Annotated[_Lengths, Field(min_length=1)] = ()
    """The lengths, each a number of seconds, or a table of `seconds` and the `inputs` that request it."""
    steps: Steps | None = None
    """Lengths at equal distances."""
    frames: Frames | None = None
    """Lengths as numbers of frames at a rate."""
    input: str | None = None
    """Name of the input that takes the length; None where every length has its own inputs."""

    @model_validator(mode="after")
    def _every_size_can_be_asked_for(self) -> Self:
        if bool(self.sizes) + bool(self.steps) + bool(self.frames) != 1:
            raise ValueError("give exactly one of sizes, steps, frames")
        if self.input is None and any(size.inputs is None for size in self.fixed_lengths):
            raise ValueError("needs `input`, the name of the input that takes the length, or `inputs` for every size")
        return self

    @cached_property
    def fixed_lengths(self) -> tuple[FixedLength, ...]:
        """The lengths, however they are given."""
        return self.get_listed_lengths()[1]

    def get_listed_lengths(self) -> tuple[str, tuple[FixedLength, ...]]:
        """Return the name of the field that gives the lengths, and the lengths."""
        if self.steps:
            return "steps", tuple(self.steps.list_lengths())
        if self.frames:
            return "frames", tuple(self.frames.list_lengths())
        return "sizes", self.sizes

    @cached_property
    def lengths(self) -> tuple[float, ...]:
        """The lengths in seconds that can be requested."""
        return tuple(size.seconds for size in self.fixed_lengths)

    def find_longest(self, allowed: Container[float] | None = None) -> float:
        return max(_restrict(self.lengths, allowed))

    def apply_buffer(self, target_s: float, _buffer: float, allowed: Container[float] | None = None) -> float:
        return durations.choose_discrete_duration(target_s, _restrict(self.lengths, allowed))

    def choose_length(self, buffered_s: float, _allowed: Container[float] | None = None) -> float:
        return buffered_s

    def make_inputs(self, requested_s: float) -> Inputs:
        size = next(size for size in self.fixed_lengths if size.seconds == requested_s)
        return size.inputs if size.inputs is not None else {str(self.input): to_plain_number(requested_s)}


class Continuous(_Duration):
    """The model makes clips of any length from `min` to `max` seconds, or of the lengths in `accepts`."""

    mode: Literal["continuous"]
    min: Annotated[float, Field(ge=0, allow_inf_nan=False), IS_NUMBER] = 0.0
    """Shortest length in seconds."""
    max: Positive
    """Longest length in seconds."""
    accepts: _Lengths | None = None
    """The lengths that the endpoint accepts, given as in `sizes` of a discrete duration; None where it accepts any."""
    input: str
    """Name of the input that takes the length."""

    @model_validator(mode="after")
    def _bounds_are_in_order(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        if self.accepts is not None and not self.accepts:
            raise ValueError("accepts is empty: leave it out where any length is accepted")
        if outside := [f"{each.seconds:g}" for each in self.accepts or () if not self.min <= each.seconds <= self.max]:
            raise ValueError(f"accepts {', '.join(outside)} s, outside of min {self.min:g} and max {self.max:g}")
        return self

    @property
    def lengths(self) -> tuple[float, ...]:
        """The lengths in seconds that can be requested; empty where any is accepted."""
        return tuple(length.seconds for length in self.accepts or ())

    def get_listed_lengths(self) -> tuple[str, tuple[FixedLength, ...]]:
        """Return the name of the field that gives the lengths, and the lengths, if any."""
        return "accepts", self.accepts or ()

    def find_longest(self, allowed: Container[float] | None = None) -> float:
        longest = self.max if allowed is None else max(_restrict(self.lengths, allowed), default=self.max)
        return min(self.max, longest)

    def apply_buffer(self, target_s: float, buffer: float, allowed: Container[float] | None = None) -> float:
        return durations.apply_buffer(target_s, buffer, min_s=self.min, max_s=self.find_longest(allowed))

    def choose_length(self, buffered_s: float, allowed: Container[float] | None = None) -> float:
        lengths = _restrict(self.lengths, allowed)
        return durations.choose_smallest_covering(lengths, buffered_s) if lengths else buffered_s

    def make_inputs(self, requested_s: float) -> Inputs:
        length = next((length for length in self.accepts or () if length.seconds == requested_s), None)
        if length and length.inputs is not None:
            return length.inputs
        return {self.input: to_plain_number(requested_s)}


def _restrict(lengths: tuple[float, ...], allowed: Container[float] | None) -> list[float]:
    """Return the lengths that are allowed; None allows all."""
    return [length for length in lengths if allowed is None or length in allowed]
