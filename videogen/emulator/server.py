"""Run the emulator in the foreground or in a thread of the caller's process."""

import asyncio
import contextlib
import errno
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import uvicorn

from videogen.emulator.app import create_emulator_app
from videogen.emulator.faults.transport import TransportMiddleware
from videogen.emulator.settings import EmulatorSettings
from videogen.errors import InvalidError

_GRACE_S = 1
_START_TIMEOUT_S = 30


class _UvicornServer(uvicorn.Server):
    """A uvicorn server that calls back when it listens, and before it stops so that held requests are released."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None], on_stop: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready
        self._on_stop = on_stop

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start listening, then call `on_ready`."""
        await super().startup(sockets)
        if not self.should_exit:
            self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Call `on_stop`, then wait for the connections and abort the remaining ones."""
        self._on_stop()
        await super().shutdown(sockets)
        # The grace period is over: these callers have not read their answers to the end.
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await asyncio.sleep(0)


class AddressError(InvalidError, OSError):
    """The emulator cannot listen at its address; the message gives the reason and a remedy."""

    def __init__(self, settings: EmulatorSettings, cause: OSError) -> None:
        reason = cause.strerror or str(cause)
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        in_the_way = cause.errno in (errno.EADDRINUSE, errno.EACCES)
        advice = "another --port, or --port 0 for a free one" if in_the_way else "--host an address of this machine"
        text = f"{reason[:1].lower()}{reason[1:]}; give {advice}"
        super().__init__(f"the emulator cannot listen at {host}:{settings.port}: {text}")


@dataclass(frozen=True, slots=True)
class Emulator:
    """A client of a running emulator."""

    url: str

    def ledger(self) -> dict[str, Any]:
        """Return the report of GET /_emulator/ledger."""
        report: dict[str, Any] = self._call("GET").json()
        return report

    def reset(self) -> None:
        """Set the ledger's counters to zero."""
        self._call("DELETE")

    def _call(self, method: str) -> httpx.Response:
        # Plain HTTP needs no certificates, and reading them takes longer than the call.
        answer = httpx.request(method, f"{self.url}/_emulator/ledger", trust_env=False, verify=False)  # noqa: S501
        return answer.raise_for_status()


def serve_emulator(
    settings: EmulatorSettings, *, on_ready: Callable[[str], None] | None = None, exit_with_parent: bool = False
) -> None:
    """Run an emulator until SIGINT or SIGTERM; after SIGTERM the process ends by that signal.

    Args:
        settings: the behaviour of the emulator.
        on_ready: called with the emulator's address once it is listening.
        exit_with_parent: also stop at the end of standard input, which happens when the parent process that holds the
            other end of the pipe is gone, even by SIGKILL.

    Raises:
        AddressError: the emulator cannot listen at its address.
        FaultPlanError: the fault plan of the settings is invalid or cannot be read.
    """
    with _bind_socket(settings) as sock, contextlib.suppress(KeyboardInterrupt):
        server = _make_server(settings, lambda: on_ready(_format_url(sock)) if on_ready else None)
        if exit_with_parent:
            threading.Thread(target=_exit_with_stdin, args=(server,), daemon=True).start()
        server.run(sockets=[sock])


@contextlib.contextmanager
def run_emulator(settings: EmulatorSettings | None = None) -> Iterator[Emulator]:
    """Run an emulator in a thread of this process until the `with` block ends.

    Raises:
        AddressError: the emulator cannot listen at its address.
        FaultPlanError: the fault plan of the settings is invalid or cannot be read.
    """
    settings = settings or EmulatorSettings()
    ready = threading.Event()
    with _bind_socket(settings) as sock:
        server = _make_server(settings, ready.set)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, name="emulator", daemon=True)
        thread.start()
        try:
            if not ready.wait(_START_TIMEOUT_S):
                raise RuntimeError(f"the emulator did not start within {_START_TIMEOUT_S} s")
            yield Emulator(_format_url(sock))
        finally:
            server.should_exit = True
            thread.join()


def _bind_socket(settings: EmulatorSettings) -> socket.socket:
    """Return a listening socket. Binding it first reports a taken port at once and resolves port 0 to a number."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # asyncio sets TCP_NODELAY only if the protocol is named; without it each answer takes 40 ms longer.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((settings.host, settings.port))
        sock.listen(512)
    except OSError as exc:
        sock.close()
        raise AddressError(settings, exc) from exc
    return sock


def _format_url(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _make_server(settings: EmulatorSettings, on_ready: Callable[[], None]) -> _UvicornServer:
    app = create_emulator_app(settings)
    config = uvicorn.Config(
        TransportMiddleware(app, app.state.closing, settings.clock_ahead_s),
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=_GRACE_S,
        date_header=False,
    )
    return _UvicornServer(config, on_ready, app.state.close)


def _exit_with_stdin(server: uvicorn.Server) -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    server.should_exit = True
