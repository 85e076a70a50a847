"""A way to PostgreSQL that tests cut."""

import select
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal

Moment = Literal["BEGIN", "COMMIT", "statement"]
Fault = Literal["request lost", "answer lost", "cut in flight", "silent"]
MOMENTS: tuple[Moment, ...] = ("BEGIN", "statement", "COMMIT")
CUTS: tuple[Fault, ...] = ("request lost", "answer lost", "cut in flight")


@dataclass
class DatabaseWire:
    """The way to a PostgreSQL server, with faults where `plan` says so for what a client sends."""

    server: str
    """The path of its socket."""
    plan: Callable[[Moment], Fault | None] = lambda _: None
    is_down: bool = False
    faults: list[tuple[Moment, Fault]] = field(default_factory=list)
    refused: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    """Released for every connection that comes while the wire is down."""
    port: int = 0

    def cut_next(self, moment: Moment, fault: Fault) -> None:
        """Once, at the next such moment."""

        def plan(now: Moment) -> Fault | None:
            if now != moment:
                return None
            self.plan = lambda _: None
            return fault

        self.plan = plan

    def carry(self, client: socket.socket) -> None:
        if self.is_down:
            self.refused.release()
            return
        with socket.socket(socket.AF_UNIX) as server, suppress(OSError):
            server.connect(self.server)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while True:
                ready, _, _ = select.select([client, server], [], [], 0.05)
                if self.is_down:
                    return
                if server in ready:
                    if not (answer := server.recv(65536)):
                        return
                    client.sendall(answer)
                if client in ready:
                    if not (asked := client.recv(65536)):
                        return
                    if fault := self._fault(asked):
                        self._fail(fault, asked, client, server)
                        return
                    server.sendall(asked)

    def _fault(self, asked: bytes) -> Fault | None:
        if asked[:1] not in b"QP":  # no query yet: the start of a connection
            return None
        moment: Moment = "BEGIN" if b"BEGIN" in asked else "COMMIT" if b"COMMIT" in asked else "statement"
        fault = self.plan(moment)
        if fault:
            self.faults.append((moment, fault))
        return fault

    def _fail(self, fault: Fault, asked: bytes, client: socket.socket, server: socket.socket) -> None:
        while fault == "silent" and client.recv(65536):
            pass
        if fault in ("answer lost", "cut in flight"):
            server.sendall(asked)
        if fault == "answer lost":
            server.recv(65536)


@contextmanager
def wire_to_database(server: str) -> Iterator[DatabaseWire]:
    """Run a way to the PostgreSQL server whose socket is at this path."""
    wire = DatabaseWire(server)

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            wire.carry(self.request)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as listener:
        listener.daemon_threads = True
        wire.port = listener.server_address[1]
        serving = threading.Thread(target=listener.serve_forever, args=(0.05,))
        serving.start()
        try:
            yield wire
        finally:
            wire.is_down = True
            listener.shutdown()
            serving.join()
