"""Cut a figure out of a plain background: what hangs as a white card otherwise stands in the scene.

Plain means that the edge of the picture is of one colour, above and at both sides; below, a figure may be cut off. What
looks like that colour and is joined to the edge goes; what looks like it elsewhere, a shirt say, stays.
"""

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

Colour = tuple[int, int, int]

_ALIKE = 20
"""Of 255, in the band that differs most: noise of JPEG and of a lit wall are below."""
_SOLID = 56
"""From here on a pixel is the figure's; between, it is partly seen through."""
_PLAIN_SHARE = 0.95
_LEAST_GONE, _MOST_GONE = 0.08, 0.96
_GAP_SHARE = 0.12
"""Of the width: a narrower piece of background at the lower edge is between legs, a wider one may be a shirt."""
_MAP_PX = 192
"""Longer edge of the map on which the background is followed from the edge inwards."""


def has_plain_border(image: "Image.Image") -> bool:
    """Return whether a figure can be cut out of this RGB picture."""
    colour = _border_colour(image)
    if colour is None:
        return False
    gone = _outside(image, colour)
    share = sum(value == 255 for value in gone.tobytes()) / (gone.width * gone.height)
    return _LEAST_GONE <= share <= _MOST_GONE


def cut_out(image: "Image.Image") -> "Image.Image":
    """Return the RGB picture as RGBA, without the plain background around its figure; edges are soft."""
    from PIL import Image, ImageChops, ImageFilter

    colour = _border_colour(image)
    if colour is None:
        return image.convert("RGBA")
    # Fine edges come from the picture itself, and only where the coarse map says that the background may be.
    outside = _outside(image, colour).filter(ImageFilter.MaxFilter(3)).resize(image.size, Image.Resampling.BILINEAR)
    outside = outside.point(lambda value: 255 if value > 8 else 0)
    own = _difference(image, colour).point(lambda d: max(0, min(255, (d - _ALIKE) * 255 // (_SOLID - _ALIKE))))
    if figure := own.point(lambda value: 255 if value > 128 else 0).getbbox():
        outside.paste(255, (0, figure[3], *image.size))  # a strip below it may be too thin for the map
    alpha = ImageChops.lighter(own, ImageChops.invert(outside))
    # One pixel further in, so that no rim of the old background is left.
    alpha = alpha.filter(ImageFilter.MinFilter(3)).filter(ImageFilter.GaussianBlur(0.8))
    cut = image.convert("RGBA")
    cut.putalpha(alpha)
    return cut


def _border_colour(image: "Image.Image") -> Colour | None:
    """Return the colour of the upper edge and of both sides, None when they are not of one."""
    from PIL import Image, ImageStat

    width, height = image.size
    deep = max(1, round(0.015 * min(width, height)))
    edges = ((0, 0, width, deep), (0, 0, deep, height), (width - deep, 0, width, height))
    strips = [image.crop(edge).resize((256, 4), Image.Resampling.BOX) for edge in edges]
    border = Image.new("RGB", (256, 12))
    for number, strip in enumerate(strips):
        border.paste(strip, (0, 4 * number))
    red, green, blue = (round(value) for value in ImageStat.Stat(border).median)
    colour = red, green, blue
    alike = sum(value <= _ALIKE for value in _difference(border, colour).tobytes())
    return colour if alike >= _PLAIN_SHARE * border.width * border.height else None


def _difference(image: "Image.Image", colour: Colour) -> "Image.Image":
    """Return how far each pixel is from a colour, in the band that differs most."""
    from PIL import Image, ImageChops

    red, green, blue = ImageChops.difference(image, Image.new("RGB", image.size, colour)).split()
    return ImageChops.lighter(ImageChops.lighter(red, green), blue)


def _outside(image: "Image.Image", colour: Colour) -> "Image.Image":
    """Return a small map, 255 where the background is that is joined to the edge."""
    from PIL import Image, ImageDraw

    scale = min(1.0, _MAP_PX / max(image.size))
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    small = _difference(image.resize(size, Image.Resampling.BOX), colour)
    # A frame around it joins the upper edge and the sides.
    known = Image.new("L", (size[0] + 2, size[1] + 1), 128)
    known.paste(small.point(lambda d: 128 if d <= _ALIKE else 0), (1, 1))
    ImageDraw.floodfill(known, (0, 0), 255)
    for left, right in _gaps(known.crop((1, size[1], size[0] + 1, size[1] + 1)).tobytes()):
        if right - left <= _GAP_SHARE * size[0]:
            ImageDraw.floodfill(known, (left + 1, size[1]), 255)
    return known.crop((1, 1, size[0] + 1, size[1] + 1)).point(lambda value: 255 if value == 255 else 0)


def _gaps(row: bytes) -> list[tuple[int, int]]:
    """Return from where to where there is background that was not reached yet."""
    return [(piece.start(), piece.end()) for piece in re.finditer(rb"\x80+", row)]
