"""A job's folder on the local disk."""

import errno
import hashlib
import os
import re
import secrets
import shutil
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from tempfile import TemporaryDirectory

from videogen.errors import JobLockedError, SettingsError, StorageError
from videogen.posix import SAFE_OPEN_FLAGS
from videogen.storage.base import Folder
from videogen.storage.disk import sync_file, sync_folder

PLACES = ("clips", "posters", "segments")
"""Folders of finished files, below the job's folder."""
PROBE_BYTES = 4096
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL})
"""Error codes of file systems that do not support locks."""
_PLAIN = re.compile(r"[a-z0-9_](?:[a-z0-9._-]{0,98}[a-z0-9_-])?")
"""A file name that is valid on every file system. Upper case is not, because some do not distinguish `A` and `a`."""
_ENDING = re.compile(r"[a-z0-9]{1,12}")
_DEVICES = frozenset(
    {"con", "prn", "aux", "nul", "conin$", "conout$"} | {f"{port}{n}" for port in ("com", "lpt") for n in range(10)}
)
"""Device names of Windows, which no file may have with any extension."""


class LocalFolder:
    """`videogen.storage.base.Folder` on the local disk. A file that cannot be read is an error, and never counts as
    missing."""

    def __init__(self, address: str | Path) -> None:
        self._folder = Path(address)

    @property
    def address(self) -> str:
        return str(self._folder)

    def exists(self) -> bool:
        try:
            self._folder.stat()
        except (FileNotFoundError, NotADirectoryError):
            _refuse_broken_link(self._folder)
            return False
        except OSError as exc:
            raise _make_read_error(self._folder, exc) from exc
        return True

    def sha256(self, name: str) -> str | None:
        with _open_for_reading(self._at(name)) as file:
            return hashlib.file_digest(file, "sha256").hexdigest() if file else None

    def text(self, name: str) -> str | None:
        with _open_for_reading(self._at(name)) as file:
            return file.read().decode() if file else None

    def fetch(self, name: str, to: Path) -> bool:
        with _open_for_reading(self._at(name)) as file:
            if file is None:
                return False
            try:
                with to.open("wb") as copy:
                    shutil.copyfileobj(file, copy, 1024 * 1024)
            except OSError as exc:
                raise StorageError(f"cannot copy {self._at(name)} to {to}: {exc.strerror or exc}") from exc
            return True

    def free_bytes(self) -> int | None:
        for place in (self._folder, *self._folder.parents):
            with suppress(OSError):
                return shutil.disk_usage(place).free
        return None

    def _at(self, name: str) -> Path:
        return self._folder / name


class FileStore(LocalFolder):
    """`videogen.storage.base.Store` in a folder, which is created if missing.

    Unfinished files are in its `.scratch` folder, which belongs to this user alone. Other users who may write into the
    job's folder cannot place links there that would make us overwrite other files.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._scratch = _make_private_folder(folder)
            for path in self._scratch.iterdir():
                _remove_unless_own(path)
        except OSError as exc:
            raise StorageError(f"cannot make the folder {folder}: {exc.strerror or exc}") from exc

    def scratch(self, name: str) -> Path:
        path = self._scratch / _make_file_name(name)
        try:
            _remove_unless_own(path)
        except OSError as exc:
            raise StorageError(f"cannot use {path}: {exc.strerror or exc}; remove it and run the job again") from exc
        return path

    def path(self, name: str) -> Path:
        return self._at(name)

    def check_writable(self) -> None:
        probe = f".probe-{secrets.token_hex(4)}"
        for place in (self._folder, *map(self._at, PLACES)):
            if not os.path.lexists(place):
                continue  # it is made by the first file that goes there
            try:
                for _ in range(2):  # the second one takes the place of the first
                    self.put_text("." * PROBE_BYTES, str(place / probe))
                (place / probe).unlink(missing_ok=True)
            except (OSError, StorageError) as exc:
                with suppress(OSError):
                    (place / probe).unlink(missing_ok=True)
                reason = getattr(exc.__cause__ or exc, "strerror", None) or exc
                raise StorageError(
                    f"{place}: files cannot be written and renamed here: {reason}. Nothing was begun. Make room, move "
                    "away what is in the way, or give yourself the permission; or choose another folder with --out"
                ) from exc

    def put(self, scratch: Path, name: str) -> None:
        final = self._at(name)
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            sync_file(scratch)
            scratch.replace(final)
            sync_folder(final.parent)
        except OSError as exc:
            raise StorageError(f"cannot write {name}: {exc.strerror}") from exc

    def put_text(self, text: str, name: str) -> None:
        self.put(self.write_scratch(text, name), name)

    def write_scratch(self, text: str, name: str) -> Path:
        """Write the text to a scratch file, which `put` then moves to the name."""
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


def check_places(folder: Path) -> None:
    """Raise `SettingsError` if files cannot be written to a job's folder, or to those below it. Nothing is created."""
    for place in (folder, *(folder / name for name in PLACES)):
        if obstacle := find_obstacle(place):
            raise SettingsError(
                f"{obstacle}. Is its disk mounted, or is something in the way? Repair it, or choose another folder "
                "with --out or VIDEOGEN_OUT"
            )


def find_obstacle(folder: Path) -> str | None:
    """Return why files cannot be written to a folder, which may be missing, or None if nothing is in the way.

    Nothing is created. A disk may still turn out to be full.
    """
    for place in (folder, *folder.parents):
        try:
            mode = place.stat().st_mode
        except FileNotFoundError:
            if place.is_symlink():
                return f"{place} is a symbolic link to {place.readlink()}, which does not exist"
            continue
        except NotADirectoryError:
            continue  # one of its parents is a file
        except OSError as exc:
            return f"{place} cannot be used: {exc.strerror or exc}"
        except ValueError:
            return f"{str(place)!r} cannot be used: the path has a NUL character"
        if not stat.S_ISDIR(mode):
            return f"{place} is not a folder"
        return None if os.access(place, os.W_OK | os.X_OK) else f"the folder {place} is not writable"
    return None


# -- read -------------------------------------------------------------------------------------------------------------


@contextmanager
def _open_for_reading(path: Path) -> Iterator[BufferedReader | None]:
    """Open the file for reading; yield None if it does not exist. Raise `StorageError` if that cannot be determined."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (FileNotFoundError, NotADirectoryError):
        _refuse_broken_link(path)
        yield None
        return
    except OSError as exc:
        raise _make_read_error(path, exc) from exc
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):  # a pipe would be waited for, a device read for ever
        os.close(descriptor)
        raise StorageError(f"{path} is in the way of a file: move it elsewhere and run the job again")
    with os.fdopen(descriptor, "rb") as file:
        try:
            yield file
        except OSError as exc:
            raise _make_read_error(path, exc) from exc


def _refuse_broken_link(path: Path) -> None:
    """Raise `StorageError` if the path leads over a dangling symbolic link, whose target is perhaps not mounted."""
    for each in (path, *path.parents):
        try:
            is_link = stat.S_ISLNK(each.lstat().st_mode)
        except OSError:
            continue  # the one above tells why
        if is_link and not each.exists():
            raise StorageError(
                f"{each} is a symbolic link to {each.readlink()}, which is not there: mount its disk, or remove "
                "the link"
            )
        return


def _make_read_error(path: Path, exc: OSError) -> StorageError:
    return StorageError(
        f"cannot read {path}: {exc.strerror or exc}. What cannot be read is not made, and paid, again: make it "
        "readable (is its disk mounted, may you read it?) and run the job again"
    )


# -- unfinished -------------------------------------------------------------------------------------------------------


def _make_private_folder(folder: Path) -> Path:
    """Return the job folder's `.scratch`. If that is a link, or another user's, return one with this user's number
    in its name."""
    for name in (".scratch", f".scratch-{_get_user_id()}"):
        path = folder / name
        with suppress(FileExistsError):
            path.mkdir(mode=0o700)
        found = path.lstat()
        if stat.S_ISDIR(found.st_mode) and _is_own(found, folder):
            if found.st_mode & 0o077:
                with suppress(OSError):  # a network share has its own idea of modes
                    path.chmod(0o700)
            return path
    raise StorageError(
        f"{path} is a link, or belongs to another user: remove it, or choose another folder with --out. Nothing was "
        "begun"
    )


def _is_own(found: os.stat_result, folder: Path) -> bool:
    """Return whether a file in the folder was created by this user."""
    if not hasattr(os, "geteuid") or found.st_uid == os.geteuid():
        return True
    with TemporaryDirectory(dir=folder, prefix=".probe-") as made:  # a share may say that all files are somebody else's
        return found.st_uid == Path(made).lstat().st_uid


def _get_user_id() -> int:
    return os.geteuid() if hasattr(os, "geteuid") else 0


def _remove_unless_own(path: Path) -> None:
    """Remove a path unless it is a plain file without other names: writing to a link would overwrite its target."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    is_own = stat.S_ISREG(found.st_mode) and found.st_nlink <= 1
    if not is_own and not stat.S_ISDIR(found.st_mode):  # who writes there is told of a folder
        path.unlink()


def _make_file_name(name: str) -> str:
    """Return the name if it is valid on every file system, else a valid one that no other name maps to.

    The extension is kept, so that companion files can be named by it.
    """
    stem, dot, ending = name.rpartition(".")
    if not _ENDING.fullmatch(ending):
        stem, dot, ending = name, "", ""
    if _PLAIN.fullmatch(stem) and stem.split(".")[0] not in _DEVICES:
        return name
    readable = re.sub(r"[^A-Za-z0-9_-]+", "-", stem)[:40].strip("-")
    digest = hashlib.sha256(stem.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return f"={readable}-{digest}{dot}{ending}"


# -- locked -----------------------------------------------------------------------------------------------------------


@contextmanager
def lock_folder(folder: Path) -> Iterator[bool]:
    """Lock the folder for this process. The lock of a process that died is free.

    Yields whether the folder is locked. False means that the file system does not support locks, so that other runs
    must be kept out by other means.

    Raises:
        JobLockedError: another run holds the lock. The message names its process and host.
        StorageError: the lock file cannot be used.
    """
    from filelock import lock_descriptor

    path = folder / ".lock"
    with os.fdopen(_open_lock(path), "r+b", buffering=0) as file:
        can_lock = True
        try:
            is_free = lock_descriptor(file.fileno(), blocking=False)
        except OSError as exc:
            if exc.errno not in _NO_LOCKS:
                reason = exc.strerror or exc
                raise StorageError(f"cannot lock {path}: {reason}; choose another folder with --out") from exc
            is_free, can_lock = True, False
        if not is_free:
            file.seek(1 if os.name == "nt" else 0)  # Windows keeps the byte that is locked from all readers
            holder = file.read(1000).decode(errors="replace").strip()
            raise JobLockedError(f"another run holds {folder}: {holder or 'unknown process'}")
        file.truncate(0)
        file.write(f" process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield can_lock


def _open_lock(path: Path) -> int:
    """Return a descriptor of the lock file, which is created if missing. A link is not followed."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | SAFE_OPEN_FLAGS, 0o600)
    except OSError as exc:
        raise StorageError(
            f"cannot lock {path}: {exc.strerror or exc}. Remove it if it is a link, or if it belongs to another user "
            "who has no run of this job going on; or choose another folder with --out"
        ) from exc
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise StorageError(f"cannot lock {path}: it is no plain file; remove it and run the job again")
    return descriptor
