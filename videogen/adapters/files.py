"""A job's folder on the local disk."""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from videogen.errors import JobLockedError, StorageError


class FileStore:
    """`videogen.ports.Store` in a folder, which is made when missing. Unfinished files are in its `.scratch`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._scratch = folder / ".scratch"
        try:
            self._scratch.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise StorageError(f"cannot make the folder {folder}: {exc.strerror}") from exc

    def scratch(self, name: str) -> Path:
        return self._scratch / name

    def path(self, name: str) -> Path:
        return self._folder / name

    def put(self, scratch: Path, name: str) -> None:
        final = self.path(name)
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            _sync(scratch)
            scratch.replace(final)
            _sync(final.parent)
        except OSError as exc:
            raise StorageError(f"cannot write {name}: {exc.strerror}") from exc

    def put_text(self, text: str, name: str) -> None:
        scratch = self.scratch(f"{Path(name).name}.part")
        try:
            scratch.write_text(text, encoding="utf-8")
        except OSError as exc:
            scratch.unlink(missing_ok=True)
            raise StorageError(f"cannot write {name}: {exc.strerror}") from exc
        self.put(scratch, name)


def _sync(path: Path) -> None:
    """Makes a file's bytes, or a folder's names, survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Holds the folder for this process; a dead holder's lock is free. Raises `JobLockedError` naming the holder."""
    with (folder / ".lock").open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise JobLockedError(f"another run holds {folder}: {file.read().strip() or 'unknown process'}") from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield
