"""What a clip shows, as one value: two equal shots are one file."""

import hashlib
from dataclasses import dataclass, field
from typing import Literal

from videogen.emulator.models import Shape

LOOK = 1
"""Count up when clips come to look different, so that no cache shows old ones."""


@dataclass(frozen=True, slots=True)
class Shot:
    """Everything that decides how a clip looks."""

    shape: Shape
    prompt: str
    """The caption, and without a start image what is painted; empty for models without a prompt."""
    seed: int
    start_digest: str | None
    """SHA-256 of the start image's pixels, None without one."""
    smooth: bool
    """One long camera move, frame by frame, in place of a repeated one of two seconds."""
    flaw: Literal["black", "frozen"] | None = field(default=None, repr=False)
    """Black without a caption, or one frame all the time."""

    @property
    def digest(self) -> str:
        """64 hex digits that name this shot as it looks today."""
        return hashlib.sha256(f"{LOOK} {self!r}{self.flaw or ''}".encode()).hexdigest()
