"""Draw the contact sheet as one picture."""

import math
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from videogen.errors import StorageError
from videogen.results.clip import Clip
from videogen.results.run_result import RunResult
from videogen.results.takes import count_side_by_side, group_takes, sort_for_review
from videogen.storage.base import Store
from videogen.text import format_money

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont
from videogen.reports.contact_sheet import IMAGE_NAME, choose_card_ratio

WIDTH_PX = 1600
MAX_HEIGHT_PX = 6000
THUMBNAIL_PX = 800, 1200
_FONT = Path(__file__).parents[1] / "fonts" / "DejaVuSans.ttf"
_GROUND, _TILE, _INK, _SOFT, _RED = "#131416", "#26292d", "#ecedee", "#a2a7ae", "#ffa79f"


# --- contact_sheet.jpg


def write_image(batch: RunResult, store: Store) -> None:
    """Write `contact_sheet.jpg`. Raise `StorageError` when it cannot be written."""
    scratch = store.scratch(f"{IMAGE_NAME}.part")
    try:
        render_image(batch, store).save(scratch, "JPEG", quality=88, optimize=True)
    except OSError as exc:
        with suppress(OSError):  # removing the file may fail for the same reason as writing it
            scratch.unlink()
        raise StorageError(f"cannot write {IMAGE_NAME}: {exc.strerror or exc}") from exc
    store.put(scratch, IMAGE_NAME)


def render_thumbnail(store: Store) -> bytes | None:
    """Return `contact_sheet.jpg` as a JPEG that is small enough for a `data:` URL; None when there is no such file."""
    from PIL import Image

    small = BytesIO()
    try:
        with Image.open(store.path(IMAGE_NAME)) as sheet:
            sheet.thumbnail(THUMBNAIL_PX)
            sheet.save(small, "JPEG", quality=70, optimize=True)
    except (OSError, StorageError):
        return None
    return small.getvalue()


class Grid(NamedTuple):
    """Layout of the posters. All sizes except `columns` are in pixels."""

    columns: int
    cell: int
    """Width of a poster plus the gap beside it."""
    gap: int
    poster: tuple[int, int]
    font: int
    row: int
    """Height of a poster, its caption, and the gap below."""
    top: int
    """Height of the line above the first row."""


def lay_out_grid(number: int, aspect_ratio: str, *, side_by_side: int = 1) -> Grid:
    """Return the layout with the largest posters of which `number` fit in 1600 by 6000 pixels.

    The number of columns is a multiple of `side_by_side` when that is more than 1.
    """
    width, height = choose_card_ratio(aspect_ratio)
    first = min(max(number, 2), 4) if side_by_side == 1 else side_by_side
    for columns in range(first, WIDTH_PX, side_by_side):
        cell = WIDTH_PX // columns
        gap = max(2, cell // 32)
        font = max(9, min(18, cell // 16))
        poster = cell - gap, round((cell - gap) * height / width)
        row = poster[1] + round(font * 1.9) + gap
        top = 64
        if top + math.ceil(number / columns) * row <= MAX_HEIGHT_PX:
            break
    return Grid(columns, cell, gap, poster, font, row, top)


def render_image(batch: RunResult, store: Store) -> "Image":
    """Draw all posters in a grid, each with its scene, its length and its cost. The chosen one of several takes has a
    check mark. A failed clip is an empty tile with its code."""
    from PIL import Image, ImageDraw, ImageFont

    groups, clips = group_takes(batch), sort_for_review(batch)
    chosen = {clip.scene_id for takes in groups for clip in takes if clip.chosen and len(takes) > 1}
    layout = lay_out_grid(len(clips), batch.aspect_ratio, side_by_side=count_side_by_side(batch))
    rows = math.ceil(len(clips) / layout.columns)
    sheet = Image.new("RGB", (layout.columns * layout.cell + layout.gap, layout.top + rows * layout.row), _GROUND)
    draw = ImageDraw.Draw(sheet)
    title = f"{batch.job_id} · {batch.model} · {batch.verdict.reason}"
    font = ImageFont.truetype(_FONT, 22)
    draw.text(
        (layout.gap, layout.top / 2), _truncate(title, font, sheet.width - 2 * layout.gap), _INK, font, anchor="lm"
    )
    font = ImageFont.truetype(_FONT, layout.font)
    for index, clip in enumerate(clips):
        left = layout.gap + index % layout.columns * layout.cell
        top = layout.top + index // layout.columns * layout.row
        _draw_poster(sheet, clip, store, (left, top), layout.poster)
        name = f"✓ {clip.scene_id}" if clip.scene_id in chosen else clip.scene_id
        _draw_caption(draw, name, clip, font, (left, top + layout.poster[1] + layout.font), layout.poster[0])
    return sheet


def _draw_poster(sheet: "Image", clip: Clip, store: Store, at: tuple[int, int], size: tuple[int, int]) -> None:
    from PIL import Image, ImageOps

    sheet.paste(_TILE, (*at, at[0] + size[0], at[1] + size[1]))
    if clip.poster_path is None:
        return
    try:
        with Image.open(store.path(clip.poster_path)) as poster:
            poster.draft("RGB", size)
            small = ImageOps.contain(poster.convert("RGB"), size)
    except OSError:
        return  # leave the tile empty: a missing poster must not prevent the sheet
    sheet.paste(small, (at[0] + (size[0] - small.width) // 2, at[1] + (size[1] - small.height) // 2))


def _draw_caption(
    draw: "ImageDraw", name: str, clip: Clip, font: "FreeTypeFont", at: tuple[int, int], width_px: int
) -> None:
    """Draw the name at the left and, if there is room, the length and the cost or the failure code at the right."""
    paid = clip.paid if clip.reused else clip.cost
    cost = "reused" if paid is None else format_money(paid)
    note = clip.error.code if clip.error else f"{clip.actual_duration or 0:.1f} s · {cost}"
    note_px = font.getlength(f"  {note}")
    if note_px < width_px / 2:
        draw.text((at[0] + width_px, at[1]), note, _RED if clip.error else _SOFT, font, anchor="rm")
        width_px -= round(note_px)
    draw.text(at, _truncate(name, font, width_px), _INK, font, anchor="lm")


def _truncate(text: str, font: "FreeTypeFont", width_px: float) -> str:
    """Cut a text to a width, with an ellipsis."""
    if font.getlength(text) <= width_px:
        return text
    while text and font.getlength(f"{text}…") > width_px:
        text = text[:-1]
    return f"{text}…"
