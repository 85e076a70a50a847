"""The journal's database: transactions that are repeated through a server's outage, and never wait without end."""

import logging
import os
import re
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import Any, TypeVar

import sqlalchemy as sa
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    sleep_using_event,
    stop_any,
    stop_before_delay,
    stop_when_event_set,
    wait_random_exponential,
)

from videogen.errors import JournalError, SettingsError, UnreadableJournalError, get_install_hint

T = TypeVar("T")

ALONE = 8_473_001
"""The advisory lock of transactions that must not overlap in PostgreSQL."""
OUTAGE_S = 60.0
"""How long a transaction is repeated while a database server is away."""
LOCKED_S = 30.0
"""How long a transaction is repeated while another program holds a SQLite file."""
BUSY_MS = 1000
"""How long SQLite itself waits for a lock; in between, waiting can be ended."""
LONGEST_PAUSE_S = 2.0
EXAMPLE = "such as postgresql+psycopg://user@host:5432/database"
SHOWN_OPTIONS = ("host", "port", "dbname", "user")
"""Of an address's query, in messages: what else stands there may be a secret."""

logger = logging.getLogger(__name__)


class Database:
    """A database at a SQLAlchemy URL, in transactions.

    Every transaction is a function that may be called again: after an outage nobody knows whether the last commit was
    accepted, so it must find out itself whether its work is already done.

    Raises:
        SettingsError: the URL is none.
    """

    def __init__(self, url: str, *, is_patient: bool = True) -> None:
        """`is_patient`: a server that is away is waited for."""
        self._given_up = Event()
        self._engine = _engine(url)
        self.is_sqlite = self._engine.dialect.name == "sqlite"
        self.shown = _shown(self._engine.url)
        """The database's address without secrets."""
        self._patience_s = LOCKED_S if self.is_sqlite else OUTAGE_S if is_patient else 0.0
        self._is_away = False
        if self.is_sqlite:
            sa.event.listen(self._engine, "connect", _set_up_sqlite)
            sa.event.listen(self._engine, "begin", _begin_sqlite)
        elif self._engine.driver == "psycopg":
            from videogen import postgres

            postgres.guard(self._engine, self._given_up)

    @property
    def file(self) -> Path | None:
        """SQLite's file; None where there is none."""
        name = self._engine.url.database or ""
        return Path(name) if self.is_sqlite and name not in ("", ":memory:") and not name.startswith("file:") else None

    def run(
        self,
        work: Callable[[sa.Connection], T],
        *,
        alone: bool = False,
        reads_only: bool = False,
        is_repeated: bool = True,
    ) -> T:
        """Returns what `work` returns, committed.

        Args:
            alone: no other such transaction goes on meanwhile, of whichever process. In SQLite all are alone.
            reads_only: it neither waits for one that writes, nor keeps one waiting.
            is_repeated: while the database is away or locked. Otherwise it is tried once.

        Raises:
            JournalError: the database cannot be used, or was away for too long.
            UnreadableJournalError: its file is damaged.
        """
        patience_s = self._patience_s if is_repeated else 0.0
        repeating = Retrying(
            retry=retry_if_exception(self._is_passing),
            wait=wait_random_exponential(multiplier=0.1, max=LONGEST_PAUSE_S),
            stop=stop_any(stop_before_delay(patience_s), stop_when_event_set(self._given_up)),
            sleep=sleep_using_event(self._given_up),
            before_sleep=self._say_away,
            reraise=True,
        )
        try:
            result: T = repeating(self._run_once, work, alone, reads_only)
        except (sa.exc.SQLAlchemyError, sqlite3.Error, OSError) as exc:
            is_secret = any(secret in str(exc) for secret in _secrets(self._engine.url))
            raise self._journal_error(exc) from (None if is_secret else exc)
        self._is_away = False
        return result

    def give_up(self) -> None:
        """From now on nothing is waited for: what waits fails soon, and what comes is tried once."""
        self._given_up.set()

    def close(self) -> None:
        self._engine.dispose()

    def _run_once(self, work: Callable[[sa.Connection], T], alone: bool, reads_only: bool) -> T:
        with self._engine.execution_options(reads_only=reads_only).begin() as db:
            if alone and not self.is_sqlite:
                db.execute(sa.select(sa.func.pg_advisory_xact_lock(ALONE)))
            return work(db)

    def _is_passing(self, error: BaseException) -> bool:
        reason = _reason(error)
        if self.is_sqlite:
            code = getattr(reason, "sqlite_errorcode", None) or 0
            return code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
        if isinstance(error, sa.exc.DBAPIError) and error.connection_invalidated:
            return True
        if isinstance(error, sa.exc.TimeoutError):  # all connections of the pool are in use
            return True
        if self._engine.driver != "psycopg":
            return isinstance(error, sa.exc.OperationalError | sa.exc.InterfaceError)
        from videogen import postgres

        return postgres.is_passing(reason)

    def _say_away(self, state: RetryCallState) -> None:
        if self.is_sqlite or self._is_away or state.outcome is None:
            return
        self._is_away = True
        reason = self._told(state.outcome.exception() or "")
        logger.warning(
            "the journal at %s does not answer: %s. It is asked for up to %g s", self.shown, reason, OUTAGE_S
        )

    def _journal_error(self, error: Exception) -> JournalError | SettingsError:
        reason, told = _reason(error), self._told(error)
        if type(reason) is sqlite3.DatabaseError:  # not one of its subclasses: "malformed", "not a database"
            return UnreadableJournalError(f"the journal at {self.shown} is damaged: {told}")
        if self._is_wrong_address(reason, told):
            return SettingsError(f"VIDEOGEN_JOURNAL_URL: {told}; {EXAMPLE}")
        if self._is_passing(error):
            what = "another program holds it" if self.is_sqlite else "it was away for too long"
            return JournalError(f"the journal at {self.shown} cannot be used: {told}; {what}. Run the job again later")
        return JournalError(f"the journal at {self.shown} cannot be used: {told}")

    def _is_wrong_address(self, reason: object, told: str) -> bool:
        """Return whether the client says so, before it has asked any server."""
        is_of_client = not self.is_sqlite and getattr(reason, "sqlstate", None) is None
        return (
            is_of_client
            and re.match(r"(connection is bad: |connection failed: )?(invalid|missing|bad value) ", told) is not None
        )

    def _told(self, error: object) -> str:
        """The reason of an error in one line, without the secrets of the address."""
        text = " ".join(str(_reason(error)).split())
        for secret in sorted(_secrets(self._engine.url), key=len, reverse=True):
            text = text.replace(secret, "***")
        return text


def make_private(file: Path) -> None:
    """Creates a SQLite file that only its owner can read, as are then the files that SQLite puts beside it.

    Raises `JournalError` where a link leads to nowhere, which somebody else may have put there.
    """
    if file.is_symlink() and not file.exists():
        raise JournalError(f"the journal at {file} is a symbolic link to a file that does not exist: remove the link")
    with suppress(OSError):  # SQLite says what is wrong
        file.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def clean(value: Any) -> Any:
    """The JSON value as every database takes it: without NUL and half characters in texts, and without NaN and
    infinity, which are no JSON."""
    if isinstance(value, str):
        return value.replace("\0", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    if isinstance(value, dict):
        return {clean(str(name)): clean(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [clean(item) for item in value]
    return value


def _engine(url: str) -> sa.Engine:
    try:
        engine = sa.create_engine(url, pool_pre_ping=True)
        engine.dialect.create_connect_args(engine.url)
    except (sa.exc.ArgumentError, ValueError, TypeError):  # their texts may quote a password
        raise SettingsError(
            f"VIDEOGEN_JOURNAL_URL: it is not the address of a database; {EXAMPLE}, or sqlite:///journal.db. A port is "
            "a number, and @ : / in a password are written %40 %3A %2F"
        ) from None
    except sa.exc.NoSuchModuleError as exc:
        raise SettingsError(f"VIDEOGEN_JOURNAL_URL: {exc}; {EXAMPLE}") from exc
    except ImportError as exc:
        raise SettingsError(f"VIDEOGEN_JOURNAL_URL: {exc}; for PostgreSQL: {get_install_hint('postgres')}") from exc
    if engine.dialect.is_async:
        raise SettingsError(f"VIDEOGEN_JOURNAL_URL: {engine.driver} is a driver for asyncio only; {EXAMPLE}")
    return engine


def _shown(url: sa.URL) -> str:
    query = {name: value for name, value in url.query.items() if name in SHOWN_OPTIONS}
    return url._replace(query=sa.util.immutabledict(query)).render_as_string(hide_password=True)


def _secrets(url: sa.URL) -> set[str]:
    """What stands in the address for nobody to see."""
    found = [url.password or ""]
    for name, value in url.query.items():
        if re.search("password|secret|token|key|options", name):
            texts = [value] if isinstance(value, str) else list(value)
            found += texts + [part for text in texts for part in re.findall(r"=(\S+)", text)]
    return {secret for secret in found if len(secret) >= 4}


def _reason(error: Any) -> Any:
    return getattr(error, "orig", None) or error


def _set_up_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # SQLAlchemy's `begin` event opens transactions, not the driver
    for pragma in (f"busy_timeout={BUSY_MS}", "synchronous=FULL", "journal_mode=WAL"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: sa.Connection) -> None:
    reads_only = connection.get_execution_options().get("reads_only", False)
    connection.exec_driver_sql("BEGIN" if reads_only else "BEGIN IMMEDIATE")
