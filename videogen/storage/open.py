"""Open job folders by address: a path is on the local disk, `s3://…` and the like are in an object store."""

from pathlib import Path

from videogen.errors import SettingsError, get_install_hint
from videogen.storage.base import Folder, Store, is_remote
from videogen.storage.local import FileStore, LocalFolder


def open_folder(address: str) -> Folder:
    """`videogen.storage.base.OpenFolder`."""
    if not is_remote(address):
        return LocalFolder(address)
    try:
        from videogen.storage.objects import ObjectFolder
    except ModuleNotFoundError as exc:
        raise _make_missing_error(address, exc) from exc
    return ObjectFolder(address)


def open_store(address: str, work_folder: Path) -> Store:
    """Open the store of the job folder at `address`. Its files are made in `work_folder`. Raise `SettingsError`."""
    if not is_remote(address):
        return FileStore(work_folder)
    try:
        from videogen.storage.objects import ObjectStore
    except ModuleNotFoundError as exc:
        raise _make_missing_error(address, exc) from exc
    return ObjectStore(address, work_folder)


def _make_missing_error(address: str, exc: ModuleNotFoundError) -> SettingsError:
    return SettingsError(f"{address}: {exc}; for object stores: {get_install_hint('s3')}")
