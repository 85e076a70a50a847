"""Painting of pictures from prompts: sky, land, water, weather and silhouettes, all drawn from a seed.

No trained model is involved. The pictures make demo clips that are pleasant to look at and easy to tell apart.
"""

import math
import random

from PIL import Image, ImageFilter, ImageOps

from videogen.emulator.models import PixelSize
from videogen.emulator.painting import interiors as rooms
from videogen.emulator.painting import objects as things
from videogen.emulator.painting.canvas import (
    Pen,
    make_curve_table,
    make_gradient,
    make_noise,
    make_ridge,
    make_wave,
    mix,
    paint_glow,
    paint_silhouette,
    paint_vignette,
)
from videogen.emulator.painting.prompt import Colour, Scenery, read_scenery, rgb

MAX_PIXELS = 1_400_000
"""Larger pictures are painted at this size and enlarged, which saves time and does not show in soft pictures."""

_GREEN, _FIELD, _SNOW, _SAND = rgb("1f5a3a"), rgb("6f9a45"), rgb("eef4fb"), rgb("e0ab68")
_WARM, _COOL = rgb("ffc46b"), rgb("8fe8ff")


def paint_picture(prompt: str, seed: int, size: PixelSize) -> Image.Image:
    """Return a picture of this size. Equal prompts, seeds and shapes give the same picture."""
    scale = min(1.0, math.sqrt(MAX_PIXELS / (size.width_px * size.height_px)))
    small = (max(16, round(size.width_px * scale)), max(16, round(size.height_px * scale)))
    picture = _Painting(prompt, seed, small).paint()
    return picture if picture.size == size else picture.resize(size, Image.Resampling.BICUBIC)


class _Painting:
    """A picture in progress, painted from far to near."""

    def __init__(self, prompt: str, seed: int, size: tuple[int, int]) -> None:
        self.rng = random.Random(f"{prompt}/{seed}")
        self.scenery: Scenery = read_scenery(prompt, self.rng)
        self.palette = self.scenery.palette
        self.width, self.height = size
        self.unit = min(size)
        """The shorter side. Lengths are fractions of it, so that things keep their shape in every format."""
        self.horizon = self.height * self.rng.uniform(0.56, 0.64)
        self.sun = (self.width * self.rng.choice((0.24, 0.34, 0.66, 0.76)), self.horizon * self.rng.uniform(0.3, 0.62))
        self.picture = make_gradient(size, self.palette.sky)

    def paint(self) -> Image.Image:
        """Paint and return the picture."""
        if self.scenery.land in ("room", "lamp"):
            paint_inside = rooms.paint_stairwell if self.scenery.land == "room" else rooms.paint_great_lamp
            paint_inside(self.picture, self.rng, self.palette)
            return self.picture
        self._paint_sky()
        self._paint_land()
        self._paint_ground()
        for index, thing in enumerate(self.scenery.things):
            things.PAINTERS[thing](self.picture, self._choose_spot(index), self.rng)
        self._paint_weather()
        paint_vignette(self.picture, 0.9)
        return self.picture

    # Sky

    def _paint_sky(self) -> None:
        light, palette = self.scenery.light, self.palette
        self.picture.paste(make_gradient((self.width, math.ceil(self.horizon)), palette.sky), (0, 0))
        if light in ("night", "neon", "aurora", "space"):
            self._paint_stars()
        if light == "aurora":
            self._paint_aurora()
        if light == "space":
            self._paint_nebula()
            self._paint_planet()
        elif light in ("night", "aurora"):
            self._paint_moon()
        elif light != "neon":
            self._paint_sunlight()
        if light not in ("space", "aurora"):
            self._paint_clouds()

    def _paint_stars(self) -> None:
        rng = self.rng
        pixels = self.picture.load()
        assert pixels is not None
        for _ in range(self.width * int(self.horizon) // 1800):
            x, y = rng.randrange(self.width - 1), int(self.horizon * rng.random() ** 1.5 * 0.98)
            bright = rng.random() ** 3 * (1 - 0.7 * y / self.horizon)
            near = pixels[x, y]
            assert isinstance(near, tuple)
            colour = mix((near[0], near[1], near[2]), (255, 250, 240), 0.25 + 0.75 * bright)
            pixels[x, y] = colour
            if bright > 0.35:
                pixels[x + 1, y] = pixels[x, min(y + 1, self.height - 1)] = mix(
                    colour, (near[0], near[1], near[2]), 0.4
                )

    def _paint_moon(self) -> None:
        radius = self.unit * 0.05
        paint_glow(self.picture, self.sun, radius * 7, self.palette.sun, 0.5)
        self._paint_disc(radius, self.palette.sun)
        shade = mix(self.palette.sun, self.palette.sky[1], 0.22)
        for across, down, size in ((-0.3, -0.2, 0.26), (0.25, 0.3, 0.32), (0.35, -0.35, 0.16), (-0.25, 0.45, 0.14)):
            spot = (self.sun[0] + across * radius, self.sun[1] + down * radius)
            self._paint_crater(spot[1], size * radius, shade, spot)

    def _paint_crater(self, row: float, radius: float, colour: Colour, centre: tuple[float, float]) -> None:
        rows = (row - radius - 2, row + radius + 2)
        paint_silhouette(self.picture, rows, (colour, colour), lambda pen: pen.ellipse(centre, radius, shade=200))

    def _paint_disc(self, radius: float, colour: Colour) -> None:
        rows = (self.sun[1] - radius - 2, self.sun[1] + radius + 2)
        paint_silhouette(self.picture, rows, (colour, colour), lambda pen: pen.ellipse(self.sun, radius))

    def _paint_sunlight(self) -> None:
        light, palette = self.scenery.light, self.palette
        if light == "storm":
            paint_glow(self.picture, self.sun, self.unit * 0.5, palette.sun, 0.35)
            return
        if light in ("sunset", "dawn"):
            self.sun = (self.sun[0], self.horizon - self.unit * self.rng.uniform(0.05, 0.16))
        paint_glow(self.picture, self.sun, self.unit * 1.1, palette.sun, 0.55)
        paint_glow(self.picture, self.sun, self.unit * 0.35, palette.sun, 0.8)
        self._paint_disc(self.unit * (0.07 if light == "sunset" else 0.05), mix(palette.sun, (255, 255, 255), 0.3))

    def _paint_clouds(self) -> None:
        """Paint two layers of stretched noise, shaded below and lit where the sky is bright."""
        palette, light = self.palette, self.scenery.light
        sheet = (self.width, math.ceil(self.horizon))
        cells = (3.0 * self.width / self.unit, 5.5 * self.horizon / self.unit)
        thick = {"storm": 0.30, "day": 0.54, "dawn": 0.52, "sunset": 0.50}.get(light, 0.58)
        cover = 0.92 if light == "storm" else 0.75
        grain = make_noise(sheet, cells, self.rng, octaves=5)
        mask = grain.point(make_curve_table(lambda value: cover * min(1.0, max(0.0, (value - thick) / 0.22))))
        fade = make_gradient(sheet, ((235, 235, 235), (255, 255, 255), (150, 150, 150), (40, 40, 40))).convert("L")
        mask = Image.composite(mask, Image.new("L", sheet, 0), fade)
        low = mix(palette.sky[3], palette.cloud, 0.75)
        lit = mix(palette.cloud, palette.sun, 0.75 if light in ("sunset", "dawn", "day") else 0.12)
        body = make_gradient(sheet, (mix(palette.cloud, palette.sky[1], 0.3), low))
        self.picture.paste(body, (0, 0), mask)
        rim = grain.point(make_curve_table(lambda value: 0.8 * min(1.0, max(0.0, (value - thick - 0.1) / 0.2))))
        rim = Image.composite(rim, Image.new("L", sheet, 0), fade)
        if light != "storm":
            self.picture.paste(lit, (0, 0), rim)

    def _paint_aurora(self) -> None:
        """Paint curtains of light with bright lower edges and streaks that fade upwards."""
        sheet = (max(8, self.width // 4), max(8, math.ceil(self.horizon) // 4))
        for colour, base, tall in (
            (rgb("35f2a0"), 0.74, 0.55),
            (rgb("4fd6d2"), 0.56, 0.42),
            (rgb("9a5cf0"), 0.42, 0.36),
        ):
            line = make_wave(self.rng, waves=self.rng.uniform(0.9, 1.6), points=sheet[0])
            streak = make_noise((sheet[0], 8), (26, 1), self.rng, octaves=3).crop((0, 0, sheet[0], 1))
            light = Image.new("L", sheet, 0)
            for x in range(sheet[0]):
                foot = sheet[1] * (base - 0.26 * line[x])
                bright = streak.getpixel((x, 0))
                assert isinstance(bright, int)
                top = foot - sheet[1] * tall * (0.5 + bright / 400)
                ray = (
                    Image.linear_gradient("L")
                    .resize((1, max(2, round(foot - top))))
                    .point([v * v // 290 for v in range(256)])
                )
                light.paste(ray.point([v * (60 + bright) // 300 for v in range(256)]), (x, round(top)))
            mask = light.filter(ImageFilter.GaussianBlur(1.6)).resize(
                (self.width, math.ceil(self.horizon)), Image.Resampling.BICUBIC
            )
            self.picture.paste(colour, (0, 0), mask)

    def _paint_nebula(self) -> None:
        sheet = (self.width, self.height)
        for colour in self.rng.sample((rgb("d2467f"), rgb("5b55d6"), rgb("2f9fb5"), rgb("e08a4a")), 2):
            grain = make_noise(
                sheet, (2.2 * self.width / self.unit, 2.2 * self.height / self.unit), self.rng, octaves=5
            )
            self.picture.paste(
                colour, (0, 0), grain.point(make_curve_table(lambda value: 0.55 * max(0.0, (value - 0.5) / 0.4)))
            )

    def _paint_planet(self) -> None:
        """Paint a banded ball that is lit from one side, sometimes with a ring."""
        radius = self.unit * self.rng.uniform(0.17, 0.26)
        colour = self.rng.choice((rgb("e0a66f"), rgb("7fb4d8"), rgb("c9758a"), rgb("a6c48a")))
        side = max(4, round(radius * 2))
        bands = make_noise((side, side), (1.2, 7), self.rng, octaves=3)
        ball = ImageOps.colorize(bands, mix(colour, (20, 10, 30), 0.55), mix(colour, (255, 255, 255), 0.35), mid=colour)
        shade = (
            Image.radial_gradient("L")
            .resize((side * 2, side * 2))
            .crop((side * 5 // 12, side * 5 // 12, side * 5 // 12 + side, side * 5 // 12 + side))
        )
        ball = Image.composite(
            Image.new("RGB", ball.size, self.palette.near),
            ball,
            shade.point(make_curve_table(lambda far: far * 1.9 - 0.35)),
        )
        mask = Image.new("L", (side * 2, side * 2), 0)
        Pen(mask, 0, 0).ellipse((side / 2, side / 2), side / 2 - 1)
        paint_glow(self.picture, self.sun, radius * 2.1, colour, 0.45)
        self.picture.paste(ball, (round(self.sun[0] - side / 2), round(self.sun[1] - side / 2)), mask.reduce(2))
        if self.rng.random() < 0.6:
            self._paint_ring(radius, mix(colour, (255, 255, 255), 0.5))

    def _paint_ring(self, radius: float, colour: Colour) -> None:
        def draw(pen: Pen) -> None:
            turns = [math.pi * (0.02 + 0.96 * step / 40) for step in range(41)]
            for reach, width, shade in ((1.75, 0.09, 190), (1.55, 0.05, 120), (1.42, 0.03, 80)):
                arc = [
                    (
                        self.sun[0] + math.cos(t) * radius * reach,
                        self.sun[1] + math.sin(t) * radius * reach * 0.26 - math.cos(t) * radius * 0.25,
                    )
                    for t in turns
                ]
                pen.line(arc, radius * width, shade)

        paint_silhouette(self.picture, (self.sun[1] - radius, self.sun[1] + radius), (colour, colour), draw)

    # Land

    def _paint_land(self) -> None:
        painters = {
            "city": self._paint_city,
            "forest": self._paint_forest,
            "mountains": self._paint_mountains,
            "hills": self._paint_hills,
            "dunes": self._paint_dunes,
            "planet": self._paint_crags,
        }
        painters[self.scenery.land]()

    def _blend_with_haze(self, own: Colour, depth: float) -> Colour:
        """Return the colour of an object of colour `own` in the haze at `depth`, from 0 (far) to 1 (near)."""
        near = mix(self.palette.near, own, self.palette.daylight)
        return mix(self.palette.haze, near, 0.12 + 0.88 * depth)

    def _paint_range(self, heights: list[float], base: float, tall: float, colour: Colour, foot: Colour) -> None:
        """Paint a silhouette across the picture; `base` is its lowest row, `tall` its height."""
        step = self.width / (len(heights) - 1)

        def draw(pen: Pen) -> None:
            crest = [(index * step, base - tall * height) for index, height in enumerate(heights)]
            pen.polygon(
                [
                    (-2, self.height + 2),
                    (-2, crest[0][1]),
                    *crest,
                    (self.width + 2, crest[-1][1]),
                    (self.width + 2, self.height + 2),
                ]
            )

        paint_silhouette(self.picture, (base - tall - 2, max(base, self.horizon) + 3), (colour, foot), draw)

    def _paint_mountains(self) -> None:
        for depth, tall, rough in ((0.1, 0.40, 0.55), (0.35, 0.30, 0.55), (0.65, 0.19, 0.58)):
            heights = make_ridge(self.rng, roughness=rough)
            own = mix(rgb("46617a"), _GREEN, depth)
            colour = self._blend_with_haze(own, depth)
            foot = mix(colour, self.palette.haze, 0.55)
            self._paint_range(heights, self.horizon, self.unit * tall, colour, foot)
            if depth < 0.5:
                self._paint_snowcaps(heights, self.unit * tall, depth)

    def _paint_snowcaps(self, heights: list[float], tall: float, depth: float) -> None:
        """Paint white on the upper parts of a range, with a ragged lower edge."""
        step = self.width / (len(heights) - 1)
        line = 0.5 if self.scenery.ground == "snow" else 0.66
        white = mix(mix(self.palette.haze, self.palette.sun, 0.55), _SNOW, 0.3 + 0.5 * self.palette.daylight)
        rng = self.rng

        def draw(pen: Pen) -> None:
            run: list[tuple[float, float, float]] = []
            for index, height in enumerate([*heights, 0.0]):
                if height > line:
                    run.append((index * step, self.horizon - tall * height, height))
                elif run:
                    lower = [
                        (x, y + tall * (height - line) * rng.uniform(0.25, 0.95)) for x, y, height in reversed(run)
                    ]
                    pen.polygon([(x, y) for x, y, _ in run] + lower, shade=round(200 - 90 * depth))
                    run = []

        paint_silhouette(self.picture, (self.horizon - tall, self.horizon), (white, white), draw)

    def _paint_hills(self) -> None:
        for depth, tall in ((0.15, 0.20), (0.4, 0.14), (0.7, 0.085)):
            heights = make_wave(self.rng, waves=self.rng.uniform(1.0, 1.8) * self.width / self.unit / 1.5)
            colour = self._blend_with_haze(mix(_GREEN, _FIELD, depth), depth)
            self._paint_range(heights, self.horizon, self.unit * tall, colour, mix(colour, self.palette.haze, 0.4))

    def _paint_dunes(self) -> None:
        for depth, tall in ((0.2, 0.22), (0.45, 0.15), (0.75, 0.1)):
            heights = make_wave(self.rng, waves=self.rng.uniform(0.7, 1.3) * self.width / self.unit / 1.5)
            colour = self._blend_with_haze(_SAND, depth)
            self._paint_range(
                heights,
                self.horizon,
                self.unit * tall,
                mix(colour, self.palette.sun, 0.22),
                mix(colour, self.palette.near, 0.25),
            )

    def _paint_crags(self) -> None:
        for depth, tall in ((0.3, 0.2), (0.6, 0.12), (0.9, 0.07)):
            colour = self._blend_with_haze(rgb("8a5a4a"), depth)
            self._paint_range(
                make_ridge(self.rng, roughness=0.7),
                self.horizon,
                self.unit * tall,
                colour,
                mix(colour, self.palette.haze, 0.3),
            )

    def _paint_forest(self) -> None:
        self._paint_range(
            make_ridge(self.rng, roughness=0.5),
            self.horizon,
            self.unit * 0.3,
            self._blend_with_haze(_GREEN, 0.12),
            self.palette.haze,
        )
        for depth, tall, base in ((0.25, 0.16, -0.02), (0.5, 0.22, 0.0), (0.78, 0.3, 0.025)):
            self._paint_firs(self.horizon + self.unit * base, self.unit * tall, self._blend_with_haze(_GREEN, depth))

    def _paint_firs(self, base: float, tall: float, colour: Colour) -> None:
        """Paint a row of firs on uneven ground."""
        rng, ground = self.rng, make_wave(self.rng, waves=2.0)

        def draw(pen: Pen) -> None:
            x = -tall * 0.2
            while x < self.width + tall * 0.2:
                rise = ground[min(96, max(0, int(96 * x / self.width)))] * tall * 0.3
                height = tall * rng.uniform(0.5, 1.0)
                things.draw_fir(pen, (x, base - rise), height)
                pen.rectangle(x - tall * 0.3, base - rise - height * 0.12, x + tall * 0.3, base + 2)
                x += height * rng.uniform(0.16, 0.34)

        paint_silhouette(
            self.picture, (base - tall * 1.35, base + 3), (colour, mix(colour, self.palette.haze, 0.35)), draw
        )

    def _paint_city(self) -> None:
        night = self.scenery.light in ("night", "neon", "aurora", "space", "sunset", "storm")
        for depth, tall, wide in ((0.1, 0.42, 0.055), (0.4, 0.34, 0.07), (0.75, 0.24, 0.095)):
            colour = self._blend_with_haze(rgb("5c6b80"), depth)
            self._paint_houses(self.unit * tall, self.unit * wide, colour, depth, lit=night and depth > 0.2)

    def _paint_houses(self, tall: float, wide: float, colour: Colour, depth: float, *, lit: bool) -> None:
        rng, base = self.rng, self.horizon
        houses: list[tuple[float, float, float]] = []
        x = -wide * rng.random()
        while x < self.width:
            across = wide * rng.uniform(0.55, 1.25)
            houses.append((x, x + across, base - tall * rng.uniform(0.3, 1.0) ** 1.3))
            x += across * rng.choice((1.0, 1.0, 1.15))

        def draw(pen: Pen) -> None:
            for left, right, top in houses:
                things.draw_tower(pen, (left, top, right, base + 3), rng)

        paint_silhouette(
            self.picture, (base - tall * 1.3, base + 3), (colour, mix(colour, self.palette.haze, 0.45)), draw
        )
        if lit or self.scenery.light in ("day", "dawn"):
            self._paint_windows(houses, depth, lit=lit)

    def _paint_windows(self, houses: list[tuple[float, float, float]], depth: float, *, lit: bool) -> None:
        rng, pane = self.rng, max(2.0, self.unit * (0.0035 + 0.004 * depth))
        warm, cool = (mix(colour, self.palette.haze, 0.35 - 0.3 * depth) for colour in (_WARM, _COOL))
        glass = mix(self.palette.sky[2], self.palette.haze, 0.5)
        neon = self.scenery.light == "neon"

        def draw(wanted: int) -> None:
            colour = (warm, cool, rgb("ff5fa8"))[wanted] if lit else glass

            def draw_panes(pen: Pen) -> None:
                picks = random.Random(f"{rng_key}{wanted}")
                for left, right, top in houses:
                    busy = picks.uniform(0.1, 0.6)
                    for row in range(int((self.horizon - top) / (pane * 2.6))):
                        for column in range(int((right - left) / (pane * 2.1)) - 1):
                            if picks.random() < busy * (0.45 if lit else 0.8):
                                x, y = left + pane * (1 + 2.1 * column), top + pane * (1.6 + 2.6 * row)
                                pen.rectangle(
                                    x, y, x + pane, y + pane * 1.2, shade=picks.choice((110, 170, 235)) if lit else 70
                                )

            paint_silhouette(
                self.picture, (min(top for _, _, top in houses), self.horizon), (colour, colour), draw_panes
            )

        rng_key = str(rng.random())
        draw(0)
        if lit:
            draw(1)
        if neon:
            draw(2)

    # Ground

    def _paint_ground(self) -> None:
        painters = {
            "water": self._paint_water,
            "meadow": self._paint_meadow,
            "snow": self._paint_snowfield,
            "sand": self._paint_sandfield,
            "street": self._paint_street,
        }
        painters[self.scenery.ground]()

    def _paint_reflection(self, colour: Colour, strength: float, *, ripple: float) -> None:
        """Paint the part above the horizon upside down, tinted by `colour`, in rows that sway more near the viewer."""
        top, deep = round(self.horizon), self.height - round(self.horizon)
        above = self.picture.crop((0, max(0, top - round(deep * 1.35)), self.width, top))
        below = ImageOps.flip(above).resize((self.width, deep), Image.Resampling.BICUBIC)
        tint = make_gradient(
            (self.width, deep), (mix(self.palette.sky[-1], colour, 0.35), colour, mix(colour, self.palette.near, 0.55))
        )
        below = Image.blend(below, tint, strength)
        sway = random.Random(self.rng.random())
        row = 0
        while row < deep:
            thick = max(1, round(self.unit * 0.002 + row * 0.018))
            shift = round(sway.uniform(-1, 1) * ripple * (self.unit * 0.004 + row * 0.05))
            strip = below.crop((0, row, self.width, min(deep, row + thick)))
            self.picture.paste(strip, (0, top + row))
            self.picture.paste(strip, (shift, top + row))
            row += thick

    def _paint_water(self) -> None:
        own = mix(mix(self.palette.sky[1], rgb("0e5a78"), 0.25 + 0.3 * self.palette.daylight), self.palette.near, 0.2)
        self._paint_reflection(own, 0.42, ripple=1.0)
        self._paint_glitter()
        if self.scenery.light == "storm":
            self._paint_swell(own)

    def _paint_glitter(self) -> None:
        """Paint the broken path of the sun or moon on the water, and single glints elsewhere."""
        if self.scenery.light in ("neon", "storm"):
            return
        rng, deep = self.rng, self.height - self.horizon
        dashes = []
        for index in range(420):
            down = rng.random() ** 1.7
            y = self.horizon + 2 + down * deep
            spread = self.unit * (0.05 + 0.22 * down) if index % 5 else self.width * 0.5
            x = (self.sun[0] if index % 5 else self.width / 2) + rng.gauss(0, 0.5) * spread
            dashes.append(
                (
                    x,
                    y,
                    self.unit * (0.004 + 0.028 * down) * rng.uniform(0.4, 1),
                    0.0008 + 0.0028 * down,
                    60 if index % 5 == 0 else rng.choice((110, 170, 230)),
                )
            )

        def draw(pen: Pen) -> None:
            for x, y, reach, thick, shade in dashes:
                pen.ellipse((x, y), reach, max(0.6, self.unit * thick), shade)

        colour = mix(self.palette.sun, (255, 255, 255), 0.2)
        paint_silhouette(
            self.picture, (self.horizon, self.height), (colour, mix(colour, self.palette.sky[-1], 0.3)), draw
        )

    def _paint_swell(self, own: Colour) -> None:
        """Paint rows of storm waves, each with a pale upper edge that fades into its dark back."""
        for step in range(8):
            down = (step + 0.7) / 8
            base = self.horizon + (self.height - self.horizon) * down**1.4
            tall, long = self.unit * (0.014 + 0.075 * down), self.unit * (0.05 + 0.24 * down)
            far = mix(own, self.palette.haze, 0.5 * (1 - down))
            crest = self._make_crest(base, tall, long)
            foam, back = mix(far, self.palette.sun, 0.5), mix(far, self.palette.near, 0.2 + 0.45 * down)
            self._paint_wave(crest, (foam, mix(far, foam, 0.25), back, back, back))

    def _make_crest(self, base: float, tall: float, long: float) -> list[tuple[float, float]]:
        """Return a row of irregular peaks that are steep on one side."""
        rng, x, crest = self.rng, -self.rng.random() * long, []
        while x < self.width + long:
            across, high = long * rng.uniform(0.6, 1.3), tall * rng.uniform(0.3, 1.0)
            crest += [(x, base), (x + across * 0.3, base - high * 0.35), (x + across * 0.52, base - high * 0.85)]
            crest += [(x + across * 0.62, base - high), (x + across * 0.7, base - high * 0.72)]
            crest += [(x + across * 0.82, base - high * 0.25)]
            x += across
        return [*crest, (x, base)]

    def _paint_wave(self, crest: list[tuple[float, float]], colours: tuple[Colour, ...]) -> None:
        top = min(y for _, y in crest)
        bottom = max(y for _, y in crest) + self.unit * 0.2

        def draw(pen: Pen) -> None:
            pen.polygon([(crest[0][0], bottom), *crest, (crest[-1][0], bottom)])

        paint_silhouette(self.picture, (top - 2, bottom), colours, draw)

    def _paint_field(self, far: Colour, near: Colour) -> None:
        top = round(self.horizon)
        self.picture.paste(make_gradient((self.width, self.height - top), (far, mix(far, near, 0.6), near)), (0, top))

    def _paint_meadow(self) -> None:
        self._paint_field(self._blend_with_haze(_FIELD, 0.5), self._blend_with_haze(_GREEN, 0.95))
        self._paint_swaths(_FIELD, 0.5)
        self._paint_grass()

    def _paint_swaths(self, own: Colour, contrast: float) -> None:
        """Paint soft rolling bands in the foreground."""
        for step in range(4):
            down = (step + 0.5) / 4
            y = self.horizon + (self.height - self.horizon) * down**1.3
            tall = self.unit * (0.02 + 0.07 * down)
            colour = mix(self._blend_with_haze(own, 0.45 + 0.5 * down), self.palette.near, contrast * down)
            lit = mix(colour, self.palette.sun, 0.10 + 0.16 * self.palette.daylight)
            heights = make_wave(self.rng, waves=self.rng.uniform(0.5, 1.3))
            step_x = self.width / (len(heights) - 1)
            crest = [(index * step_x, y - tall * height) for index, height in enumerate(heights)]
            self._paint_below(crest, (lit, colour, mix(colour, self.palette.near, 0.3)))

    def _paint_below(self, crest: list[tuple[float, float]], colours: tuple[Colour, ...]) -> None:
        def draw(pen: Pen) -> None:
            pen.polygon([(-2, self.height + 2), *crest, (self.width + 2, self.height + 2)])

        paint_silhouette(self.picture, (min(y for _, y in crest) - 2, self.height), colours, draw)

    def _paint_grass(self) -> None:
        """Paint blades of grass along the lower edge, and flowers by day."""
        rng = self.rng
        colour, tip = self._blend_with_haze(_GREEN, 1.0), self._blend_with_haze(_FIELD, 0.9)

        def draw_blades(pen: Pen) -> None:
            for _ in range(int(self.width / self.unit * 500)):
                x, tall = rng.uniform(0, self.width), self.unit * rng.uniform(0.02, 0.1) * rng.random()
                base, lean = self.height - self.unit * rng.uniform(0, 0.12), rng.uniform(-0.4, 0.4) * tall
                pen.polygon([(x - 1.2, base), (x + 1.2, base), (x + lean, base - tall)], shade=200)

        paint_silhouette(self.picture, (self.height - self.unit * 0.24, self.height), (tip, colour), draw_blades)
        if self.palette.daylight > 0.3:
            petals = rng.choice((rgb("f7d34b"), rgb("f5f1ff"), rgb("ef6f8f"), rgb("a487f0")))

            def draw_flowers(pen: Pen) -> None:
                for _ in range(int(self.width / self.unit * 90)):
                    down = rng.random()
                    y = self.horizon + (self.height - self.horizon) * (0.2 + 0.8 * down)
                    pen.ellipse((rng.uniform(0, self.width), y), self.unit * (0.001 + 0.005 * down), shade=210)

            paint_silhouette(
                self.picture, (self.horizon, self.height), (mix(petals, self.palette.haze, 0.4), petals), draw_flowers
            )

    def _paint_snowfield(self) -> None:
        daylight = 0.3 + 0.7 * self.palette.daylight
        self._paint_field(mix(self.palette.haze, _SNOW, daylight * 0.5), mix(self.palette.haze, _SNOW, daylight * 0.7))
        for step in range(4):
            down = (step + 0.5) / 4
            y = self.horizon + (self.height - self.horizon) * down**1.3
            heights = make_wave(self.rng, waves=self.rng.uniform(0.5, 1.2))
            crest = [
                (i * self.width / 96, y - self.unit * (0.02 + 0.06 * down) * height) for i, height in enumerate(heights)
            ]
            white = mix(mix(self.palette.haze, self.palette.sun, 0.35), _SNOW, daylight)
            self._paint_below(crest, (white, mix(white, self.palette.sky[1], 0.35)))

    def _paint_sandfield(self) -> None:
        own = _SAND if self.scenery.land != "planet" else rgb("8a5a4a")
        self._paint_field(self._blend_with_haze(own, 0.55), self._blend_with_haze(own, 0.95))
        self._paint_swaths(own, 0.25)

    def _paint_street(self) -> None:
        """Paint wet asphalt, a dull reflection."""
        self._paint_reflection(
            mix(self.palette.near, rgb("2a2f3a"), 0.5 + 0.4 * self.palette.daylight), 0.58, ripple=0.4
        )

    # Things and weather

    def _choose_spot(self, index: int) -> things.Spot:
        """Return the position of a thing, away from the sun and other things and above the caption."""
        side = 0.7 if self.sun[0] < self.width / 2 else 0.3
        across = side + (0.0, -0.26, 0.16, -0.42)[index % 4] * (1 if side > 0.5 else -1)
        return things.Spot(
            x=self.width * across,
            horizon=self.horizon,
            ground=self.horizon + (self.height - self.horizon) * 0.36,
            unit=self.unit,
            dark=self._blend_with_haze(self.palette.near, 1.0),
            haze=self.palette.haze,
            light=_WARM,
            night=self.palette.daylight < 0.35,
            wet=self.scenery.ground == "water",
        )

    def _paint_weather(self) -> None:
        weather = self.scenery.weather
        if "mist" in weather:
            self._paint_mist()
        if "lightning" in weather and self.scenery.light == "storm":
            self._paint_lightning()
        if "rain" in weather:
            self._paint_rain()
        if "snowfall" in weather:
            self._paint_snowfall()

    def _paint_mist(self) -> None:
        band = round(self.unit * 0.34)
        grain = make_noise((self.width, band), (2.5 * self.width / self.unit, 1.5), self.rng, octaves=4)
        fade = (
            Image.linear_gradient("L").resize((self.width, band)).point(make_curve_table(lambda v: 1 - abs(2 * v - 1)))
        )
        mask = Image.composite(
            grain.point(make_curve_table(lambda v: 0.35 + 0.5 * v)), Image.new("L", grain.size, 0), fade
        )
        self.picture.paste(
            mix(self.palette.haze, self.palette.sky[-1], 0.6), (0, round(self.horizon - band * 0.6)), mask
        )

    def _paint_lightning(self) -> None:
        rng = self.rng
        x, y = self.sun[0] + self.unit * rng.uniform(-0.1, 0.1), 0.0  # things stand on the other side
        bolt, branches = [(x, y)], []
        while y < self.horizon:
            y += self.unit * rng.uniform(0.02, 0.05)
            x += self.unit * rng.uniform(-0.035, 0.035)
            bolt.append((x, y))
            if rng.random() < 0.18:
                branches.append([(x, y), (x + self.unit * rng.uniform(-0.1, 0.1), y + self.unit * 0.09)])
        paint_glow(self.picture, bolt[len(bolt) // 2], self.unit * 0.7, rgb("cfe0ff"), 0.45)

        def draw(pen: Pen) -> None:
            pen.line(bolt, self.unit * 0.005)
            for branch in branches:
                pen.line(branch, self.unit * 0.0025, shade=200)

        paint_silhouette(self.picture, (0, self.horizon), (rgb("ffffff"), rgb("e8f0ff")), draw)

    def _paint_rain(self) -> None:
        rng = self.rng

        def draw(pen: Pen) -> None:
            for _ in range(int(self.width * self.height / self.unit**2 * 420)):
                x, y, long = (
                    rng.uniform(0, self.width * 1.1),
                    rng.uniform(-20, self.height),
                    self.unit * rng.uniform(0.015, 0.05),
                )
                pen.line([(x, y), (x - long * 0.22, y + long)], 0.8, shade=rng.choice((50, 80, 110)))

        colour = mix(self.palette.sun, self.palette.haze, 0.3)
        paint_silhouette(self.picture, (0, self.height), (colour, colour), draw)

    def _paint_snowfall(self) -> None:
        rng = self.rng

        def draw(pen: Pen) -> None:
            for _ in range(int(self.width * self.height / self.unit**2 * 260)):
                pen.ellipse(
                    (rng.uniform(0, self.width), rng.uniform(0, self.height)),
                    self.unit * rng.choice((0.0012, 0.002, 0.0034)),
                    shade=rng.choice((120, 170, 220)),
                )

        paint_silhouette(self.picture, (0, self.height), (_SNOW, _SNOW), draw)
