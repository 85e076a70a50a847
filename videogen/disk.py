"""What survives a loss of power, on the file systems that people have."""

import errno
import os
from pathlib import Path

_NO_SYNC = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EBADF})
"""What file systems answer that know no fsync, or none of this kind of file: SMB, VirtualBox, rclone, some FUSE."""
_NO_FOLDER_SYNC = _NO_SYNC | {errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR}
"""Windows opens no folders."""


def sync_file(path: Path) -> None:
    """Make the bytes of a file survive a loss of power, where its file system can do that.

    Raises `OSError` where the bytes could not be stored: no room, no quota, a broken disk.
    """
    descriptor = os.open(path, os.O_RDWR)  # Windows syncs nothing that is only open for reading
    try:
        os.fsync(descriptor)
    except OSError as exc:
        if exc.errno not in _NO_SYNC:
            raise
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Make the names in a folder survive a loss of power, where its file system can do that.

    Raises `OSError` where they could not be stored.
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
