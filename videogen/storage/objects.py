"""A job's folder in an object store (S3, Google Cloud Storage, Azure), through obstore.

obstore reads the environment variables that each store's own tools read (`AWS_ENDPOINT_URL`, `AWS_REGION`, …); they are
listed at https://developmentseed.org/obstore/latest/api/store/aws/.
"""

import hashlib
import mimetypes
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError
from obstore.store import from_url

from videogen.errors import SettingsError, StorageError
from videogen.storage.base import Folder
from videogen.storage.local import PROBE_BYTES, FileStore

if TYPE_CHECKING:
    from obstore import GetResult
    from obstore.store import ClientConfig, RetryConfig

SCHEMES = ("s3", "gs", "az")
PROBE = ".probe"
DENIED = (
    "the credentials need the permission to read objects and to list the bucket: without the second one, what is not "
    "there is refused in the same way"
)
PART_BYTES = 8 * 1024 * 1024
PARTS_AT_ONCE = 4
CLIENT: "ClientConfig" = {
    "allow_http": True,  # where the endpoint's address says so
    "connect_timeout": timedelta(seconds=10),
    "timeout": timedelta(seconds=120),
}
"""Two minutes for each part are enough for four at once at 300 kB/s."""
RETRY: "RetryConfig" = {"max_retries": 5, "retry_timeout": timedelta(seconds=60)}
"""For each call, after a dropped connection or a 5xx answer. The delay is exponential, with jitter."""


class ObjectFolder:
    """`videogen.storage.base.Folder` at an address such as `s3://bucket/prefix/job`.

    Every object has the SHA-256 of its bytes in its metadata. It need not be read to verify it, because a store
    replaces objects whole or not at all.
    """

    def __init__(self, address: str) -> None:
        """Open the folder. Raise `SettingsError` if the address, or the store's own settings in the environment, are
        wrong."""
        self.address = address
        scheme, _, path = address.partition("://")
        bucket, *folders = path.split("/")
        if scheme not in SCHEMES or not bucket or {"", ".", ".."} & set(folders):
            known = ", ".join(f"{name}://" for name in SCHEMES)
            raise SettingsError(f"{address}: not the address of a folder in an object store ({known}BUCKET/FOLDER)")
        self._bucket, self._prefix = f"{scheme}://{bucket}", "/".join(folders)
        try:
            self._objects = from_url(self._bucket, client_options=CLIENT, retry_config=RETRY)
        except (BaseError, ValueError) as exc:
            raise SettingsError(f"{address}: {_describe(exc)}") from exc

    def exists(self) -> bool:
        with self._translate_errors():
            return any(obstore.list(self._objects, self._prefix, chunk_size=1))

    def sha256(self, name: str) -> str | None:
        with self._translate_errors(name):
            found = self._get_object(name, head=True)
            if found is None:
                return None
            if kept := found.attributes.get("sha256"):
                return kept
            whole = self._get_object(name)  # a tool that lost the metadata has copied it
            return _compute_digest(whole) if whole else None

    def text(self, name: str) -> str | None:
        with self._translate_errors(name):
            found = self._get_object(name)
            return bytes(found.bytes()).decode() if found else None

    def fetch(self, name: str, to: Path) -> bool:
        with self._translate_errors(name):
            found = self._get_object(name)
            if found is None:
                return False
            with _open_for_writing(to) as write:
                came = _compute_digest(found, write)
            if came != found.attributes.get("sha256", came):
                raise StorageError(f"{self.address}: {name} came damaged")
            return True

    def free_bytes(self) -> None:
        return None

    def copy_within(self, source: "ObjectFolder", name: str, new_name: str) -> bool:
        """Copy an object of a folder in the same bucket without downloading it. Return False if that is not
        possible."""
        if source._bucket != self._bucket:
            return False
        with self._translate_errors(name):
            obstore.copy(self._objects, source._make_key(name), self._make_key(new_name))
        return True

    def upload(self, file: Path, name: str) -> None:
        """Upload a local file as an object, whole or not at all. Raise `StorageError`."""
        try:
            with file.open("rb") as opened:
                digest = hashlib.file_digest(opened, "sha256").hexdigest()
            media_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
            obstore.put(
                self._objects,
                self._make_key(name),
                file,
                attributes={"Content-Type": media_type, "sha256": digest},
                chunk_size=PART_BYTES,
                max_concurrency=PARTS_AT_ONCE,
            )
            size_bytes = obstore.head(self._objects, self._make_key(name))["size"]
        except (BaseError, OSError) as exc:
            raise StorageError(f"cannot write {name} to {self.address}: {_describe(exc)}") from exc
        if size_bytes != file.stat().st_size:
            raise StorageError(f"cannot write {name} to {self.address}: {size_bytes} bytes are there")

    def _make_key(self, name: str) -> str:
        return f"{self._prefix}/{name}"

    def _get_object(self, name: str, *, head: bool = False) -> "GetResult | None":
        try:
            return obstore.get(self._objects, self._make_key(name), options={"head": head})
        except FileNotFoundError as exc:
            if "NoSuchBucket" in str(exc):  # then all objects seem gone
                raise StorageError(f"cannot read {name} in {self.address}: {_describe(exc)}") from exc
            return None

    @contextmanager
    def _translate_errors(self, name: str = "") -> Iterator[None]:
        try:
            yield
        except (BaseError, OSError) as exc:
            hint = f"; {DENIED}" if isinstance(exc, PermissionDeniedError) else ""
            raise StorageError(f"cannot read {name or 'what is'} in {self.address}: {_describe(exc)}{hint}") from exc


class ObjectStore(ObjectFolder):
    """`videogen.storage.base.Store` that makes files in a local folder and keeps them in an object store.

    A finished file is uploaded first, and gets its local name after that. The local copy stays as the source of the
    contact sheet and the rough cut; nothing else depends on it.
    """

    def __init__(self, address: str, work_folder: Path) -> None:
        super().__init__(address)
        self._local = FileStore(work_folder)

    def check_writable(self) -> None:
        self._local.check_writable()
        self.upload(self._local.write_scratch("." * PROBE_BYTES, PROBE), PROBE)
        with suppress(BaseError, OSError):  # who may not remove it leaves it for the next run to write again
            obstore.delete(self._objects, self._make_key(PROBE))

    def scratch(self, name: str) -> Path:
        return self._local.scratch(name)

    def path(self, name: str) -> Path:
        kept = self.sha256(name)
        if kept is not None and kept != self._local.sha256(name):  # another machine has made it, or made it anew
            scratch = self.scratch(f"fetch-{Path(name).name}")
            self.fetch(name, scratch)
            self._local.put(scratch, name)
        return self._local.path(name)

    def put(self, scratch: Path, name: str) -> None:
        self.upload(scratch, name)
        self._local.put(scratch, name)

    def put_text(self, text: str, name: str) -> None:
        self.put(self._local.write_scratch(text, name), name)

    def take_over(self, source: Folder, name: str, new_name: str) -> None:
        if (source.address, name) == (self.address, new_name):
            return
        kept = source.sha256(name)
        if kept is None or kept == self.sha256(new_name):
            return
        if isinstance(source, ObjectFolder) and self.copy_within(source, name, new_name):
            return
        scratch = self.scratch(f"copy-{Path(new_name).name}")
        if source.fetch(name, scratch):
            self.put(scratch, new_name)


def _compute_digest(found: "GetResult", write: Callable[[bytes], object] = lambda _: None) -> str:
    """Return the SHA-256 of an object's bytes, which are also passed to `write`."""
    digest = hashlib.sha256()
    for chunk in found.stream():
        digest.update(chunk)
        write(chunk)
    return digest.hexdigest()


@contextmanager
def _open_for_writing(to: Path) -> Iterator[Callable[[bytes], object]]:
    """Yield a function that writes to a local file. Its errors are not confused with those of the store."""
    try:
        with to.open("wb") as file:
            yield file.write
    except OSError as exc:
        raise StorageError(f"cannot write {to}: {exc.strerror or exc}") from exc


def _describe(exc: Exception) -> str:
    """Return obstore's message on one line. The original also contains the store's answer as XML, and internals."""
    if isinstance(exc, OSError) and exc.strerror:
        return exc.strerror
    text = str(exc)
    if "/latest/api/token" in text:  # asked for the role of an EC2 machine, the last place to look for keys
        return "no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    line = re.split(r":? *(?:<|\n)", text, maxsplit=1)[0]
    code = re.search(r"<Code>(\w+)</Code>", text)
    return f"{line} ({code[1]})" if code else line
