"""The places of a job's files on the machine of an editor: beside the timeline, or below another folder."""

from pathlib import PurePosixPath, PureWindowsPath
from urllib.parse import quote

from videogen.errors import InvalidError
from videogen.storage.base import is_remote

MediaRoot = PurePosixPath | PureWindowsPath | str | None
"""The job's folder on the machine that opens the timeline: an absolute path, or an address such as `https://…`. None
means the folder of the timeline itself, to which paths are then relative."""


def parse_media_root(text: str) -> MediaRoot:
    """Return the folder or address in a text, which may be of another system than this machine's.

    Raises:
        InvalidError: it is neither an absolute path nor an address.
    """
    if not text.isprintable():
        raise InvalidError(f"--media-root: {text!r} has control characters")
    if is_remote(text):
        return text.rstrip("/")
    has_drive = PureWindowsPath(text).is_absolute() and not text.startswith("/")
    folder = PureWindowsPath(text) if has_drive else PurePosixPath(text)
    if not folder.is_absolute():
        raise InvalidError(
            f"--media-root: {text!r} is not the absolute path of a folder, such as /Volumes/films/storm or D:\\storm"
        )
    return folder


def make_media_url(path: str, root: MediaRoot) -> str:
    """Return the address of a file as a URL. `path` is its path in the job's folder."""
    if root is None:
        return quote(path)
    if isinstance(root, str):
        return f"{root}/{quote(path)}"
    return (root / path).as_uri()


def make_media_path(path: str, root: MediaRoot) -> str:
    """Return the place of a file in words: a path of the editor's system, or an address."""
    if root is None:
        return path
    return f"{root}/{path}" if isinstance(root, str) else str(root / path)
