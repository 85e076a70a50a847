"""Decode a picture that somebody else wrote, and turn it into a small, upright image in sRGB."""

import hashlib
import io
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

from videogen.posix import release_memory
from videogen.references.cut_out import has_plain_border

if TYPE_CHECKING:
    from av.video.frame import VideoFrame
    from PIL import Image

MAX_BYTES = 20_000_000
MAX_MEGAPIXELS = 40
"""Limit for PNG. JPEG may have more because it is reduced while it is decoded, see `_MAX_MEGAPIXELS_BY_KIND`."""
MIN_EDGE_PX = 64
"""A picture with a shorter side shows a video model nothing. Models that document a minimum ask for more: Kling for
300 px, which start frames have."""
MAX_EDGE_PX = 4096
"""Larger images are reduced by a whole factor: no video model takes more than 1080 lines."""
MAX_NOISE = 3
"""Difference of the pixels in a picture of one colour, of 255."""
MediaType: TypeAlias = Literal["image/jpeg", "image/png"]

PictureFile: TypeAlias = io.BytesIO | io.BufferedReader | io.BufferedRandom


@dataclass(frozen=True, slots=True)
class ReferenceImage:
    """One picture that is ready to be sent or composed."""

    source: str = field(repr=False)
    """As written in the job."""
    digest: str
    """SHA-256, in hex, of the original bytes. A clip's key is derived from it."""
    width: int
    height: int
    """In pixels, as is `width`, of `data`: upright, and reduced if the original was larger than `MAX_EDGE_PX`."""
    has_alpha: bool
    """Whether the picture is a cut-out: some pixel is not opaque."""
    data: bytes = field(repr=False)
    """Upright RGB JPEG, or RGBA PNG when `has_alpha`, without metadata."""
    media_type: MediaType
    url: str | None = field(default=None, repr=False)
    """The public https URL of exactly this picture. None for files, `data:` URLs, and pictures that had to be changed:
    rotated, reduced, stripped of metadata, or converted from colours or a format that few models take."""
    can_be_cut_out: bool = False
    """Whether the picture is opaque and shows a figure before a plain background."""
    is_one_colour: bool = False
    """Whether all pixels are alike, so that there is nothing to see."""


class UnusablePictureError(Exception):
    """The source cannot be used. The message says why."""


def make_too_large_error() -> UnusablePictureError:
    return UnusablePictureError(f"more than {MAX_BYTES // 1_000_000} MB")


# --- decoding pictures


def read_image(source: str, file: PictureFile, url: str | None) -> ReferenceImage:
    """Decode a picture, rotate it upright, and encode it again without metadata."""
    if file.seek(0, os.SEEK_END) > MAX_BYTES:
        raise make_too_large_error()
    file.seek(0)
    digest = hashlib.file_digest(file, "sha256").hexdigest()
    try:
        image, is_plain = _decode_upright(file)
    finally:
        release_memory()
    has_alpha = image.mode == "RGBA"
    data = encode_image(image, "PNG") if has_alpha else encode_image(image, "JPEG", quality=92)
    media_type: MediaType = "image/png" if has_alpha else "image/jpeg"
    public_url = url if is_plain else None
    return ReferenceImage(
        source,
        digest,
        *image.size,
        has_alpha,
        data,
        media_type,
        public_url,
        can_be_cut_out=not has_alpha and has_plain_border(image),
        is_one_colour=_is_one_colour(image),
    )


def _is_one_colour(image: "Image.Image") -> bool:
    """Return whether all pixels are alike, also in their opacity, but for the noise of JPEG."""
    from PIL import ImageStat

    return all(high - low <= MAX_NOISE for low, high in ImageStat.Stat(image).extrema)


def encode_image(image: "Image.Image", form: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def _decode_upright(file: PictureFile) -> "tuple[Image.Image, bool]":
    """Decode a picture to RGB, or to RGBA when a pixel is not opaque, rotated as its EXIF says and without metadata.

    Also return whether it was a PNG or JPEG that can be given to a model unchanged.
    """
    from PIL import ExifTags

    with _open_image(file) as image:
        size = image.size
        try:
            turn = image.getexif().get(ExifTags.Base.Orientation)
            flat = (
                _decode_large_webp(file, size) if _is_large_webp(image) else _convert_to_8bit_rgb(_load_pixels(image))
            )
        except UnusablePictureError:
            raise
        except Exception as exc:  # Pillow raises OSError, SyntaxError, ValueError, struct.error and more
            raise UnusablePictureError(f"damaged or cut {image.format}: {exc}") from exc
        is_plain = image.format in ("PNG", "JPEG") and image.mode in ("RGB", "RGBA", "L") and flat.size == size
        is_plain = is_plain and not image.getexif() and not image.info.get("icc_profile")
    del image  # free the original, which is larger than the reduced copy
    if flat.mode == "RGBA":
        darkest, lightest = flat.getchannel("A").getextrema()
        if not lightest:
            raise UnusablePictureError("fully transparent: there is nothing to see")
        if darkest == 255:
            flat = flat.convert("RGB")
    method = _get_transposes().get(turn)
    return flat.transpose(method) if method is not None else flat, is_plain


def _load_pixels(image: "Image.Image") -> "Image.Image":
    """Decode a picture. A large JPEG is reduced by 2, 4 or 8 meanwhile, so that it never takes its full size."""
    if image.format == "JPEG" and max(image.size) > MAX_EDGE_PX:
        edges = image.width // 2, image.height // 2
        factor = 2
        while max(edges) > MAX_EDGE_PX and factor < 8:
            edges = edges[0] // 2, edges[1] // 2
            factor *= 2
        image.draft(None, edges)
    image.load()
    return image


def _is_large_webp(image: "Image.Image") -> bool:
    return image.format == "WEBP" and image.width * image.height > _MAX_PILLOW_WEBP_MP * 1_000_000


def _decode_large_webp(file: PictureFile, size: tuple[int, int]) -> "Image.Image":
    """Decode and reduce a WEBP with FFmpeg, which keeps one copy of it in memory. Pillow keeps four, of four bytes a
    pixel."""
    import av

    factor = math.ceil(max(size) / MAX_EDGE_PX)
    file.seek(0)
    try:
        with av.open(file, mode="r", format="webp_pipe") as container:
            container.streams.video[0].thread_type = "NONE"  # each thread would hold a picture of its own
            frame = next(container.decode(video=0))
    except (av.FFmpegError, StopIteration) as exc:
        raise UnusablePictureError(f"damaged or cut WEBP: {exc}") from exc
    if (frame.width, frame.height) != size or frame.is_corrupt:
        raise UnusablePictureError("damaged or cut WEBP")
    has_alpha = frame.format.name in ("yuva420p", "argb", "bgra", "rgba")
    reduced = frame.reformat(
        width=math.ceil(size[0] / factor),
        height=math.ceil(size[1] / factor),
        format="rgba" if has_alpha else "rgb24",
        src_colorspace="ITU601" if frame.format.name.startswith("yuv") else None,
        interpolation="AREA" if factor > 1 else None,
    )
    return _convert_frame(reduced, "RGBA" if has_alpha else "RGB")


def _convert_frame(frame: "VideoFrame", mode: str) -> "Image.Image":
    from PIL import Image

    plane = frame.planes[0]
    return Image.frombytes(mode, (frame.width, frame.height), memoryview(plane), "raw", mode, plane.line_size, 1)


def _open_image(file: PictureFile) -> "Image.Image":
    """Open a picture of a supported format and check its size, without decoding it.

    The first bytes select the plugin. `Image.open` would try others, too, and its own guard against decompression
    bombs only warns below 179 megapixels.
    """
    from PIL.JpegImagePlugin import JpegImageFile
    from PIL.PngImagePlugin import PngImageFile
    from PIL.WebPImagePlugin import WebPImageFile

    file.seek(0)
    head = file.read(512)
    file.seek(0)
    try:
        if head.startswith(b"\x89PNG\r\n\x1a\n"):
            image: Image.Image = PngImageFile(file)
        elif head.startswith(b"\xff\xd8\xff"):
            image = JpegImageFile(file)
        elif head[:4] == b"RIFF" and head[8:12] == b"WEBP":
            image = WebPImageFile(file)
        else:
            raise UnusablePictureError(f"not a PNG, JPEG or WEBP{_describe_other_kind(head)}")
    except UnusablePictureError:
        raise
    except Exception as exc:
        raise UnusablePictureError(f"damaged or cut: {exc}") from exc
    _check_size(image)
    return image


_MAX_MEGAPIXELS_BY_KIND = {"PNG": MAX_MEGAPIXELS, "JPEG": 120, "progressive JPEG": 30, "WEBP": 30}
"""While it is decoded, a progressive JPEG keeps all its coefficients of two bytes each, and a WEBP keeps its
transparency separately."""
_MAX_PILLOW_WEBP_MP = 10


def _describe_other_kind(head: bytes) -> str:
    """Return the name of the format that these first bytes belong to, with advice, as the end of a message."""
    if not head:
        return ": the file is empty"
    for at, magic, name, advice in _OTHER_KINDS:
        if head[at : at + len(magic)] == magic:
            return f" but {name}: {advice}"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if b"<svg" in text:
        return " but SVG, a drawing: export it as PNG"
    if text.startswith((b"<!doctype", b"<html", b"<head", b"<?xml", b"<")):
        return " but HTML: a web page was saved in place of the picture, download the picture itself"
    if text and all(byte >= 32 or byte in b"\t\r\n" for byte in text):
        return " but text"
    return ": its format is unknown; save it as PNG or JPEG"


_RESAVE = "save it as JPEG or PNG"
_OTHER_KINDS = (
    (0, b"version https://git-lfs", "a Git LFS pointer", "the picture was not fetched; run `git lfs pull`"),
    *(
        (4, b"ftyp" + brand, "HEIC", f"a phone's own format; {_RESAVE}")
        for brand in (b"heic", b"heix", b"heim", b"heis")
    ),
    *((4, b"ftyp" + brand, "AVIF", _RESAVE) for brand in (b"avif", b"avis")),
    *(
        (4, b"ftyp" + brand, "HEIC", f"a phone's own format; {_RESAVE}")
        for brand in (b"mif1", b"msf1", b"hevc", b"hevx")
    ),
    (4, b"ftyp", "a video", "take a picture out of it"),
    (0, b"GIF8", "GIF", _RESAVE),
    (0, b"BM", "BMP", _RESAVE),
    (0, b"II*\0", "TIFF", _RESAVE),
    (0, b"MM\0*", "TIFF", _RESAVE),
    (0, b"8BPS", "PSD", "export it as PNG"),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL", _RESAVE),
    (0, b"\xff\x0a", "JPEG XL", _RESAVE),
    (0, b"\0\0\0\x0cjP  ", "JPEG 2000", _RESAVE),
    (0, b"\0\0\1\0", "ICO", _RESAVE),
    (0, b"%PDF", "PDF", "export the page as PNG"),
    (0, b"PK\x03\x04", "ZIP", "unpack it and name a picture in it"),
    (0, b"\x1f\x8b", "gzip", "unpack it"),
    (0, b"\x1a\x45\xdf\xa3", "WebM or Matroska", "take a picture out of it"),
    (0, b"gimp xcf", "XCF", "export it as PNG"),
)


def _check_size(image: "Image.Image") -> None:
    kind = "progressive JPEG" if image.info.get("progressive") else image.format or ""
    if image.width * image.height > _MAX_MEGAPIXELS_BY_KIND[kind] * 1_000_000:
        megapixels = image.width * image.height / 1_000_000
        raise UnusablePictureError(f"{megapixels:.0f} megapixels; a {kind} may have {_MAX_MEGAPIXELS_BY_KIND[kind]}")
    if min(image.size) < MIN_EDGE_PX:
        raise UnusablePictureError(
            f"only {image.width}x{image.height} px; give a picture of at least {MIN_EDGE_PX} px in width and height"
        )
    if getattr(image, "is_animated", False):
        raise UnusablePictureError("an animated picture; use a still one")


def _convert_to_8bit_rgb(image: "Image.Image") -> "Image.Image":
    """Convert a picture to 8-bit RGB(A) of at most `MAX_EDGE_PX`.

    This works in strips, because a second full copy of a large picture would take too much memory.
    """
    from PIL import Image

    to_srgb = _make_srgb_converter(image)
    mode = "RGBA" if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info else "RGB"
    factor = math.ceil(max(image.size) / MAX_EDGE_PX)
    flat = Image.new(mode, (math.ceil(image.width / factor), math.ceil(image.height / factor)))
    rows = 64 * factor
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        strip.info = image.info
        strip = to_srgb(strip, mode)
        flat.paste(strip.reduce(factor) if factor > 1 else strip, (0, top // factor))
    return flat


def _make_srgb_converter(image: "Image.Image") -> "Callable[[Image.Image, str], Image.Image]":
    """Return a function that converts a piece of `image` to sRGB in a mode, by its colour profile if that is usable."""
    from PIL import ImageCms

    def convert_plainly(piece: "Image.Image", mode: str) -> "Image.Image":
        if piece.mode.startswith("I"):
            piece = piece.point(lambda value: value * (1 / 257)).convert("L")  # 16 bits
        return piece.convert(mode)

    profile = image.info.get("icc_profile")
    if not profile or image.mode not in ("RGB", "CMYK"):
        return convert_plainly
    try:
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB"), image.mode, "RGB"
        )
    except (ImageCms.PyCMSError, OSError):
        return convert_plainly
    return lambda piece, mode: (ImageCms.applyTransform(piece, transform) or piece).convert(mode)


def _get_transposes() -> "dict[int | None, Image.Transpose]":
    """Return the operation that undoes each EXIF orientation."""
    from PIL.Image import Transpose

    return {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
