"""A job's folder on the local disk."""

import fcntl
import hashlib
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from videogen.errors import JobLockedError, StorageError
from videogen.ports import Folder


class LocalFolder:
    """`videogen.ports.Folder` on the local disk. What cannot be read counts as not there."""

    def __init__(self, address: str | Path) -> None:
        self._folder = Path(address)

    @property
    def address(self) -> str:
        return str(self._folder)

    def exists(self) -> bool:
        return self._folder.exists()

    def sha256(self, name: str) -> str | None:
        try:
            with self._at(name).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:
            return None

    def text(self, name: str) -> str | None:
        try:
            return self._at(name).read_text(encoding="utf-8")
        except OSError:
            return None

    def fetch(self, name: str, to: Path) -> bool:
        if not self._at(name).exists():
            return False
        try:
            shutil.copyfile(self._at(name), to)
        except OSError as exc:
            raise StorageError(f"cannot copy {self._at(name)}: {exc.strerror}") from exc
        return True

    def _at(self, name: str) -> Path:
        return self._folder / name


class FileStore(LocalFolder):
    """`videogen.ports.Store` in a folder, which is made when missing. Unfinished files are in its `.scratch`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._scratch = folder / ".scratch"
        try:
            self._scratch.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise StorageError(f"cannot make the folder {folder}: {exc.strerror}") from exc

    def scratch(self, name: str) -> Path:
        return self._scratch / name

    def path(self, name: str) -> Path:
        return self._at(name)

    def put(self, scratch: Path, name: str) -> None:
        final = self._at(name)
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            _sync(scratch)
            scratch.replace(final)
            _sync(final.parent)
        except OSError as exc:
            raise StorageError(f"cannot write {name}: {exc.strerror}") from exc

    def put_text(self, text: str, name: str) -> None:
        self.put(self.written(text, name), name)

    def written(self, text: str, name: str) -> Path:
        """A scratch file with this text, for `put` to give it the name."""
        scratch = self.scratch(f"{Path(name).name}.part")
        try:
            scratch.write_text(text, encoding="utf-8")
        except OSError as exc:
            scratch.unlink(missing_ok=True)
            raise StorageError(f"cannot write {name}: {exc.strerror}") from exc
        return scratch

    def take_over(self, source: Folder, name: str, new_name: str) -> None:
        if (source.address, name) == (self.address, new_name):
            return
        scratch = self.scratch(f"copy-{Path(new_name).name}")
        if source.fetch(name, scratch):
            self.put(scratch, new_name)


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
