"""Run a uvicorn server on a socket of its own: in the foreground, or in a thread of this process."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import uvicorn

START_TIMEOUT_S = 30.0
ACCEPT_BACKLOG = 512
"""How many connections may wait to be accepted."""


class ListeningServer(uvicorn.Server):
    """A uvicorn server that calls back when it listens, and before it stops so that held requests are released."""

    def __init__(self, config: uvicorn.Config, *, on_ready: Callable[[], None], on_stop: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready
        self._on_stop = on_stop

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start listening, then call `on_ready`."""
        await super().startup(sockets)
        for sock in sockets or ():
            sock.listen(ACCEPT_BACKLOG)  # uvicorn's own backlog is also how many it accepts at once: that may be small
        if not self.should_exit:
            self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Call `on_stop`, then wait for the connections and abort the remaining ones."""
        self._on_stop()
        await super().shutdown(sockets)
        for connection in list(self.server_state.connections):  # clients that have not read their answer to its end
            connection.transport.abort()
        await asyncio.sleep(0)


@contextlib.contextmanager
def open_listening_socket(host: str, port: int) -> Iterator[socket.socket]:
    """Open a listening socket while the block lasts. Port 0 takes a free port.

    Raises:
        OSError, OverflowError, TypeError: the address cannot be bound, the port is no port, or the host no host name.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sets TCP_NODELAY only if the protocol is named; without it each answer takes 40 ms longer.
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(ACCEPT_BACKLOG)
        yield sock


def format_url(sock: socket.socket) -> str:
    """Return the address of the server that listens on this socket."""
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextlib.contextmanager
def run_in_thread(server: uvicorn.Server, sock: socket.socket, ready: threading.Event, *, name: str) -> Iterator[None]:
    """Run the server in a thread of this process while the block lasts. `ready` is set by its `on_ready`.

    Raises:
        RuntimeError: the server did not start within `START_TIMEOUT_S`.
    """
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, name=name, daemon=True)
    thread.start()
    try:
        if not ready.wait(START_TIMEOUT_S):
            raise RuntimeError(f"the {name} did not start within {START_TIMEOUT_S:g} s")
        yield
    finally:
        server.should_exit = True
        thread.join()
