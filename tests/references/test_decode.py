"""Which pictures are taken, how they are normalised, and what is said of the others."""

import hashlib
import struct
import subprocess
import sys
import unicodedata
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import httpx
import pytest
from PIL import Image, ImageChops, ImageCms, ImageStat

from tests.references.conftest import (
    BLUE,
    GREEN,
    GREY,
    PNG,
    PUBLIC,
    RED,
    URL,
    Web,
    load,
    load_bytes,
    picture_of,
    read_refusal,
    spot,
)
from tests.support.builders import chunk, encode_image, make_exif, make_halves, make_noise, png_bomb
from tests.support.fakes import Names
from videogen.references.fetch import load_references

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(
    ("data", "media_type", "has_alpha"),
    [
        pytest.param(PNG, "image/jpeg", False, id="png"),
        pytest.param(encode_image(Image.new("RGB", (160, 80), RED), "JPEG"), "image/jpeg", False, id="jpeg"),
        pytest.param(encode_image(Image.new("RGB", (160, 80), RED), "WEBP"), "image/jpeg", False, id="webp"),
        pytest.param(encode_image(Image.new("RGBA", (160, 80), (*RED, 128))), "image/png", True, id="png-alpha"),
        pytest.param(
            encode_image(Image.new("RGBA", (160, 80), (*RED, 255))), "image/jpeg", False, id="png-opaque-alpha"
        ),
        pytest.param(
            encode_image(Image.new("RGBA", (160, 80), (*RED, 128)), "WEBP"), "image/png", True, id="webp-alpha"
        ),
    ],
)
async def test_a_picture_is_normalised(tmp_path: Path, data: bytes, media_type: str, has_alpha: bool) -> None:
    """JPEG, or PNG where something shows through; the digest is that of the original."""
    reference = await load_bytes(tmp_path, data)
    image = picture_of(reference)
    assert (reference.media_type, reference.has_alpha) == (media_type, has_alpha)
    assert (reference.width, reference.height) == image.size == (160, 80)
    assert image.mode == ("RGBA" if has_alpha else "RGB")
    assert image.convert("RGB").getpixel((20, 10)) == pytest.approx(RED, abs=6)
    assert reference.digest == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    ("data", "is_passed_on"),
    [
        pytest.param(PNG, True, id="png"),
        pytest.param(encode_image(Image.new("RGBA", (160, 80), (*RED, 128))), True, id="png-alpha"),
        pytest.param(encode_image(Image.new("L", (160, 80), 120), "JPEG"), True, id="grey-jpeg"),
        pytest.param(encode_image(Image.new("RGB", (160, 80), RED), "JPEG", exif=make_exif(6)), False, id="turned"),
        pytest.param(encode_image(Image.new("RGB", (160, 80), RED), "JPEG", exif=make_exif(1)), False, id="metadata"),
        pytest.param(encode_image(Image.new("RGB", (160, 80), RED), "WEBP"), False, id="webp"),
        pytest.param(encode_image(Image.new("CMYK", (160, 80)), "JPEG"), False, id="cmyk"),
        pytest.param(encode_image(Image.new("RGB", (4100, 80), RED), "JPEG"), False, id="reduced"),
    ],
)
async def test_a_public_picture_keeps_its_address_only_as_it_is(data: bytes, is_passed_on: bool) -> None:
    """A provider that is given the address sees what we saw."""
    web = Web(httpx.Response(200, content=data))
    reference = await load(URL, resolve=Names([PUBLIC]), transport=web.transport())
    assert reference.url == (URL if is_passed_on else None)


def corners() -> Image.Image:
    """Red above left, green above right, blue below; 40x20, to be seen after any turn."""
    image = Image.new("RGB", (160, 80), BLUE)
    image.paste(RED, (0, 0, 20, 10))
    image.paste(GREEN, (20, 0, 40, 10))
    return image


UNDO = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("orientation", UNDO)
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
async def test_exif_turns_are_applied_and_metadata_is_dropped(tmp_path: Path, form: str, orientation: int) -> None:
    """Cameras store sideways and say so; they also say where they were, which is nobody's business."""
    method = UNDO[orientation]
    stored = corners() if method is None else corners().transpose(method)
    quality = {"quality": 95, "subsampling": 0} if form == "JPEG" else {"lossless": True} if form == "WEBP" else {}
    reference = await load_bytes(tmp_path, encode_image(stored, form, exif=make_exif(orientation), **quality))
    image = picture_of(reference)
    assert (reference.width, reference.height) == image.size == (160, 80)
    assert max(ImageStat.Stat(ImageChops.difference(image, corners())).mean) < 12
    assert dict(image.getexif()) == {}
    assert b"Camera" not in reference.data


def png_16_bit_colour() -> bytes:
    """Pillow does not write these: 160x80, 48 bits a pixel."""
    row = b"\0" + b"".join(struct.pack(">H", value * 257) for value in GREY) * 160
    header = struct.pack(">IIBBBBB", 160, 80, 16, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(row * 80)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("size", [(1, 1), (8, 8), (63, 64), (64, 63), (2000, 10)])
async def test_a_tiny_picture_is_refused(size: tuple[int, int], form: str, tmp_path: Path) -> None:
    """A video model sees nothing in it; and it says what would do."""
    (tmp_path / "picture").write_bytes(encode_image(make_noise(size), form))
    told = f"only {size[0]}x{size[1]} px; give a picture of at least 64 px in width and height"
    assert await read_refusal("picture", base_dir=tmp_path) == told


async def test_the_smallest_picture_is_taken(tmp_path: Path) -> None:
    reference = await load_bytes(tmp_path, encode_image(make_noise((64, 64))))
    assert (reference.width, reference.height, reference.is_one_colour) == (64, 64, False)


def with_alpha(image: Image.Image, alpha: Image.Image) -> Image.Image:
    image.putalpha(alpha)
    return image


@pytest.mark.parametrize(
    ("image", "is_one_colour"),
    [
        pytest.param(Image.new("RGB", (160, 80), RED), True, id="one-colour"),
        pytest.param(Image.new("L", (160, 80), 255), True, id="white"),
        pytest.param(Image.new("RGBA", (160, 80), (*RED, 128)), True, id="evenly-translucent"),
        pytest.param(make_halves((160, 80)), False, id="two-colours"),
        pytest.param(
            with_alpha(Image.new("RGB", (160, 80), RED), make_halves((160, 80)).convert("L")), False, id="silhouette"
        ),
    ],
)
async def test_a_picture_of_one_colour_is_known(image: Image.Image, is_one_colour: bool, tmp_path: Path) -> None:
    """The shape of a figure that is cut out shows, even if the figure has one colour."""
    assert (await load_bytes(tmp_path, encode_image(image))).is_one_colour == is_one_colour


async def test_a_jpeg_of_one_colour_is_known(tmp_path: Path) -> None:
    data = encode_image(Image.new("RGB", (160, 80), (201, 33, 77)), "JPEG", quality=30)
    assert (await load_bytes(tmp_path, data)).is_one_colour


def palette(colour: tuple[int, int, int]) -> Image.Image:
    image = Image.new("P", (160, 80), 1)
    image.putpalette([0, 0, 0, *colour])
    return image


def adobe_cmyk() -> Image.Image:
    return Image.new("CMYK", (160, 80), (0, 0, 0, 135))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(encode_image(Image.new("L", (160, 80), 120)), id="grey"),
        pytest.param(encode_image(Image.new("L", (160, 80), 120), "JPEG"), id="grey-jpeg"),
        pytest.param(encode_image(Image.new("LA", (160, 80), (120, 255))), id="grey-opaque-alpha"),
        pytest.param(encode_image(Image.new("I;16", (160, 80), 120 * 257)), id="16-bit-grey"),
        pytest.param(png_16_bit_colour(), id="16-bit-colour"),
        pytest.param(encode_image(palette(GREY)), id="palette"),
        pytest.param(encode_image(adobe_cmyk(), "JPEG"), id="cmyk"),
    ],
)
async def test_every_kind_of_pixel_becomes_the_same_grey(tmp_path: Path, data: bytes) -> None:
    """Not clipped to white, not inverted, not an index taken for a colour."""
    reference = await load_bytes(tmp_path, data)
    image = picture_of(reference)
    assert (reference.has_alpha, image.mode) == (False, "RGB")
    assert image.getpixel((20, 10)) == pytest.approx(GREY, abs=3)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(encode_image(palette(RED), transparency=0), id="palette"),
        pytest.param(encode_image(Image.new("RGB", (160, 80), RED), transparency=(0, 0, 0)), id="colour-key"),
    ],
)
async def test_transparency_that_no_pixel_uses_is_no_cut_out(tmp_path: Path, data: bytes) -> None:
    """It is said in the header, but the picture is opaque."""
    assert not (await load_bytes(tmp_path, data)).has_alpha


async def test_a_palette_with_a_hole_is_a_cut_out(tmp_path: Path) -> None:
    """Half of it shows through."""
    image = palette(RED)
    image.paste(0, (0, 0, 20, 20))
    reference = await load_bytes(tmp_path, encode_image(image, transparency=0))
    assert reference.has_alpha
    assert [picture_of(reference).getpixel(spot) for spot in ((5, 5), (35, 5))] == [(0, 0, 0, 0), (*RED, 255)]


async def test_a_colour_profile_is_applied_before_it_is_dropped(tmp_path: Path) -> None:
    """A picture whose profile says otherwise must not change its looks when the profile goes."""
    lab = ImageCms.createProfile("sRGB")
    profile = bytearray(ImageCms.ImageCmsProfile(lab).tobytes())
    red, blue = profile.index(b"rXYZ"), profile.index(b"bXYZ")
    profile[red : red + 4], profile[blue : blue + 4] = b"bXYZ", b"rXYZ"
    image = Image.new("RGB", (160, 80), (220, 20, 20))
    reference = await load_bytes(tmp_path, encode_image(image, icc_profile=bytes(profile)))
    pixel = picture_of(reference).getpixel((20, 10))
    assert isinstance(pixel, tuple)
    assert pixel[2] > 200
    assert pixel[0] < 60
    assert "icc_profile" not in picture_of(reference).info


async def test_a_broken_colour_profile_is_left_aside(tmp_path: Path) -> None:
    """The picture is whole without it."""
    reference = await load_bytes(tmp_path, encode_image(Image.new("RGB", (160, 80), RED), icc_profile=b"nonsense"))
    assert picture_of(reference).getpixel((20, 10)) == pytest.approx(RED, abs=6)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
async def test_a_truncated_picture_is_refused(tmp_path: Path, form: str, share: float) -> None:
    """Wherever it was cut; a half grey picture would cost a whole clip."""
    data = encode_image(make_noise((160, 80)), form)
    (tmp_path / "picture").write_bytes(data[: int(len(data) * share)])
    assert "damaged or cut" in await read_refusal("picture", tmp_path)


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
async def test_an_animation_is_refused(tmp_path: Path, form: str) -> None:
    """Which of its pictures is meant, nobody said."""
    frames = [Image.new("RGB", (160, 80), colour) for colour in (RED, GREEN)]
    (tmp_path / "picture").write_bytes(
        encode_image(frames[0], form, save_all=True, append_images=frames[1:], duration=100)
    )
    assert "animated" in await read_refusal("picture", tmp_path)


async def test_a_phones_two_in_one_jpeg_is_its_first_picture(tmp_path: Path) -> None:
    """MPO is what phones write for depth or gain maps; it is no animation."""
    data = encode_image(
        Image.new("RGB", (160, 80), RED), "MPO", save_all=True, append_images=[Image.new("RGB", (20, 10))]
    )
    reference = await load_bytes(tmp_path, data)
    assert picture_of(reference).getpixel((20, 10)) == pytest.approx(RED, abs=6)


def box(brand: bytes) -> bytes:
    return struct.pack(">I4s4sI8s", 24, b"ftyp", brand, 0, b"mif1" + brand) + bytes(400)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        pytest.param(encode_image(Image.new("RGB", (160, 80)), "GIF"), "but GIF: save it as JPEG or PNG", id="gif"),
        pytest.param(encode_image(Image.new("RGB", (160, 80)), "BMP"), "but BMP: save it as JPEG or PNG", id="bmp"),
        pytest.param(encode_image(Image.new("RGB", (160, 80)), "TIFF"), "but TIFF: save it as JPEG or PNG", id="tiff"),
        pytest.param(encode_image(Image.new("RGB", (160, 80)), "ICO", sizes=[(16, 16)]), "but ICO: save it", id="ico"),
        pytest.param(box(b"heic"), "but HEIC: a phone's own format; save it as JPEG or PNG", id="heic"),
        pytest.param(box(b"mif1"), "but HEIC: a phone's own format; save it as JPEG or PNG", id="heif"),
        pytest.param(box(b"avif"), "but AVIF: save it as JPEG or PNG", id="avif"),
        pytest.param(box(b"isom"), "but a video: take a picture out of it", id="video"),
        pytest.param(b'<svg xmlns="http://www.w3.org/2000/svg"/>', "but SVG, a drawing: export it as PNG", id="svg"),
        pytest.param(b'<?xml version="1.0"?>\n<!-- x -->\n<svg/>', "but SVG, a drawing", id="svg-with-a-head"),
        pytest.param(
            b"\n<!DOCTYPE html><title>Virus scan warning</title>", "but HTML: a web page was saved", id="html"
        ),
        pytest.param(b"version https://git-lfs.github.com/spec/v1\noid sha256:4d", "run `git lfs pull`", id="lfs"),
        pytest.param(b"%PDF-1.7", "but PDF: export the page as PNG", id="pdf"),
        pytest.param(b"PK\x03\x04....", "but ZIP: unpack it", id="zip"),
        pytest.param(b"8BPS\0\1", "but PSD: export it as PNG", id="psd"),
        pytest.param(b"Dear Sir or Madam", "not a PNG, JPEG or WEBP but text", id="text"),
        pytest.param(b"", "the file is empty", id="empty"),
        pytest.param(encode_image(Image.new("RGB", (160, 80)), "PPM"), "its format is unknown", id="ppm"),
    ],
)
async def test_what_is_no_picture_is_called_by_its_name(tmp_path: Path, data: bytes, says: str) -> None:
    """A name that ends in .png changes nothing; what to do is said, what the file says is not."""
    (tmp_path / "picture.png").write_bytes(data)
    message = await read_refusal("picture.png", tmp_path)
    assert message.startswith("not a PNG, JPEG or WEBP")
    assert says in message
    assert "Sir" not in message
    assert "Virus" not in message


@pytest.mark.parametrize("disk", ["NFC", "NFD"])
@pytest.mark.parametrize("asked", ["NFC", "NFD"])
async def test_a_name_is_found_however_its_accents_are_spelled(
    tmp_path: Path, disk: Literal["NFC", "NFD"], asked: Literal["NFC", "NFD"]
) -> None:
    """A file from a Mac, named by a job from a PC, and the reverse."""
    (tmp_path / unicodedata.normalize(disk, "Brücke")).mkdir()
    (tmp_path / unicodedata.normalize(disk, "Brücke/café.png")).write_bytes(PNG)
    assert (await load(unicodedata.normalize(asked, "Brücke/café.png"), tmp_path)).width == 160


@pytest.mark.parametrize("source", [f" {URL}", f"{URL}\n", f"\t{URL} "])
async def test_blanks_around_an_address_are_not_part_of_it(source: str) -> None:
    """It was pasted."""
    web = Web()
    loaded = await load_references([source], base_dir=None, resolve=Names([PUBLIC]), transport=web.transport())
    assert loaded[source].url == URL
    assert web.asked[0].url.path == "/keeper.png"


@pytest.mark.parametrize("source", ["", "  "])
async def test_an_empty_address_is_called_empty(tmp_path: Path, source: str) -> None:
    """Not a folder that is no regular file."""
    assert "an empty address" in await read_refusal(source, tmp_path)


async def test_a_wholly_transparent_picture_is_refused(tmp_path: Path) -> None:
    """There is nobody in it."""
    (tmp_path / "picture").write_bytes(encode_image(Image.new("RGBA", (160, 80))))
    assert "transparent" in await read_refusal("picture", tmp_path)


@pytest.mark.long_variants
@pytest.mark.parametrize(
    ("make", "says"),
    [
        pytest.param(lambda: png_bomb(9000, 9000), "81 megapixels; a PNG may have 40", id="below-pillows-own-guard"),
        pytest.param(lambda: png_bomb(60000, 60000), "3600 megapixels", id="far-above"),
        pytest.param(lambda: png_bomb(8000, 5008), "40 megapixels", id="just-above"),
        pytest.param(
            lambda: encode_image(Image.new("L", (6200, 5000)), "WEBP"), "31 megapixels; a WEBP may have 30", id="webp"
        ),
        pytest.param(
            lambda: encode_image(Image.new("L", (6000, 5200)), "JPEG", progressive=True),
            "31 megapixels; a progressive JPEG may have 30",
            id="progressive",
        ),
    ],
)
async def test_a_bomb_is_refused_by_its_header(tmp_path: Path, make: Callable[[], bytes], says: str) -> None:
    """Nothing of it is decoded."""
    (tmp_path / "picture").write_bytes(make())
    assert says in await read_refusal("picture", tmp_path)


PEAK = """
import asyncio, sys
from pathlib import Path
from videogen.references.fetch import load_references
asyncio.run(load_references(sys.argv[2:], base_dir=Path(sys.argv[1])))
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""


def large_webp(size: tuple[int, int], mode: str, **options: object) -> bytes:
    image = Image.new(mode, size, (30, 60, 200, 120)[: len(mode)])
    image.paste((220, 30, 30, 255)[: len(mode)], (size[0] // 2, 0, *size))
    return encode_image(image, "WEBP", method=0, **options)


@pytest.mark.long_variants
@pytest.mark.parametrize(
    ("make", "size"),
    [
        pytest.param(
            lambda: encode_image(make_halves((6000, 4000)), "JPEG", quality=70), (3000, 2000), id="24-megapixel-jpeg"
        ),
        pytest.param(
            lambda: encode_image(make_halves((6000, 4000)), "JPEG", quality=70, progressive=True),
            (3000, 2000),
            id="progressive",
        ),
        pytest.param(
            lambda: encode_image(make_halves((8400, 6000)), "JPEG", quality=30),
            (4200 // 2, 3000 // 2),
            id="50-megapixel-jpeg",
        ),
        pytest.param(lambda: large_webp((4096, 4096), "RGB", quality=40), (4096, 4096), id="17-megapixel-webp"),
        pytest.param(lambda: large_webp((6000, 4000), "RGB", lossless=True), (3000, 2000), id="24-megapixel-lossless"),
        pytest.param(lambda: large_webp((4200, 3000), "RGBA", quality=40), (2100, 1500), id="see-through"),
    ],
)
async def test_what_cameras_and_upscalers_make_is_taken(
    tmp_path: Path, make: Callable[[], bytes], size: tuple[int, int]
) -> None:
    """It is reduced while it is decoded; the digest is that of the original."""
    data = make()
    reference = await load_bytes(tmp_path, data)
    image = picture_of(reference)
    assert (reference.width, reference.height) == image.size == size
    assert reference.digest == hashlib.sha256(data).hexdigest()
    left, right = image.getpixel((size[0] // 4, size[1] // 2)), image.getpixel((size[0] * 3 // 4, size[1] // 2))
    assert left == pytest.approx((30, 60, 200, 120)[: len(image.mode)], abs=8)
    assert right == pytest.approx((220, 30, 30, 255)[: len(image.mode)], abs=8)


@pytest.mark.long_variants
@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
async def test_a_large_webp_that_is_cut_is_refused(tmp_path: Path, share: float) -> None:
    """As a small one is."""
    data = encode_image(make_noise((512, 512)).resize((4000, 3000)), "WEBP", quality=60, method=0)
    (tmp_path / "picture").write_bytes(data[: int(len(data) * share)])
    assert "damaged or cut" in await read_refusal("picture", tmp_path)


@pytest.fixture(scope="module")
def largest_pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures of up to forty megapixels of four bytes, on their side: a.png to e.webp."""
    folder = tmp_path_factory.mktemp("largest")
    wide = Image.new("RGBA", (8000, 5000), (9, 9, 9, 99))
    wide.save(folder / "a.png", compress_level=1, exif=make_exif(6))
    Image.new("CMYK", (8000, 5000), (9, 9, 9, 99)).save(folder / "b.jpg", exif=make_exif(6))
    make_halves((6000, 5000)).save(folder / "c.jpg", progressive=True, subsampling=0)
    make_halves((12_000, 10_000)).save(folder / "d.jpg", quality=30)
    (folder / "e.webp").write_bytes(large_webp((7000, 4200), "RGBA", quality=10))
    return folder


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak from /proc")
@pytest.mark.xdist_group("largest_pictures")
@pytest.mark.parametrize("order", ["bec", "abcde", "ecadb", "cdeab"])
@pytest.mark.long
async def test_the_largest_pictures_stay_under_300_mb(largest_pictures: Path, order: str) -> None:
    """They are decoded one after the other, never copied whole, and what one needed is given back before the next."""
    names = sorted((path.name for path in largest_pictures.iterdir()), key=lambda name: order.find(name[0]))
    names = [name for name in names if name[0] in order]
    command = [sys.executable, "-c", PEAK, str(largest_pictures), *names]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=True)
    assert int(done.stdout) * 1024 < 300_000_000


async def test_a_large_picture_is_reduced(tmp_path: Path) -> None:
    """No model takes more, and what is kept for a whole job has to be small."""
    image = Image.new("RGB", (5000, 1000), BLUE)
    image.paste(RED, (3000, 600, 5000, 1000))
    image.save(tmp_path / "a.png")
    reference = await load("a.png", tmp_path)
    assert (reference.width, reference.height) == picture_of(reference).size == (2500, 500)
    assert spot(picture_of(reference), RED) == pytest.approx((1500, 300, 2500, 500), abs=1)
