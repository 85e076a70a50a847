"""`videogen gateway` as a process."""

import signal
import socket
from pathlib import Path

import httpx
import pytest

from tests.gateway.conftest import Streamed, gateway
from videogen.cli.main import main
from videogen.journal.store import Journal


def test_it_shows_a_folder_that_has_no_run_yet_and_lets_its_listeners_go(tmp_path: Path) -> None:
    """The first run may come later. At SIGTERM streams end, and nothing is complained about."""
    with gateway(tmp_path / "out") as (process, url), httpx.Client(base_url=url, trust_env=False) as http:
        assert http.get("/runs").json() == {"runs": [], "next": None}
        journal = Journal(f"sqlite:///{tmp_path / 'out' / 'journal.db'}")
        journal.start_run("r1", job_id="film", origin="local", folder=str(tmp_path))
        journal.close()
        with http.stream("GET", "/runs/r1/events") as response:
            events = iter(Streamed(response))
            assert next(events).event == "snapshot"
            process.send_signal(signal.SIGTERM)
            assert list(events) == []
        process.wait(250)
        assert process.stdout
        assert process.stdout.read() == ""


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "films.example"])
def test_others_are_not_let_in_without_a_token(
    host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Refused before anything listens, with what to do about it."""
    monkeypatch.setenv("VIDEOGEN_OUT", str(tmp_path))
    assert main(["gateway", "--host", host]) == 2
    assert "VIDEOGEN_GATEWAY_TOKEN" in capsys.readouterr().err


@pytest.mark.parametrize("token", ["two words", "ключ"])
def test_a_token_fits_a_header(token: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What is wrong is said without saying the token."""
    assert main(["gateway", "--host", "0.0.0.0", "--token", token]) == 2
    said = capsys.readouterr().err
    assert "VIDEOGEN_GATEWAY_TOKEN" in said
    assert token not in said


def test_an_empty_token_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gateway", "--host", "0.0.0.0", "--token", ""]) == 2


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--port", "99999"], "a port must be a number from 0 to 65535"),
        (["--port", "-1"], "a port must be a number from 0 to 65535"),
        (["--host", "fílms..example"], "not a valid host name"),
        (["--host", "í" * 64], "not a valid host name"),
        (["--host", "films.invalid"], "--host films.invalid"),
        (["--host", "::g"], "--host ::g"),
    ],
    ids=lambda value: " ".join(value)[:30] if isinstance(value, list) else "",
)
def test_an_address_that_is_none_is_said(
    flags: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By its flag, in one line, before anything listens."""
    assert main(["gateway", *flags, "--token", "secret", "--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: --host ")
    assert says in said


def test_a_taken_port_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["gateway", "--port", str(taken.getsockname()[1]), "--out", str(tmp_path)]) == 2
    assert "in use" in capsys.readouterr().err


def test_a_journal_that_cannot_be_read_is_left_where_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run may be writing it: only a run sets one aside."""
    (tmp_path / "journal.db").write_bytes(b"no journal" * 500)
    assert main(["gateway", "--port", "0", "--out", str(tmp_path)]) == 1
    assert "damaged" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["journal.db"]
