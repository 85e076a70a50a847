"""The judgement on a delivered clip."""

from typing import Annotated

from pydantic import Field

from videogen.planning.requests import FrozenModel


class Judgement(FrozenModel):
    """The answer of a judge."""

    accept: bool
    """Whether the clip is good enough for the film."""
    score: Annotated[float, Field(ge=0, le=1)]
    """Quality from 0 to 1."""
    reason: str = ""
    """Why, in a line."""
