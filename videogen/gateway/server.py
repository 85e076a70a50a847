"""Run the gateway: in the foreground, or in a thread of the caller."""

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
from videogen.gateway.app import create_gateway_app
from videogen.gateway.connections import MAX_HEAD_BYTES, Connection, ConnectionPool, limit_repeats
from videogen.journal.store import Journal
from videogen.registry.load import read_registry

SHUTDOWN_GRACE_S = 2
START_TIMEOUT_S = 30
ACCEPT_BACKLOG = 512
"""How many connections may wait to be accepted."""


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """Settings of one gateway: its address, its token, and the files that it serves."""

    out: Path
    """Clips are served only from below this folder."""
    journal_url: str
    registry: Path | None = None
    """A `models.toml` that extends the shipped one. None uses the shipped one alone."""
    host: str = "127.0.0.1"
    port: int = 8474
    """0 takes a free port."""
    token: str | None = None
    """Token that visitors must have. None lets in everybody on this machine, and requires a loopback `host`."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """A running gateway."""

    url: str


class _Server(uvicorn.Server):
    """A uvicorn server that reports when it is listening, and ends its event streams when it stops."""

    def __init__(self, app: FastAPI, on_ready: Callable[[], None]) -> None:
        pool = ConnectionPool()
        super().__init__(
            uvicorn.Config(
                app,
                http=Connection,
                ws="none",
                access_log=False,
                log_level="warning",
                timeout_graceful_shutdown=SHUTDOWN_GRACE_S,
                backlog=pool.burst,
                limit_concurrency=pool.most,
                h11_max_incomplete_event_size=MAX_HEAD_BYTES,
            )
        )
        self.server_state = pool
        self._on_ready = on_ready
        self._feeds = app.state.sources.feeds

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for sock in sockets or ():
            sock.listen(ACCEPT_BACKLOG)  # uvicorn's own backlog is also how many it accepts at once: that stays small
        if not self.should_exit:
            self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._feeds.close()
        await super().shutdown(sockets)
        for connection in list(self.server_state.connections):  # clients that have not read their answer to its end
            connection.transport.abort()
        await asyncio.sleep(0)


def serve_gateway(settings: GatewaySettings, *, on_ready: Callable[[str], None]) -> None:
    """Run a gateway until SIGINT or SIGTERM, and call `on_ready` with its address once it is listening.

    Raises:
        SettingsError: the address cannot be listened on, or is open to others without a token.
        JournalError: the journal cannot be used.
    """
    with limit_repeats(), _open_listening_socket(settings) as sock, contextlib.suppress(KeyboardInterrupt):
        _Server(_make_app(settings), lambda: on_ready(_get_url(sock))).run(sockets=[sock])


@contextlib.contextmanager
def run_gateway_in_thread(settings: GatewaySettings) -> Iterator[Gateway]:
    """Run a gateway in a thread of this process while the block lasts. Raises the same errors as `serve_gateway`."""
    ready = threading.Event()
    with limit_repeats(), _open_listening_socket(settings) as sock:
        server = _Server(_make_app(settings), ready.set)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, name="gateway", daemon=True)
        thread.start()
        try:
            if not ready.wait(START_TIMEOUT_S):
                raise VideogenError("the gateway did not start")
            yield Gateway(_get_url(sock))
        finally:
            server.should_exit = True
            thread.join()


def _make_app(settings: GatewaySettings) -> FastAPI:
    settings.out.mkdir(parents=True, exist_ok=True)  # the gateway may start before the first run
    journal = Journal(settings.journal_url, read_only=True)
    return create_gateway_app(read_registry(settings.registry), journal, settings.out, token=settings.token)


@contextlib.contextmanager
def _open_listening_socket(settings: GatewaySettings) -> Iterator[socket.socket]:
    if settings.token is None and not is_loopback(settings.host):
        raise SettingsError(
            f"--host: {settings.host} can be reached from other machines: set a token "
            "(VIDEOGEN_GATEWAY_TOKEN or --token), or leave --host out"
        )
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # The protocol is named because asyncio sets TCP_NODELAY only then.
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((settings.host, settings.port))
        except (OSError, OverflowError, TypeError) as exc:
            raise SettingsError(f"--host {settings.host} --port {settings.port}: {_describe_bind_error(exc)}") from exc
        sock.listen(ACCEPT_BACKLOG)
        yield sock


def _describe_bind_error(exc: Exception) -> str:
    """Return the reason for which a socket could not be bound."""
    if isinstance(exc, OverflowError):
        return "a port must be a number from 0 to 65535"
    if isinstance(exc, TypeError):  # raised for a name that no rule of IDNA allows
        return "not a valid host name"
    return getattr(exc, "strerror", None) or str(exc)


def _get_url(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
