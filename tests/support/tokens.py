"""The token that tests use wherever they need one, and the search for it in what they leave behind."""

import mmap
import os
import stat
from collections.abc import Iterator
from pathlib import Path

TOKEN = "r8_" + "canary" * 6


def files_with_token(folder: Path) -> list[Path]:
    """All files below `folder` in which the token stands, with or without its prefix."""
    return [path for path in sorted(folder.rglob("*")) if _holds(path, TOKEN.removeprefix("r8_").encode())]


def _holds(path: Path, needle: bytes) -> bool:
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode) or not status.st_size:
            return False
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return any(data.find(needle, start, end) >= 0 for start, end in _find_written_parts(file.fileno()))
    except FileNotFoundError:
        return False  # a database that is closed now takes its side files with it


def _find_written_parts(file: int) -> Iterator[tuple[int, int]]:
    """Yield the parts of an open file that are on the disk: a test may leave gigabytes of holes."""
    end = 0
    while True:
        try:
            start = os.lseek(file, end, os.SEEK_DATA)
        except OSError:  # only a hole is left
            return
        end = os.lseek(file, start, os.SEEK_HOLE)
        yield start, end
