"""Pictures on their way to the provider: composed, kept for a person to look at, sent in the request or uploaded.

A small picture is in the request itself: what the model sees is then what the clip's key was made from. A large one at
a public address, if it goes as it is, is named by that; any other is uploaded once in a run.
"""

import asyncio
import base64
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from videogen.calls import ProviderGate
from videogen.clip import ClipRequest, ImageInput
from videogen.errors import CallError, InputRejectedError, StorageError, UnreachableError, UnusableReferenceError
from videogen.ports import Store, VideoProvider
from videogen.references import ReferenceImage, compose_frame

MAX_DATA_URL_BYTES = 256_000
"""Replicate takes `data:` URLs up to 256 KB. Source: https://replicate.com/docs/topics/predictions/input-files"""


UPLOADS = "uploads.json"
"""In the scratch folder: which picture was uploaded to which address. By that a later run tells predictions apart."""


def composed(image: ImageInput, references: Mapping[str, ReferenceImage]) -> bytes:
    """The start frame that an input is made of, as JPEG; the references are by the digest of their bytes."""
    assert image.size is not None
    return compose_frame(
        size=image.pixels or image.size,
        background=references[image.background] if image.background else None,
        characters=[references[digest] for digest in image.characters],
        cut_outs=image.cut_outs,
    )


def write_frames(requests: Iterable[ClipRequest], references: Mapping[str, ReferenceImage], folder: Path) -> list[Path]:
    """Writes the start frame of each request that has one to `folder`, named by its scene, as a run would send it.

    Returns:
        The paths of the files, in the order of the requests.

    Raises:
        StorageError: the folder cannot be written.
    """
    by_digest = {reference.digest: reference for reference in references.values()}
    paths = []
    for request in requests:
        for image in request.images.values():
            if image.size is None:
                continue
            path = folder / f"{request.scene.id}.jpg"
            try:
                folder.mkdir(parents=True, exist_ok=True)
                path.write_bytes(composed(image, by_digest))
            except OSError as exc:
                raise StorageError(f"{path}: cannot be written: {exc.strerror or exc}") from exc
            paths.append(path)
    return paths


class ReferenceImages:
    """`videogen.ports.ImageSender` over the references of a job, by the digest of their bytes."""

    def __init__(
        self, references: Mapping[str, ReferenceImage], provider: VideoProvider, store: Store, calls: ProviderGate
    ) -> None:
        self._references = {reference.digest: reference for reference in references.values()}
        self._provider, self._store, self._gate = provider, store, calls
        self._urls: dict[str, str] = {}
        self._uploads = _read_uploads(store)
        """Names of pictures by the address that an upload gave them, also of earlier runs of the job."""
        self._keeping = asyncio.Lock()
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def url(self, image: ImageInput) -> str:
        async with self._locks[image.name]:
            if image.name not in self._urls:
                self._urls[image.name] = await self._sent(image)
            return self._urls[image.name]

    def name_at(self, address: str) -> str | None:
        known = next((name for name, url in self._urls.items() if url == address), None)
        return known or self._uploads.get(address)

    async def _sent(self, image: ImageInput) -> str:
        data, media_type = await asyncio.to_thread(self._picture, image)
        url = f"data:{media_type};base64,{base64.b64encode(data).decode()}"
        if len(url) <= MAX_DATA_URL_BYTES:
            return url
        if image.size is None and (public := self._references[str(image.background)].url):
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
        async with self._keeping:
            self._uploads[url] = image.name
            await asyncio.to_thread(self._keep_uploads)  # before it is used in a create, whose answer may be lost
        return url

    def _keep_uploads(self) -> None:
        try:
            self._store.scratch(UPLOADS).write_text(json.dumps(self._uploads), encoding="utf-8")
        except OSError as exc:
            raise StorageError(f"cannot write {UPLOADS}: {exc.strerror}") from exc

    def _picture(self, image: ImageInput) -> tuple[bytes, str]:
        """The picture's bytes and media type; a composed one is kept under `frames/`."""
        if image.size is None:
            plain = self._references[str(image.background)]
            return plain.data, plain.media_type
        data = composed(image, self._references)
        self._keep(data, f"frames/{image.name.removeprefix('frame:')[:16]}.jpg")
        return data, "image/jpeg"

    def _keep(self, data: bytes, name: str) -> None:
        scratch = self._store.scratch(name.replace("/", "-"))
        try:
            scratch.write_bytes(data)
        except OSError as exc:
            raise StorageError(f"cannot write {name}: {exc.strerror}") from exc
        self._store.put(scratch, name)


def _read_uploads(store: Store) -> dict[str, str]:
    """What earlier runs have uploaded; empty where that cannot be read."""
    try:
        uploads = json.loads(store.scratch(UPLOADS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(url): str(name) for url, name in uploads.items()} if isinstance(uploads, dict) else {}
