"""Make files and folders survive a loss of power, as far as their file system supports it."""

import errno
import os
from pathlib import Path

_NO_SYNC = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EBADF})
"""Errors of file systems without fsync, or without it for this kind of file: SMB, VirtualBox, rclone, some FUSE."""
_NO_FOLDER_SYNC = _NO_SYNC | {errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR}
"""Errors of systems that do not support fsync of folders. Windows cannot open folders at all."""


def sync_file(path: Path) -> None:
    """Make the content of a file survive a loss of power, if its file system supports that.

    Raises `OSError` if the bytes could not be stored: no space, no quota, a broken disk.
    """
    descriptor = os.open(path, os.O_RDWR)  # Windows does not sync files that are open for reading only
    try:
        os.fsync(descriptor)
    except OSError as exc:
        if exc.errno not in _NO_SYNC:
            raise
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Make the names in a folder survive a loss of power, if its file system supports that.

    Raises `OSError` if they could not be stored.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as exc:
        if exc.errno in _NO_FOLDER_SYNC:
            return
        raise
    try:
        os.fsync(descriptor)
    except OSError as exc:
        if exc.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(descriptor)
