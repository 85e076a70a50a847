"""How a start frame is composed of a background and characters."""

import hashlib
import io
import itertools
from collections.abc import Callable

import pytest
from PIL import Image, ImageChops, ImageDraw
from PIL.JpegImagePlugin import JpegImageFile

from tests.references.conftest import BLUE, GREY, RED, picture_of, spot
from tests.support.builders import encode_image, make_noise
from videogen.references.compose import MAX_FRAME_BYTES, compose_frame
from videogen.references.decode import ReferenceImage


def reference(image: Image.Image) -> ReferenceImage:
    has_alpha = image.mode == "RGBA"
    data = encode_image(image) if has_alpha else encode_image(image, "JPEG", quality=95)
    digest = hashlib.sha256(data).hexdigest()
    return ReferenceImage("x", digest, *image.size, has_alpha, data, "image/png" if has_alpha else "image/jpeg")


def cut_out(colour: tuple[int, int, int], size: tuple[int, int] = (100, 200)) -> ReferenceImage:
    """An upright block of one colour amid wide empty margins."""
    image = Image.new("RGBA", (size[0] + 120, size[1] + 160))
    image.paste((*colour, 255), (60, 30, 60 + size[0], 30 + size[1]))
    return reference(image)


def card(colour: tuple[int, int, int], size: tuple[int, int] = (300, 300)) -> ReferenceImage:
    return reference(Image.new("RGB", size, colour))


def white(size: tuple[int, int] = (1600, 900)) -> ReferenceImage:
    return reference(Image.new("RGB", size, (255, 255, 255)))


def opened(frame: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(frame))
    image.load()
    return image


SIZES = [
    pytest.param((1280, 720), id="16:9"),
    pytest.param((720, 1280), id="9:16"),
    pytest.param((960, 960), id="1:1"),
    pytest.param((1024, 576), id="small"),
]


@pytest.mark.parametrize("size", SIZES)
def test_a_frame_without_characters_is_the_crop(size: tuple[int, int]) -> None:
    """The background covers the frame from its centre, with no bars and no squeeze."""
    image = Image.new("RGB", (1600, 900), BLUE)
    ImageDraw.Draw(image).ellipse((700, 350, 900, 550), fill=RED)
    frame = opened(compose_frame(size=size, background=reference(image), characters=[]))
    assert (frame.format, frame.size) == ("JPEG", size)
    box = spot(frame, RED)
    assert box is not None
    left, top, right, bottom = box
    assert (left + right) / 2 == pytest.approx(size[0] / 2, abs=3)
    assert (top + bottom) / 2 == pytest.approx(size[1] / 2, abs=3)
    assert right - left == pytest.approx(bottom - top, abs=4)
    assert frame.getpixel((1, 1)) == pytest.approx(BLUE, abs=6)


@pytest.mark.parametrize("size", SIZES)
def test_a_cut_out_stands_on_the_lower_edge(size: tuple[int, int]) -> None:
    """60 to 75 % of the height, in the middle, without the empty margins of its file."""
    frame = opened(compose_frame(size=size, background=white(), characters=[cut_out(RED)]))
    box = spot(frame, RED)
    assert box is not None
    left, top, right, bottom = box
    assert bottom == size[1]
    assert 0.6 <= (bottom - top) / size[1] <= 0.75
    assert (left + right) / 2 == pytest.approx(size[0] / 2, abs=3)
    assert (right - left) / (bottom - top) == pytest.approx(0.5, abs=0.02)


COLOURS = [(220, 30, 30), (30, 170, 60), (30, 60, 200), (230, 200, 20), (160, 30, 160), (20, 180, 190)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("make", [cut_out, card])
@pytest.mark.parametrize("count", [2, 3, 6])
def test_characters_never_cover_each_other(
    size: tuple[int, int], make: Callable[[tuple[int, int, int]], ReferenceImage], count: int
) -> None:
    """Left to right in the order of the job, all inside the frame, however many and however narrow."""
    characters = [make(colour) for colour in COLOURS[:count]]
    frame = opened(compose_frame(size=size, background=white(), characters=characters))
    boxes = [spot(frame, colour) for colour in COLOURS[:count]]
    edges = [edge for box in boxes if box is not None for edge in (box[0], box[2])]
    assert len(edges) == 2 * count
    assert all(later - earlier > 2 for earlier, later in itertools.pairwise(edges))
    assert edges[0] > 0
    assert edges[-1] < size[0]


def test_faint_specks_do_not_count_as_the_figure() -> None:
    """Background removers leave some; counted in, they would make the figure small and let it float."""
    image = picture_of(cut_out(RED))
    image.putpixel((0, image.height - 1), (0, 0, 0, 5))
    clean, specked = ([cut_out(RED)], [reference(image)])
    frames = [compose_frame(size=(640, 360), background=white(), characters=each) for each in (clean, specked)]
    assert frames[0] == frames[1]


def test_a_very_wide_cut_out_still_fits() -> None:
    """A lying figure is scaled by its width."""
    frame = opened(compose_frame(size=(720, 1280), background=white(), characters=[cut_out(RED, (900, 60))]))
    box = spot(frame, RED)
    assert box is not None
    assert 0 < box[0] < box[2] < 720
    assert box[3] == 1280


def test_no_fringe_around_a_cut_out() -> None:
    """The colour that hides under full transparency does not bleed into the edge."""
    image = Image.new("RGBA", (300, 600), (0, 255, 0, 0))
    ImageDraw.Draw(image).ellipse((20, 20, 280, 580), fill=(*RED, 255))
    background = card(RED, (640, 360))
    frame = opened(compose_frame(size=(640, 360), background=background, characters=[reference(image)]))
    difference = ImageChops.difference(frame, Image.new("RGB", frame.size, RED))
    assert max(band.getextrema()[1] for band in difference.split()) < 12  # type: ignore[operator]


def test_an_opaque_picture_hangs_as_a_card() -> None:
    """With round corners and a thin light line, above the lower edge."""
    frame = opened(compose_frame(size=(1280, 720), background=card(GREY, (1280, 720)), characters=[card(RED)]))
    box = spot(frame, RED)
    assert box is not None
    left, top, _, bottom = box
    assert bottom < 700
    line = frame.getpixel((left - 2, (top + bottom) // 2))
    assert line == pytest.approx((250, 250, 248), abs=30)
    assert frame.getpixel((left - 4, top - 4)) == pytest.approx(GREY, abs=25)
    assert frame.getpixel((left + 40, top + 40)) == pytest.approx(RED, abs=8)
    assert frame.getpixel((left + 1, top + 1)) != pytest.approx(RED, abs=60)


def test_without_a_background_the_backdrop_is_soft_and_of_their_colours() -> None:
    """Light above, darker below, a hint of the characters, nothing loud."""
    frame = opened(compose_frame(size=(640, 360), background=None, characters=[cut_out(RED)]))
    above, below = frame.getpixel((5, 5)), frame.getpixel((5, 355))
    assert isinstance(above, tuple)
    assert isinstance(below, tuple)
    assert sum(above) > sum(below) + 60
    assert above[0] > above[2] + 5
    assert below[0] > below[2] + 20
    assert min(below) > 60


def test_one_opaque_picture_alone_is_the_frame() -> None:
    """A portrait photo animates as itself; a card on an empty wall would animate as a card."""
    alone = compose_frame(size=(640, 360), background=None, characters=[card(RED)])
    assert alone == compose_frame(size=(640, 360), background=card(RED), characters=[])


def test_a_see_through_background_is_laid_on_white() -> None:
    """Not on whatever colour hides under its transparency."""
    frame = opened(compose_frame(size=(640, 360), background=reference(Image.new("RGBA", (64, 36))), characters=[]))
    assert frame.getpixel((320, 180)) == (255, 255, 255)


def test_the_same_pictures_make_the_same_bytes() -> None:
    """So that a composed frame, uploaded twice, is one frame."""
    recipe = {"size": (640, 360), "background": white(), "characters": [cut_out(RED), card(BLUE)]}
    assert compose_frame(**recipe) == compose_frame(**recipe)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(1280, 720), (1920, 1080), (3840, 2160)])
def test_a_busy_frame_keeps_its_quality(size: tuple[int, int]) -> None:
    """What is too large for a `data:` URL is uploaded; only what no photo matches is pressed."""
    busy = reference(make_noise((320, 320)).resize((1280, 1280), Image.Resampling.BICUBIC))
    frame = compose_frame(size=size, background=busy, characters=[])
    assert 250_000 < len(frame) <= MAX_FRAME_BYTES
    image, full = opened(frame), opened(encode_image(Image.new("RGB", (8, 8)), "JPEG", quality=92))
    assert isinstance(image, JpegImageFile)
    assert isinstance(full, JpegImageFile)
    assert image.quantization == full.quantization


def test_a_frame_of_noise_is_pressed_until_it_fits() -> None:
    """A provider takes no upload without end."""
    frame = compose_frame(size=(3840, 2160), background=reference(make_noise((1280, 720))), characters=[])
    assert len(frame) <= MAX_FRAME_BYTES


def test_an_easy_frame_keeps_its_quality() -> None:
    """Quality is spent only where the size asks for it."""
    easy = opened(compose_frame(size=(640, 360), background=white(), characters=[cut_out(RED)]))
    full = opened(encode_image(Image.new("RGB", (8, 8)), "JPEG", quality=92))
    assert isinstance(easy, JpegImageFile)
    assert isinstance(full, JpegImageFile)
    assert easy.quantization == full.quantization
