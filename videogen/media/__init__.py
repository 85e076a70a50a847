"""Inspect, conform, join, concatenate, mark and sign mp4 files, and make posters of them.

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
from videogen.media.record import (
    MADE_BY_AI,
    ClipRecord,
    Provenance,
    compute_prompt_digest,
    embed_record,
    measure_file,
    read_provenance,
)
from videogen.media.signature import ClipSigner, Signature, read_signature

__all__ = [
    "MADE_BY_AI",
    "ClipRecord",
    "ClipSigner",
    "ConformResult",
    "FilmPart",
    "Flaw",
    "Note",
    "Provenance",
    "Signature",
    "Slate",
    "Sound",
    "VideoInfo",
    "check_music",
    "compute_prompt_digest",
    "concatenate",
    "conform",
    "count_frames",
    "embed_record",
    "find_exact_frame_rate",
    "inspect_video",
    "join_clips",
    "measure_file",
    "read_provenance",
    "read_signature",
    "write_frame",
]
