"""Running the gateway: in the foreground, or in a thread of the caller."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from videogen.addresses import is_loopback
from videogen.errors import SettingsError, VideogenError
from videogen.gateway.app import create_app
from videogen.gateway.connections import MOST_HEAD_BYTES, Connection, Visits, limit_repeats
from videogen.journal import Journal
from videogen.registry import read_registry

GRACE_S = 2
START_S = 30
QUEUE = 512
"""So many connections may wait to be accepted."""


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """What is served, where, and to whom."""

    out: Path
    """Only clips below this folder are served."""
    journal_url: str
    registry: Path | None = None
    """None means the one that came with videogen."""
    host: str = "127.0.0.1"
    port: int = 8474
    """0 takes a free one."""
    token: str | None = None
    """None means: to everybody on this machine, which needs a `host` that nobody else can reach."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """A running gateway, seen from outside."""

    url: str


class _Server(uvicorn.Server):
    """A uvicorn server that says when it is listening, and ends its streams when it stops."""

    def __init__(self, app: FastAPI, on_ready: Callable[[], None]) -> None:
        visits = Visits()
        super().__init__(
            uvicorn.Config(
                app,
                http=Connection,
                ws="none",
                access_log=False,
                log_level="warning",
                timeout_graceful_shutdown=GRACE_S,
                backlog=visits.burst,
                limit_concurrency=visits.most,
                h11_max_incomplete_event_size=MOST_HEAD_BYTES,
            )
        )
        self.server_state = visits
        self._on_ready, self._feeds = on_ready, app.state.sources.feeds

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for sock in sockets or ():
            sock.listen(QUEUE)  # uvicorn's backlog is also how many it accepts at once: those who queue may be more
        if not self.should_exit:
            self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._feeds.close()
        await super().shutdown(sockets)
        for connection in list(self.server_state.connections):  # whoever has not read to the end by now
            connection.transport.abort()
        await asyncio.sleep(0)


def serve(settings: GatewaySettings, *, on_ready: Callable[[str], None]) -> None:
    """Runs a gateway until SIGINT or SIGTERM; `on_ready` is called with its address once it is listening.

    Raises:
        SettingsError: the address cannot be listened on, or is open to others without a token.
        JournalError: the journal cannot be used.
    """
    with limit_repeats(), _listening(settings) as sock, contextlib.suppress(KeyboardInterrupt):
        _Server(_app(settings), lambda: on_ready(_url(sock))).run(sockets=[sock])


@contextlib.contextmanager
def running(settings: GatewaySettings) -> Iterator[Gateway]:
    """A gateway in a thread of this process, for as long as the block lasts. Raises as `serve`."""
    ready = threading.Event()
    with limit_repeats(), _listening(settings) as sock:
        server = _Server(_app(settings), ready.set)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, name="gateway", daemon=True)
        thread.start()
        try:
            if not ready.wait(START_S):
                raise VideogenError("the gateway did not start")
            yield Gateway(_url(sock))
        finally:
            server.should_exit = True
            thread.join()


def _app(settings: GatewaySettings) -> FastAPI:
    settings.out.mkdir(parents=True, exist_ok=True)  # the first run may come later
    journal = Journal(settings.journal_url, read_only=True)
    return create_app(read_registry(settings.registry), journal, settings.out, token=settings.token)


@contextlib.contextmanager
def _listening(settings: GatewaySettings) -> Iterator[socket.socket]:
    if settings.token is None and not is_loopback(settings.host):
        raise SettingsError(
            f"--host: {settings.host} can be reached by others: give them a token "
            "(VIDEOGEN_GATEWAY_TOKEN or --token), or leave --host out"
        )
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # The protocol is named because asyncio sets TCP_NODELAY only then.
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((settings.host, settings.port))
        except (OSError, OverflowError, TypeError) as exc:
            raise SettingsError(f"--host {settings.host} --port {settings.port}: {_reason(exc)}") from exc
        sock.listen(QUEUE)
        yield sock


def _reason(exc: Exception) -> str:
    """Return why a socket was not bound."""
    if isinstance(exc, OverflowError):
        return "a port is a number from 0 to 65535"
    if isinstance(exc, TypeError):  # so it calls a name that no rule of IDNA allows
        return "not the name of a host"
    return getattr(exc, "strerror", None) or str(exc)


def _url(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
