"""Files that callers upload with POST /v1/files to use them as inputs."""

import hashlib
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from videogen.emulator.timing import format_timestamp

MAX_BYTES = 100 * 1024 * 1024
_LIFETIME_NS = 24 * 3600 * 1_000_000_000


@dataclass(frozen=True, slots=True)
class Upload:
    """An uploaded file."""

    id: str
    name: str
    content_type: str
    path: Path
    sha256: str
    md5: str
    size_bytes: int
    created_ns: int
    metadata: Mapping[str, Any]

    def make_body(self, base: str) -> dict[str, Any]:
        """Return the file object of the API."""
        return {
            "id": self.id,
            "name": self.name,
            "content_type": self.content_type,
            "size": self.size_bytes,
            "etag": self.md5,  # not in the OpenAPI document, but client 1.0.7 fails without it
            "checksums": {"sha256": self.sha256, "md5": self.md5},
            "metadata": self.metadata,
            "created_at": format_timestamp(self.created_ns, digits=3),
            "expires_at": format_timestamp(self.created_ns + _LIFETIME_NS, digits=3),
            "urls": {"get": f"{base}/v1/files/{self.id}"},
        }


class Uploads(Mapping[str, Path]):
    """The uploaded files of one server; as a mapping, their paths by id."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._by_id: dict[str, Upload] = {}

    def add(self, content: bytes, name: str, content_type: str, metadata: Mapping[str, Any]) -> Upload:
        """Store a file."""
        upload_id = secrets.token_hex(24)
        path = self._folder / f"upload-{upload_id}"
        path.write_bytes(content)
        sums = hashlib.sha256(content).hexdigest(), hashlib.md5(content, usedforsecurity=False).hexdigest()
        upload = Upload(upload_id, name, content_type, path, *sums, len(content), time.time_ns(), metadata)
        self._by_id[upload_id] = upload
        return upload

    def find(self, upload_id: str) -> Upload | None:
        """Return the upload of that id, or None if there is none."""
        return self._by_id.get(upload_id)

    def list_newest_first(self) -> Iterable[Upload]:
        """Return all uploads, newest first."""
        return reversed(self._by_id.values())

    def remove(self, upload: Upload) -> None:
        """Delete a file."""
        del self._by_id[upload.id]
        upload.path.unlink()

    def __getitem__(self, upload_id: str) -> Path:
        return self._by_id[upload_id].path

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_id)

    def __len__(self) -> int:
        return len(self._by_id)
