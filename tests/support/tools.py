"""Programs that tests drive and that are not Python packages."""

import os
import shutil
from typing import NoReturn

import pytest


def find_tool(*names: str, package: str) -> str:
    """Return the path of the first of these programs. Without any of them, skip the test, or fail it on CI.

    Args:
        package: Debian's package of the program, which the message names.
    """
    found = next(filter(None, map(shutil.which, names)), None)
    return found or miss_tool(names[0], package=package)


def miss_tool(name: str, *, package: str) -> NoReturn:
    """Skip the test, because a program is missing; fail it on CI, where a skipped test would not be noticed."""
    message = f"{name} is not installed: apt-get install {package}"
    if os.environ.get("CI"):
        pytest.fail(message, pytrace=False)
    pytest.skip(message)
