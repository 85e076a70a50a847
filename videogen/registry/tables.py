"""The base class of the tables of `models.toml`, and the types of their values."""

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema

from videogen.job.model import ModelInputs
from videogen.source_files.scalars import IS_NUMBER, IS_WHOLE_NUMBER

Inputs = ModelInputs
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False), IS_NUMBER]


def _make_pattern_type(pattern: str, words: str) -> tuple[AfterValidator, WithJsonSchema]:
    """Return annotations that restrict a text to a pattern and describe it in words if it does not match."""

    def check_pattern(value: str) -> str:
        if not re.fullmatch(pattern, value, re.ASCII):
            raise ValueError(f"input should be {words}, not {value[:80]!r}")
        return value

    return AfterValidator(check_pattern), WithJsonSchema({"type": "string", "pattern": f"^(?:{pattern})$"})


FREE_RATIOS = ("adaptive", "auto")
"""Words that leave the ratio to the model, which follows the start image."""
AspectRatio = Annotated[
    str,
    *_make_pattern_type(
        "|".join((r"[1-9][0-9]{0,2}:[1-9][0-9]{0,2}", *FREE_RATIOS)),
        f"a ratio such as 16:9, {' or '.join(FREE_RATIOS)}",
    ),
]


def parse_ratio(aspect_ratio: str) -> tuple[int, int] | None:
    """Return width and height of a ratio; None for a word, which leaves the ratio to the model."""
    width, is_ratio, height = aspect_ratio.partition(":")
    return (int(width), int(height)) if is_ratio else None


REPLICATE_NAME = r"[a-z0-9][a-z0-9._-]*/[a-z0-9][a-z0-9._-]*"
ReplicateName = Annotated[str, *_make_pattern_type(REPLICATE_NAME, "owner/name as on Replicate")]
VersionId = Annotated[str, *_make_pattern_type(r"[0-9a-f]{64}", "a version's 64 hex digits")]
_FrameLength = Annotated[int, Field(ge=64, le=4096, multiple_of=2), IS_WHOLE_NUMBER]
FrameSize = tuple[_FrameLength, _FrameLength]


class Table(BaseModel):
    """A table of `models.toml`. Its validator is built when it is first used, which saves the time where it is not."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


def to_plain_number(seconds: float) -> int | float:
    """Return 5.0 as 5, because endpoints with whole seconds reject a float."""
    return int(seconds) if seconds == int(seconds) else seconds
