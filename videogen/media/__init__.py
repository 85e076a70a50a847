"""Measure, check and mend mp4 files: is it whole, how is it shown, a poster, and the ratio and frame rate asked for.

All functions are synchronous, busy (they decode) and release the GIL: call them in threads. They open local files only,
and hold a few frames at a time, whatever the length of the clip. PyAV is imported when it is first needed.

Everything that a player honours is honoured here: a picture that its header turns or mirrors, pixels that are not
square, a clean aperture, a picture that begins late, the range and the space of its colours.
"""

from videogen.media.concat import Part, Slate, check_music, join
from videogen.media.conform import Conformed, conform
from videogen.media.inspect import Flaw, Measured, Note, Sound, check

__all__ = ["Conformed", "Flaw", "Measured", "Note", "Part", "Slate", "Sound", "check", "check_music", "conform", "join"]
