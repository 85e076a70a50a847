"""Connections to a PostgreSQL server that never wait for it indefinitely. Imported only if there is one."""

import time
from collections.abc import Generator
from threading import Event
from typing import Any, TypeVar

import psycopg
import sqlalchemy as sa

T = TypeVar("T")

SILENCE_S = 20.0
"""Time that the server may take for one answer before the connection is given up."""
WATCH_EVERY_S = 0.1
CONNECT_ARGUMENTS = {
    "connect_timeout": 5,
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}
"""For libpq. Values in the journal's URL override them."""
SESSION = {
    "lock_timeout": "10s",
    "statement_timeout": "15s",
    "idle_in_transaction_session_timeout": "20s",  # so that a run that is cut off holds no lock for long
}
TRANSIENT_STATES = frozenset(
    {
        "25P03",  # idle in a transaction for too long
        "40001",  # serialization failure
        "40P01",  # deadlock
        "53300",  # too many connections
        "55P03",  # lock not available
        "57014",  # statement timeout
        "57P01",  # the server is being shut down
        "57P02",  # the server is restarted after a crash
        "57P03",  # the server is starting
        "57P05",  # idle for too long
    }
)
"""SQLSTATEs after which the same transaction may succeed. Source: PostgreSQL's manual, appendix A."""
PERMANENT_REASONS = ("invalid", "authentication failed", "does not exist", "no password supplied", "pg_hba.conf")
"""Texts of refused connections that waiting does not mend. Such errors have no SQLSTATE."""


class _Connection(psycopg.Connection[Any]):
    """A connection that is closed when the server does not answer, or when `given_up` is set."""

    given_up: Event | None = None

    def wait(self, gen: Any, *args: Any, **kwargs: Any) -> Any:
        return super().wait(self._close_when_silent(gen), *args, **{"interval": WATCH_EVERY_S} | kwargs)

    def _close_when_silent(self, gen: Generator[Any, Any, T]) -> Generator[Any, Any, T]:
        """Forward to `gen` what psycopg sends, which it does every `interval` seconds with or without an answer."""
        deadline = time.monotonic() + SILENCE_S
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if not ready and (time.monotonic() > deadline or (self.given_up and self.given_up.is_set())):
                    self.close()
                    raise psycopg.OperationalError("the server does not answer")
                wanted = gen.send(ready)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]


def guard_engine(engine: sa.Engine, given_up: Event) -> None:
    """Make the engine's connections wait only for a limited time, for an answer as for a lock."""

    def connect(_dialect: Any, _record: Any, arguments: list[Any], options: dict[str, Any]) -> _Connection:
        connection = _Connection.connect(*arguments, **CONNECT_ARGUMENTS | options)
        connection.given_up = given_up
        connection.autocommit = True
        calls = ", ".join(["set_config(%s, %s, false)"] * len(SESSION))
        connection.execute(f"SELECT {calls}".encode(), [text for setting in SESSION.items() for text in setting])
        connection.autocommit = False
        return connection

    sa.event.listen(engine, "do_connect", connect)


def is_transient(error: BaseException) -> bool:
    """Return whether the server is only temporarily unreachable, so that the transaction may be repeated."""
    if not isinstance(error, psycopg.Error):
        return False
    if error.sqlstate:
        return error.sqlstate in TRANSIENT_STATES or error.sqlstate.startswith("08")
    is_connection_lost = isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return is_connection_lost and not any(reason in str(error) for reason in PERMANENT_REASONS)
