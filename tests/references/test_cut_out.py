"""Which opaque pictures a figure is cut out of, and what is left of it."""

import io
import random
from collections.abc import Callable

import pytest
from PIL import Image, ImageChops, ImageDraw

from videogen.references.cut_out import cut_out, has_plain_border

RED = (200, 40, 40)
SIZE = (300, 400)
Draw = Callable[[Image.Image], None]


def body(image: Image.Image) -> None:
    """A red figure in the middle that does not touch the edge."""
    ImageDraw.Draw(image).ellipse((90, 60, 210, 340), fill=RED)


def cut_off_below(image: Image.Image) -> None:
    ImageDraw.Draw(image).rectangle((70, 120, 230, 400), fill=RED)


def on_legs(image: Image.Image) -> None:
    """Two legs down to the lower edge, with background between them."""
    draw = ImageDraw.Draw(image)
    draw.rectangle((90, 60, 210, 260), fill=RED)
    draw.rectangle((90, 260, 140, 400), fill=RED)
    draw.rectangle((160, 260, 210, 400), fill=RED)


def with_a_hole(colour: tuple[int, int, int]) -> Draw:
    """A shirt in the colour of the wall, inside of the figure."""

    def draw(image: Image.Image) -> None:
        body(image)
        ImageDraw.Draw(image).rectangle((130, 160, 170, 240), fill=colour)

    return draw


def plain(colour: tuple[int, int, int]) -> Image.Image:
    return Image.new("RGB", SIZE, colour)


def as_jpeg(image: Image.Image, quality: int = 80) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def grained(colour: int, spread: int) -> Image.Image:
    noise = random.Random(5).randbytes(SIZE[0] * SIZE[1])
    grain = noise.translate(bytes(colour - spread + value % (2 * spread + 1) for value in range(256)))
    return Image.merge("RGB", [Image.frombytes("L", SIZE, grain)] * 3)


def gradient() -> Image.Image:
    return Image.merge("RGB", [Image.linear_gradient("L").resize(SIZE)] * 3)


def landscape() -> Image.Image:
    image = plain((120, 170, 230))
    ImageDraw.Draw(image).rectangle((0, 200, 300, 400), fill=(60, 120, 50))
    return image


@pytest.mark.long_variants
@pytest.mark.parametrize(
    ("wall", "draw"),
    [
        pytest.param(plain((255, 255, 255)), body, id="white"),
        pytest.param(plain((128, 130, 127)), body, id="grey"),
        pytest.param(plain((0, 0, 0)), body, id="black"),
        pytest.param(plain((20, 180, 60)), body, id="green-screen"),
        pytest.param(grained(200, 12), body, id="grain"),
        pytest.param(plain((255, 255, 255)), cut_off_below, id="cut-off-below"),
        pytest.param(plain((255, 255, 255)), on_legs, id="on-legs"),
        pytest.param(plain((240, 240, 240)), with_a_hole((240, 240, 240)), id="shirt-like-the-wall"),
    ],
)
@pytest.mark.parametrize("form", ["png", "jpeg"])
def test_a_plain_background_goes_and_the_figure_stays(wall: Image.Image, draw: Draw, form: str) -> None:
    """All of the one, but for a soft rim, and nothing of the other."""
    image, figure = wall.copy(), Image.new("RGB", SIZE, (1, 2, 3))
    draw(image)
    draw(figure)
    picture = as_jpeg(image) if form == "jpeg" else image
    assert has_plain_border(picture)
    alpha = cut_out(picture).getchannel("A")
    inside = (
        ImageChops.difference(figure, Image.new("RGB", SIZE, (1, 2, 3))).convert("L").point(lambda v: 255 * (v > 0))
    )
    wrong = ImageChops.difference(alpha, inside).point(lambda value: 255 if value > 100 else 0)
    assert wrong.tobytes().count(255) < 0.02 * SIZE[0] * SIZE[1]
    centre = alpha.crop((145, 190, 155, 210)).getextrema()
    assert centre == (255, 255)


@pytest.mark.parametrize(
    ("image", "draw"),
    [
        pytest.param(gradient(), body, id="gradient"),
        pytest.param(landscape(), body, id="landscape"),
        pytest.param(grained(120, 100), body, id="noise"),
        pytest.param(plain((255, 255, 255)), lambda image: None, id="nobody"),
        pytest.param(plain(RED), body, id="figure-like-the-wall"),
        pytest.param(
            plain((255, 255, 255)),
            lambda image: ImageDraw.Draw(image).rectangle((0, 100, 300, 400), fill=RED),
            id="figure-to-both-sides",
        ),
    ],
)
def test_other_pictures_are_left_as_they_are(image: Image.Image, draw: Draw) -> None:
    """A wrong cut is worse than a card."""
    picture = image.copy()
    draw(picture)
    assert not has_plain_border(picture)


def test_no_rim_of_the_old_background_is_left() -> None:
    """A white halo is what gives a bad cut-out away."""
    image = Image.new("RGB", (1200, 1600), (255, 255, 255))
    ImageDraw.Draw(image).ellipse((360, 240, 840, 1360), fill=RED)
    cut = cut_out(as_jpeg(image.resize(SIZE, Image.Resampling.LANCZOS), 90))
    laid = Image.alpha_composite(Image.new("RGBA", SIZE, (*RED, 255)), cut).convert("RGB")
    rim = ImageChops.difference(laid, plain(RED)).convert("L").point(lambda value: 255 if value > 70 else 0)
    assert rim.getbbox() is None
