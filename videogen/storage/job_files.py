"""Job files by address: a path on this disk, `https://…`, or `s3://…` and the like in an object store."""

import re
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx

from videogen.errors import Problem, SettingsError, StorageError, ValidationError
from videogen.job.load import read_job
from videogen.job.model import Job, display_name
from videogen.storage.base import is_remote
from videogen.storage.open import open_folder
from videogen.text import mask_credentials

MAX_BYTES = 8 * 2**20
MAX_NAME_BYTES = 200
TIMEOUT_S = 30.0


def read_job_at(address: str) -> Job:
    """Return the job in the TOML or JSON file at this address.

    Raises:
        ValidationError: the file does not exist, or lists every problem of the file with its line and column.
    """
    try:
        if not is_remote(address):
            return read_job(Path(address))[0]
        name = _read_name(address)
        text = _download(address) if address.startswith(("http://", "https://")) else _read_object(address)
    except (httpx.HTTPError, httpx.InvalidURL, StorageError, ValueError) as exc:
        reason = mask_credentials(str(exc)) or type(exc).__name__
        raise ValidationError([Problem(f"{display_name(address)}: no job can be read there: {reason}")]) from None
    except SettingsError as exc:  # the object store cannot be opened
        raise SettingsError(mask_credentials(str(exc))) from None
    with TemporaryDirectory() as folder:
        file = Path(folder) / name
        file.write_text(text, encoding="utf-8")
        return read_job(file)[0]


def _read_name(address: str) -> str:
    """Return the file's name, which a job without a name of its own gets its name from."""
    name = address.partition("?")[0].rpartition("/")[2]
    is_name = name not in {"", ".", ".."} and not re.search(r"[\x00-\x1f\\:]", name)
    if not is_name or len(name.encode(errors="replace")) > MAX_NAME_BYTES:
        raise ValueError("it does not end in the name of a job file, such as film.toml")
    return name


def _download(url: str) -> str:
    read = bytearray()
    with httpx.stream("GET", url, timeout=TIMEOUT_S) as response:
        if not response.is_success:
            raise ValueError(f"the answer is {response.status_code}")
        for piece in response.iter_bytes():
            read += piece
            if len(read) > MAX_BYTES:
                raise ValueError(f"it is larger than {MAX_BYTES} bytes")
    return read.decode()


def _read_object(address: str) -> str:
    folder, _, name = address.rpartition("/")
    text = open_folder(folder).text(name)
    if text is None:
        raise ValueError("there is no such object")
    return text
