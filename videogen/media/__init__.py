"""Inspect, conform, join and concatenate mp4 files, and make posters of them.

All functions are synchronous and CPU-bound, and they release the GIL: call them in threads. They open local files only,
and hold a few frames at a time, whatever the length of the clip. PyAV is imported when it is first needed.

The functions treat a clip as a player does: they respect rotation and mirroring in the header, pixels that are not
square, a clean aperture, a picture that begins late, and the range and space of its colours.
"""

from videogen.media.concat import FilmPart, Slate, check_music, concatenate
from videogen.media.conform import ConformResult, conform
from videogen.media.frame_rates import count_frames, find_exact_frame_rate
from videogen.media.inspect import Flaw, Note, Sound, VideoInfo, inspect_video, write_frame
from videogen.media.join import join_clips

__all__ = [
    "ConformResult",
    "FilmPart",
    "Flaw",
    "Note",
    "Slate",
    "Sound",
    "VideoInfo",
    "check_music",
    "concatenate",
    "conform",
    "count_frames",
    "find_exact_frame_rate",
    "inspect_video",
    "join_clips",
    "write_frame",
]
