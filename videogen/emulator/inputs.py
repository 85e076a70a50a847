"""Input images of predictions: fetches and decodes them, and fails as a model would."""

import asyncio
import base64
import functools
import io
import ipaddress
import ssl
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

import httpx
from PIL import Image, ImageOps

from videogen.emulator.models import ModelError

MAX_IMAGE_BYTES = 20 * 1024 * 1024
MAX_IMAGE_PIXELS = 40_000_000
FORMATS = ("PNG", "JPEG", "WEBP")


async def load_image(url: str, uploads: Mapping[str, Path]) -> Image.Image:
    """Return the image behind an input's URL, upright and in RGB; `uploads` are this server's files by id.

    Raises:
        ModelError: the URL cannot be fetched or is not an image.
    """
    raw = await _fetch(url, uploads)
    return await asyncio.to_thread(_decode_image, raw)


async def _fetch(url: str, uploads: Mapping[str, Path]) -> bytes:
    parts = urlsplit(url)
    if parts.scheme == "data":
        return _decode_data_url(url)
    if parts.path.startswith("/v1/files/"):
        upload = uploads.get(parts.path.split("/")[3])
        if upload is None:
            raise ModelError(f"404 Client Error: Not Found for url: {url}")
        return upload.read_bytes()
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(parts.hostname)):
        raise ModelError(f"Failed to download input: {parts.scheme} URLs are not supported")
    return await _download(url)


def _decode_data_url(url: str) -> bytes:
    head, _, body = url.partition(",")
    try:
        return base64.b64decode(body) if head.endswith(";base64") else unquote_to_bytes(body)
    except ValueError:
        raise ModelError("Failed to decode input: invalid base64 in data URL") from None


def _is_loopback(host: str | None) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


async def _download(url: str) -> bytes:
    content = bytearray()
    # Reading the certificates would block the event loop long enough to delay every other caller.
    ssl_context = await asyncio.to_thread(_make_ssl_context)
    try:
        async with (
            httpx.AsyncClient(timeout=10, follow_redirects=True, trust_env=False, verify=ssl_context) as client,
            client.stream("GET", url) as answer,
        ):
            if answer.status_code != httpx.codes.OK:
                raise ModelError(f"{answer.status_code} Client Error: {answer.reason_phrase} for url: {url}")
            async for chunk in answer.aiter_bytes():
                content += chunk
                if len(content) > MAX_IMAGE_BYTES:
                    raise ModelError("Input image is too large")
    except (httpx.HTTPError, httpx.InvalidURL) as exc:
        raise ModelError(f"Failed to download input: {type(exc).__name__} for url: {url}") from exc
    return bytes(content)


@functools.cache
def _make_ssl_context() -> ssl.SSLContext:
    return httpx.create_ssl_context(trust_env=False)


def _decode_image(raw: bytes) -> Image.Image:
    try:
        with Image.open(io.BytesIO(raw), formats=FORMATS) as picture:
            if picture.width * picture.height > MAX_IMAGE_PIXELS:
                raise ModelError("Input image has too many pixels")
            return ImageOps.exif_transpose(picture).convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as exc:
        raise ModelError("cannot identify image file 'input'") from exc
