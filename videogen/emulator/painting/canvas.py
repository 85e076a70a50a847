"""Painting primitives on top of Pillow: gradients, glows, noise and soft-edged silhouettes. Lengths are pixels."""

import itertools
import math
import random
from collections.abc import Callable, Iterable, Sequence

from PIL import Image, ImageDraw

from videogen.emulator.painting.prompt import Colour

Point = tuple[float, float]
_FINE = 2
"""Silhouettes are drawn this many times larger and then reduced, for smooth edges."""


def mix(one: Colour, other: Colour, part: float) -> Colour:
    """Return a blend of two colours; `part` is the share of `other`, 0 to 1."""
    red, green, blue = (round(a + (b - a) * min(1.0, max(0.0, part))) for a, b in zip(one, other, strict=True))
    return red, green, blue


def make_gradient(size: tuple[int, int], colours: Sequence[Colour]) -> Image.Image:
    """Return an image with the colours spread evenly from top to bottom."""
    column = Image.new("RGB", (1, max(2, size[1])))
    last = len(colours) - 1
    for row in range(column.height):
        at = row / (column.height - 1) * last
        index = min(int(at), last - 1) if last else 0
        column.putpixel((0, row), mix(colours[index], colours[min(index + 1, last)], at - index))
    return column.resize(size)


def make_curve_table(function: Callable[[float], float]) -> list[int]:
    """Return a table for `Image.point` from a function that maps 0..1 to 0..1."""
    return [round(255 * min(1.0, max(0.0, function(value / 255)))) for value in range(256)]


def paint_glow(picture: Image.Image, centre: Point, radius: float, colour: Colour, strength: float) -> None:
    """Paint light around a point that fades to nothing at `radius`."""
    side = max(2, round(radius * 2))
    soft = Image.radial_gradient("L").point(make_curve_table(lambda far: strength * max(0.0, 1 - far * 1.41) ** 2.2))
    mask = soft.resize((side, side), Image.Resampling.BICUBIC)
    picture.paste(colour, (round(centre[0] - radius), round(centre[1] - radius)), mask)


def paint_vignette(picture: Image.Image, strength: float) -> None:
    """Darken the corners of a picture."""
    mask = Image.radial_gradient("L").point(make_curve_table(lambda far: strength * max(0.0, far - 0.45) ** 1.6))
    picture.paste((0, 0, 0), (0, 0), mask.resize(picture.size, Image.Resampling.BICUBIC))


def make_noise(size: tuple[int, int], cells: tuple[float, float], rng: random.Random, octaves: int = 4) -> Image.Image:
    """Return grey noise; `cells` are the columns and rows of its coarsest octave."""
    small = (max(8, size[0] // 4), max(8, size[1] // 4))
    total = Image.new("L", small, 128)
    for octave in range(octaves):
        grid = (max(2, round(cells[0] * 2**octave)), max(2, round(cells[1] * 2**octave)))
        layer = Image.frombytes("L", grid, rng.randbytes(grid[0] * grid[1])).resize(small, Image.Resampling.BICUBIC)
        total = layer if octave == 0 else Image.blend(total, layer, 0.5**octave)
    return total.resize(size, Image.Resampling.BICUBIC)


class Pen:
    """A pen that takes the picture's coordinates and draws on a finer mask of a part of the picture."""

    def __init__(self, mask: Image.Image, left: int, top: int) -> None:
        self._draw, self._left, self._top = ImageDraw.Draw(mask), left, top

    def polygon(self, points: Iterable[Point], shade: int = 255) -> None:
        """Draw a filled polygon."""
        self._draw.polygon([self._at(point) for point in points], fill=shade)

    def ellipse(self, centre: Point, radius_x: float, radius_y: float | None = None, shade: int = 255) -> None:
        """Draw a filled ellipse, or a circle if `radius_y` is None."""
        x, y = centre
        across = radius_x
        down = radius_x if radius_y is None else radius_y
        self._draw.ellipse([self._at((x - across, y - down)), self._at((x + across, y + down))], fill=shade)

    def rectangle(self, left: float, top: float, right: float, bottom: float, shade: int = 255) -> None:
        """Draw a filled rectangle."""
        self._draw.rectangle([self._at((left, top)), self._at((right, bottom))], fill=shade)

    def line(self, points: Iterable[Point], width: float, shade: int = 255) -> None:
        """Draw a line with round joints."""
        corners = [self._at(point) for point in points]
        self._draw.line(corners, fill=shade, width=max(1, round(width * _FINE)), joint="curve")

    def _at(self, point: Point) -> Point:
        return (point[0] - self._left) * _FINE, (point[1] - self._top) * _FINE


def paint_silhouette(
    picture: Image.Image, rows: tuple[float, float], fill: Sequence[Colour], draw: Callable[[Pen], None]
) -> None:
    """Paint the mask that `draw` makes between two rows, in colours spread from the upper row to the lower one."""
    top, bottom = max(0, math.floor(rows[0])), min(picture.height, math.ceil(rows[1]))
    if bottom <= top:
        return
    mask = Image.new("L", (picture.width * _FINE, (bottom - top) * _FINE), 0)
    draw(Pen(mask, 0, top))
    picture.paste(make_gradient((picture.width, bottom - top), fill), (0, top), mask.reduce(_FINE))


def make_ridge(rng: random.Random, *, roughness: float, points: int = 129) -> list[float]:
    """Return the heights of a skyline, 0 to 1, by midpoint displacement; a smaller `roughness` is smoother."""
    heights = [rng.random() for _ in range(2)]
    swing = 1.0
    while len(heights) < points:
        swing *= roughness
        middles = [(a + b) / 2 + rng.uniform(-swing, swing) / 2 for a, b in itertools.pairwise(heights)]
        heights = [value for pair in zip(heights, middles, strict=False) for value in pair] + heights[-1:]
    low, high = min(heights), max(heights)
    return [(value - low) / (high - low or 1) for value in heights]


def make_wave(rng: random.Random, *, waves: float, points: int = 97) -> list[float]:
    """Return the heights of a smooth line, 0 to 1."""
    phases = [rng.uniform(0, 2 * math.pi) for _ in range(3)]
    values = [
        sum(math.sin(2 * math.pi * waves * k * x / points + phase) / k for k, phase in enumerate(phases, 1))
        for x in range(points)
    ]
    low, high = min(values), max(values)
    return [(value - low) / (high - low) for value in values]
