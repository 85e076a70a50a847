"""The token is in no byte that a run writes, shows or hands on; tests/conftest.py searches what all tests wrote."""

import time
from pathlib import Path

from tests.faults.conftest import Stage
from tests.flows.conftest import CommandLine, Finished, wait_until
from tests.support.tokens import TOKEN, files_with_token
from videogen.emulator import EmulatorSettings, run_emulator

SECRET = TOKEN.removeprefix("r8_")


def watched(command: CommandLine, *arguments: str | Path) -> Finished:
    """A command run to its end, while the command lines of all processes are looked through."""
    process = command.start(*arguments)
    while process.poll() is None:
        assert [name for name, line in command_lines().items() if SECRET.encode() in line] == []
        time.sleep(0.2)
    out, err = process.communicate()
    return Finished(process.returncode, out, err, 0.0)


def command_lines() -> dict[str, bytes]:
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found[path.parent.name] = path.read_bytes()
        except OSError:
            continue  # it has ended
    return found


def assert_kept_to_itself(command: CommandLine, done: Finished) -> None:
    assert SECRET not in done.out + done.err
    assert files_with_token(command.folder) == []


def test_30_a_token_is_found_where_it_stands(tmp_path: Path) -> None:
    """In the middle of binary data and behind a hole, too: the searches that find nothing mean something."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "database").write_bytes(b"\x00" * 5000 + TOKEN.encode() + b"\xff")
    (tmp_path / "empty").touch()
    with (tmp_path / "holes").open("wb") as file:
        file.seek(1 << 33)
        file.write(TOKEN.encode())
    assert files_with_token(tmp_path) == [tmp_path / "folder" / "database", tmp_path / "holes"]
    for name in ("folder/database", "holes"):
        (tmp_path / name).unlink()  # all that tests leave behind is searched in the end


def test_30_a_run_writes_and_shows_no_token(stage: Stage, command: CommandLine, prefect_home: Path) -> None:
    """Clips delivered, failed and refused: not in its folder, nor in what Prefect's server has been told of them."""
    flagged = 'on = "create"\nnth_create = 2\ndo = "fail"\nerror = "flagged as sensitive"'
    stage.emulate(flagged, 'on = "create"\nnth_create = 3\ndo = "status"\nstatus = 401')
    done = watched(command, command.quick_job(3), "--concurrency", "1")
    assert done.code == 3, done.err
    assert ("delivered in" in done.out, "failed (moderation)" in done.out, "(authentication)" in done.out) == (
        True,
    ) * 3
    assert_kept_to_itself(command, done)
    wait_until(lambda: any(b"flagged as sensitive" in path.read_bytes() for path in prefect_home.glob("*.db*")))
    assert files_with_token(prefect_home) == []


def test_30_a_refused_token_is_not_repeated(command: CommandLine) -> None:
    """One line, exit 3."""
    with run_emulator(EmulatorSettings(tokens=["another"])) as emulator:
        command.environment["REPLICATE_BASE_URL"] = emulator.url
        done = watched(command, command.quick_job(1))
    assert (done.code, done.out, len(done.err.splitlines())) == (3, "", 1)
    assert_kept_to_itself(command, done)


def test_30_a_traceback_shows_no_token(command: CommandLine) -> None:
    """Of what nobody expected, here a module that breaks when it is imported, with the settings on the stack."""
    (command.folder / "sqlalchemy.py").write_text("raise RuntimeError('a mistake of ours')")
    (command.folder / "out").mkdir()
    (command.folder / "out" / "journal.db").touch()
    done = watched(command, command.quick_job(1), "--dry-run")
    assert "RuntimeError: a mistake of ours" in done.err
    assert_kept_to_itself(command, done)
