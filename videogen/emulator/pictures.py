"""Pictures painted from a prompt."""

import random

from PIL import Image, ImageDraw

from videogen.emulator.models import Size


def paint(prompt: str, seed: int, size: Size) -> Image.Image:
    """A picture of this size, the same for the same prompt and seed."""
    rng = random.Random(f"{prompt}/{seed}")
    top, low = (tuple(rng.randrange(30, 220) for _ in range(3)) for _ in range(2))
    column = Image.new("RGB", (1, 2))
    column.putdata([top, low])
    picture = column.resize(size, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(picture)
    for index in range(4):
        colour = tuple(int(c * (0.7 - 0.15 * index)) for c in low)
        base = size.height_px * (0.5 + 0.12 * index)
        points = [(x, base + rng.uniform(-1, 1) * size.height_px * 0.05) for x in range(0, size.width_px + 80, 80)]
        draw.polygon([(0, size.height_px), *points, (size.width_px, size.height_px)], fill=colour)
    return picture
