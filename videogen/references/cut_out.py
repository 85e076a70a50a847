"""Cut a figure out of a plain background, so that it stands in the scene instead of hanging there as a white card.

A background is plain if the upper edge and both sides of the picture have one colour. At the lower edge a figure may be
cut off. Pixels of about that colour are removed if they are connected to the edge, and kept elsewhere, as in a shirt.
"""

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

Colour = tuple[int, int, int]

_MAX_BACKGROUND_DIFFERENCE = 20
"""Largest difference of a background pixel, of 255, in the band that differs most. The noise of JPEG and of a lit wall
is below."""
_MIN_FIGURE_DIFFERENCE = 56
"""Smallest difference of a pixel that belongs wholly to the figure. Between the two, pixels become translucent."""
_MIN_PLAIN_SHARE = 0.95
_MIN_BACKGROUND_SHARE, _MAX_BACKGROUND_SHARE = 0.08, 0.96
_MAX_GAP_SHARE = 0.12
"""Share of the width. A narrower piece of background at the lower edge is a gap between legs, a wider one may be a
shirt."""
_MAP_PX = 192
"""Longer edge of the map on which the background is followed from the edge inwards."""


def has_plain_border(image: "Image.Image") -> bool:
    """Return whether a figure can be cut out of this RGB picture."""
    colour = _find_border_colour(image)
    if colour is None:
        return False
    background = _map_background(image, colour)
    share = sum(value == 255 for value in background.tobytes()) / (background.width * background.height)
    return _MIN_BACKGROUND_SHARE <= share <= _MAX_BACKGROUND_SHARE


def cut_out(image: "Image.Image") -> "Image.Image":
    """Return the RGB picture as RGBA, without the plain background around its figure, and with soft edges."""
    from PIL import Image, ImageChops, ImageFilter

    colour = _find_border_colour(image)
    if colour is None:
        return image.convert("RGBA")
    # The coarse map tells where background may be; the picture itself gives the fine edges there.
    outside = _map_background(image, colour).filter(ImageFilter.MaxFilter(3))
    outside = outside.resize(image.size, Image.Resampling.BILINEAR)
    outside = outside.point(lambda value: 255 if value > 8 else 0)
    translucent_range = _MIN_FIGURE_DIFFERENCE - _MAX_BACKGROUND_DIFFERENCE
    own = _measure_difference(image, colour).point(
        lambda d: max(0, min(255, (d - _MAX_BACKGROUND_DIFFERENCE) * 255 // translucent_range))
    )
    if figure := own.point(lambda value: 255 if value > 128 else 0).getbbox():
        outside.paste(
            255, (0, figure[3], *image.size)
        )  # a strip of background below the figure may be too thin for the map
    alpha = ImageChops.lighter(own, ImageChops.invert(outside))
    # Shrink the figure by one pixel, so that no rim of the old background is left.
    alpha = alpha.filter(ImageFilter.MinFilter(3)).filter(ImageFilter.GaussianBlur(0.8))
    cut = image.convert("RGBA")
    cut.putalpha(alpha)
    return cut


def _find_border_colour(image: "Image.Image") -> Colour | None:
    """Return the colour of the upper edge and both sides; None when they have more than one."""
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
    alike = sum(value <= _MAX_BACKGROUND_DIFFERENCE for value in _measure_difference(border, colour).tobytes())
    return colour if alike >= _MIN_PLAIN_SHARE * border.width * border.height else None


def _measure_difference(image: "Image.Image", colour: Colour) -> "Image.Image":
    """Return the difference of each pixel from a colour, in the band that differs most."""
    from PIL import Image, ImageChops

    red, green, blue = ImageChops.difference(image, Image.new("RGB", image.size, colour)).split()
    return ImageChops.lighter(ImageChops.lighter(red, green), blue)


def _map_background(image: "Image.Image", colour: Colour) -> "Image.Image":
    """Return a small map that is 255 where there is background that is connected to the edge."""
    from PIL import Image, ImageDraw

    scale = min(1.0, _MAP_PX / max(image.size))
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    small = _measure_difference(image.resize(size, Image.Resampling.BOX), colour)
    # A frame around the map connects the upper edge and the sides.
    known = Image.new("L", (size[0] + 2, size[1] + 1), 128)
    known.paste(small.point(lambda d: 128 if d <= _MAX_BACKGROUND_DIFFERENCE else 0), (1, 1))
    ImageDraw.floodfill(known, (0, 0), 255)
    for left, right in _find_gaps(known.crop((1, size[1], size[0] + 1, size[1] + 1)).tobytes()):
        if right - left <= _MAX_GAP_SHARE * size[0]:
            ImageDraw.floodfill(known, (left + 1, size[1]), 255)
    return known.crop((1, 1, size[0] + 1, size[1] + 1)).point(lambda value: 255 if value == 255 else 0)


def _find_gaps(row: bytes) -> list[tuple[int, int]]:
    """Return start and end of each piece of background in a row that was not reached yet."""
    return [(piece.start(), piece.end()) for piece in re.finditer(rb"\x80+", row)]
