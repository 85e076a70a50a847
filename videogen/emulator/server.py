"""Run the emulator in the foreground or in a thread of the caller's process."""

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
from videogen.serving import ListeningServer, format_url, open_listening_socket, run_in_thread

_GRACE_S = 1


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
        SnapshotError: a snapshot of an input schema cannot be read.
    """
    with _open_socket(settings) as sock, contextlib.suppress(KeyboardInterrupt):
        server = _make_server(settings, lambda: on_ready(format_url(sock)) if on_ready else None)
        if exit_with_parent:
            threading.Thread(target=_exit_with_stdin, args=(server,), daemon=True).start()
        server.run(sockets=[sock])


@contextlib.contextmanager
def run_emulator(settings: EmulatorSettings | None = None) -> Iterator[Emulator]:
    """Run an emulator in a thread of this process until the `with` block ends.

    Raises:
        AddressError: the emulator cannot listen at its address.
        FaultPlanError: the fault plan of the settings is invalid or cannot be read.
        SnapshotError: a snapshot of an input schema cannot be read.
    """
    settings = settings or EmulatorSettings()
    ready = threading.Event()
    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(_open_socket(settings))
        stack.enter_context(run_in_thread(_make_server(settings, ready.set), sock, ready, name="emulator"))
        yield Emulator(format_url(sock))


@contextlib.contextmanager
def _open_socket(settings: EmulatorSettings) -> Iterator[socket.socket]:
    with contextlib.ExitStack() as stack:
        try:
            sock = stack.enter_context(open_listening_socket(settings.host, settings.port))
        except OSError as exc:
            raise AddressError(settings, exc) from exc
        yield sock


def _make_server(settings: EmulatorSettings, on_ready: Callable[[], None]) -> ListeningServer:
    app = create_emulator_app(settings)
    config = uvicorn.Config(
        TransportMiddleware(app, app.state.closing, settings.clock_ahead_s),
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=_GRACE_S,
        date_header=False,
    )
    return ListeningServer(config, on_ready=on_ready, on_stop=app.state.close)


def _exit_with_stdin(server: uvicorn.Server) -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    server.should_exit = True
