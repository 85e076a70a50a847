"""Download outputs: completely, resumed after an interruption, and only from public addresses.

The provider's answer contains the output's URL, and an attacker who controls that answer could name a service inside
our own network. Therefore every address of every host on the way is checked, and the connection goes to the address
that was checked.
"""

import asyncio
import base64
import binascii
import re
import socket
import ssl
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from urllib.parse import unquote_to_bytes

import httpcore
import httpx

from videogen.addresses import Resolver, is_loopback, is_public, resolve_host
from videogen.certificates import load_certificates
from videogen.errors import (
    BadOutputError,
    GoneError,
    NotSentError,
    StorageError,
    TransientError,
)
from videogen.failpoints import crash_if_requested
from videogen.providers.proxies import find_proxy, make_transport
from videogen.providers.sanitize import make_text_safe, read_number

MOST_IN_MESSAGES = 200


@cache
def get_tls_context() -> ssl.SSLContext:
    """Return one context for all connections: reading the certificates takes 20 ms."""
    return load_certificates()


class Downloads:
    """Downloads outputs, without the token, for a provider whose API is at `home`."""

    def __init__(
        self,
        home: httpx.URL,
        *,
        stalled_s: float,
        most_bytes: int,
        resolve: Resolver = resolve_host,
        network: httpcore.AsyncNetworkBackend | None = None,
    ) -> None:
        """Create the client. `resolve` and `network` replace DNS and the sockets in tests."""
        self._most_bytes = most_bytes
        self._client = httpx.AsyncClient(
            timeout=httpx.Timeout(stalled_s, connect=10.0),
            transport=_Transport(home, resolve, network or httpcore.AnyIOBackend()),
            follow_redirects=True,
            max_redirects=3,
            headers={"Accept-Encoding": "identity"},
            trust_env=False,
        )

    async def aclose(self) -> None:
        await self._client.aclose()

    async def fetch(self, url: str, part: Path) -> None:
        """Download an `https:` or `data:` URL to `part`, and resume a partial file.

        Raises:
            GoneError: the URL is refused, or not known (any more).
            NotSentError, TransientError: the same call may work in a moment.
            BadOutputError: the URL is invalid or not allowed, or the content has more than `most_bytes`.
            StorageError: `part` cannot be written.
        """
        try:
            if url[:5].lower() == "data:":
                await asyncio.to_thread(_write_data, url, part, self._most_bytes)
            else:
                await self._fetch(url, part)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as exc:
            raise NotSentError(f"cannot connect: {_describe(exc)}") from exc
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError) as exc:
            raise BadOutputError(f"the output is at no address: {_describe(exc)}") from exc
        except httpx.HTTPError as exc:
            raise TransientError(f"the download broke off: {_describe(exc)}") from exc
        except OSError as exc:
            with suppress(OSError):
                part.unlink()
            raise StorageError(f"cannot write {part.name}: {exc.strerror or exc}") from exc

    async def _fetch(self, url: str, part: Path) -> None:
        had_bytes = part.stat().st_size if part.exists() else 0
        headers = {"Range": f"bytes={had_bytes}-"} if had_bytes else {}
        async with self._client.stream("GET", url, headers=headers) as answer:
            if answer.status_code == 416 or (answer.status_code == 206 and not _is_continuation(answer, had_bytes)):
                part.unlink(missing_ok=True)
                raise TransientError("what is already here does not fit what is there: from the start again")
            _raise_for_status(answer, self._most_bytes)
            await _write(answer, part, self._most_bytes, keep=answer.status_code == 206)


class _Transport(httpx.AsyncHTTPTransport):
    """Sends requests only to public addresses, including those of redirects.

    The provider's own host is always allowed, because its API is called there, too. If it is on loopback (an emulator,
    a tunnel), there is nothing to protect, and every address is allowed.
    """

    def __init__(self, home: httpx.URL, resolve: Resolver, network: httpcore.AsyncNetworkBackend) -> None:
        super().__init__(verify=get_tls_context())
        self._may_be_plain = home.scheme == "http"
        self._is_at_home = is_loopback(home.host)
        self._by_proxy: dict[httpx.URL, httpx.AsyncHTTPTransport] = {}
        if not self._is_at_home:
            trusted = home.host, home.port or (80 if self._may_be_plain else 443)
            network = _CheckedNetwork(network, resolve, trusted)
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=get_tls_context(),
            max_connections=100,
            network_backend=network,
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        if url.scheme != "https" and not (self._may_be_plain and url.scheme == "http"):
            scheme = make_text_safe(url.scheme, most=20) or "relative"
            raise BadOutputError(f"the output is at a {scheme} address, which is not fetched from")
        if not url.host or url.userinfo or not 0 < (url.port or 443) < 65_536:
            raise BadOutputError("the output's address has no host, a password or an impossible port")
        proxy = None if self._is_at_home else find_proxy(url)
        if proxy is None:
            return await super().handle_async_request(request)
        _admit_by_proxy(url.host)
        if proxy not in self._by_proxy:
            self._by_proxy[proxy] = make_transport(proxy, verify=get_tls_context())
        return await self._by_proxy[proxy].handle_async_request(request)

    async def aclose(self) -> None:
        for transport in self._by_proxy.values():
            await transport.aclose()
        await super().aclose()


def _admit_by_proxy(host: str) -> None:
    """Refuse a host that is a private address. A proxy resolves names itself, so only literal addresses can be
    checked."""
    if is_loopback(host) or (_is_numeric(host) and not is_public(host)):
        raise BadOutputError(
            f"the output is at {make_text_safe(host, most=80)}, which is not public: it is not fetched from there"
        )


def _is_numeric(host: str) -> bool:
    """Return whether a resolver takes the host for an address in numbers, in any notation: `0x7f.1` is one, too."""
    if ":" in host:
        return True
    try:
        socket.inet_aton(host)
    except OSError:
        return False
    return True


class _CheckedNetwork(httpcore.AsyncNetworkBackend):
    """Connects to an address only after a check. Each name is resolved once for each connection, so that its address
    cannot change between check and connection."""

    def __init__(self, network: httpcore.AsyncNetworkBackend, resolve: Resolver, trusted: tuple[str, int]) -> None:
        self._network, self._resolve, self._trusted = network, resolve, trusted

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        failure: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in await self._admit(host, port):
            try:
                return await self._network.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as exc:
                failure = exc
        raise failure

    async def _admit(self, host: str, port: int) -> Sequence[str]:
        try:
            addresses = await self._resolve(host, port)
        except (OSError, UnicodeError) as exc:
            reason = getattr(exc, "strerror", None) or exc
            raise httpcore.ConnectError(f"host {host} is not known: {reason}") from exc
        inside = [address for address in addresses if not is_public(address)]
        if inside and (host, port) != self._trusted:
            raise BadOutputError(
                f"the output is at {make_text_safe(host, most=80)}, whose address {inside[0]} is not public: "
                "it is not fetched from there"
            )
        return addresses

    async def sleep(self, seconds: float) -> None:
        await self._network.sleep(seconds)


def _describe(exc: Exception) -> str:
    return make_text_safe(str(exc) or type(exc).__name__, most=MOST_IN_MESSAGES)


def _is_continuation(answer: httpx.Response, had_bytes: int) -> bool:
    """Return whether a partial answer begins where the file ends. An answer that does not say where is trusted."""
    begins = re.match(r"bytes (\d{1,18})-", answer.headers.get("content-range", ""))
    return begins is None or int(begins[1]) == had_bytes


def _raise_for_status(answer: httpx.Response, most_bytes: int) -> None:
    if answer.status_code in (401, 403, 404, 410):
        raise GoneError(f"the output's address answers {answer.status_code}")
    if not answer.is_success:
        raise TransientError(f"the output's address answers {answer.status_code}")
    if (read_number(answer.headers.get("content-length"), most=float("inf")) or 0) > most_bytes:
        raise _make_too_large_error(most_bytes)


async def _write(answer: httpx.Response, part: Path, most_bytes: int, *, keep: bool) -> None:
    with part.open("ab" if keep else "wb") as file:
        async for chunk in answer.aiter_raw():  # as they come: what was received before a cut is kept
            file.write(chunk)
            crash_if_requested("mid-download")
            if file.tell() > most_bytes:
                part.unlink()  # else a next try would go on from here
                raise _make_too_large_error(most_bytes)


def _write_data(url: str, part: Path, most_bytes: int) -> None:
    """Write the content of a `data:` URL. Its media type does not matter, because the bytes are checked later."""
    head, comma, body = url.partition(",")
    if not comma:
        raise BadOutputError("the output is a data: address without a comma")
    is_base64 = head.lower().endswith(";base64")
    if len(body) * (3 / 4 if is_base64 else 1 / 3) > most_bytes:
        raise _make_too_large_error(most_bytes)
    data = unquote_to_bytes(body)
    if is_base64:
        try:
            data = base64.b64decode(b"".join(data.split()), validate=True)
        except binascii.Error as exc:
            raise BadOutputError("the output is a data: address that is not base64") from exc
    if len(data) > most_bytes:
        raise _make_too_large_error(most_bytes)
    part.write_bytes(data)


def _make_too_large_error(most_bytes: int) -> BadOutputError:
    return BadOutputError(f"the output is larger than {most_bytes:,} bytes")
