"""The interfaces of a folder of clips and of a run's store."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol


class Folder(Protocol):
    """The finished files of a job, on this disk or elsewhere. Names are relative to the folder.

    The methods may take seconds, so call them in a thread. They raise `StorageError` if the folder cannot be reached,
    which does not mean that a file does not exist.
    """

    @property
    def address(self) -> str:
        """Address as recorded in the journal: an absolute path, or for example `s3://bucket/prefix/job`."""

    def exists(self) -> bool:
        """Return whether a run has used the folder before."""

    def sha256(self, name: str) -> str | None:
        """Return the SHA-256 (hex) of a file's bytes; None if there is no such file."""

    def text(self, name: str) -> str | None:
        """Return the content of a text file; None if there is no such file. Raise `ValueError` if it is not UTF-8."""

    def fetch(self, name: str, to: Path) -> bool:
        """Copy a file to a local path. Return False if there is no such file."""

    def free_bytes(self) -> int | None:
        """Return the free space in bytes; None if it is not known."""


def is_remote(address: str) -> bool:
    """Return whether the address of a folder is something else than a local path."""
    return "://" in address


OpenFolder = Callable[[str], Folder]
"""Return the folder at an address. Raise `SettingsError` if this installation does not support such addresses."""


class Store(Folder, Protocol):
    """The folder that a run writes a job's files to."""

    def check_writable(self) -> None:
        """Write, replace and remove a test file. Raise `StorageError` if that fails, as it would for clips."""

    def scratch(self, name: str) -> Path:
        """Return a local path for an unfinished file. Its folder exists and is accessible to this user only.

        The name may be any text: the path is always below that folder, and has the name's suffix. A file that already
        exists there is an unfinished one, never a link.
        """

    def path(self, name: str) -> Path:
        """Return the local path of a finished file. It is downloaded first if the folder is not local."""

    def put(self, scratch: Path, name: str) -> None:
        """Move a scratch file to the finished files, atomically even if the process crashes. Raise `StorageError`."""

    def put_text(self, text: str, name: str) -> None:
        """Write a finished text file, atomically as `put` does."""

    def take_over(self, source: Folder, name: str, new_name: str) -> None:
        """Copy a finished file of another folder to this one. Do nothing if there is no such file."""
