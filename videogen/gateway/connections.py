"""Limit how long connections may be idle and how many there may be, and how often strangers may make the log grow.

uvicorn has no time-out for a request's head, and takes connections until the process has no file left to open. So its
protocol is extended here: a connection is waiting, from its beginning and between its requests, until the guard admits
a request. A connection that waits too long is aborted. When too many are waiting, the one that has waited longest is
aborted, so that a flood of half requests displaces itself and not the visitors who are watching.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from starlette.types import Scope
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from videogen.posix import get_open_file_limit

HEAD_TIMEOUT_S = 10.0
"""How long a connection may wait without an admitted request."""
MAX_HEAD_BYTES = 32 * 1024
"""Largest size of a request line and its headers."""
RESERVED_FILES = 64
"""Number of files that are left to the rest of the process: its libraries, journal and streams."""
ADMIT_KEY = "videogen.admit"
"""Key in a request's state of the function that `admit_request` calls."""
LIMITED_LOGGERS = ("uvicorn.error", "asyncio", "videogen.gateway.feeds")
"""Loggers that requests of strangers can make write."""


class ConnectionPool(ServerState):
    """The connections of one server."""

    def __init__(self, most: int | None = None) -> None:
        super().__init__()
        self.most = most or get_max_connections()
        """Limit of all connections. Further requests are answered with 503."""
        self.most_waiting = self.most // 2
        self.waiting: dict[Connection, asyncio.TimerHandle] = {}
        """Waiting connections in order of arrival, each with the timer that aborts it."""

    @property
    def burst(self) -> int:
        """Number of connections that may be accepted before the limit is checked again."""
        return max(1, self.most // 4)


class Connection(H11Protocol):
    """A connection that is aborted unless its requests are admitted soon."""

    def __init__(self, config: Config, server_state: ConnectionPool, app_state: dict[str, Any], **given: Any) -> None:
        super().__init__(config, server_state, {**app_state, ADMIT_KEY: self._stop_waiting}, **given)
        self._pool = server_state

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._start_waiting()
        if len(self._pool.waiting) > self._pool.most_waiting:
            next(iter(self._pool.waiting))._hang_up()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        self._start_waiting()
        super().on_response_complete()

    def _start_waiting(self) -> None:
        self._stop_waiting()
        self._pool.waiting[self] = self.loop.call_later(HEAD_TIMEOUT_S, self._hang_up)

    def _stop_waiting(self) -> None:
        deadline = self._pool.waiting.pop(self, None)
        if deadline is not None:
            deadline.cancel()

    def _hang_up(self) -> None:
        self._stop_waiting()
        self.transport.abort()


def admit_request(scope: Scope) -> None:
    """Admit a request, so that its connection may last as long as the response does."""
    stop_waiting: Callable[[], None] | None = scope.get("state", {}).get(ADMIT_KEY)
    if stop_waiting is not None:
        stop_waiting()


def get_max_connections() -> int:
    """Return how many connections this process has files for: each takes one, and one for the clip that it reads."""
    files = get_open_file_limit()
    return 1024 if files is None else max(16, min(1024, (files - RESERVED_FILES) // 2))


class RepeatLimit(logging.Filter):
    """Pass a few log records of each kind per minute. The last of them says that further ones are left out."""

    def __init__(self, *, most: int = 5, window_s: float = 60.0, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._most = most
        self._window_s = window_s
        self._now = now
        self._began = now()
        self._seen: Counter[tuple[str, int, str]] = Counter()

    def filter(self, record: logging.LogRecord) -> bool:
        if self._now() - self._began >= self._window_s:
            self._began = self._now()
            self._seen.clear()
        kind = (record.name, record.levelno, str(record.msg).partition("\n")[0][:80])
        self._seen[kind] += 1
        if self._seen[kind] == self._most:
            record.msg = f"{record.getMessage()} (more of these within {self._window_s:g} s are left out)"
            record.args = None
        return self._seen[kind] <= self._most


@contextmanager
def limit_repeats() -> Iterator[None]:
    """Limit repeated log records while the block lasts, so that strangers cannot fill the log."""
    limit = RepeatLimit()
    loggers = [logging.getLogger(name) for name in LIMITED_LOGGERS]
    for logger in loggers:
        logger.addFilter(limit)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(limit)
