"""Fetch reference images safely and compose start frames from them.

Sources are untrusted: URLs may point into our own network, and files may contain anything. The resulting pictures are
small and upright, with 8 bits per channel and no metadata. httpx and Pillow are imported when they are first needed.
"""

import asyncio
import base64
import binascii
import hashlib
import io
import math
import os
import socket
import ssl
import stat
import tempfile
import unicodedata
from collections.abc import AsyncIterator, Awaitable, Callable, Container, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias
from urllib.parse import unquote_to_bytes

from videogen.addresses import is_public
from videogen.certificates import load_certificates
from videogen.clip import ClipRequest
from videogen.cut_out import cut_out, has_plain_border
from videogen.errors import Problem, ValidationError
from videogen.posix import SAFE_OPEN_FLAGS, release_memory
from videogen.scene import display_name, is_url

if TYPE_CHECKING:
    import httpx
    from av.video.frame import VideoFrame
    from PIL import Image

MAX_BYTES = 20_000_000
MAX_MEGAPIXELS = 40
"""Limit for PNG. JPEG may have more because it is reduced while it is decoded, see `_MAX_MEGAPIXELS_BY_KIND`."""
MAX_EDGE_PX = 4096
"""Larger images are reduced by a whole factor: no video model takes more than 1080 lines."""
MAX_FRAME_BYTES = 3_000_000
"""Limit for a composed frame. Pictures that are too large for a `data:` URL are uploaded in full quality."""

Resolver: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]
"""A function from a host and a port to all addresses of the host. Raises OSError when there are none."""
MediaType: TypeAlias = Literal["image/jpeg", "image/png"]

_File: TypeAlias = io.BytesIO | io.BufferedReader | io.BufferedRandom

_MAX_CONCURRENT = 8
_MAX_TRIES = 3
_RETRY_DELAY_S = 0.2
_MAX_REDIRECTS = 3
_FETCH_TIMEOUT_S = 30.0
_READ_TIMEOUT_S = 10.0
_ADVICE = "use a public https URL, a data: URL or a file beside the job"
_CERTIFICATE_ADVICE = "; where the network has a certificate authority of its own, name its file in SSL_CERT_FILE"
_PROXY_VARIABLES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")


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


async def load_references(
    sources: Iterable[str],
    *,
    base_dir: Path | None,
    allow_private: bool = False,
    resolve: Resolver | None = None,
    transport: "httpx.AsyncBaseTransport | None" = None,
) -> dict[str, ReferenceImage]:
    """Load each distinct source once and return the pictures by source.

    A source is an https URL, a `data:` URL, or a path relative to `base_dir`. A path that is written as lying inside
    `base_dir` must also lie there once its symbolic links are resolved. A path that is written as leading elsewhere
    (absolute, `..`) must not be a link itself. Without a `base_dir` no file is read. `allow_private` admits http and
    addresses that are not public. Use it for tests and emulators, never for untrusted jobs. `resolve` and `transport`
    replace DNS and the network.

    Raises:
        ValidationError: it has one problem for each source that cannot be used, located at `display_name(source)`.
    """
    loader = _Loader(base_dir, allow_private, resolve or _system_resolve, transport)
    distinct = list(dict.fromkeys(sources))
    results = await asyncio.gather(*(loader.load(source) for source in distinct))
    problems = [result for result in results if isinstance(result, Problem)]
    if problems:
        raise ValidationError(problems)
    return {result.source: result for result in results if isinstance(result, ReferenceImage)}


class _UnusableError(Exception):
    """The source cannot be used. The message says why."""


class _TransientError(_UnusableError):
    """The source could not be fetched this time; another try may succeed."""


class _Loader:
    def __init__(
        self,
        base_dir: Path | None,
        allow_private: bool,
        resolve: Resolver,
        transport: "httpx.AsyncBaseTransport | None",
    ) -> None:
        self._base_dir = base_dir
        self._allow_private = allow_private
        self._resolve = resolve
        self._transport = transport
        self._slots = asyncio.Semaphore(_MAX_CONCURRENT)
        # One thread, because a picture of 40 megapixels takes 160 MB while it is decoded, and each thread keeps some of
        # the memory that it frees. Pictures that wait for the thread are on the disk.
        self._decoder = ThreadPoolExecutor(1, thread_name_prefix="pictures")

    @cached_property
    def _certificates(self) -> ssl.SSLContext:
        return load_certificates()

    async def load(self, source: str) -> ReferenceImage | Problem:
        try:
            async with self._slots, self._open(source) as (file, url):
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(self._decoder, _read_image, source, file, url)
        except _UnusableError as exc:
            return Problem(str(exc), where=display_name(source))

    @asynccontextmanager
    async def _open(self, source: str) -> AsyncIterator[tuple[_File, str | None]]:
        """Provide a file with the bytes of `source`, and the URL at which they are public; None where they are not."""
        address = source.strip()  # URLs are pasted with blanks around them; a file's name may really have blanks
        if address[:5].lower() == "data:":
            yield io.BytesIO(_decode_data_url(address)), None
        elif is_url(address):
            with tempfile.TemporaryFile() as file:
                public = await self._fetch(address, file)
                yield file, address if public else None
        else:
            with _open_file(source, self._base_dir) as file:
                yield file, None

    async def _fetch(self, source: str, file: _File) -> bool:
        """Download `source` to `file`. Return whether it came by https from public addresses only."""
        import httpx

        try:
            # Connections are not kept: they are pooled by address, which may serve several hosts and certificates.
            async with (
                asyncio.timeout(_FETCH_TIMEOUT_S),
                httpx.AsyncClient(
                    trust_env=False,
                    verify=self._certificates,
                    transport=self._transport,
                    timeout=httpx.Timeout(_READ_TIMEOUT_S),
                    limits=httpx.Limits(max_keepalive_connections=0),
                ) as client,
            ):
                return await self._fetch_with_retries(client, source, file)
        except TimeoutError:
            raise _UnusableError(f"took longer than {_FETCH_TIMEOUT_S:.0f} s to fetch") from None

    async def _fetch_with_retries(self, client: "httpx.AsyncClient", source: str, file: _File) -> bool:
        for tried in range(1, _MAX_TRIES + 1):
            try:
                file.seek(0)
                file.truncate()
                return await self._fetch_once(client, source, file)
            except _TransientError:
                if tried == _MAX_TRIES:
                    raise
                await asyncio.sleep(_RETRY_DELAY_S * tried)
        raise AssertionError

    async def _fetch_once(self, client: "httpx.AsyncClient", source: str, file: _File) -> bool:
        import httpx

        try:
            target = httpx.URL(source)
            public = True
            for _ in range(_MAX_REDIRECTS + 1):
                addresses = await self._resolve_and_check(target)
                public = public and target.scheme == "https" and all(map(is_public, addresses))
                response = await _send_pinned(client, target, addresses)
                try:
                    if not response.has_redirect_location:
                        await _read_capped(response, file)
                        return public
                    target = target.join(response.headers["Location"])
                finally:
                    await response.aclose()
        except (httpx.InvalidURL, UnicodeError) as exc:  # UnicodeError comes from a host that no rule of IDNA allows
            raise _UnusableError(f"not a valid URL: {exc}") from exc
        except httpx.TimeoutException as exc:
            raise _TransientError(f"no answer within {_READ_TIMEOUT_S:.0f} s{_advise_on_proxy()}") from exc
        except httpx.TransportError as exc:
            advice = _CERTIFICATE_ADVICE if "CERTIFICATE_VERIFY_FAILED" in str(exc) else _advise_on_proxy()
            raise _TransientError(f"cannot be fetched: {exc}{advice}") from exc
        raise _UnusableError(f"redirected more than {_MAX_REDIRECTS} times")

    async def _resolve_and_check(self, target: "httpx.URL") -> Sequence[str]:
        """Return the addresses of the host, all of them checked.

        The name is resolved only once, so that a later answer of DNS cannot differ from the checked one.
        """
        if target.scheme != "https" and not (self._allow_private and target.scheme == "http"):
            raise _UnusableError(f"{target.scheme}: URLs are not fetched; {_ADVICE}")
        if not target.host or target.userinfo:
            raise _UnusableError(f"a URL {'with a password' if target.host else 'without a host'}; {_ADVICE}")
        if target.port is not None and not 0 < target.port < 65536:
            raise _UnusableError(f"a URL with the invalid port {target.port}; {_ADVICE}")
        try:
            addresses = await self._resolve(target.host, target.port or (443 if target.scheme == "https" else 80))
        except (OSError, UnicodeError) as exc:
            raise _TransientError(f"host {target.host!r} is not known{_advise_on_proxy()}") from exc
        private = [address for address in addresses if not is_public(address)]
        if not addresses or (private and not self._allow_private):
            raise _UnusableError(f"host {target.host!r} is at {', '.join(private)}, not a public address; {_ADVICE}")
        return addresses


def _advise_on_proxy() -> str:
    """Return advice when a proxy is configured, else an empty string.

    Pictures are not fetched through a proxy, because it would connect to addresses that were not checked.
    """
    named = next((name for name in _PROXY_VARIABLES if os.environ.get(name)), None)
    if named is None:
        return ""
    return f"; {named} is set, but pictures are not fetched through a proxy: use a data: URL or a file beside the job"


# --- reading sources


async def _system_resolve(host: str, port: int) -> Sequence[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


async def _send_pinned(client: "httpx.AsyncClient", target: "httpx.URL", addresses: Sequence[str]) -> "httpx.Response":
    """Send a GET to the first of the checked addresses that answers. The Host header and certificate are the name's."""
    import httpx

    failure: httpx.TransportError = httpx.ConnectError("no address")
    for address in addresses:
        request = client.build_request(
            "GET",
            target.copy_with(host=address),
            headers={"Host": target.netloc.decode(), "Accept": "image/*", "Accept-Encoding": "identity"},
            extensions={"sni_hostname": target.raw_host.decode()},
        )
        try:
            return await client.send(request, stream=True)
        except (httpx.ConnectError, httpx.ConnectTimeout) as exc:
            failure = exc
    raise failure


async def _read_capped(response: "httpx.Response", file: _File) -> None:
    """Write the body to `file`, up to the size limit.

    A compressed body, which was not requested, is refused: it could expand without end.
    """
    if response.status_code != 200:
        kind = _TransientError if response.status_code in (408, 429) or response.status_code >= 500 else _UnusableError
        raise kind(f"answered {response.status_code} {response.reason_phrase}".rstrip())
    coding = response.headers.get("Content-Encoding", "identity")
    if coding != "identity":
        raise _UnusableError(f"answered in {coding[:20]!r} encoding, which was not requested")
    async for chunk in response.aiter_bytes():
        file.write(chunk)
        if file.tell() > MAX_BYTES:
            raise _make_too_large_error()


def _decode_data_url(source: str) -> bytes:
    """Return the bytes in a `data:` URL. Its media type is ignored, the bytes decide."""
    head, comma, body = source.partition(",")
    if not comma:
        raise _UnusableError("a data: URL without a comma")
    data = unquote_to_bytes(body)
    if head.lower().endswith(";base64"):
        try:
            data = base64.b64decode(b"".join(data.split()), validate=True)
        except binascii.Error as exc:
            raise _UnusableError(f"a data: URL that is not base64: {exc}") from exc
    return data


def _open_file(source: str, base_dir: Path | None) -> _File:
    """Open the regular file that `source` names. Other kinds, such as a fifo that would block, are refused."""
    if base_dir is None:
        raise _UnusableError("files are not read here; use an https or data: URL")
    if not source.strip():
        raise _UnusableError(f"an empty address; {_ADVICE}")
    source = os.fsdecode(source.encode(errors="surrogateescape"))  # where names of files are not in UTF-8 here
    try:
        path = _resolve_path(_find_spelling(source, base_dir), base_dir)
        handle = os.open(path, os.O_RDONLY | SAFE_OPEN_FLAGS)
    except FileNotFoundError:
        raise _UnusableError(f"there is no such file in {base_dir}") from None
    except (OSError, ValueError, RuntimeError) as exc:
        raise _UnusableError(f"cannot be opened: {getattr(exc, 'strerror', None) or exc}") from exc
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise _UnusableError("not a regular file")
    return os.fdopen(handle, "rb")


def _find_spelling(source: str, base_dir: Path) -> str:
    """Return the name as the disk spells it: "é" may be one character or, from a Mac, two that look like it."""
    forms: tuple[Literal["NFC", "NFD"], ...] = ("NFC", "NFD")
    spellings = (source, *(unicodedata.normalize(form, source) for form in forms))
    return next((each for each in spellings if os.path.lexists(base_dir / each)), source)


def _resolve_path(source: str, base_dir: Path) -> Path:
    base = Path(os.path.normpath(base_dir.absolute()))
    written = Path(os.path.normpath(base / source))
    resolved = written.resolve(strict=True)
    if written.is_relative_to(base):
        if not resolved.is_relative_to(base.resolve()):
            raise _UnusableError("a symbolic link that leads out of the job's folder; name the file itself")
    elif written.is_symlink():
        raise _UnusableError("a symbolic link outside the job's folder; name the file itself")
    return resolved


def _make_too_large_error() -> _UnusableError:
    return _UnusableError(f"more than {MAX_BYTES // 1_000_000} MB")


# --- decoding pictures


def _read_image(source: str, file: _File, url: str | None) -> ReferenceImage:
    """Decode a picture, rotate it upright, and encode it again without metadata."""
    if file.seek(0, os.SEEK_END) > MAX_BYTES:
        raise _make_too_large_error()
    file.seek(0)
    digest = hashlib.file_digest(file, "sha256").hexdigest()
    try:
        image, is_plain = _decode_upright(file)
    finally:
        release_memory()
    has_alpha = image.mode == "RGBA"
    data = _encode(image, "PNG") if has_alpha else _encode(image, "JPEG", quality=92)
    media_type: MediaType = "image/png" if has_alpha else "image/jpeg"
    public_url = url if is_plain else None
    can_be_cut_out = not has_alpha and has_plain_border(image)
    return ReferenceImage(source, digest, *image.size, has_alpha, data, media_type, public_url, can_be_cut_out)


def _encode(image: "Image.Image", form: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def _decode_upright(file: _File) -> "tuple[Image.Image, bool]":
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
        except _UnusableError:
            raise
        except Exception as exc:  # Pillow raises OSError, SyntaxError, ValueError, struct.error and more
            raise _UnusableError(f"damaged or cut {image.format}: {exc}") from exc
        is_plain = image.format in ("PNG", "JPEG") and image.mode in ("RGB", "RGBA", "L") and flat.size == size
        is_plain = is_plain and not image.getexif() and not image.info.get("icc_profile")
    del image  # free the original, which is larger than the reduced copy
    if flat.mode == "RGBA":
        darkest, lightest = flat.getchannel("A").getextrema()
        if not lightest:
            raise _UnusableError("fully transparent: there is nothing to see")
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


def _decode_large_webp(file: _File, size: tuple[int, int]) -> "Image.Image":
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
        raise _UnusableError(f"damaged or cut WEBP: {exc}") from exc
    if (frame.width, frame.height) != size or frame.is_corrupt:
        raise _UnusableError("damaged or cut WEBP")
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


def _open_image(file: _File) -> "Image.Image":
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
            raise _UnusableError(f"not a PNG, JPEG or WEBP{_describe_other_kind(head)}")
    except _UnusableError:
        raise
    except Exception as exc:
        raise _UnusableError(f"damaged or cut: {exc}") from exc
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
        raise _UnusableError(f"{megapixels:.0f} megapixels; a {kind} may have {_MAX_MEGAPIXELS_BY_KIND[kind]}")
    if getattr(image, "is_animated", False):
        raise _UnusableError("an animated picture; use a still one")


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


# --- start frames


def warn_about_cards(requests: Iterable[ClipRequest], references: Mapping[str, ReferenceImage]) -> Iterator[str]:
    """Yield a warning for each character that is no cut-out, saying how the start frames show it."""
    by_digest = {reference.digest: reference for reference in references.values()}
    scenes: dict[tuple[str, bool], list[str]] = {}
    for request in requests:
        for image in request.images.values():
            if image.size is None or (image.background is None and len(image.characters) == 1):
                continue
            for digest in dict.fromkeys(image.characters):
                if not by_digest[digest].has_alpha:
                    scenes.setdefault((digest, digest in image.cut_outs), []).append(request.scene.id)
    for (digest, is_cut_out), ids in scenes.items():
        shown = ", ".join(ids[:5]) + (f" and {len(ids) - 5} more" if len(ids) > 5 else "")
        what = (
            "its plain background is cut away"
            if is_cut_out
            else "it is pasted as a card; give a PNG with a transparent background to let the figure stand in the scene"
        )
        name = display_name(by_digest[digest].source)
        yield f"{name} is opaque: {what} ({shown}). Look at it with `videogen plan --frames FOLDER`"


def compose_frame(
    *,
    size: tuple[int, int],
    background: ReferenceImage | None,
    characters: Sequence[ReferenceImage],
    cut_outs: Container[str] = (),
) -> bytes:
    """Compose a start frame and return it as a JPEG of `size` (width, height in pixels).

    `background` covers the frame, and `characters` stand before it, left to right. Cut-outs stand on the lower edge.
    Opaque characters whose digests are in `cut_outs` are cut out of their plain background first; other opaque pictures
    hang as cards. Figures never cover each other, so many of them become small. Without a background, a single opaque
    character covers the frame itself, and several stand before a soft gradient of their own colours. The same pictures
    always give the same bytes. The quality is lowered until the JPEG fits `MAX_FRAME_BYTES`.
    """
    if background is None and len(characters) == 1 and not characters[0].has_alpha:
        background, characters = characters[0], ()
    figures = [_load_figure(character, character.digest in cut_outs) for character in characters]
    frame = _make_covering_background(background, size) if background else _make_backdrop(figures, size)
    for figure, box in zip(figures, _lay_out_row(size, figures), strict=True):
        _paste_figure(frame, figure, box)
    return _encode_within_limit(frame)


_Box: TypeAlias = tuple[int, int, int, int]
"""Left, top, width, height in pixels."""


def _decode(picture: ReferenceImage) -> "Image.Image":
    from PIL import Image

    image = Image.open(io.BytesIO(picture.data), formats=("JPEG", "PNG"))
    image.load()
    return image


def _load_figure(character: ReferenceImage, is_cut_out: bool) -> "Image.Image":
    """Load a cut-out without its empty margins (mode RGBA), or a whole picture (mode RGB)."""
    image = _decode(character)
    if is_cut_out and not character.has_alpha:
        image = cut_out(image)
    if image.mode != "RGBA":
        return image
    return image.crop(image.getchannel("A").point(lambda alpha: 255 if alpha > 8 else 0).getbbox())


def _make_covering_background(background: ReferenceImage, size: tuple[int, int]) -> "Image.Image":
    from PIL import Image, ImageOps

    image = _decode(background)
    if image.mode == "RGBA":
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image).convert("RGB")
    return ImageOps.fit(image, size, Image.Resampling.LANCZOS)


def _make_backdrop(figures: "Sequence[Image.Image]", size: tuple[int, int]) -> "Image.Image":
    """Draw a soft vertical gradient, light above, in a greyed mean of the colours of `figures`."""
    from PIL import Image

    grey = (196, 198, 202)
    means = [figure.convert("RGBA").resize((1, 1), Image.Resampling.BOX).tobytes() for figure in figures]
    mean = [sum(pixel[band] for pixel in means) / len(means) for band in range(3)] if means else grey
    tint = [0.35 * own + 0.65 * neutral for own, neutral in zip(mean, grey, strict=True)]
    above = Image.new("RGB", size, tuple(round(band + (255 - band) * 0.45) for band in tint))
    below = Image.new("RGB", size, tuple(round(band * 0.82) for band in tint))
    return Image.composite(below, above, Image.linear_gradient("L").resize(size, Image.Resampling.BICUBIC))


def _lay_out_row(size: tuple[int, int], figures: "Sequence[Image.Image]") -> list[_Box]:
    """Return a box for each figure, in a row: as large as fits without touching, with even gaps."""
    width, height = size
    natural = [_get_natural_size(size, figure) for figure in figures]
    least_gap = min(0.03, 0.25 / (len(figures) + 1)) * width
    row = sum(each for each, _ in natural)
    scale = min(1.0, (width - least_gap * (len(figures) + 1)) / row) if row else 1.0
    gap = (width - row * scale) / (len(figures) + 1)
    boxes: list[_Box] = []
    left = gap
    for figure, (box_width, box_height) in zip(figures, natural, strict=True):
        box = max(1, int(box_width * scale)), max(1, int(box_height * scale))
        lift = 0 if figure.mode == "RGBA" else round(0.08 * height)
        boxes.append((round(left), height - lift - box[1], *box))
        left += box_width * scale + gap
    return boxes


def _get_natural_size(size: tuple[int, int], figure: "Image.Image") -> tuple[float, float]:
    """Return the width and height that a figure would have if it were alone.

    Cut-outs are scaled by their height. Cards fit inside half the height and 40 % of the width.
    """
    width, height = size
    if figure.mode == "RGBA":
        scale = 0.72 * height / figure.height
    else:
        scale = min(0.5 * height / figure.height, 0.4 * width / figure.width)
    return figure.width * scale, figure.height * scale


def _paste_figure(frame: "Image.Image", figure: "Image.Image", box: _Box) -> None:
    from PIL import Image

    left, top, width, height = box
    if figure.mode == "RGBA":
        sized = figure.resize((width, height), Image.Resampling.LANCZOS)
        frame.paste(sized, (left, top), sized)
        return
    line = max(1, round(0.012 * min(width, height)))
    frame.paste((250, 250, 248), (left, top), _make_rounded_mask((width, height), line * 4))
    inner = max(1, width - 2 * line), max(1, height - 2 * line)
    picture = figure.resize(inner, Image.Resampling.LANCZOS)
    frame.paste(picture, (left + line, top + line), _make_rounded_mask(inner, line * 3))


def _make_rounded_mask(size: tuple[int, int], radius: int) -> "Image.Image":
    """Draw a mask of a rectangle with smooth round corners."""
    from PIL import Image, ImageDraw

    large = Image.new("L", (size[0] * 4, size[1] * 4))
    ImageDraw.Draw(large).rounded_rectangle((0, 0, large.width - 1, large.height - 1), radius * 4, fill=255)
    return large.resize(size, Image.Resampling.BOX)


def _encode_within_limit(frame: "Image.Image") -> bytes:
    data = b""
    for quality in (92, 88, 84, 80, 75, 70, 60, 50, 40, 30):
        data = _encode(frame, "JPEG", quality=quality)
        if len(data) <= MAX_FRAME_BYTES:
            break
    return data
