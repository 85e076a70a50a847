"""Responses with faults of the transport: cut, stalled, slow, endless, or missing."""

import asyncio
import contextlib
import json
import socket
import struct
import time
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any

from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SCOPE_KEY = "videogen.connection"
_BLANKS = b" " * (1 << 20)


@dataclass(frozen=True, slots=True)
class RequestConnection:
    """The TCP connection of a request."""

    transport: asyncio.Transport
    closing: asyncio.Event
    """Set when the server stops, so that held callers are released."""

    async def reset(self) -> None:
        """Close the connection with a TCP reset after sending the data written so far."""
        await asyncio.sleep(0.02)
        if self.transport.is_closing():
            return
        sock = self.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()
        await asyncio.sleep(0.01)  # let the server notice the reset; otherwise it logs a missing answer

    async def hold(self, receive: Receive) -> None:
        """Wait until the caller disconnects or the server stops, then reset the connection."""
        gone = asyncio.create_task(_wait_until_hung_up(receive))
        stop = asyncio.create_task(self.closing.wait())
        _done, pending = await asyncio.wait({gone, stop}, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        await self.reset()


async def _wait_until_hung_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class TransportMiddleware:
    """Middleware that adds the connection to every request and the `Date` header to every answer."""

    def __init__(self, app: ASGIApp, closing: asyncio.Event, clock_ahead_s: float = 0) -> None:
        self._app = app
        self._closing = closing
        self._clock_ahead_s = clock_ahead_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its connection, which is found through uvicorn's `send`, a bound method."""
        transport = getattr(getattr(send, "__self__", None), "transport", None)
        if transport is not None:
            scope[_SCOPE_KEY] = RequestConnection(transport, self._closing)

        async def send_dated(message: Message) -> None:
            if message["type"] == "http.response.start":
                date = formatdate(time.time() + self._clock_ahead_s, usegmt=True)
                message = {**message, "headers": [(b"date", date.encode()), *message["headers"]]}
            await send(message)

        await self._app(scope, receive, send_dated)


def _get_connection(scope: Scope) -> RequestConnection:
    connection = scope.get(_SCOPE_KEY)
    if not isinstance(connection, RequestConnection):
        raise RuntimeError("faults on the connection need a real server: use serve_emulator() or run_emulator()")
    return connection


class LenientJSONResponse(JSONResponse):
    """JSON that may contain values that a server should not send: NaN, infinite numbers, lone surrogates."""

    def render(self, content: Any) -> bytes:
        """Return the JSON in UTF-8, escaped if it has characters that UTF-8 cannot encode."""
        text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
        try:
            return text.encode()
        except UnicodeEncodeError:
            return json.dumps(content, separators=(",", ":")).encode()


class WrappingResponse(Response):
    """A response that is made from another one."""

    def __init__(self, inner: Response | None) -> None:
        super().__init__()
        self.inner = inner

    async def collect(self, scope: Scope, receive: Receive) -> tuple[Message, bytes]:
        """Return the head and the whole body of the inner response without sending them."""
        heads: list[Message] = []
        body = bytearray()

        async def keep(message: Message) -> None:
            if message["type"] == "http.response.start":
                heads.append(message)
            else:
                body.extend(message.get("body", b""))

        assert self.inner is not None
        await self.inner(scope, receive, keep)
        return heads[0], bytes(body)


class CountedResponse(WrappingResponse):
    """A response that reports the number of body bytes after each sent chunk."""

    def __init__(self, inner: Response, sent: Callable[[int], None]) -> None:
        super().__init__(inner)
        self._sent = sent

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response and report its bytes."""

        async def send_counted(message: Message) -> None:
            await send(message)
            if message["type"] == "http.response.body":
                self._sent(len(message.get("body", b"")))

        assert self.inner is not None
        await self.inner({**scope, "extensions": {}}, receive, send_counted)


class ResetResponse(WrappingResponse):
    """A reset of the connection in place of an answer."""

    async def __call__(self, scope: Scope, _receive: Receive, _send: Send) -> None:
        """Reset the connection."""
        await _get_connection(scope).reset()


class SilentResponse(WrappingResponse):
    """An open connection without an answer."""

    async def __call__(self, scope: Scope, receive: Receive, _send: Send) -> None:
        """Hold the connection."""
        await _get_connection(scope).hold(receive)


class _CutPointError(Exception):
    """The part of the answer that shall be sent was sent."""


class CutResponse(WrappingResponse):
    """A part of a response, followed by a reset or by silence."""

    def __init__(self, inner: Response, part: float, *, stall: bool) -> None:
        super().__init__(inner)
        self._part = part
        self._stall = stall

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the part, then reset or hold the connection."""
        left = 0

        async def send_until_cut(message: Message) -> None:
            nonlocal left
            if message["type"] == "http.response.start":
                left = int(_read_content_length(message) * self._part)
                await send(message)
                return
            piece = message.get("body", b"")[:left]
            left -= len(piece)
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            if not left:
                raise _CutPointError

        assert self.inner is not None
        with contextlib.suppress(_CutPointError):
            await self.inner({**scope, "extensions": {}}, receive, send_until_cut)
        connection = _get_connection(scope)
        await (connection.hold(receive) if self._stall else connection.reset())


class DripResponse(WrappingResponse):
    """A response that is sent one byte at a time."""

    def __init__(self, inner: Response, every_s: float) -> None:
        super().__init__(inner)
        self._every_s = every_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response slowly, until it ends or the server stops."""
        connection = _get_connection(scope)
        head, body = await self.collect(scope, receive)
        await send(head)
        for index in range(len(body)):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(connection.closing.wait(), self._every_s)
                await connection.reset()
                return
            await send({"type": "http.response.body", "body": body[index : index + 1], "more_body": True})
        await send({"type": "http.response.body", "body": b""})


class GzipBombResponse(WrappingResponse):
    """A response followed by blanks, in a gzip that is a thousand times smaller."""

    def __init__(self, inner: Response, size_mb: int) -> None:
        super().__init__(inner)
        self._size_mb = size_mb

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the compressed response."""
        head, body = await self.collect(scope, receive)
        kept = [(name, value) for name, value in head["headers"] if name != b"content-length"]
        await send({**head, "headers": [*kept, (b"content-encoding", b"gzip")]})
        for piece in _compress_with_blanks(body, self._size_mb):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": b""})


def _compress_with_blanks(body: bytes, size_mb: int) -> Iterator[bytes]:
    packer = zlib.compressobj(1, wbits=31)
    yield packer.compress(body)
    for _ in range(size_mb):
        yield packer.compress(_BLANKS)
    yield packer.flush()


class EndlessResponse(WrappingResponse):
    """A response whose body repeats without end and without a length."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the caller disconnects or the server stops."""
        connection = _get_connection(scope)
        head, body = await self.collect(scope, receive)
        kept = [(name, value) for name, value in head["headers"] if name not in (b"content-length", b"content-range")]
        await send({**head, "status": 200, "headers": kept})
        gone = asyncio.create_task(_wait_until_hung_up(receive))
        async for piece in _repeat_forever(body):
            if gone.done() or connection.closing.is_set():
                break
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        gone.cancel()
        await connection.reset()


async def _repeat_forever(body: bytes) -> AsyncIterator[bytes]:
    body = body or bytes(65536)  # an empty body would make this loop run without ever yielding
    while True:
        for begin in range(0, len(body), 65536):
            yield body[begin : begin + 65536]
            await asyncio.sleep(0)


def rewrite_json(inner: Response, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Response:
    """Return a JSON response with changed content."""
    return LenientJSONResponse(change(json.loads(bytes(inner.body))), inner.status_code)


def truncate_json(inner: Response) -> Response:
    """Return a JSON response whose text ends in the middle."""
    body = bytes(inner.body)
    return Response(body[: len(body) // 2], inner.status_code, media_type="application/json")


def _read_content_length(head: Message) -> int:
    return next(int(value) for name, value in head["headers"] if name == b"content-length")
