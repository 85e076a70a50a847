"""What a journal's address may say and what is shown of it, who may read its files, and which texts it takes."""

import os
import stat
import traceback
from contextlib import closing, nullcontext
from pathlib import Path

import pytest

from tests.journal.conftest import intend, start
from tests.support.builders import request_of
from videogen.errors import (
    JournalError,
    SettingsError,
    UnreadableJournalError,
    get_install_hint,
)
from videogen.journal.database import check_journal_url, sanitize_json
from videogen.journal.store import Journal
from videogen.results.clip import Clip

SECRET = "s3cr3t-canary"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://u@host:54x2/db",
        f"postgresql+psycopg://u:pass@{SECRET}:word@host:port/db",
        f"postgresql+psycopg://u:{SECRET}@127.0.0.1:99999/db",
        f"postgresql+psycopg://u:pass@{SECRET}@127.0.0.1:1/db",
        f"postgresql+psycopg://u:pass@{SECRET}/word@127.0.0.1:1/db",
        f"postgresql+psycopg://u:{SECRET}@127.0.0.1:1/db?{SECRET}=1",
        f"postgresql+psycopg://u@127.0.0.1:1/db?password={SECRET}&connect_timeout=soon",
        f"postgresql+psycopg://u@127.0.0.1:1/db?options=-cx%3D{SECRET}&sslmode=perhaps",
        "postgresql+asyncpg://u@host/db",
        "sqlite+aiosqlite:///x.db",
        "sqlite://host/x.db",
        "postgresql://",
        "nonsense",
        "mysql+nodriver://x/y",
    ],
)
def test_an_address_that_is_none_is_a_wrong_setting(url: str) -> None:
    """It names the variable and an example, and no secret: also not in what Python would print of it."""
    with pytest.raises(SettingsError, match=r"VIDEOGEN_JOURNAL_URL: .*postgres") as refused:
        Journal(url)
    assert SECRET not in "".join(traceback.format_exception(refused.value))


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        *(
            (url, "database in memory, .* sqlite:///journal.db")
            for url in (
                "sqlite://",
                "sqlite:///",
                "sqlite:///:memory:",
                "sqlite:///file::memory:?cache=shared&uri=true",
                "sqlite:///file:journal?mode=memory&uri=true",
                "sqlite:///file:journal?mode=memory&mode=rw&uri=true",
                "sqlite:///journal.db?vfs=memdb",
                "sqlite:///file:/journal.db?vfs=memdb&uri=true",
                "sqlite:///file:?uri=true",
            )
        ),
        ("sqlite:///{folder}", "{folder} is a folder. Name a file in it, such as sqlite:///{folder}/journal.db"),
        ("sqlite:///{folder}/film.toml/journal.db", "{folder}/film.toml is a file"),
        ("sqlite:///{folder}/film.toml/below/journal.db", "{folder}/film.toml is a file"),
        ("mysql://u@host/db", "the journal cannot be in mysql, only in SQLite or PostgreSQL"),
        ("mssql+pyodbc://u@host/db", "the journal cannot be in mssql, only in SQLite or PostgreSQL"),
        ("foo://u@host/db", "no database or driver 'foo'"),
        ("postgres://u@host/db", "no database or driver 'postgres'.*postgresql\\+psycopg://"),
        ("postgresql://u@host/db", "psycopg2.*Write .*postgresql\\+psycopg://"),
    ],
)
def test_an_address_of_no_use_for_a_journal_is_a_wrong_setting(url: str, advice: str, tmp_path: Path) -> None:
    """It says what to write instead, and nothing is created."""
    (tmp_path / "film.toml").touch()
    with pytest.raises(SettingsError, match=rf"VIDEOGEN_JOURNAL_URL: .*{advice.format(folder=tmp_path)}"):
        Journal(url.format(folder=tmp_path))
    assert [each.name for each in tmp_path.iterdir()] == ["film.toml"]


@pytest.mark.parametrize(("content", "is_refused"), [(b"[job]", True), (b"x" * 999, True), (b"", False)])
def test_a_file_that_is_no_database_is_not_a_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, is_refused: bool
) -> None:
    """An address that names, say, the job file by mistake: the file is neither moved away nor changed."""
    monkeypatch.chdir(tmp_path)
    Path("film.toml").write_bytes(content)
    with pytest.raises(SettingsError, match=r"film.toml exists and is not a SQLite") if is_refused else nullcontext():
        check_journal_url("sqlite:///film.toml")
    assert Path("film.toml").read_bytes() == content


def test_a_journal_in_use_is_a_journal(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'journal.db'}"
    Journal(url).close()
    check_journal_url(url)


def test_a_journal_may_be_at_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with closing(Journal("sqlite:///new/journal.db")) as journal:
        start(journal, "run1")
    assert (tmp_path / "new" / "journal.db").is_file()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://u:{}@127.0.0.1:1/db",
        "postgresql+psycopg://u@127.0.0.1:1/db?password={}",
        "postgresql+psycopg://u@127.0.0.1:1/db?sslpassword={}&sslmode=disable",
        "postgresql+psycopg://u@127.0.0.1:1/db?options=-c%20x.password%3D{}",
        "postgresql+psycopg://u@/db?host=127.0.0.1&port=1&password={}",
    ],
)
def test_a_password_is_never_shown(url: str) -> None:
    with pytest.raises(JournalError, match=r"127\.0\.0\.1") as refused:
        Journal(url.format(SECRET), read_only=True)
    assert SECRET not in "".join(traceback.format_exception(refused.value))


def test_a_password_that_the_server_quotes_is_not_shown(direct_url: str) -> None:
    """What it says of the address's options is told without them."""
    url = f"{direct_url}&options=-c%20lock_timeout%3D{SECRET}"
    with pytest.raises(JournalError) as refused:
        Journal(url, read_only=True)
    assert SECRET not in "".join(traceback.format_exception(refused.value))
    assert "lock_timeout" in str(refused.value)


def test_a_missing_extra_is_named_as_it_is_installed() -> None:
    assert (
        get_install_hint("postgres")
        == "pip install 'videogen-batch[postgres]', or in a checkout: uv sync --extra postgres"
    )


# -- files ------------------------------------------------------------------------------------------------------------


def modes(folder: Path) -> dict[str, str]:
    return {file.name.split("-2")[0]: oct(stat.S_IMODE(file.stat().st_mode)) for file in folder.iterdir()}


def test_only_its_owner_reads_a_new_journal(tmp_path: Path) -> None:
    """Nor what SQLite puts beside it; the folder stays as it is."""
    tmp_path.chmod(0o755)
    before = os.umask(0)
    try:
        with closing(Journal(f"sqlite:///{tmp_path / 'journal.db'}")) as journal:
            start(journal, "run1")
            assert modes(tmp_path) == dict.fromkeys(("journal.db", "journal.db-wal", "journal.db-shm"), "0o600")
    finally:
        os.umask(before)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def test_only_its_owner_reads_a_journal_that_is_set_aside(tmp_path: Path) -> None:
    file = tmp_path / "journal.db"
    file.write_bytes(b"no database at all" * 500)
    file.chmod(0o644)
    with closing(Journal(f"sqlite:///{file}")) as journal:
        assert journal.quarantined
    assert modes(tmp_path) == {"journal.db": "0o600", "journal.db.set-aside": "0o600"}


def test_a_link_to_nowhere_is_not_followed(tmp_path: Path) -> None:
    """Somebody else may have put it into a shared folder, to have a file written elsewhere."""
    (tmp_path / "journal.db").symlink_to(tmp_path / "elsewhere.db")
    with pytest.raises(JournalError, match="symbolic link"):
        Journal(f"sqlite:///{tmp_path / 'journal.db'}")
    assert not (tmp_path / "elsewhere.db").exists()


# -- texts ------------------------------------------------------------------------------------------------------------

ODD = "a\0b\ud83d c\udc00 😀 \x1b[2J \u202e" + "x" * 10_000


def test_no_text_wedges_the_journal(journal: Journal) -> None:
    """NUL, half an emoji, infinity, an id of any length: what follows is as ever."""
    start(journal, "run1", job_id="job")
    request = request_of()
    attempt = intend(journal, request, "run1")
    prediction_id = "\0\ud83d" + "p" * 5000
    created = journal.record_prediction(attempt, prediction_id, None)
    assert created
    assert journal.has_prediction(prediction_id)
    assert journal.record_prediction(attempt, prediction_id, None) == created
    journal.record_end(created, error=ODD, message=ODD)
    journal.record_end(created, error=ODD, message=ODD)
    payload = {"scene_id": "a", ODD: [ODD, float("inf"), float("nan"), {"x": (ODD, 1, None, True)}]}
    journal.add_event("run1", "clip.progress", payload)
    ((_, _, told),) = journal.read_events("run1")
    assert told == sanitize_json(payload)
    assert told["scene_id"] == "a"
    clip = Clip.make_failed(request, ValueError(ODD), warnings=(ODD,), codec=ODD)
    second = intend(journal, request, "run1")
    second = journal.record_prediction(second, "p2", None) or second
    second = journal.record_success(second, request.cost, "known")
    journal.record_delivery(second, request, origin="fake", folder="run1", clip=clip)
    assert journal.find_delivery("fake", request.key)
    journal.add_event("run1", "clip.completed", {**clip.model_dump(mode="json"), "run_id": "run1"})
    assert journal.find_delivered_clip("run1", "a")
    assert journal.find_run("run1")


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        ("a\0b", "a\ufffdb"),
        ("\ud83d", "\ufffd"),
        ("\ud83d\ude00", "😀"),
        ("😀é€", "😀é€"),
        (float("-inf"), None),
        (1.5, 1.5),
        ({"a\0": ("x", [float("nan")])}, {"a\ufffd": ["x", [None]]}),
        (True, True),
        (None, None),
    ],
)
def test_what_is_stored_of_a_value(value: object, stored: object) -> None:
    assert sanitize_json(value) == stored


def test_a_damaged_file_is_not_touched_by_who_watches(tmp_path: Path) -> None:
    file = tmp_path / "journal.db"
    file.write_bytes(b"no database at all" * 500)
    with pytest.raises(UnreadableJournalError):
        Journal(f"sqlite:///{file}", read_only=True)
    assert [each.name for each in tmp_path.iterdir()] == ["journal.db"]
