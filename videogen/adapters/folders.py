"""Job folders by address: a path is one on this disk, `s3://…` and the like are in an object store."""

from pathlib import Path

from videogen.adapters.files import FileStore, LocalFolder
from videogen.errors import SettingsError, get_install_hint
from videogen.ports import Folder, Store, is_remote


def open_folder(address: str) -> Folder:
    """`videogen.ports.OpenFolder`."""
    if not is_remote(address):
        return LocalFolder(address)
    try:
        from videogen.adapters.objects import ObjectFolder
    except ModuleNotFoundError as exc:
        raise _missing(address, exc) from exc
    return ObjectFolder(address)


def open_store(address: str, work_folder: Path) -> Store:
    """The store of the job folder at `address`, whose files are made in `work_folder`. Raises `SettingsError`."""
    if not is_remote(address):
        return FileStore(work_folder)
    try:
        from videogen.adapters.objects import ObjectStore
    except ModuleNotFoundError as exc:
        raise _missing(address, exc) from exc
    return ObjectStore(address, work_folder)


def _missing(address: str, exc: ModuleNotFoundError) -> SettingsError:
    return SettingsError(f"{address}: {exc}; for object stores: {get_install_hint('s3')}")
