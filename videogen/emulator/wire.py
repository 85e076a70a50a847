"""Answers that misbehave on the wire: cut, stalled, dripping, endless, or none at all."""

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

_SCOPE_KEY = "videogen.line"
_BLANKS = b" " * (1 << 20)


@dataclass(frozen=True, slots=True)
class Connection:
    """The connection under a request."""

    transport: asyncio.Transport
    closing: asyncio.Event
    """Set when the server stops: whoever holds a caller lets go."""

    async def reset(self) -> None:
        """Tear the connection down with a TCP reset; what was written so far has left."""
        await asyncio.sleep(0.02)
        if self.transport.is_closing():
            return
        sock = self.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()
        await asyncio.sleep(0.01)  # the server notices in its next turns; before that it would log a missing answer

    async def hold(self, receive: Receive) -> None:
        """Do nothing until the caller hangs up or the server stops."""
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
    """The outermost application: tells every request what connection it came by, and every answer its date."""

    def __init__(self, app: ASGIApp, closing: asyncio.Event, clock_ahead_s: float = 0) -> None:
        self._app, self._closing, self._clock_ahead_s = app, closing, clock_ahead_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on. uvicorn's `send` is a method of the request's cycle, which knows the transport."""
        transport = getattr(getattr(send, "__self__", None), "transport", None)
        if transport is not None:
            scope[_SCOPE_KEY] = Connection(transport, self._closing)

        async def send_dated(message: Message) -> None:
            if message["type"] == "http.response.start":
                date = formatdate(time.time() + self._clock_ahead_s, usegmt=True)
                message = {**message, "headers": [(b"date", date.encode()), *message["headers"]]}
            await send(message)

        await self._app(scope, receive, send_dated)


def _get_connection(scope: Scope) -> Connection:
    connection = scope.get(_SCOPE_KEY)
    if not isinstance(connection, Connection):
        raise RuntimeError("faults on the connection need a real server: use serve() or running()")
    return connection


class LenientJSONResponse(JSONResponse):
    """JSON that may hold what a server should not send: NaN, infinite numbers, lone surrogates."""

    def render(self, content: Any) -> bytes:
        """Return the text in UTF-8, in escapes where UTF-8 has no bytes for it."""
        text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
        try:
            return text.encode()
        except UnicodeEncodeError:
            return json.dumps(content, separators=(",", ":")).encode()


class WrappingResponse(Response):
    """An answer made from another one."""

    def __init__(self, inner: Response | None) -> None:
        super().__init__()
        self.inner = inner

    async def collect(self, scope: Scope, receive: Receive) -> tuple[Message, bytes]:
        """The inner answer's head and its whole body, not sent."""
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
    """An answer that reports how many bytes of its body were sent, piece by piece."""

    def __init__(self, inner: Response, sent: Callable[[int], None]) -> None:
        super().__init__(inner)
        self._sent = sent

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""

        async def send_counted(message: Message) -> None:
            await send(message)
            if message["type"] == "http.response.body":
                self._sent(len(message.get("body", b"")))

        assert self.inner is not None
        await self.inner({**scope, "extensions": {}}, receive, send_counted)


class ResetResponse(WrappingResponse):
    """No answer: the connection is reset."""

    async def __call__(self, scope: Scope, _receive: Receive, _send: Send) -> None:
        """Reset."""
        await _get_connection(scope).reset()


class SilentResponse(WrappingResponse):
    """No answer, and the connection stays."""

    async def __call__(self, scope: Scope, receive: Receive, _send: Send) -> None:
        """Hold."""
        await _get_connection(scope).hold(receive)


class _CutPointError(Exception):
    """Enough was sent."""


class CutResponse(WrappingResponse):
    """A part of an answer; then a reset, or silence."""

    def __init__(self, inner: Response, part: float, *, stall: bool) -> None:
        super().__init__(inner)
        self._part, self._stall = part, stall

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the part, then stop."""
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
    """An answer one byte at a time."""

    def __init__(self, inner: Response, every_s: float) -> None:
        super().__init__(inner)
        self._every_s = every_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, slowly, until the server stops."""
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
    """An answer followed by blanks, as a gzip a thousand times smaller."""

    def __init__(self, inner: Response, size_mb: int) -> None:
        super().__init__(inner)
        self._size_mb = size_mb

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        head, body = await self.collect(scope, receive)
        kept = [(name, value) for name, value in head["headers"] if name != b"content-length"]
        await send({**head, "headers": [*kept, (b"content-encoding", b"gzip")]})
        for piece in _compress_with_blanks(body, self._size_mb):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": b""})


def _compress_with_blanks(body: bytes, size_mb: int) -> Iterator[bytes]:
    packer = zlib.compressobj(6, wbits=31)
    yield packer.compress(body)
    for _ in range(size_mb):
        yield packer.compress(_BLANKS)
    yield packer.flush()


class EndlessResponse(WrappingResponse):
    """An answer's body over and over, without a length."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the caller hangs up or the server stops."""
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
    body = body or bytes(65536)  # an empty answer has an end, and would never come to the pause
    while True:
        for begin in range(0, len(body), 65536):
            yield body[begin : begin + 65536]
            await asyncio.sleep(0)


def rewrite_json(inner: Response, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Response:
    """A JSON answer with other content."""
    return LenientJSONResponse(change(json.loads(bytes(inner.body))), inner.status_code)


def truncate_json(inner: Response) -> Response:
    """A JSON answer whose text ends in the middle."""
    body = bytes(inner.body)
    return Response(body[: len(body) // 2], inner.status_code, media_type="application/json")


def _read_content_length(head: Message) -> int:
    return next(int(value) for name, value in head["headers"] if name == b"content-length")
