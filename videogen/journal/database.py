"""The journal's database. Transactions are repeated during a server's outage, and never wait indefinitely."""

import logging
import os
import re
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import Any, TypeVar
from urllib.parse import unquote

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

from videogen.errors import (
    JournalError,
    SettingsError,
    UnreadableJournalError,
    get_install_hint,
)
from videogen.text import escape_unprintable

T = TypeVar("T")

EXCLUSIVE_LOCK_ID = 8_473_001
"""The advisory lock of PostgreSQL for transactions that must not overlap."""
OUTAGE_S = 60.0
"""Time for which a transaction is repeated while a database server is unreachable."""
LOCKED_S = 30.0
"""Time for which a transaction is repeated while another program holds a SQLite file."""
BUSY_MS = 1000
"""Time that SQLite itself waits for a lock. Between two such waits, the waiting can be ended."""
LONGEST_PAUSE_S = 2.0
DATABASES = ("sqlite", "postgresql")
"""SQLAlchemy's names of the databases that a journal can be in."""
SQLITE_MAGIC = b"SQLite format 3\0"
"""The first bytes of a SQLite file. Source: https://www.sqlite.org/fileformat.html"""
EXAMPLES = "Write sqlite:///journal.db or postgresql+psycopg://user@host:5432/database"
SHOWN_OPTIONS = ("host", "port", "dbname", "user")
"""The options of a URL's query that messages show. All others may be secret."""

logger = logging.getLogger(__name__)


class Database:
    """A database at a SQLAlchemy URL, accessed in transactions.

    Every transaction is a function that may be called again. After an outage it is not known whether the last commit
    was accepted, so the function must find out itself whether its work is already done.

    Raises:
        SettingsError: the URL is invalid.
    """

    def __init__(self, url: str, *, is_patient: bool = True, given_up: Event | None = None) -> None:
        """Create the engine; no connection is made yet. With `is_patient`, transactions wait for an unreachable
        server, until `given_up` is set."""
        self._given_up = given_up or Event()
        self._engine = _make_engine(url)
        self.is_sqlite = self._engine.dialect.name == "sqlite"
        self.display_url = _hide_secrets(self._engine.url)
        """The database's URL without secrets."""
        self._patience_s = OUTAGE_S if is_patient else 0.0
        if self.is_sqlite:
            self._patience_s = LOCKED_S
        self._is_away = False
        if self.is_sqlite:
            sa.event.listen(self._engine, "connect", _set_up_sqlite)
            sa.event.listen(self._engine, "begin", _begin_sqlite)
        elif self._engine.driver == "psycopg":
            from videogen.journal import postgres

            postgres.guard_engine(self._engine, self._given_up)

    @property
    def file(self) -> Path | None:
        """The SQLite file, or None if the database is not in a file."""
        name = self._engine.url.database or ""
        return Path(name) if self.is_sqlite and name not in ("", ":memory:") and not name.startswith("file:") else None

    def run(
        self,
        work: Callable[[sa.Connection], T],
        *,
        exclusive: bool = False,
        reads_only: bool = False,
        is_repeated: bool = True,
    ) -> T:
        """Run `work` in a transaction, commit, and return its result.

        Args:
            exclusive: no other such transaction runs meanwhile, in any process. In SQLite all transactions are
                exclusive.
            reads_only: the transaction neither waits for a writer nor blocks one.
            is_repeated: repeat it while the database is unreachable or locked. Otherwise it is tried once.

        Raises:
            JournalError: the database cannot be used, or was unreachable for too long.
            UnreadableJournalError: its file is damaged.
        """
        patience_s = self._patience_s if is_repeated else 0.0
        repeating = Retrying(
            retry=retry_if_exception(self._is_transient),
            wait=wait_random_exponential(multiplier=0.1, max=LONGEST_PAUSE_S),
            stop=stop_any(stop_before_delay(patience_s), stop_when_event_set(self._given_up)),
            sleep=sleep_using_event(self._given_up),
            before_sleep=self._log_outage,
            reraise=True,
        )
        try:
            result: T = repeating(self._run_once, work, exclusive, reads_only)
        except (sa.exc.SQLAlchemyError, sqlite3.Error, OSError) as exc:
            is_secret = any(secret in str(exc) for secret in _find_secrets(self._engine.url))
            raise self._journal_error(exc) from (None if is_secret else exc)
        if self._is_away:
            self._is_away = False
            logger.info("the journal at %s answers again", self.display_url)
        return result

    def give_up(self) -> None:
        """Stop waiting for the database: pending transactions fail soon, and later ones are tried once."""
        self._given_up.set()

    def close(self) -> None:
        self._engine.dispose()

    def _run_once(self, work: Callable[[sa.Connection], T], exclusive: bool, reads_only: bool) -> T:
        with self._engine.execution_options(reads_only=reads_only).begin() as db:
            if exclusive and not self.is_sqlite:
                db.execute(sa.select(sa.func.pg_advisory_xact_lock(EXCLUSIVE_LOCK_ID)))
            return work(db)

    def _is_transient(self, error: BaseException) -> bool:
        reason = _original_error(error)
        if self.is_sqlite:
            return _get_sqlite_code(reason) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
        if isinstance(error, sa.exc.DBAPIError) and error.connection_invalidated:
            return True
        if isinstance(error, sa.exc.TimeoutError):  # all connections of the pool are in use
            return True
        if self._engine.driver != "psycopg":
            return isinstance(error, sa.exc.OperationalError | sa.exc.InterfaceError)
        from videogen.journal import postgres

        return postgres.is_transient(reason)

    def _log_outage(self, state: RetryCallState) -> None:
        if self._is_away or state.outcome is None:
            return
        self._is_away = True
        reason = escape_unprintable(self._describe(state.outcome.exception() or ""))
        if self.is_sqlite:
            logger.info("waiting for another program that holds the journal at %s: %s", self.display_url, reason)
            return
        logger.warning(
            "the journal at %s does not answer: %s. Retrying for up to %g s", self.display_url, reason, OUTAGE_S
        )

    def _journal_error(self, error: Exception) -> JournalError | SettingsError:
        reason, told = _original_error(error), self._describe(error)
        if type(reason) is sqlite3.DatabaseError:  # not one of its subclasses: "malformed", "not a database"
            return UnreadableJournalError(f"the journal at {self.display_url} is damaged: {told}")
        if self._is_wrong_address(reason, told):
            return SettingsError(f"VIDEOGEN_JOURNAL_URL: {told}. {EXAMPLES}")
        if self._is_transient(error):
            what = "another program holds it" if self.is_sqlite else "it was unreachable for too long"
            return JournalError(
                f"the journal at {self.display_url} cannot be used: {told}; {what}. Run the job again later"
            )
        if self.is_sqlite and _get_sqlite_code(reason) in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
            told += ". Make room on its disk, and run the job again: what is paid for stays free"
        return JournalError(f"the journal at {self.display_url} cannot be used: {told}")

    def _is_wrong_address(self, reason: object, told: str) -> bool:
        """Return whether the client rejects the URL before it has contacted any server."""
        is_of_client = not self.is_sqlite and getattr(reason, "sqlstate", None) is None
        return (
            is_of_client
            and re.match(r"(connection is bad: |connection failed: )?(invalid|missing|bad value) ", told) is not None
        )

    def _describe(self, error: object) -> str:
        """Return the reason of an error in one line, without the secrets of the URL."""
        text = " ".join(str(_original_error(error)).split())
        for secret in sorted(_find_secrets(self._engine.url), key=len, reverse=True):
            text = text.replace(secret, "***")
        return text


def make_private(file: Path) -> None:
    """Create a SQLite file that only its owner can read. SQLite gives its companion files the same mode.

    Raises:
        JournalError: the path is a dangling symbolic link, which another user may have put there.
    """
    if file.is_symlink() and not file.exists():
        raise JournalError(f"the journal at {file} is a symbolic link to a file that does not exist: remove the link")
    with suppress(OSError):  # SQLite says what is wrong
        file.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def sanitize_json(value: Any) -> Any:
    """Return the JSON value as every database accepts it: without NUL and unpaired surrogates in texts, and with
    None for NaN and infinity, which are not JSON."""
    if isinstance(value, str):
        return value.replace("\0", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    if isinstance(value, dict):
        return {sanitize_json(str(name)): sanitize_json(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [sanitize_json(item) for item in value]
    return value


def check_journal_url(url: str) -> None:
    """Raise `SettingsError` if no journal can be opened at this URL that the user gave. Nothing is created or connected
    to."""
    engine = _make_engine(url)
    engine.dispose()
    file = Path(engine.url.database or "")
    if engine.dialect.name == "sqlite" and file.is_file() and not _may_be_sqlite(file):
        raise SettingsError(
            f"VIDEOGEN_JOURNAL_URL: {file} exists and is not a SQLite database, so it was left as it is. Name another "
            "file, such as sqlite:///journal.db"
        )


def _may_be_sqlite(file: Path) -> bool:
    """Return whether a file is empty or begins as SQLite's files do. SQLite itself says if it cannot be read."""
    try:
        with file.open("rb") as opened:
            return opened.read(len(SQLITE_MAGIC)) in (b"", SQLITE_MAGIC)
    except OSError:
        return True


def _make_engine(url: str) -> sa.Engine:
    try:
        _refuse_raw_at_sign(sa.make_url(url))
        engine = sa.create_engine(url, pool_pre_ping=True)
        engine.dialect.create_connect_args(engine.url)
    except sa.exc.NoSuchModuleError:
        raise SettingsError(
            f"VIDEOGEN_JOURNAL_URL: there is no database or driver {sa.make_url(url).drivername!r}. {EXAMPLES}"
        ) from None
    except (sa.exc.ArgumentError, ValueError, TypeError):  # their texts may quote a password
        raise SettingsError(
            f"VIDEOGEN_JOURNAL_URL: it is not the address of a database. {EXAMPLES}. A port is a number, and @ : / in "
            "a password are written %40 %3A %2F"
        ) from None
    except ImportError as exc:
        raise SettingsError(f"VIDEOGEN_JOURNAL_URL: {_describe_missing_driver(sa.make_url(url), exc)}") from exc
    if engine.dialect.is_async:
        raise SettingsError(f"VIDEOGEN_JOURNAL_URL: {engine.driver} is a driver for asyncio only. {EXAMPLES}")
    if engine.dialect.name not in DATABASES:
        raise SettingsError(f"VIDEOGEN_JOURNAL_URL: {_describe_unsupported(engine.dialect.name)}")
    if engine.dialect.name == "sqlite":
        _check_sqlite_place(engine.url)
    return engine


def _refuse_raw_at_sign(url: sa.URL) -> None:
    """Raise `ValueError` if the URL has an `@` after the one that ends the password: then the password has a raw `@`,
    and its rest is read as the host or the database."""
    if "@" in (url.host or "") or (url.password and "@" in (url.database or "")):
        raise ValueError("a raw @ in the password")


def _describe_missing_driver(url: sa.URL, exc: ImportError) -> str:
    database = url.get_backend_name()
    if database not in DATABASES:
        return _describe_unsupported(database)
    if url.get_driver_name() == "psycopg":
        return f"{exc}. Install it: {get_install_hint('postgres')}"
    return f"{exc}. {EXAMPLES}"


def _describe_unsupported(database: str) -> str:
    return f"the journal cannot be in {database}, only in SQLite or PostgreSQL. {EXAMPLES}"


def _check_sqlite_place(url: sa.URL) -> None:
    """Raise `SettingsError` if the URL names a database in memory, or a path at which there can be no file."""
    name = url.database or ""
    shown = url.render_as_string()
    is_option_of_memory = re.search(r"[?&](mode=memory|vfs=memdb)\b", unquote(shown)) is not None
    if name in ("", ":memory:", "file:") or name.startswith("file::memory:") or is_option_of_memory:
        raise SettingsError(
            f"VIDEOGEN_JOURNAL_URL: {shown} is a database in memory, which forgets what is paid for when the run ends. "
            "Name a file, such as sqlite:///journal.db"
        )
    if Path(name).is_dir():
        example = f"sqlite:///{Path(name) / 'journal.db'}"
        raise SettingsError(f"VIDEOGEN_JOURNAL_URL: {name} is a folder. Name a file in it, such as {example}")
    if blocking := next((str(place) for place in Path(name).parents if place.is_file()), None):
        raise SettingsError(
            f"VIDEOGEN_JOURNAL_URL: {name} cannot be created because {blocking} is a file. Name a file in a folder, "
            "such as sqlite:///journal.db"
        )


def _hide_secrets(url: sa.URL) -> str:
    query = {name: value for name, value in url.query.items() if name in SHOWN_OPTIONS}
    return url._replace(query=sa.util.immutabledict(query)).render_as_string(hide_password=True)


def _find_secrets(url: sa.URL) -> set[str]:
    """Return the parts of the URL that must not be shown."""
    found = [url.password or ""]
    for name, value in url.query.items():
        if re.search("password|secret|token|key|options", name):
            texts = [value] if isinstance(value, str) else list(value)
            found += texts + [part for text in texts for part in re.findall(r"=(\S+)", text)]
    return {secret for secret in found if len(secret) >= 4}


def _original_error(error: Any) -> Any:
    return getattr(error, "orig", None) or error


def _get_sqlite_code(error: object) -> int:
    """Return the primary result code of an error of SQLite, 0 for other errors."""
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF


def _set_up_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # SQLAlchemy's `begin` event opens transactions, not the driver
    for pragma in (f"busy_timeout={BUSY_MS}", "synchronous=FULL", "journal_mode=WAL"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: sa.Connection) -> None:
    reads_only = connection.get_execution_options().get("reads_only", False)
    connection.exec_driver_sql("BEGIN" if reads_only else "BEGIN IMMEDIATE")
