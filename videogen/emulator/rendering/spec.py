"""The specification of a clip. Equal specifications give the same file."""

import hashlib
from dataclasses import dataclass, field
from typing import Literal

from videogen.emulator.models import ClipFormat

LOOK_VERSION = 1
"""Increment when the look of clips changes, so that caches do not serve old ones."""


@dataclass(frozen=True, slots=True)
class RenderSpec:
    """All inputs of rendering a clip."""

    clip_format: ClipFormat
    prompt: str
    """The caption and, without a start image, the description of the picture; empty for models without a prompt."""
    seed: int
    start_digest: str | None
    """SHA-256 of the start image's pixels, or None without one."""
    smooth: bool
    """Whether to render one long camera move, frame by frame, instead of repeating one of two seconds."""
    flaw: Literal["black", "frozen"] | None = field(default=None, repr=False)
    """`black` has no picture and no caption, `frozen` shows one frame all the time. None means no flaw."""
    end_digest: str | None = None
    """SHA-256 of the pixels of the last frame, or None without one."""

    @property
    def digest(self) -> str:
        """64 hex digits that are equal for equal specifications of the same `LOOK_VERSION`."""
        # The digest names files in caches and seeds the camera move. The names in this text, `Shot` and the others, are
        # therefore those of the first version and independent of today's class names.
        clip, size = self.clip_format, self.clip_format.size
        shape = (
            f"Shape(size=Size(width_px={size.width_px!r}, height_px={size.height_px!r}), frames={clip.frames!r}, "
            f"fps={clip.fps!r}, audio={clip.audio!r})"
        )
        shot = (
            f"Shot(shape={shape}, prompt={self.prompt!r}, seed={self.seed!r}, start_digest={self.start_digest!r}, "
            f"smooth={self.smooth!r})"
        )
        opening = "opening" if self.start_digest else ""  # clips of older versions began beside their start image
        look = f"{LOOK_VERSION} {shot}{self.flaw or ''}{self.end_digest or ''}{opening}"
        return hashlib.sha256(look.encode()).hexdigest()
