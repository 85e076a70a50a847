"""Fetch reference images safely and compose start frames from them.

Sources are untrusted: URLs may point into our own network, and files may contain anything. The resulting pictures are
small and upright, with 8 bits per channel and no metadata. httpx and Pillow are imported when they are first needed.
"""

import asyncio
import base64
import binascii
import io
import os
import ssl
import stat
import tempfile
import unicodedata
from collections.abc import AsyncIterator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import unquote_to_bytes

from videogen.addresses import Resolver, is_public, resolve_host, resolve_numeric_host
from videogen.certificates import load_certificates
from videogen.errors import Problem, ValidationError
from videogen.job.model import display_name, is_url
from videogen.posix import SAFE_OPEN_FLAGS

if TYPE_CHECKING:
    import httpx
from videogen.references.decode import (
    MAX_BYTES,
    PictureFile,
    ReferenceImage,
    UnusablePictureError,
    make_too_large_error,
    read_image,
)

_MAX_CONCURRENT = 8
_MAX_TRIES = 3
_RETRY_DELAY_S = 0.2
_MAX_REDIRECTS = 3
_FETCH_TIMEOUT_S = 30.0
_READ_TIMEOUT_S = 10.0
_ADVICE = "use a public https URL, a data: URL or a file beside the job"
_CERTIFICATE_ADVICE = "; where the network has a certificate authority of its own, name its file in SSL_CERT_FILE"
_PROXY_VARIABLES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")


async def load_references(
    sources: Iterable[str],
    *,
    base_dir: Path | None,
    fetches: bool = True,
    allow_private: bool = False,
    resolve: Resolver | None = None,
    transport: "httpx.AsyncBaseTransport | None" = None,
) -> dict[str, ReferenceImage]:
    """Load each distinct source once and return the pictures by source.

    A source is an https URL, a `data:` URL, or a path relative to `base_dir`. A path that is written as lying inside
    `base_dir` must also lie there once its symbolic links are resolved. A path that is written as leading elsewhere
    (absolute, `..`) must not be a link itself. Without a `base_dir` no file is read. If `fetches` is false, an
    https URL is checked without the network, and its picture is left out of the result. `allow_private` admits http and
    addresses that are not public. Use it for tests and emulators, never for untrusted jobs. `resolve` and `transport`
    replace DNS and the network.

    Raises:
        ValidationError: it has one problem for each source that cannot be used, located at `display_name(source)`.
    """
    resolve = resolve or (resolve_host if fetches else resolve_numeric_host)
    loader = _Loader(base_dir, fetches, allow_private, resolve, transport)
    distinct = list(dict.fromkeys(sources))
    results = await asyncio.gather(*(loader.load(source) for source in distinct))
    problems = [result for result in results if isinstance(result, Problem)]
    if problems:
        raise ValidationError(problems)
    return {result.source: result for result in results if isinstance(result, ReferenceImage)}


class _TransientError(UnusablePictureError):
    """The source could not be fetched this time; another try may succeed."""


class _Loader:
    def __init__(
        self,
        base_dir: Path | None,
        fetches: bool,
        allow_private: bool,
        resolve: Resolver,
        transport: "httpx.AsyncBaseTransport | None",
    ) -> None:
        self._base_dir = base_dir
        self._fetches = fetches
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

    async def load(self, source: str) -> ReferenceImage | Problem | None:
        address = source.strip()
        try:
            if not self._fetches and is_url(address) and address[:5].lower() != "data:":
                await self._check_url(address)
                return None
            async with self._slots, self._open(source) as (file, url):
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(self._decoder, read_image, source, file, url)
        except UnusablePictureError as exc:
            return Problem(str(exc), where=display_name(source))

    @asynccontextmanager
    async def _open(self, source: str) -> AsyncIterator[tuple[PictureFile, str | None]]:
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

    async def _check_url(self, address: str) -> None:
        """Raise `UnusablePictureError` if the URL would be refused before anything is sent."""
        import httpx

        try:
            target = httpx.URL(address)
            self._check_target(target)
            if found := await self._resolve(target.host, target.port or 443):
                self._check_addresses(target.host, found)
        except (httpx.InvalidURL, UnicodeError) as exc:
            raise UnusablePictureError(f"not a valid URL: {exc}") from exc

    async def _fetch(self, source: str, file: PictureFile) -> bool:
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
            raise UnusablePictureError(f"took longer than {_FETCH_TIMEOUT_S:.0f} s to fetch") from None

    async def _fetch_with_retries(self, client: "httpx.AsyncClient", source: str, file: PictureFile) -> bool:
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

    async def _fetch_once(self, client: "httpx.AsyncClient", source: str, file: PictureFile) -> bool:
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
            raise UnusablePictureError(f"not a valid URL: {exc}") from exc
        except httpx.TimeoutException as exc:
            raise _TransientError(f"no answer within {_READ_TIMEOUT_S:.0f} s{_advise_on_proxy()}") from exc
        except httpx.TransportError as exc:
            advice = _CERTIFICATE_ADVICE if "CERTIFICATE_VERIFY_FAILED" in str(exc) else _advise_on_proxy()
            raise _TransientError(f"cannot be fetched: {exc}{advice}") from exc
        raise UnusablePictureError(f"redirected more than {_MAX_REDIRECTS} times")

    async def _resolve_and_check(self, target: "httpx.URL") -> Sequence[str]:
        """Return the addresses of the host, all of them checked.

        The name is resolved only once, so that a later answer of DNS cannot differ from the checked one.
        """
        self._check_target(target)
        try:
            addresses = await self._resolve(target.host, target.port or (443 if target.scheme == "https" else 80))
        except (OSError, UnicodeError) as exc:
            raise _TransientError(f"host {target.host!r} is not known{_advise_on_proxy()}") from exc
        self._check_addresses(target.host, addresses)
        return addresses

    def _check_target(self, target: "httpx.URL") -> None:
        """Raise `UnusablePictureError` if the URL is refused whatever its host is."""
        if target.scheme == "file":
            raise UnusablePictureError(
                "file: URLs are not fetched; write the path of the file, such as pictures/pier.png"
            )
        if target.scheme != "https" and not (self._allow_private and target.scheme == "http"):
            raise UnusablePictureError(f"{target.scheme}: URLs are not fetched; {_ADVICE}")
        if not target.host or target.userinfo:
            raise UnusablePictureError(f"a URL {'with a password' if target.host else 'without a host'}; {_ADVICE}")
        if target.port is not None and not 0 < target.port < 65536:
            raise UnusablePictureError(f"a URL with the invalid port {target.port}; {_ADVICE}")

    def _check_addresses(self, host: str, addresses: Sequence[str]) -> None:
        private = [address for address in addresses if not is_public(address)]
        if not addresses or (private and not self._allow_private):
            raise UnusablePictureError(f"host {host!r} is at {', '.join(private)}, not a public address; {_ADVICE}")


def _advise_on_proxy() -> str:
    """Return advice when a proxy is configured, else an empty string.

    Pictures are not fetched through a proxy, because it would connect to addresses that were not checked.
    """
    named = next((name for name in _PROXY_VARIABLES if os.environ.get(name)), None)
    if named is None:
        return ""
    return f"; {named} is set, but pictures are not fetched through a proxy: use a data: URL or a file beside the job"


# --- reading sources


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


async def _read_capped(response: "httpx.Response", file: PictureFile) -> None:
    """Write the body to `file`, up to the size limit.

    A compressed body, which was not requested, is refused: it could expand without end.
    """
    if response.status_code != 200:
        kind = (
            _TransientError
            if response.status_code in (408, 429) or response.status_code >= 500
            else UnusablePictureError
        )
        raise kind(f"answered {response.status_code} {response.reason_phrase}".rstrip())
    coding = response.headers.get("Content-Encoding", "identity")
    if coding != "identity":
        raise UnusablePictureError(f"answered in {coding[:20]!r} encoding, which was not requested")
    async for chunk in response.aiter_bytes():
        file.write(chunk)
        if file.tell() > MAX_BYTES:
            raise make_too_large_error()


def _decode_data_url(source: str) -> bytes:
    """Return the bytes in a `data:` URL. Its media type is ignored, the bytes decide."""
    head, comma, body = source.partition(",")
    if not comma:
        raise UnusablePictureError("a data: URL without a comma")
    data = unquote_to_bytes(body)
    if head.lower().endswith(";base64"):
        try:
            data = base64.b64decode(b"".join(data.split()), validate=True)
        except binascii.Error as exc:
            raise UnusablePictureError(f"a data: URL that is not base64: {exc}") from exc
    return data


def _open_file(source: str, base_dir: Path | None) -> PictureFile:
    """Open the regular file that `source` names. Other kinds, such as a fifo that would block, are refused."""
    if base_dir is None:
        raise UnusablePictureError("files are not read here; use an https or data: URL")
    if not source.strip():
        raise UnusablePictureError(f"an empty address; {_ADVICE}")
    source = os.fsdecode(source.encode(errors="surrogateescape"))  # where names of files are not in UTF-8 here
    try:
        path = _resolve_path(_find_spelling(source, base_dir), base_dir)
        handle = os.open(path, os.O_RDONLY | SAFE_OPEN_FLAGS)
    except FileNotFoundError:
        raise UnusablePictureError(f"there is no such file in {base_dir}") from None
    except (OSError, ValueError, RuntimeError) as exc:
        raise UnusablePictureError(f"cannot be opened: {getattr(exc, 'strerror', None) or exc}") from exc
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise UnusablePictureError("not a regular file")
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
            raise UnusablePictureError("a symbolic link that leads out of the job's folder; name the file itself")
    elif written.is_symlink():
        raise UnusablePictureError("a symbolic link outside the job's folder; name the file itself")
    return resolved
