"""The film as an edit decision list in the format CMX 3600, which nearly every editing program imports."""

import re
from collections import Counter
from collections.abc import Iterator

from videogen.reports.film import Film, Shot
from videogen.reports.media_root import MediaRoot, make_media_path

_MAX_REEL_CHARS = 8
_MAX_TITLE_CHARS = 70
_MAX_TEXT_CHARS = 200
"""A longer prompt is cut: some programs read short lines only, and the other timeline files have it whole."""
_BLACK = "BL"
_RESERVED_REELS = {_BLACK, "AX", "BLACK", "BARS"}
"""Names of reels with a meaning: black, an unknown source, colour bars."""


def render_edl(film: Film, media_root: MediaRoot = None) -> str:
    """Return the film as an edit decision list of one video track. A gap is an event of black.

    Its time codes begin at zero, as those of the rough cut. Other takes are named in comments.
    """
    mode = "DROP FRAME" if film.drops_frames else "NON-DROP FRAME"
    lines = [f"TITLE: {_write_on_line(film.name, _MAX_TITLE_CHARS)}", f"FCM: {mode}"]
    reels = name_reels([shot.scene_id for shot in film.shots])
    number = 0
    for shot, reel in zip(film.shots, reels, strict=True):
        for source, start, frames, comments in _list_events(shot, reel, media_root):
            number += 1
            at = [_format_time_code(frame, film) for frame in (0, frames, start, start + frames)]
            lines += ["", f"{number:03d}  {source:8} V     C        {' '.join(at)}"]
            lines += [f"* {comment}" for comment in comments]
            color, text = ("RED", shot.gap_reason) if source == _BLACK else ("GREEN", shot.scene_id)
            lines.append(f"* LOC: {at[2]} {color:7} {_write_on_line(text)}")
    return "\n".join(lines) + "\n"


def _list_events(shot: Shot, reel: str, media_root: MediaRoot) -> Iterator[tuple[str, int, int, list[str]]]:
    """Yield reel, first frame in the film, length and comments of the clip of a shot, and of its gap."""
    name = f"FROM CLIP NAME:  {shot.scene_id}"
    prompt = [f"PROMPT: {_write_on_line(shot.prompt)}"] if shot.prompt else []
    if shot.shown:
        summaries = [_write_on_line(take.summary) for take in shot.takes]
        paths = [make_media_path(take.path, media_root) for take in shot.takes]
        source = [f"FROM CLIP: {paths[0]}", f"COMMENT: {summaries[0]}"]
        others = [f"OTHER TAKE: {summary}: {path}" for summary, path in zip(summaries[1:], paths[1:], strict=True)]
        yield reel, shot.start, shot.shown, [name, *source, *prompt, *others]
    if shot.gap:
        reason = f"COMMENT: {_write_on_line(shot.gap_reason)}"
        yield _BLACK, shot.start + shot.shown, shot.gap, [name, reason, *prompt]


def name_reels(scene_ids: list[str]) -> list[str]:
    """Return a name of at most eight characters for the reel of each scene. No two are equal."""
    taken = set(_RESERVED_REELS)
    uses: Counter[str] = Counter()
    names: list[str] = []
    for scene_id in scene_ids:
        stem = re.sub(r"[^A-Z0-9]", "", scene_id.upper())[:_MAX_REEL_CHARS]
        name = stem
        while name in taken:
            uses[stem] += 1
            number = str(uses[stem] + 1)
            name = stem[: _MAX_REEL_CHARS - len(number)] + number
        taken.add(name)
        names.append(name)
    return names


def _format_time_code(frames: int, film: Film) -> str:
    from opentimelineio.opentime import RationalTime, to_timecode

    return str(to_timecode(RationalTime(frames, float(film.rate)), float(film.rate), film.drops_frames))


def _write_on_line(text: str, max_chars: int = _MAX_TEXT_CHARS) -> str:
    """Return the beginning of a text on one line."""
    line = "".join(char if char.isprintable() else " " for char in " ".join(text.split()))
    return line if len(line) <= max_chars else line[: max_chars - 1] + "…"
