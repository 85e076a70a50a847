"""Pictures on their way to the provider: composed, kept for a person to look at, sent in the request or uploaded.

A small picture is in the request itself: what the model sees is then what the clip's key was made from. A large one at
a public address, if it goes as it is, is named by that; any other is uploaded once in a run.
"""

import asyncio
import base64
from collections import defaultdict
from collections.abc import Mapping

from videogen.calls import Calls
from videogen.clip import ImageInput
from videogen.errors import CallError, InputRejectedError, StorageError, UnreachableError, UnusableReferenceError
from videogen.ports import Store, VideoProvider
from videogen.references import ReferenceImage, compose_frame

MAX_DATA_URL_BYTES = 256_000
"""Replicate takes `data:` URLs up to 256 KB. Source: https://replicate.com/docs/topics/predictions/input-files"""


class ReferenceImages:
    """`videogen.ports.ImageSender` over the references of a job, by the digest of their bytes."""

    def __init__(
        self, references: Mapping[str, ReferenceImage], provider: VideoProvider, store: Store, calls: Calls
    ) -> None:
        self._references = {reference.digest: reference for reference in references.values()}
        self._provider, self._store, self._calls = provider, store, calls
        self._urls: dict[str, str] = {}
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def url(self, image: ImageInput) -> str:
        async with self._locks[image.name]:
            if image.name not in self._urls:
                self._urls[image.name] = await self._sent(image)
            return self._urls[image.name]

    async def _sent(self, image: ImageInput) -> str:
        data, media_type = await asyncio.to_thread(self._picture, image)
        url = f"data:{media_type};base64,{base64.b64encode(data).decode()}"
        if len(url) <= MAX_DATA_URL_BYTES:
            return url
        if image.size is None and (public := self._references[str(image.background)].url):
            return public
        name = f"{image.name.replace(':', '-')}.{media_type.removeprefix('image/')}"
        try:
            return await self._calls.repeat(lambda: self._provider.upload(data, name=name, media_type=media_type))
        except InputRejectedError as exc:
            raise UnusableReferenceError(f"the provider does not take the picture: {exc}") from exc
        except CallError as exc:
            raise UnreachableError(f"the picture could not be uploaded: {exc}") from exc

    def _picture(self, image: ImageInput) -> tuple[bytes, str]:
        """The picture's bytes and media type; a composed one is kept under `frames/`."""
        background = self._references[image.background] if image.background else None
        if image.size is None:
            assert background is not None
            return background.data, background.media_type
        characters = [self._references[digest] for digest in image.characters]
        data = compose_frame(size=image.size, background=background, characters=characters)
        self._keep(data, f"frames/{image.name.removeprefix('frame:')[:16]}.jpg")
        return data, "image/jpeg"

    def _keep(self, data: bytes, name: str) -> None:
        scratch = self._store.scratch(name.replace("/", "-"))
        try:
            scratch.write_bytes(data)
        except OSError as exc:
            raise StorageError(f"cannot write {name}: {exc.strerror}") from exc
        self._store.put(scratch, name)
