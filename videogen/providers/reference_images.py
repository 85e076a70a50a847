"""Send images to the provider: compose them, keep a copy for inspection, and send them inline or upload them.

A small image is sent inline, so that the model sees exactly the bytes that the clip's key was made from. A large image
that is used unchanged is sent by its public URL. Any other is uploaded once in a run.
"""

import asyncio
import base64
import json
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from videogen import media
from videogen.errors import (
    CallError,
    InputRejectedError,
    StorageError,
    UnreachableError,
    UnusableReferenceError,
)
from videogen.execution.rate_limit_gate import ProviderGate
from videogen.planning.requests import ClipRequest, ImageInput
from videogen.providers.base import VideoProvider
from videogen.references.compose import compose_frame
from videogen.references.decode import ReferenceImage
from videogen.results.clip import Clip
from videogen.storage.base import Store

MAX_DATA_URL_BYTES = 256_000
"""Replicate takes `data:` URLs up to 256 KB. Source: https://replicate.com/docs/topics/predictions/input-files"""


UPLOADS = "uploads.json"
"""File in the scratch folder with the name of the image at each upload URL. A later run uses it to tell predictions
apart."""


def compose(image: ImageInput, references: Mapping[str, ReferenceImage]) -> bytes:
    """Return the start frame of an input as JPEG. The references are keyed by the digest of their bytes."""
    assert image.size is not None
    return compose_frame(
        size=image.pixels or image.size,
        background=references[image.background] if image.background else None,
        characters=[references[digest] for digest in image.characters],
        cut_outs=image.cut_outs,
    )


def write_frames(requests: Iterable[ClipRequest], references: Mapping[str, ReferenceImage], folder: Path) -> list[Path]:
    """Write the start frame of each request that has one to `folder`, named by its scene, as a run would send it.

    A file that exists is never changed, and no link is followed.

    Returns:
        The paths of the files, in the order of the requests.

    Raises:
        StorageError: the folder cannot be written, or has another file of such a name. Then nothing is written.
    """
    by_digest = {reference.digest: reference for reference in references.values()}
    frames = {
        folder / f"{request.scene.id}.jpg": image
        for request in requests
        for image in request.prediction.images.values()
        if image.size is not None
    }
    existing = {path for path in frames if os.path.lexists(path)}
    for path in sorted(existing):
        _require_same_bytes(path, compose(frames[path], by_digest))
    for path in frames.keys() - existing:
        _create_file(path, compose(frames[path], by_digest))
    return list(frames)


def _require_same_bytes(path: Path, data: bytes) -> None:
    try:
        is_same = path.is_file() and not path.is_symlink() and path.read_bytes() == data
    except OSError as exc:
        raise StorageError(f"{path}: cannot be read: {exc.strerror or exc}") from exc
    if not is_same:
        raise StorageError(f"{path}: exists and is not this frame, so it was left as it is")


def _create_file(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(exist_ok=False)
    except OSError as exc:
        raise StorageError(f"{path}: cannot be written: {exc.strerror or exc}") from exc
    try:
        path.write_bytes(data)
    except OSError as exc:
        with suppress(OSError):  # part of it may be there if the disk is full
            path.unlink()
        raise StorageError(f"{path}: cannot be written: {exc.strerror or exc}") from exc


class ReferenceSender:
    """`videogen.execution.base.ImageSender` for the references of a job, keyed by the digest of their bytes."""

    def __init__(
        self,
        references: Mapping[str, ReferenceImage],
        provider: VideoProvider,
        store: Store,
        calls: ProviderGate,
        *,
        clips: Mapping[str, Clip] = {},
    ) -> None:
        self._clips = clips
        """By scene id: the clips of the run that others are made from, as soon as they are delivered."""
        self._references = {reference.digest: reference for reference in references.values()}
        self._provider, self._store, self._gate = provider, store, calls
        self._urls: dict[str, str] = {}
        self._uploads = _read_uploads(store)
        """Names of images by their upload URL, including those of earlier runs of the job."""
        self._saving = asyncio.Lock()
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def url(self, image: ImageInput) -> str:
        async with self._locks[image.name]:
            if image.name not in self._urls:
                self._urls[image.name] = await self._send(image)
            return self._urls[image.name]

    async def read(self, image: ImageInput) -> bytes:
        return (await asyncio.to_thread(self._read_picture, image))[0]

    def name_at(self, address: str) -> str | None:
        known = next((name for name, url in self._urls.items() if url == address), None)
        return known or self._uploads.get(address)

    async def _send(self, image: ImageInput) -> str:
        data, media_type = await asyncio.to_thread(self._read_picture, image)
        url = f"data:{media_type};base64,{base64.b64encode(data).decode()}"
        if len(url) <= MAX_DATA_URL_BYTES:
            return url
        is_plain = image.size is None and image.scene_id is None
        if is_plain and (public := self._references[str(image.background)].url):
            return public
        name = f"{image.name.replace(':', '-')}.{media_type.removeprefix('image/')}"
        try:
            url = await self._gate.call_with_retries(
                lambda: self._provider.upload(data, name=name, media_type=media_type)
            )
        except InputRejectedError as exc:
            raise UnusableReferenceError(f"the provider does not take the picture: {exc}") from exc
        except CallError as exc:
            raise UnreachableError(f"the picture could not be uploaded: {exc}") from exc
        async with self._saving:
            self._uploads[url] = image.name
            await asyncio.to_thread(self._save_uploads)  # before it is used in a create, whose answer may be lost
        return url

    def _save_uploads(self) -> None:
        try:
            self._store.scratch(UPLOADS).write_text(json.dumps(self._uploads), encoding="utf-8")
        except OSError as exc:
            raise StorageError(f"cannot write {UPLOADS}: {exc.strerror}") from exc

    def _read_picture(self, image: ImageInput) -> tuple[bytes, str]:
        """Return the image's bytes and media type. A frame is also stored under `frames/`."""
        if image.scene_id is not None:
            return self._read_frame(image, self._clips[image.scene_id]), "image/jpeg"
        if image.size is None:
            plain = self._references[str(image.background)]
            return plain.data, plain.media_type
        data = compose(image, self._references)
        self._store_frame(data, f"frames/{image.name.removeprefix('frame:')[:16]}.jpg")
        return data, "image/jpeg"

    def _read_frame(self, image: ImageInput, clip: Clip) -> bytes:
        """Return the frame of a delivered clip with which another one begins or ends."""
        where = "first" if image.cut_s is None else "last"
        name = f"frames/{str(image.scene_id).replace('#', '-')}-{where}.jpg"
        scratch = self._store.scratch(name.replace("/", "-"))
        media.write_frame(self._store.path(str(clip.video_path)), scratch, cut_s=image.cut_s, is_seam=image.is_seam)
        data = scratch.read_bytes()
        self._store.put(scratch, name)
        return data

    def _store_frame(self, data: bytes, name: str) -> None:
        scratch = self._store.scratch(name.replace("/", "-"))
        try:
            scratch.write_bytes(data)
        except OSError as exc:
            raise StorageError(f"cannot write {name}: {exc.strerror}") from exc
        self._store.put(scratch, name)


def _read_uploads(store: Store) -> dict[str, str]:
    """Return the uploads of earlier runs; empty if the file cannot be read."""
    try:
        uploads = json.loads(store.scratch(UPLOADS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(url): str(name) for url, name in uploads.items()} if isinstance(uploads, dict) else {}
