"""Silhouettes of things that prompts mention: boats, lighthouses, figures, towers, trees."""

import math
import random
from collections.abc import Callable, Mapping
from typing import NamedTuple

from PIL import Image

from videogen.emulator.painting.canvas import Pen, mix, paint_glow, paint_silhouette
from videogen.emulator.painting.prompt import Colour, Thing, rgb


class Spot(NamedTuple):
    """The position and the light of a thing. Lengths are pixels; `unit` is the picture's shorter side."""

    x: float
    horizon: float
    ground: float
    unit: float
    dark: Colour
    haze: Colour
    light: Colour
    night: bool
    wet: bool
    """Whether the ground is water, so that a figure needs a rock to stand on."""


Painter = Callable[[Image.Image, Spot, random.Random], None]


def draw_fir(pen: Pen, foot: tuple[float, float], tall: float) -> None:
    """Draw a fir with five tiers."""
    x, y = foot
    points = [(x, y - tall)]
    right = []
    for tier in range(1, 6):
        level, reach = y - tall * (1 - 0.19 * tier), tall * 0.045 * tier
        right += [(x + reach, level), (x + reach * 0.55, level - tall * 0.015)]
    left = [(2 * x - across, down) for across, down in reversed(right)]
    pen.polygon(points + right + left)
    pen.rectangle(x - tall * 0.02, y - tall * 0.08, x + tall * 0.02, y + 1)


def draw_tower(pen: Pen, box: tuple[float, float, float, float], rng: random.Random) -> None:
    """Draw a building in a box (left, top, right, bottom) with one of several roofs."""
    left, top, right, bottom = box
    wide, middle = right - left, (left + right) / 2
    pen.rectangle(left, top, right, bottom)
    roof = rng.randrange(6)
    if roof == 0:
        pen.line([(middle, top), (middle, top - wide * 0.9)], max(1.0, wide * 0.03))
    elif roof == 1:
        pen.rectangle(left + wide * 0.2, top - wide * 0.25, right - wide * 0.2, top)
    elif roof == 2:
        pen.polygon([(left, top), (right, top), (right, top - wide * 0.3)])
    elif roof == 3:
        pen.rectangle(left + wide * 0.15, top - wide * 0.3, right - wide * 0.15, top)
        pen.rectangle(left + wide * 0.35, top - wide * 0.6, right - wide * 0.35, top)


def _paint_dark(picture: Image.Image, spot: Spot, top: float, bottom: float, draw: Callable[[Pen], None]) -> None:
    paint_silhouette(picture, (top, bottom), (mix(spot.dark, spot.haze, 0.14), spot.dark), draw)


def _paint_lighthouse(picture: Image.Image, spot: Spot, rng: random.Random) -> None:
    tall, base = spot.unit * 0.42, spot.horizon + spot.unit * 0.06
    x, top = spot.x, base - spot.unit * 0.42

    def draw_rocks(pen: Pen) -> None:
        outline = [
            (
                x - tall * 0.62 + tall * 1.24 * step / 12,
                base - tall * 0.17 * math.sin(math.pi * step / 12) * rng.uniform(0.7, 1.1),
            )
            for step in range(13)
        ]
        pen.polygon([(x - tall * 0.62, base + 3), *outline, (x + tall * 0.62, base + 3)])

    def body(pen: Pen) -> None:
        foot = base - tall * 0.1
        pen.polygon(
            [
                (x - tall * 0.075, foot),
                (x + tall * 0.075, foot),
                (x + tall * 0.045, top + tall * 0.16),
                (x - tall * 0.045, top + tall * 0.16),
            ]
        )
        pen.rectangle(x - tall * 0.065, top + tall * 0.14, x + tall * 0.065, top + tall * 0.165)
        pen.polygon([(x - tall * 0.05, top + tall * 0.06), (x + tall * 0.05, top + tall * 0.06), (x, top)])
        for across in (-0.036, 0.0, 0.036):
            pen.line([(x + tall * across, top + tall * 0.05), (x + tall * across, top + tall * 0.15)], tall * 0.008)

    def draw_stripes(pen: Pen) -> None:
        for step in (0.26, 0.46, 0.66):
            wide = 0.046 + 0.034 * step
            pen.rectangle(x - tall * wide, top + tall * step, x + tall * wide, top + tall * (step + 0.09), shade=150)

    lamp = (x, top + tall * 0.1)
    if spot.night:
        _paint_beam(picture, lamp, spot)
    _paint_dark(picture, spot, base - tall * 0.25, base + 4, draw_rocks)
    _paint_dark(picture, spot, top - 2, base, body)
    pale = mix(spot.haze, (255, 255, 255), 0.25)
    paint_silhouette(picture, (top, base), (pale, pale), draw_stripes)
    paint_glow(picture, lamp, tall * 0.3, (255, 240, 200), 0.95 if spot.night else 0.3)


def _paint_beam(picture: Image.Image, lamp: tuple[float, float], spot: Spot) -> None:
    """Paint a cone of light from the lamp that gets weaker with the distance."""
    away = -1 if spot.x > picture.width / 2 else 1
    reach, steps = spot.unit * 1.1, 24

    def draw(pen: Pen) -> None:
        for step in range(steps):
            near, far = (reach * part / steps for part in (step, step + 1))
            corners = [(near, -0.5), (far, -0.5), (far, 0.5), (near, 0.5)]
            cone = [(lamp[0] + away * out, lamp[1] - out * 0.12 + side * out * 0.17) for out, side in corners]
            pen.polygon(cone, shade=round(95 * (1 - step / steps) ** 1.3))

    paint_silhouette(picture, (0, spot.horizon), (rgb("fff3cf"), rgb("fff3cf")), draw)


def _paint_boat(picture: Image.Image, spot: Spot, _rng: random.Random) -> None:
    size, x, y = spot.unit * 0.2, spot.x, spot.horizon + spot.unit * 0.1

    def draw(pen: Pen) -> None:
        pen.polygon(
            [
                (x - size * 0.5, y - size * 0.1),
                (x + size * 0.55, y - size * 0.13),
                (x + size * 0.38, y + size * 0.06),
                (x - size * 0.36, y + size * 0.06),
            ]
        )
        pen.line([(x, y - size * 0.1), (x, y - size * 1.15)], size * 0.02)
        pen.polygon(
            [(x - size * 0.03, y - size * 0.18), (x - size * 0.03, y - size * 1.1), (x - size * 0.42, y - size * 0.2)],
            shade=235,
        )
        pen.polygon(
            [(x + size * 0.04, y - size * 0.2), (x + size * 0.02, y - size * 1.0), (x + size * 0.5, y - size * 0.24)],
            shade=215,
        )

    def draw_reflection(pen: Pen) -> None:
        for step in range(12):
            reach = size * (0.42 - 0.02 * step) * (1 + 0.2 * math.sin(step * 2.1))
            pen.ellipse(
                (x + size * 0.03 * math.sin(step * 1.7), y + size * (0.09 + 0.055 * step)),
                reach,
                size * 0.016,
                150 - 10 * step,
            )

    _paint_dark(picture, spot, y, y + size, draw_reflection)
    _paint_dark(picture, spot, y - size * 1.2, y + size * 0.1, draw)


def _paint_rowboat(picture: Image.Image, spot: Spot, _rng: random.Random) -> None:
    size, x, y = spot.unit * 0.24, spot.x, spot.horizon + spot.unit * 0.2

    def draw(pen: Pen) -> None:
        draw_hull = [(-0.62, -0.2), (-0.4, -0.08), (0.4, -0.08), (0.64, -0.22), (0.46, 0.1), (-0.44, 0.1)]
        pen.polygon([(x + size * across, y + size * down) for across, down in draw_hull])
        for seat in (-0.26, 0.02, 0.28):
            head = (x + size * (seat - 0.05), y - size * 0.4)
            pen.ellipse(head, size * 0.055, size * 0.065)
            body = [(-0.1, -0.04), (-0.05, -0.33), (0.0, -0.34), (0.09, -0.22), (0.06, -0.04)]
            pen.polygon([(x + size * (seat + across), y + size * down) for across, down in body])
            pen.line(
                [(x + size * (seat + 0.06), y - size * 0.2), (x + size * (seat - 0.22), y + size * 0.2)], size * 0.022
            )

    def draw_foam(pen: Pen) -> None:
        for step in range(9):
            across = -0.75 + 0.19 * step
            pen.ellipse((x + size * across, y + size * (0.13 + 0.02 * (step % 3))), size * 0.1, size * 0.025, 170)

    _paint_dark(picture, spot, y - size * 0.6, y + size * 0.3, draw)
    pale = mix(spot.haze, (255, 255, 255), 0.45)
    paint_silhouette(picture, (y, y + size * 0.3), (pale, pale), draw_foam)


def _paint_birds(picture: Image.Image, spot: Spot, rng: random.Random) -> None:
    flock = [
        (
            spot.x + rng.gauss(0, 0.14) * spot.unit,
            spot.horizon * rng.uniform(0.3, 0.62),
            spot.unit * rng.uniform(0.012, 0.026),
        )
        for _ in range(9)
    ]

    def draw(pen: Pen) -> None:
        for x, y, span in flock:
            lift = span * rng.uniform(0.25, 0.6)
            pen.polygon(
                [
                    (x - span, y - lift),
                    (x - span * 0.4, y - lift * 0.75),
                    (x, y),
                    (x + span * 0.4, y - lift * 0.75),
                    (x + span, y - lift),
                    (x + span * 0.35, y - lift * 0.35),
                    (x, y + span * 0.16),
                    (x - span * 0.35, y - lift * 0.35),
                ]
            )

    _paint_dark(picture, spot, 0, spot.horizon, draw)


def _paint_balloon(picture: Image.Image, spot: Spot, rng: random.Random) -> None:
    radius = spot.unit * 0.085
    x, y = spot.x, spot.horizon * 0.42
    body, stripe = rng.sample((rgb("d9483b"), rgb("f0b03f"), rgb("2f7fa8"), rgb("f4ead2"), rgb("7d4fa0")), 2)
    body, stripe = (mix(colour, spot.dark, 0.45 if spot.night else 0.08) for colour in (body, stripe))

    def draw_hull(pen: Pen) -> None:
        pen.ellipse((x, y), radius)
        pen.polygon(
            [
                (x - radius * 0.93, y + radius * 0.36),
                (x + radius * 0.93, y + radius * 0.36),
                (x + radius * 0.2, y + radius * 1.35),
                (x - radius * 0.2, y + radius * 1.35),
            ]
        )

    def draw_stripes(pen: Pen) -> None:
        for across in (-0.55, 0.0, 0.55):
            pen.ellipse((x + across * radius, y), radius * (0.17 if across else 0.2), radius * 0.97)

    def draw_basket(pen: Pen) -> None:
        pen.rectangle(x - radius * 0.17, y + radius * 1.62, x + radius * 0.17, y + radius * 1.88)
        for side in (-1, 1):
            pen.line(
                [(x + side * radius * 0.19, y + radius * 1.3), (x + side * radius * 0.15, y + radius * 1.65)],
                radius * 0.03,
            )

    paint_silhouette(
        picture,
        (y - radius - 2, y + radius * 1.4),
        (mix(body, (255, 255, 255), 0.2), body, mix(body, spot.dark, 0.4)),
        draw_hull,
    )
    paint_silhouette(
        picture,
        (y - radius - 2, y + radius),
        (mix(stripe, (255, 255, 255), 0.2), mix(stripe, spot.dark, 0.3)),
        draw_stripes,
    )
    _paint_dark(picture, spot, y + radius * 1.2, y + radius * 2, draw_basket)


def _paint_castle(picture: Image.Image, spot: Spot, rng: random.Random) -> None:
    size, x, base = spot.unit * 0.34, spot.x, spot.horizon - spot.unit * 0.02
    keeps = [(-0.5, 0.5), (-0.28, 0.74), (0.0, 1.0), (0.26, 0.68), (0.48, 0.46)]

    def draw(pen: Pen) -> None:
        pen.polygon(
            [
                (x - size * 1.2, base + 4),
                (x - size * 0.62, base - size * 0.24),
                (x + size * 0.62, base - size * 0.24),
                (x + size * 1.2, base + 4),
            ]
        )
        pen.rectangle(x - size * 0.55, base - size * 0.46, x + size * 0.55, base)
        for across, tall in keeps:
            left, right, top = x + size * (across - 0.085), x + size * (across + 0.085), base - size * tall
            pen.rectangle(left, top, right, base)
            pen.polygon(
                [(left - size * 0.03, top), (right + size * 0.03, top), ((left + right) / 2, top - size * 0.24)]
            )

    def draw_windows(pen: Pen) -> None:
        for across, tall in keeps:
            for level in (0.1, 0.24):
                pen.rectangle(
                    x + size * (across - 0.014),
                    base - size * (tall - level),
                    x + size * (across + 0.014),
                    base - size * (tall - level - 0.055),
                    rng.choice((120, 230)),
                )

    _paint_dark(picture, spot, base - size * 1.3, base + 5, draw)
    if spot.night:
        paint_silhouette(picture, (base - size * 1.3, base), (spot.light, spot.light), draw_windows)


def _paint_house(picture: Image.Image, spot: Spot, _rng: random.Random) -> None:
    size, x, base = spot.unit * 0.15, spot.x, spot.ground

    def draw(pen: Pen) -> None:
        pen.rectangle(x - size * 0.6, base - size * 0.55, x + size * 0.6, base)
        pen.polygon(
            [
                (x - size * 0.75, base - size * 0.52),
                (x + size * 0.75, base - size * 0.52),
                (x + size * 0.42, base - size * 1.0),
                (x - size * 0.42, base - size * 1.0),
            ]
        )
        pen.rectangle(x + size * 0.2, base - size * 1.18, x + size * 0.34, base - size * 0.8)

    def draw_windows(pen: Pen) -> None:
        for across in (-0.34, 0.1):
            pen.rectangle(x + size * across, base - size * 0.42, x + size * (across + 0.2), base - size * 0.2)

    _paint_dark(picture, spot, base - size * 1.3, base + 2, draw)
    paint_silhouette(picture, (base - size * 0.5, base), (spot.light, spot.light), draw_windows)
    if spot.night:
        paint_glow(picture, (x, base - size * 0.3), size * 1.4, spot.light, 0.45)


def _paint_tree(picture: Image.Image, spot: Spot, rng: random.Random) -> None:
    tall, x, base = spot.unit * 0.34, spot.x, spot.ground
    turns = [(rng.uniform(0, math.tau), rng.random() ** 0.5) for _ in range(150)]
    leaves = [
        (math.cos(turn) * out * 0.36, 0.7 + math.sin(turn) * out * 0.24, rng.uniform(0.03, 0.075))
        for turn, out in turns
    ]

    def draw(pen: Pen) -> None:
        pen.polygon(
            [
                (x - tall * 0.05, base),
                (x + tall * 0.05, base),
                (x + tall * 0.018, base - tall * 0.6),
                (x - tall * 0.018, base - tall * 0.6),
            ]
        )
        for side, high in ((-0.2, 0.62), (0.22, 0.66), (0.08, 0.8)):
            pen.line([(x, base - tall * 0.35), (x + tall * side, base - tall * high)], tall * 0.018)
        for across, high, radius in leaves:
            pen.ellipse((x + tall * across, base - tall * high), tall * radius, tall * radius * 0.8)

    _paint_dark(picture, spot, base - tall * 1.2, base + 2, draw)


def _paint_figure(picture: Image.Image, spot: Spot, _rng: random.Random) -> None:
    tall, x = spot.unit * 0.25, spot.x
    base = spot.ground + spot.unit * 0.05

    def draw(pen: Pen) -> None:
        pen.ellipse((x, base - tall * 0.91), tall * 0.068, tall * 0.082)
        pen.rectangle(x - tall * 0.025, base - tall * 0.86, x + tall * 0.025, base - tall * 0.78)
        shoulders = [
            (x - tall * 0.12, base - tall * 0.79),
            (x - tall * 0.05, base - tall * 0.825),
            (x + tall * 0.05, base - tall * 0.825),
            (x + tall * 0.12, base - tall * 0.79),
        ]
        pen.polygon([*shoulders, (x + tall * 0.17, base - tall * 0.3), (x - tall * 0.17, base - tall * 0.28)])
        for side in (-1, 1):
            pen.line(
                [(x + side * tall * 0.115, base - tall * 0.77), (x + side * tall * 0.17, base - tall * 0.44)],
                tall * 0.055,
            )
            pen.polygon(
                [
                    (x + side * tall * 0.02, base - tall * 0.34),
                    (x + side * tall * 0.11, base - tall * 0.34),
                    (x + side * tall * 0.085, base),
                    (x + side * tall * 0.03, base),
                ]
            )

    def draw_shadow(pen: Pen) -> None:
        pen.ellipse((x, base), tall * 0.3, tall * 0.03, 110)

    def draw_rock(pen: Pen) -> None:
        heights = (0.0, 0.1, 0.07, 0.16, 0.12, 0.14, 0.05, 0.08, 0.0)
        crest = [(x + tall * (step * 0.3 - 1.2), base + tall * (0.12 - high)) for step, high in enumerate(heights)]
        pen.polygon([*crest, (x + tall * 1.0, base + tall * 0.19), (x - tall * 1.0, base + tall * 0.19)])

    _paint_dark(picture, spot, base - tall * 0.1, base + tall * 0.2, draw_rock if spot.wet else draw_shadow)
    _paint_dark(picture, spot, base - tall * 1.05, base + 2, draw)


PAINTERS: Mapping[Thing, Painter] = {
    "lighthouse": _paint_lighthouse,
    "boat": _paint_boat,
    "rowboat": _paint_rowboat,
    "birds": _paint_birds,
    "balloon": _paint_balloon,
    "castle": _paint_castle,
    "house": _paint_house,
    "tree": _paint_tree,
    "figure": _paint_figure,
}
