"""Pictures without a horizon: a stairwell in lantern light and the lamp of a lighthouse."""

import math
import random

from PIL import Image

from videogen.emulator.painting.canvas import (
    Pen,
    Point,
    make_curve_table,
    make_gradient,
    make_noise,
    mix,
    paint_glow,
    paint_silhouette,
)
from videogen.emulator.painting.prompt import Colour, Palette, rgb

_STONE, _MORTAR, _FLAME = rgb("b98a5e"), rgb("5c4027"), rgb("ffd58a")
_BRASS, _GLASS = rgb("c98f3c"), rgb("d7efe0")


def paint_stairwell(picture: Image.Image, rng: random.Random, palette: Palette) -> None:
    """Paint a spiral staircase in a round tower, lit by one lantern."""
    width, height = picture.size
    unit = min(width, height)
    lamp = (width * rng.choice((0.33, 0.67)), height * rng.uniform(0.36, 0.46))
    _paint_wall(picture, rng)
    _paint_window(picture, (width - lamp[0], height * 0.22), unit * 0.09, palette)
    _paint_stairs(picture, (width / 2, height * 0.86), unit, turn=math.pi if lamp[0] < width / 2 else 0.0)
    dark = Image.blend(picture, Image.new("RGB", picture.size, (10, 10, 22)), 0.82)
    light = Image.radial_gradient("L").point(make_curve_table(lambda far: 1.4 * max(0.0, 1 - far * 1.15) ** 1.5))
    reach = round(unit * 1.15)
    mask = Image.new("L", picture.size, 0)
    mask.paste(light.resize((2 * reach, 2 * reach)), (round(lamp[0]) - reach, round(lamp[1]) - reach))
    picture.paste(Image.composite(picture, dark, mask))
    _paint_lantern(picture, lamp, unit * 0.05)


def _paint_wall(picture: Image.Image, rng: random.Random) -> None:
    """Paint courses of stone that are curved like a round wall seen from inside."""
    width, height = picture.size
    course = min(width, height) * 0.058
    picture.paste(_MORTAR, (0, 0, width, height))
    blocks: list[tuple[list[Point], int]] = []
    for row in range(int(height / course) + 6):
        x = -course * rng.random() * 2
        while x < width:
            across = course * rng.uniform(1.3, 2.4)
            corners = [(x + 2, 0.06), (x + across - 2, 0.06), (x + across - 2, 0.94), (x + 2, 0.94)]
            bent = [(at, (row - 3 + part) * course + _compute_bend(at, width, course)) for at, part in corners]
            blocks.append((bent, rng.choice((140, 165, 190, 215, 235))))
            x += across

    def draw(pen: Pen) -> None:
        for corners, shade in blocks:
            pen.polygon(corners, shade)

    paint_silhouette(picture, (0, height), (mix(_STONE, (255, 240, 220), 0.15), _STONE), draw)
    grain = make_noise(picture.size, (30, 18), rng, octaves=3).point(
        make_curve_table(lambda value: 0.5 * abs(value - 0.5))
    )
    picture.paste((20, 14, 10), (0, 0), grain)


def _compute_bend(x: float, width: int, course: float) -> float:
    return 2.2 * course * (2 * x / width - 1) ** 2


def _paint_window(picture: Image.Image, centre: Point, size: float, palette: Palette) -> None:
    x, y = centre

    def arch(grow: float) -> list[Point]:
        turns = [math.pi * (1 + step / 16) for step in range(17)]
        head = [(x + math.cos(turn) * size * grow, y + math.sin(turn) * size * grow) for turn in turns]
        return [*head, (x + size * grow, y + size * (1.1 + grow)), (x - size * grow, y + size * (1.1 + grow))]

    rows = (y - size * 1.4, y + size * 2.6)
    paint_silhouette(picture, rows, (_STONE, mix(_STONE, _MORTAR, 0.6)), lambda pen: pen.polygon(arch(1.22)))
    paint_silhouette(picture, rows, (palette.sky[1], palette.sky[-1]), lambda pen: pen.polygon(arch(1.0)))


def _paint_stairs(picture: Image.Image, foot: Point, unit: float, *, turn: float) -> None:
    """Paint steps around a pillar, those behind it first."""
    reach, rise, step = unit * 0.5, unit * 0.052, 0.36
    places = [(turn + step * index, foot[1] + rise * 6 - rise * index) for index in range(26)]
    for angle, y in (place for place in places if math.sin(place[0]) < 0):
        _paint_step(picture, (foot[0], y), (angle, step), reach, rise)
    wide = unit * 0.055

    def pillar(pen: Pen) -> None:
        pen.rectangle(foot[0] - wide, -2, foot[0] + wide, picture.height + 2)

    paint_silhouette(picture, (0, picture.height), (mix(_STONE, (255, 255, 255), 0.1), _STONE), pillar)
    for angle, y in (place for place in places if math.sin(place[0]) >= 0):
        _paint_step(picture, (foot[0], y), (angle, step), reach, rise)


def _paint_step(picture: Image.Image, hub: Point, turn: tuple[float, float], reach: float, rise: float) -> None:
    """Paint a tread with its riser; `turn` is the angle of its beginning and its width, in radians."""
    (x, y), (begin, wide) = hub, turn
    outer = [(x + math.cos(at) * reach, y + math.sin(at) * reach * 0.26) for at in (begin, begin + wide)]
    front = outer[0] if math.cos(begin) * math.sin(begin) <= 0 else outer[1]
    tread, riser = mix(_STONE, (255, 235, 205), 0.35), mix(_STONE, (30, 18, 10), 0.5)
    rows = (min(y, *(corner[1] for corner in outer)) - 2, max(y, *(corner[1] for corner in outer)) + rise * 1.2)

    def down(points: list[Point]) -> list[Point]:
        return [*points, *((px, py + rise) for px, py in reversed(points))]

    paint_silhouette(picture, rows, (riser, mix(riser, (0, 0, 0), 0.3)), lambda pen: pen.polygon(down([(x, y), front])))
    paint_silhouette(picture, rows, (mix(riser, tread, 0.3), riser), lambda pen: pen.polygon(down(outer)))
    paint_silhouette(picture, rows, (tread, mix(tread, _STONE, 0.5)), lambda pen: pen.polygon([(x, y), *outer]))


def _paint_lantern(picture: Image.Image, at: Point, size: float) -> None:
    x, y = at
    paint_glow(picture, at, size * 9, _FLAME, 0.42)
    paint_glow(picture, at, size * 3.2, rgb("fff0c8"), 0.95)

    def frame(pen: Pen) -> None:
        pen.polygon([(x - size * 0.62, y - size), (x + size * 0.62, y - size), (x, y - size * 1.55)])
        pen.rectangle(x - size * 0.66, y + size, x + size * 0.66, y + size * 1.2)
        for side in (-1, 1):
            pen.line([(x + side * size * 0.55, y - size), (x + side * size * 0.55, y + size)], size * 0.09)
        pen.line([(x, y - size * 1.5), (x, y - size * 2.1)], size * 0.08)

    def flame(pen: Pen) -> None:
        pen.ellipse((x, y + size * 0.15), size * 0.26, size * 0.5)

    paint_silhouette(picture, (y - size * 2.2, y + size * 1.3), (rgb("2a1a10"), rgb("140c08")), frame)
    paint_silhouette(picture, (y - size, y + size), (rgb("fffbe6"), rgb("ffdf96")), flame)


def paint_great_lamp(picture: Image.Image, rng: random.Random, palette: Palette) -> None:
    """Paint the lens of a lighthouse in close-up: rings of glass in brass, and rays into the night."""
    width, height = picture.size
    unit = min(width, height)
    night = mix(palette.sky[0], (4, 6, 16), 0.8)
    picture.paste(
        make_gradient(picture.size, (night, mix(palette.sky[1], night, 0.65), mix(palette.sky[2], night, 0.75)))
    )
    centre = (width / 2, height * 0.42)
    paint_glow(picture, centre, unit * 1.0, rgb("ffb347"), 0.75)
    _paint_rays(picture, centre, rng)
    _paint_lens(picture, centre, unit * 0.2)
    paint_glow(picture, centre, unit * 0.15, rgb("fffbe8"), 1.0)
    paint_glow(picture, centre, unit * 0.42, rgb("ffd98a"), 0.5)
    _paint_frame(picture, centre, unit * 0.2)


def _paint_rays(picture: Image.Image, centre: Point, rng: random.Random) -> None:
    far = math.hypot(*picture.size)
    rays = [(math.tau * (index + rng.uniform(0.1, 0.9)) / 22, rng.uniform(0.012, 0.05)) for index in range(22)]

    def draw(pen: Pen) -> None:
        for angle, wide in rays:
            edges = [angle - wide, angle + wide]
            ends = [(centre[0] + math.cos(edge) * far, centre[1] + math.sin(edge) * far) for edge in edges]
            pen.polygon([centre, *ends], shade=rng.choice((16, 24, 34)))
        for side in (0.0, math.pi):
            ends = [
                (centre[0] + math.cos(side + at) * far, centre[1] + math.sin(side + at) * far) for at in (-0.06, 0.06)
            ]
            pen.polygon([centre, *ends], shade=64)

    paint_silhouette(picture, (0, picture.height), (rgb("ffe2a0"), rgb("ffe2a0")), draw)


def _paint_lens(picture: Image.Image, centre: Point, size: float) -> None:
    """Paint a lens with prisms above and below and a bull's eye in the middle."""
    x, y = centre
    glass, edge = mix(_GLASS, rgb("ffbe55"), 0.62), rgb("6a3f10")

    def body(pen: Pen) -> None:
        pen.ellipse(centre, size, size * 1.35, shade=190)

    def lines(pen: Pen) -> None:
        for step in range(-9, 10):
            level = step / 10
            across = math.sqrt(1 - level * level) * size
            bow = [
                (x + across * at / 8, y + size * 1.35 * level + size * 0.09 * level * (1 - (at / 8) ** 2))
                for at in range(-8, 9)
            ]
            if abs(level) > 0.42:
                pen.line(bow, size * 0.03, shade=210)
        for ring in (0.46, 0.36, 0.26, 0.17):
            turns = [math.tau * step / 48 for step in range(49)]
            pen.line(
                [(x + math.cos(at) * size * ring, y + math.sin(at) * size * ring) for at in turns], size * 0.02, 150
            )

    rows = (y - size * 1.4, y + size * 1.4)
    paint_silhouette(
        picture, rows, (mix(glass, edge, 0.3), mix(glass, (255, 255, 255), 0.25), mix(glass, edge, 0.3)), body
    )
    paint_silhouette(picture, rows, (edge, _BRASS, edge), lines)


def _paint_frame(picture: Image.Image, centre: Point, size: float) -> None:
    """Paint brass above and below the lens, and the glazing bars of the lantern room in front of it."""
    x, y = centre
    height = picture.height

    def brass(pen: Pen) -> None:
        for side in (-1, 1):
            level = y + side * size * 1.3
            cap = level + side * size * 0.16
            pen.polygon(
                [(x - size * 0.62, level), (x + size * 0.62, level), (x + size * 0.5, cap), (x - size * 0.5, cap)]
            )
        pen.rectangle(x - size * 0.3, y + size * 1.44, x + size * 0.3, height + 2)
        pen.line([(x, y - size * 1.4), (x, -2)], size * 0.09)

    def bars(pen: Pen) -> None:
        for across in (-2.6, -1.55, 1.55, 2.6):
            pen.line([(x + size * across, -2), (x + size * across * 0.96, height + 2)], size * 0.07)
        for level in (-1.75, 2.35):
            bow = [(x + size * 0.5 * at, y + size * (level + 0.012 * at * at)) for at in range(-12, 13)]
            pen.line(bow, size * 0.07)

    shine: Colour = mix(_BRASS, (255, 240, 200), 0.35)
    paint_silhouette(picture, (0, height), (mix(_BRASS, (20, 10, 0), 0.6), shine, mix(_BRASS, (20, 10, 0), 0.7)), brass)
    paint_silhouette(picture, (0, height), (rgb("0a0a12"), rgb("14100c")), bars)
