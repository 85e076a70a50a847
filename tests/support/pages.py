"""Follow a page of the documentation: write its files, and run its commands."""

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.support.tokens import TOKEN

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

Console = list[tuple[str, str]]
"""The commands of a console, each with its output on the page."""


def write_files(page: str, folder: Path) -> set[str]:
    """Write the files of a page, each of which begins with its name, and return their names."""
    names = set()
    for language, text in BLOCK.findall(page):
        if language != "console":
            name = text.partition("\n")[0].removeprefix("# ")
            (folder / name).write_text(text, encoding="utf-8")
            names.add(name)
    return names


def find_consoles(page: str) -> list[Console]:
    """Return the consoles of a page."""
    consoles = [text for language, text in BLOCK.findall(page) if language == "console"]
    parts = [[part.partition("\n") for part in text.split("$ ")[1:]] for text in consoles]
    return [[(command, output) for command, _, output in console] for console in parts]


def make_environment(folder: Path, prefect_api: str, *, programs: Path) -> dict[str, str]:
    """Return the variables of the commands of a page, without any of videogen, with a home of their own.

    Args:
        programs: the folder of `python`, `prefect` and `videogen`.
    """
    ours = ("REPLICATE_", "VIDEO", "PREFECT_", "PYTHONPATH", "VIRTUAL_ENV")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return inherited | {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(folder),
        "PREFECT_API_URL": prefect_api,
    }


def run_console(
    console: Console, folder: Path, environment: Mapping[str, str], *, answers: str = f"{TOKEN}\n"
) -> list[str]:
    """Run the commands in one shell, and return the output of each. Their standard input is `answers`."""
    mark = "= end of command ="
    script = "set -e\n" + "".join(f"{command}\necho '{mark}'\n" for command, _ in console)
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env=environment,
        input=answers,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
        start_new_session=True,  # without a terminal, at which `getpass` would ask
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert TOKEN not in done.stdout + done.stderr
    return done.stdout.split(f"{mark}\n")[:-1]
