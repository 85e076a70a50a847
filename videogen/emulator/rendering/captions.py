"""Captions: the prompt in a few lines of white text on a soft dark band at the bottom of the frame."""

import unicodedata
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

FONT = Path(__file__).parents[2] / "fonts" / "DejaVuSans.ttf"
"""Covers Latin, Greek and Cyrillic; Pillow's own font lacks é, ß and ñ."""
MAX_LINES = 3
MAX_CHARACTERS = 400
"""More than this never fits. It also keeps a prompt of 100 kB from being measured word by word."""
_BAND_ALPHA = 150
_BLACK, _WHITE = 16, 235  # luma of limited-range video


class Caption(NamedTuple):
    """A caption to paste over the bottom of every frame: luma, its opacity, and its first row, an even number."""

    luma: Image.Image
    opacity: Image.Image
    top_px: int


def make_caption(prompt: str, width_px: int, height_px: int) -> Caption | None:
    """Return the caption for frames of this size, or None if the prompt has no visible text."""
    words = clean_prompt(prompt)
    if not words:
        return None
    font = ImageFont.truetype(FONT, max(10, round(min(width_px * 0.036, height_px * 0.042))))
    lines = wrap_text(words, font, width_px * 0.86)
    line_px, pad_px = font.size * 1.34, font.size * 1.1
    band_px = min(height_px, round((line_px * len(lines) + 2.4 * pad_px) / 2) * 2)
    text = Image.new("L", (width_px, band_px), 0)
    draw = ImageDraw.Draw(text)
    for index, line in enumerate(lines):
        baseline = band_px - pad_px - (len(lines) - 1 - index) * line_px
        draw.text((width_px / 2, baseline), line, fill=255, font=font, anchor="ms")
    band = _make_band(width_px, band_px, fade_px=round(pad_px * 1.4))
    luma = text.point([_BLACK + (_WHITE - _BLACK) * value // 255 for value in range(256)])
    opacity = Image.composite(Image.new("L", text.size, 255), band, text)
    return Caption(luma, opacity, height_px - band_px)


def clean_prompt(prompt: str) -> str:
    """Return the prompt on one line without control characters, at most `MAX_CHARACTERS` long."""
    shown = "".join(" " if unicodedata.category(char)[0] in "CZ" else char for char in prompt[: MAX_CHARACTERS * 4])
    return " ".join(shown.split())[:MAX_CHARACTERS]


def wrap_text(words: str, font: ImageFont.FreeTypeFont, width_px: float) -> list[str]:
    """Return at most `MAX_LINES` lines that fit the width; an ellipsis replaces the rest of the text."""
    lines, rest = [""], words.split()
    while rest:
        longer = f"{lines[-1]} {rest[0]}".strip()
        if font.getlength(longer) <= width_px:
            lines[-1] = longer
            rest.pop(0)
        elif not lines[-1]:
            cut = _count_fitting_chars(rest[0], font, width_px)
            lines[-1], rest[0] = rest[0][:cut], rest[0][cut:]
        elif len(lines) == MAX_LINES:
            lines[-1] = _shorten_line(lines[-1], font, width_px)
            return lines
        else:
            lines.append("")
    return lines


def _count_fitting_chars(word: str, font: ImageFont.FreeTypeFont, width_px: float) -> int:
    """Return how many characters of a long word fit, at least 1."""
    return max(1, next((n for n in range(len(word), 0, -1) if font.getlength(word[:n]) <= width_px), 1))


def _shorten_line(line: str, font: ImageFont.FreeTypeFont, width_px: float) -> str:
    while line and font.getlength(line + "…") > width_px:
        line = line[:-1]
    return line.rstrip(" ,.;:") + "…"


def _make_band(width_px: int, band_px: int, *, fade_px: int) -> Image.Image:
    """Return the opacity of the band, which fades in over its first rows."""
    fade_px = max(1, min(fade_px, band_px))
    column = bytes(_BAND_ALPHA * min(row, fade_px) // fade_px for row in range(band_px))
    return Image.frombytes("L", (1, band_px), column).resize((width_px, band_px))
