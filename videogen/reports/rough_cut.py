"""Write `rough_cut.mp4`: all clips of a job as one film, in which each scene has its target duration."""

from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from videogen.errors import StorageError
from videogen.media import FilmPart, concatenate
from videogen.results.clip import Clip
from videogen.results.run_result import RunResult
from videogen.results.takes import get_chosen_clips
from videogen.storage.base import Store

if TYPE_CHECKING:
    from PIL import Image, ImageFont

ROUGH_CUT_NAME = "rough_cut.mp4"
_FONT = Path(__file__).parents[1] / "fonts" / "DejaVuSans.ttf"


def write_rough_cut(
    batch: RunResult,
    store: Store,
    *,
    prompts: Mapping[str, str] | None = None,
    music: Path | None = None,
    stop: Event | None = None,
) -> None:
    """Write `rough_cut.mp4` in the size of the first clip and the most common frame rate.

    Every scene takes its target duration, so that the film has its planned length, to the frame. A longer clip is cut,
    a shorter one holds its last picture, and a scene without a clip becomes a slate with its id, its prompt (from
    `prompts`, by scene id) and the reason. Of several takes and models, the chosen one is in the film.
    `music` becomes the sound of the film; without it the film is silent. This takes about as long as the film lasts:
    call it in a thread. Set `stop` to cancel it.

    Raises:
        BadOutputError: a clip cannot be decoded.
        StorageError: there is no clip, the disk is full, `music` has no sound, or `stop` was set.
    """
    chosen = get_chosen_clips(batch)
    clips = [clip for clip in chosen if clip.status == "success"]
    if not clips:
        raise StorageError("there is no clip to cut")
    parts = [
        FilmPart(
            clip.target_duration,
            store.path(str(clip.video_path))
            if clip.status == "success"
            else partial(draw_slate, clip, (prompts or {}).get(clip.scene_id, "")),
        )
        for clip in chosen
    ]
    scratch = store.scratch(f"{ROUGH_CUT_NAME}.part")
    size = clips[0].width or 0, clips[0].height or 0
    concatenate(parts, scratch, size=size, fps=find_common_frame_rate(clips), music=music, stop=stop)
    store.put(scratch, ROUGH_CUT_NAME)


def find_common_frame_rate(clips: list[Clip]) -> float:
    """Return the most common frame rate, and of equally common ones the first."""
    return Counter(clip.fps or 24.0 for clip in clips).most_common(1)[0][0]


def draw_slate(clip: Clip, prompt: str, size: tuple[int, int]) -> "Image.Image":
    """Draw a slate for a missing clip, with its scene, its prompt and the reason."""
    from PIL import Image, ImageDraw

    width, height = size
    image = Image.new("RGB", size, (24, 26, 30))
    draw = ImageDraw.Draw(image)
    edge = min(size)
    margin, top = round(0.08 * width), round(0.12 * height)
    why = clip.error.message if clip.error else "it was not made"
    lines = (
        (clip.scene_id, 0.09 * edge, (240, 240, 240), 2),
        (prompt, 0.05 * edge, (190, 195, 200), 6),
        (f"{clip.target_duration:g} s missing: {why}", 0.042 * edge, (240, 170, 110), 5),
    )
    for text, points, colour, rows in lines:
        font = _load_font(points)
        for row in _wrap(text, font, width - 2 * margin, rows):
            draw.text((margin, top), row, fill=colour, font=font)
            top += round(points * 1.35)
        top += round(0.03 * height)
    return image


def _load_font(points: float) -> "ImageFont.FreeTypeFont":
    from PIL import ImageFont

    return ImageFont.truetype(_FONT, max(6, round(points)))


def _wrap(text: str, font: "ImageFont.FreeTypeFont", width: int, rows: int) -> list[str]:
    """Break a text into at most `rows` lines of a width in pixels. A text that is too long ends in an ellipsis."""
    lines = [""]
    for written in "".join(each if each.isprintable() else " " for each in text)[:2000].split():
        word = written
        while font.getlength(word) > width:
            word = word[:-2] + "…"
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    if len(lines) > rows:
        lines = [*lines[: rows - 1], lines[rows - 1] + " …"]
    return [line for line in lines if line]
