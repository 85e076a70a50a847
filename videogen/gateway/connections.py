"""Who may hold a connection: many at once, but nobody for long without a request that is let in.

uvicorn has no time-out for a request's head, and takes connections until the process has no file left to open. So its
protocol is extended here: a connection waits, from its beginning and between its requests, until the guard admits a
request. Who waits too long is hung up on, and in a crowd the one who has waited longest is, so that a flood of half
requests displaces itself and not those who are watching.
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

HEAD_S = 10.0
"""So long a connection may wait without a request that is let in."""
MOST_HEAD_BYTES = 32 * 1024
"""Of a request line and its headers."""
OTHER_FILES = 64
"""Files that the process has open besides: its libraries, its journal, its streams."""
ADMIT = "videogen.admit"
"""Under this name a request's state has the function that its admission calls."""
NOISY = ("uvicorn.error", "asyncio", "videogen.gateway.feeds")
"""Loggers that strangers can make write."""


class Visits(ServerState):
    """The connections of one server."""

    def __init__(self, most: int | None = None) -> None:
        super().__init__()
        self.most = most or most_connections()
        """Of all connections; further requests are answered with 503."""
        self.most_waiting = self.most // 2
        self.waiting: dict[Connection, asyncio.TimerHandle] = {}
        """In the order of their coming, with what hangs up on them."""

    @property
    def burst(self) -> int:
        """So many connections may be accepted before the room is looked at again."""
        return max(1, self.most // 4)


class Connection(H11Protocol):
    """A connection that is hung up on unless its requests are let in soon."""

    def __init__(self, config: Config, server_state: Visits, app_state: dict[str, Any], **given: Any) -> None:
        super().__init__(config, server_state, {**app_state, ADMIT: self._leave_the_waiting}, **given)
        self._visits = server_state

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait()
        if len(self._visits.waiting) > self._visits.most_waiting:
            next(iter(self._visits.waiting))._hang_up()

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave_the_waiting()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        self._wait()
        super().on_response_complete()

    def _wait(self) -> None:
        self._leave_the_waiting()
        self._visits.waiting[self] = self.loop.call_later(HEAD_S, self._hang_up)

    def _leave_the_waiting(self) -> None:
        deadline = self._visits.waiting.pop(self, None)
        if deadline is not None:
            deadline.cancel()

    def _hang_up(self) -> None:
        self._leave_the_waiting()
        self.transport.abort()


def admit(scope: Scope) -> None:
    """Say that the request is let in: its connection may last as long as the answer does."""
    leave_the_waiting: Callable[[], None] | None = scope.get("state", {}).get(ADMIT)
    if leave_the_waiting is not None:
        leave_the_waiting()


def most_connections() -> int:
    """Return how many connections this process has files for, when each of them reads a clip, too."""
    files = get_open_file_limit()
    return 1024 if files is None else max(16, min(1024, (files - OTHER_FILES) // 2))


class RepeatLimit(logging.Filter):
    """Lets through a few records of each kind a minute; the last of them says that more are left out."""

    def __init__(self, *, most: int = 5, window_s: float = 60.0, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._most, self._window_s, self._now = most, window_s, now
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
    """Keep strangers from filling the log, as long as the block lasts."""
    limit = RepeatLimit()
    loggers = [logging.getLogger(name) for name in NOISY]
    for logger in loggers:
        logger.addFilter(limit)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(limit)
