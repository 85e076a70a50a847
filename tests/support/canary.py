"""A server on this machine that nobody should ever reach."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field


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
    """A canary that lives as long as the block."""
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
