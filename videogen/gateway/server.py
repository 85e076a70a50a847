"""Run the gateway: in the foreground, or in a thread of the caller."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from videogen.addresses import is_loopback
from videogen.errors import SettingsError
from videogen.gateway.app import Room, create_gateway_app
from videogen.gateway.connections import MAX_HEAD_BYTES, Connection, ConnectionPool, limit_repeats
from videogen.journal.store import Journal
from videogen.registry.load import read_registry
from videogen.serving import ListeningServer, format_url, open_listening_socket, run_in_thread

SHUTDOWN_GRACE_S = 2


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
    watch_token: str | None = None
    """Another token, with which visitors can only watch."""
    room: Room | None = None
    """Where visitors with the token can act; None if all can only watch."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """A running gateway."""

    url: str


def _make_server(settings: GatewaySettings, on_ready: Callable[[], None]) -> ListeningServer:
    """Return a server of the gateway that ends its event streams when it stops."""
    app, pool = _make_app(settings), ConnectionPool()
    config = uvicorn.Config(
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
    server = ListeningServer(config, on_ready=on_ready, on_stop=app.state.sources.feeds.close)
    server.server_state = pool
    return server


def serve_gateway(settings: GatewaySettings, *, on_ready: Callable[[str], None]) -> None:
    """Run a gateway until SIGINT or SIGTERM, and call `on_ready` with its address once it is listening.

    Raises:
        SettingsError: the address cannot be listened on, or is open to others without a token.
        JournalError: the journal cannot be used.
    """
    with limit_repeats(), _open_socket(settings) as sock, contextlib.suppress(KeyboardInterrupt):
        _make_server(settings, lambda: on_ready(format_url(sock))).run(sockets=[sock])


@contextlib.contextmanager
def run_gateway_in_thread(settings: GatewaySettings) -> Iterator[Gateway]:
    """Run a gateway in a thread of this process while the block lasts. Raises the same errors as `serve_gateway`."""
    ready = threading.Event()
    with limit_repeats(), contextlib.ExitStack() as stack:
        sock = stack.enter_context(_open_socket(settings))
        stack.enter_context(run_in_thread(_make_server(settings, ready.set), sock, ready, name="gateway"))
        yield Gateway(format_url(sock))


def _make_app(settings: GatewaySettings) -> FastAPI:
    settings.out.mkdir(parents=True, exist_ok=True)  # the gateway may start before the first run
    journal = Journal(settings.journal_url, read_only=True)
    return create_gateway_app(
        read_registry(settings.registry),
        journal,
        settings.out,
        token=settings.token,
        watch_token=settings.watch_token,
        room=settings.room,
    )


@contextlib.contextmanager
def _open_socket(settings: GatewaySettings) -> Iterator[socket.socket]:
    if settings.token is None and not is_loopback(settings.host):
        raise SettingsError(
            f"--host: {settings.host} can be reached from other machines: set a token "
            "(VIDEOGEN_GATEWAY_TOKEN or --token), or leave --host out"
        )
    _check_tokens(settings)
    with contextlib.ExitStack() as stack:
        try:
            sock = stack.enter_context(open_listening_socket(settings.host, settings.port))
        except (OSError, OverflowError, TypeError) as exc:
            raise SettingsError(f"--host {settings.host} --port {settings.port}: {_describe_bind_error(exc)}") from exc
        yield sock


def _check_tokens(settings: GatewaySettings) -> None:
    """Raise `SettingsError` if visitors could act who should not."""
    if settings.room and settings.token is None:
        raise SettingsError("--review: set a token (VIDEOGEN_GATEWAY_TOKEN or --token)")
    if settings.watch_token and settings.watch_token == settings.token:
        raise SettingsError("VIDEOGEN_GATEWAY_WATCH_TOKEN: must be another token than VIDEOGEN_GATEWAY_TOKEN")
    if settings.watch_token and settings.token is None:
        raise SettingsError("VIDEOGEN_GATEWAY_WATCH_TOKEN: set VIDEOGEN_GATEWAY_TOKEN, too")


def _describe_bind_error(exc: Exception) -> str:
    """Return the reason for which a socket could not be bound."""
    if isinstance(exc, OverflowError):
        return "a port must be a number from 0 to 65535"
    if isinstance(exc, TypeError):  # raised for a name that no rule of IDNA allows
        return "not a valid host name"
    return getattr(exc, "strerror", None) or str(exc)
