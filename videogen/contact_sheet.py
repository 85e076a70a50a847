"""Write the contact sheet of a run: `index.html`, which plays the clips, and `contact_sheet.jpg`, a grid of posters.

Both are made from the batch and the posters in the job's folder. Pillow and Jinja are imported when they are needed.
"""

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

from videogen.clip import Clip, RunResult
from videogen.errors import StorageError
from videogen.ports import Store

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont

PAGE_NAME, IMAGE_NAME = "index.html", "contact_sheet.jpg"
EAGER_POSTERS = 24
"""Number of posters that a browser loads at once. The others are loaded when they come near the window."""
WIDTH_PX = 1600
MAX_HEIGHT_PX = 6000
THUMBNAIL_PX = 800, 1200

_PAGES = Path(__file__).parent / "pages"
_FONT = Path(__file__).parent / "fonts" / "DejaVuSans.ttf"
_FLAWS = {
    "black": "black from start to end",
    "frozen": "nothing moves from start to end",
    "codec": "in a codec that some browsers, phones and editors do not play",
    "hdr": "came in HDR",
    "sound": "its sound is in a codec that most players cannot decode",
    "transcoded": "came in a codec that no browser plays, delivered in H.264",
    "short": "shorter than its target",
}
_GROUND, _TILE, _INK, _SOFT, _RED = "#131416", "#26292d", "#ecedee", "#a2a7ae", "#ffa79f"


def get_clip_status(clip: Clip) -> str:
    """Return `delivered`, `reused` or `failed`."""
    if clip.status == "failed":
        return "failed"
    return "reused" if clip.reused else "delivered"


# --- index.html


def write_page(batch: RunResult, prompts: Mapping[str, str], store: Store, *, files: Sequence[str] = ()) -> None:
    """Write `index.html`, with links to `files` beside it. Raise `StorageError` when it cannot be written."""
    store.put_text(render_page(batch, prompts, files=files), PAGE_NAME)


def render_page(batch: RunResult, prompts: Mapping[str, str], *, files: Sequence[str] = ()) -> str:
    """Return the contact sheet as HTML, complete except for the posters and clips beside it in the job's folder.

    `prompts` are the job's, by scene id. They are used for clips that have no prompt of their own. Clips to be compared
    stand side by side, with a row for each scene.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(loader=FileSystemLoader(_PAGES), autoescape=True, undefined=StrictUndefined)
    environment.filters |= {
        "address": quote,
        "flaw": lambda flaw: _FLAWS.get(flaw, flaw),
        "money": format_money,
        "seconds": lambda seconds: "–" if seconds is None else f"{round(seconds, 2):g} s",
        "status": get_clip_status,
        "time": format_duration,
        "prompt": lambda clip: clip.prompt if clip.prompt is not None else prompts.get(clip.scene_id, ""),
    }
    style = (_PAGES / "style.css").read_text(encoding="utf-8") + _make_layout_css(
        batch.aspect_ratio, batch.cells_per_scene
    )
    script = (_PAGES / "contact_sheet.js").read_text(encoding="utf-8")
    return environment.get_template("contact_sheet.html").render(
        batch=batch,
        files=files,
        spent={name: sum((c.cost for c in batch.clips if c.model == name), Decimal(0)) for name in batch.verdicts},
        length=sum(clip.actual_duration or 0.0 for clip in batch.clips),
        place="made by the emulator" if batch.provider == "local" else f"made at {batch.provider}",
        eager=EAGER_POSTERS,
        policy=_make_content_policy(style, script),
        style=Markup(style),  # noqa: S704  # ours
        script=Markup(script),  # noqa: S704
    )


def format_money(amount: Decimal) -> str:
    """Format USD with cents, and with further decimals unless they are zeros: `$0.35`, `$0.0125`."""
    whole, _, decimals = f"{amount:f}".partition(".")
    return f"${whole}.{decimals.rstrip('0').ljust(2, '0')}"


def format_duration(seconds: float) -> str:
    """Format a duration: `7.3 s`, `2 min 5 s`, `1 h 12 min`."""
    if seconds < 59.95:
        return f"{round(seconds, 1):g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _make_layout_css(aspect_ratio: str, columns: int) -> str:
    width, height = _parse_ratio(aspect_ratio)
    card = "" if width > height else " --card: 15rem;"
    shape = f"\n:root {{ --ratio: {width} / {height};{card} }}\n"
    if columns > 1:
        shape += f".clips {{ grid-template-columns: repeat({columns}, minmax(16rem, 1fr)); overflow-x: auto; }}\n"
    return shape


def _parse_ratio(aspect_ratio: str) -> tuple[int, int]:
    width, _, height = aspect_ratio.partition(":")
    return int(width), int(height)


def _make_content_policy(style: str, script: str) -> str:
    """Return a content security policy that admits no other origin, and no style or script but these two.

    It names `file:` as well, because a page that is read from disk has no `self`.
    """
    return "; ".join(
        (
            "default-src 'none'",
            "img-src 'self' file:",
            "media-src 'self' file:",
            f"style-src '{_hash_source(style)}'",
            f"script-src '{_hash_source(script)}'",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )


def _hash_source(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


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
    width, height = _parse_ratio(aspect_ratio)
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
    """Draw all posters in a grid, each with its scene and length. A failed clip is an empty tile with its code."""
    from PIL import Image, ImageDraw, ImageFont

    layout = lay_out_grid(len(batch.clips), batch.aspect_ratio, side_by_side=batch.cells_per_scene)
    rows = math.ceil(len(batch.clips) / layout.columns)
    sheet = Image.new("RGB", (layout.columns * layout.cell + layout.gap, layout.top + rows * layout.row), _GROUND)
    draw = ImageDraw.Draw(sheet)
    title = f"{batch.job_id} · {batch.model} · {batch.verdict.reason}"
    font = ImageFont.truetype(_FONT, 22)
    draw.text(
        (layout.gap, layout.top / 2), _truncate(title, font, sheet.width - 2 * layout.gap), _INK, font, anchor="lm"
    )
    font = ImageFont.truetype(_FONT, layout.font)
    for index, clip in enumerate(batch.clips):
        left = layout.gap + index % layout.columns * layout.cell
        top = layout.top + index // layout.columns * layout.row
        _draw_poster(sheet, clip, store, (left, top), layout.poster)
        _draw_caption(draw, clip, font, (left, top + layout.poster[1] + layout.font), layout.poster[0])
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


def _draw_caption(draw: "ImageDraw", clip: Clip, font: "FreeTypeFont", at: tuple[int, int], width_px: int) -> None:
    """Draw the scene at the left and, if there is room, its length or its failure code at the right."""
    note = clip.error.code if clip.error else f"{clip.actual_duration or 0:.1f} s"
    note_px = font.getlength(f"  {note}")
    if note_px < width_px / 2:
        draw.text((at[0] + width_px, at[1]), note, _RED if clip.error else _SOFT, font, anchor="rm")
        width_px -= round(note_px)
    draw.text(at, _truncate(clip.scene_id, font, width_px), _INK, font, anchor="lm")


def _truncate(text: str, font: "FreeTypeFont", width_px: float) -> str:
    """Cut a text to a width, with an ellipsis."""
    if font.getlength(text) <= width_px:
        return text
    while text and font.getlength(f"{text}…") > width_px:
        text = text[:-1]
    return f"{text}…"
