"""docs/library.md, step by step."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "library.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(python|toml|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def write_files(folder: Path) -> list[str]:
    """Write the files of the page, and return the names of its programs."""
    programs = []
    for language, text in BLOCK.findall(PAGE):
        if language != "console":
            name = text.partition("\n")[0].removeprefix("# ")
            (folder / name).write_text(text, encoding="utf-8")
            programs += [name] if language == "python" else []
    return programs


def find_commands() -> list[tuple[str, str]]:
    """Return the commands of the page, each with its output on the page."""
    consoles = [text for language, text in BLOCK.findall(PAGE) if language == "console"]
    parts = [part.partition("\n") for text in consoles for part in text.split("$ ")[1:]]
    return [(command, output) for command, _, output in parts]


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("REPLICATE_", "VIDEO"))}
    program, *arguments = shlex.split(command)
    assert program == "python"
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**inherited, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_programs_of_the_page_print_what_the_page_shows(tmp_path: Path) -> None:
    """Word by word, without a token. videogen itself prints nothing, to standard output or standard error."""
    programs = write_files(tmp_path)
    commands = find_commands()
    for command, on_page in commands:
        done = run(command, tmp_path)
        assert (done.stdout, done.stderr, done.returncode) == (on_page, "", 0), command
    assert {f"python {name}" for name in programs} - dict(commands).keys() == {"python logs.py"}
    done = run("python logs.py", tmp_path)
    assert (done.stdout, done.returncode) == ("", 0)
    assert "INFO:videogen.execution.delivery:harbour: reused" in done.stderr
    assert "httpx" not in done.stderr
