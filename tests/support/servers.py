"""A server on this machine that answers what a test tells it to, and keeps what it was asked."""

import asyncio
import json
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.client import responses
from typing import Any, Self

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as it came. Names of headers are in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Loopback:
    """Answers each request with the next of `answers`; `asked` keeps them in order."""

    def __init__(self, *answers: Answer) -> None:
        self.asked: list[Asked] = []
        self._answers = list(answers)
        self._busy: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._busy:
            task.cancel()
        await asyncio.gather(*self._busy, return_exceptions=True)
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        host, port = self._server.sockets[0].getsockname()
        return f"http://{host}:{port}"

    def then(self, *answers: Answer) -> None:
        """Answer these too: for what names the server's own address."""
        self._answers += answers

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._busy.add(task)
        try:
            self.asked.append(await _read(reader))
            respond = self._answers.pop(0) if self._answers else answer(599, "no answer was planned for this")
            await respond(reader, writer)
            writer.close()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            writer.transport.abort()
        with suppress(ConnectionError):
            await writer.wait_closed()
        self._busy.discard(task)


async def _read(reader: asyncio.StreamReader) -> Asked:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    line, *rest = head.strip().split("\r\n")
    method, target, _ = line.split(" ")
    headers = {name.lower(): value for name, _, value in (entry.partition(": ") for entry in rest)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Asked(method, target, headers, body)


def answer(status: int = 200, body: Any = b"", **headers: str) -> Answer:
    """A whole answer; anything but bytes and text is sent as JSON. `retry_after="3"` is the header `retry-after`."""
    data = _bytes(body)

    async def respond(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(_head(status, {"content-length": str(len(data)), **headers}) + data)
        await writer.drain()

    return respond


def cut(body: bytes, *, after: int) -> Answer:
    """Promises all of `body` and hangs up `after` so many bytes of it."""

    async def respond(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(_head(200, {"content-length": str(len(body))}) + body[:after])
        await writer.drain()

    return respond


def stall(body: bytes = b"", *, after: int = 0) -> Answer:
    """Sends `after` so many bytes of `body`, none of the head when there is no body, and then nothing more."""

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if body:
            writer.write(_head(200, {"content-length": str(len(body))}) + body[:after])
        await reader.read()  # until the client has had enough

    return respond


def drip(body: bytes, *, every_s: float) -> Answer:
    """Sends one byte at a time."""

    async def respond(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(_head(200, {"content-length": str(len(body))}))
        for byte in body:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(every_s)

    return respond


def pour(chunk: bytes) -> Answer:
    """Sends chunks without saying how many, for as long as the client takes them."""

    async def respond(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(_head(200, {"transfer-encoding": "chunked"}))
        while True:
            writer.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
            await writer.drain()

    return respond


async def reset(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Takes the request and breaks the connection."""
    sock: socket.socket = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def unused_url() -> str:
    """An address where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        host, port = sock.getsockname()
    return f"http://{host}:{port}"


def _head(status: int, headers: Mapping[str, str]) -> bytes:
    reason = responses.get(status, "Unplanned")
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([f"HTTP/1.1 {status} {reason}", "connection: close", *lines, "", ""]).encode("latin-1")


def _bytes(body: Any) -> bytes:
    if isinstance(body, bytes):
        return body
    return (body if isinstance(body, str) else json.dumps(body)).encode()
