"""A clock that tests set, and a way to PostgreSQL that they cut."""

import select
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal

import pytest
import sqlalchemy as sa

from tests.support.servers import database
from videogen.journal.attempts import Attempt
from videogen.journal.store import Journal
from videogen.planning.requests import ClipRequest

Moment = Literal["BEGIN", "COMMIT", "statement"]
Fault = Literal["request lost", "answer lost", "cut in flight", "silent"]
MOMENTS: tuple[Moment, ...] = ("BEGIN", "statement", "COMMIT")
CUTS: tuple[Fault, ...] = ("request lost", "answer lost", "cut in flight")


class Clock:
    """The database's clock, which stands still until it is set forward."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def pass_s(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def journal(journal_url: str, clock: Clock) -> Iterator[Journal]:
    with closing(Journal(journal_url, clock=clock)) as journal:
        yield journal


@pytest.fixture
def other(journal_url: str, clock: Clock, journal: Journal) -> Iterator[Journal]:
    """The same journal, as another process has it."""
    with closing(Journal(journal_url, clock=clock)) as another:
        yield another


def start(
    journal: Journal, run_id: str, *, job_id: str = "job", folder: str | None = None, exclusive: bool = False
) -> None:
    journal.start_run(run_id, job_id=job_id, origin="fake", folder=folder or run_id, exclusive=exclusive)


def intend(journal: Journal, request: ClipRequest, run_id: str, **given: object) -> Attempt:
    return journal.record_intent(request, run_id=run_id, origin="fake", folder=run_id, **given)  # type: ignore[arg-type]


@dataclass
class Wire:
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


@pytest.fixture
def wire(postgresql: str) -> Iterator[Wire]:
    wire = Wire(str(sa.make_url(postgresql).query["host"]) + "/.s.PGSQL.5432")

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            wire.carry(self.request)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        wire.port = server.server_address[1]
        serving = threading.Thread(target=server.serve_forever, args=(0.05,))
        serving.start()
        yield wire
        wire.is_down = True
        server.shutdown()
        serving.join()


@pytest.fixture
def direct_url(postgresql: str) -> str:
    """An empty database, past the wire."""
    return database(postgresql, "postgresql+psycopg")


@pytest.fixture
def wired_url(direct_url: str, wire: Wire) -> str:
    """The same database, over the wire."""
    url = sa.make_url(direct_url)
    return (
        f"postgresql+psycopg://{url.username}@127.0.0.1:{wire.port}/{url.database}?sslmode=disable&gssencmode=disable"
    )
