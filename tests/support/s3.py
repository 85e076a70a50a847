"""An S3 server of the tests' own (moto's), and a wire to it that can be cut."""

import os
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from typing import Any

import httpx

from tests.support.tokens import TOKEN

START_S = 60
KEY_ID, SECRET = "tests", TOKEN.removeprefix("r8_")
"""The secret is looked for, as the token is, in all that tests write."""
_numbers = count(1)


@contextmanager
def s3_server() -> Iterator[str]:
    """Its address, once it answers."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
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
        server.wait(20)


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
