"""The command line where what only POSIX has is hidden, as on Windows, and on consoles that are not UTF-8."""

import subprocess
import sys

import pytest

from tests.flows.conftest import CommandLine

HIDING = """
import importlib, pkgutil, sys, os, signal
import av, filelock, httpx, prefect.artifacts, prefect.events.clients, prefect.flows, prefect.server.api.server, uvicorn
for name in ("fcntl", "resource", "pwd", "grp", "termios", "tty"):
    sys.modules[name] = None
for name in ("setpriority", "getuid", "geteuid", "killpg", "fork", "O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC"):
    delattr(os, name)
del signal.pthread_sigmask, signal.SIGKILL
import videogen
for found in pkgutil.walk_packages(videogen.__path__, "videogen."):
    if not found.name.startswith("videogen.journal.migrations") and not found.name.endswith("__main__"):
        importlib.import_module(found.name)
from videogen.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["plan", "film.json", "--provider", "local"], "1 of 1 clips to make"),
        (["check", "film.json"], "no problems found"),
        (["run", "film.json", "--provider", "local", "--rough-cut"], "complete: all 1 clips delivered"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
@pytest.mark.long
def test_nothing_needs_what_only_posix_has(arguments: list[str], said: str, command: CommandLine) -> None:
    """Every module is imported, and a job is made."""
    command.job({"id": "a", "prompt": "a pier", "target_duration": 2})
    done = subprocess.run(
        [sys.executable, "-c", HIDING, *arguments],
        cwd=command.folder,
        env=command.whole_environment,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert said in done.stdout


@pytest.mark.long
@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_console_that_is_not_utf_8_shows_a_run(encoding: str, command: CommandLine) -> None:
    """What it has no character for is written as an escape; the rough cut is made."""
    command.environment["PYTHONIOENCODING"] = encoding
    done = command.run(command.job({"id": "a", "prompt": "桟橋 🌊 …", "target_duration": 2}), "--rough-cut")
    assert (done.code, "Traceback" in done.err) == (0, False), done.err
    assert (command.folder / "out" / "film" / "rough_cut.mp4").stat().st_size > 0
