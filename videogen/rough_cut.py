"""`rough_cut.mp4`: the film as far as it is made, in its own time: each scene as long as it is wanted."""

from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from videogen.clip import Clip, RunResult
from videogen.errors import StorageError
from videogen.media import Part, join
from videogen.ports import Store

if TYPE_CHECKING:
    from PIL import Image, ImageFont

NAME = "rough_cut.mp4"
_FONT = Path(__file__).parent / "fonts" / "DejaVuSans.ttf"


def write(
    batch: RunResult,
    store: Store,
    *,
    prompts: Mapping[str, str] | None = None,
    music: Path | None = None,
    stop: Event | None = None,
) -> None:
    """Write `rough_cut.mp4` in the size of the first clip and the most common frame rate.

    Every scene takes its target duration, so that the film has its own length, to the frame. A longer clip is cut, the
    last picture of a shorter one stays, and a scene without a clip is a slate that says which one it is, what was asked
    (`prompts`, by scene id) and why it is missing. Of several models and takes the first that there is stands for its
    scene. `music` is put under it; without, the film is silent. Busy for about as long as the film lasts: call it in a
    thread; `stop` gives it up.

    Raises:
        BadOutputError: a clip cannot be decoded.
        StorageError: there is no clip, or no room, or no sound in `music`.
    """
    chosen = choose(batch)
    clips = [clip for clip in chosen if clip.status == "success"]
    if not clips:
        raise StorageError("there is no clip to cut")
    parts = [
        Part(
            clip.target_duration,
            store.path(str(clip.video_path))
            if clip.status == "success"
            else partial(draw_slate, clip, (prompts or {}).get(clip.scene_id, "")),
        )
        for clip in chosen
    ]
    scratch = store.scratch(f"{NAME}.part")
    size = clips[0].width or 0, clips[0].height or 0
    join(parts, scratch, size=size, fps=frame_rate(clips), music=music, stop=stop)
    store.put(scratch, NAME)


def choose(batch: RunResult) -> list[Clip]:
    """Return one clip of each scene by its place in the film: of the first model and take that brought one."""
    step = max(1, batch.cells_per_scene)
    scenes = [batch.clips[start : start + step] for start in range(0, len(batch.clips), step)]
    chosen = [next((clip for clip in cells if clip.status == "success"), cells[0]) for cells in scenes]
    return sorted(chosen, key=lambda clip: clip.clip_index)


def frame_rate(clips: list[Clip]) -> float:
    """The rate of most clips, of the earlier one where two are as common."""
    return Counter(clip.fps or 24.0 for clip in clips).most_common(1)[0][0]


def draw_slate(clip: Clip, prompt: str, size: tuple[int, int]) -> "Image.Image":
    """Draw what stands for a clip that is missing: its scene, what was asked, and why there is none."""
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
        font = _font(points)
        for row in _wrap(text, font, width - 2 * margin, rows):
            draw.text((margin, top), row, fill=colour, font=font)
            top += round(points * 1.35)
        top += round(0.03 * height)
    return image


def _font(points: float) -> "ImageFont.FreeTypeFont":
    from PIL import ImageFont

    return ImageFont.truetype(_FONT, max(6, round(points)))


def _wrap(text: str, font: "ImageFont.FreeTypeFont", width: int, rows: int) -> list[str]:
    """Break a text into at most `rows` lines of a width in pixels; what is left out ends in an ellipsis."""
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
