"""How a picture gets to the provider: inside the request when small, uploaded once when large, composed and kept."""

import asyncio
import base64
import hashlib
import io
import random
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Never

import pytest
from PIL import Image

from videogen.errors import (
    AuthenticationError,
    GoneError,
    InputRejectedError,
    RateLimitedError,
    StorageError,
    TransientError,
    UnreachableError,
    UnusableReferenceError,
)
from videogen.execution.rate_limit_gate import ProviderGate
from videogen.planning.requests import ImageInput
from videogen.providers.base import Capabilities, Prediction
from videogen.providers.reference_images import MAX_DATA_URL_BYTES, ReferenceSender
from videogen.references.compose import compose_frame
from videogen.references.decode import ReferenceImage
from videogen.storage.local import FileStore

URL = "https://api.replicate.com/v1/files/f"
LARGEST = (MAX_DATA_URL_BYTES - len("data:image/png;base64,")) // 4 * 3
"""Bytes of the largest PNG that fits a `data:` URL."""


class Uploads:
    """A provider that takes pictures, after raising what it is told to; it makes no predictions."""

    origin = "uploads.example"
    capabilities = Capabilities(timedelta(hours=1), bills_failed=False, bills_canceled=True, shortest_deadline_s=5.0)

    def __init__(self, *refusals: Exception) -> None:
        self.taken: list[tuple[bytes, str, str]] = []
        self.asked = 0
        self._refusals = list(refusals)

    def now(self) -> datetime:
        return datetime.now(UTC)

    async def upload(self, data: bytes, *, name: str, media_type: str) -> str:
        self.asked += 1
        await asyncio.sleep(0.01)  # long enough for the others to come and ask too
        if self._refusals:
            raise self._refusals.pop(0)
        self.taken.append((data, name, media_type))
        return f"{URL}{len(self.taken)}"

    async def check_account(self) -> None:
        raise NotImplementedError

    async def create(
        self, replicate: str, version: str | None, inputs: Mapping[str, Any], *, cancel_after_s: float
    ) -> Prediction:
        raise NotImplementedError

    async def get(self, prediction_id: str) -> Prediction:
        raise NotImplementedError

    async def cancel(self, prediction_id: str) -> Prediction:
        raise NotImplementedError

    def list_since(self, created_after: datetime) -> AsyncIterator[Prediction]:
        raise NotImplementedError

    async def download(self, url: str, part: Path) -> Never:
        raise NotImplementedError


def reference(data: bytes, *, alpha: bool = False, url: str | None = None) -> ReferenceImage:
    digest = hashlib.sha256(data).hexdigest()
    return ReferenceImage(digest, digest, 64, 36, alpha, data, "image/png", url)


def bytes_of(size_bytes: int) -> bytes:
    return random.Random(size_bytes).randbytes(size_bytes)


def picture(colour: str, size: tuple[int, int] = (64, 36), mode: str = "RGB") -> ReferenceImage:
    buffer = io.BytesIO()
    Image.new(mode, size, colour).save(buffer, "PNG")
    return reference(buffer.getvalue(), alpha=mode == "RGBA")


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path)


def images(store: FileStore, provider: Uploads, *references: ReferenceImage) -> ReferenceSender:
    return ReferenceSender({found.source: found for found in references}, provider, store, ProviderGate())


def plain(found: ReferenceImage) -> ImageInput:
    return ImageInput(background=found.digest)


# -- sent -------------------------------------------------------------------------------------------------------------


async def test_a_small_picture_travels_inside_the_request(store: FileStore) -> None:
    """As it is, in a `data:` URL; nothing is uploaded."""
    provider, small = Uploads(), reference(b"\x89PNG small")
    url = await images(store, provider, small).url(plain(small))
    assert url == "data:image/png;base64," + base64.b64encode(b"\x89PNG small").decode()
    assert provider.asked == 0


@pytest.mark.parametrize(
    ("size_bytes", "uploads"), [pytest.param(LARGEST, 0, id="fits"), pytest.param(LARGEST + 1, 1, id="one-byte-more")]
)
async def test_replicates_limit_counts_the_whole_address(store: FileStore, size_bytes: int, uploads: int) -> None:
    """256 KB of `data:` URL, base64 and all, and not of picture."""
    provider, edge = Uploads(), reference(bytes_of(size_bytes))
    url = await images(store, provider, edge).url(plain(edge))
    assert len(provider.taken) == uploads
    assert len(url) <= MAX_DATA_URL_BYTES


async def test_a_large_picture_is_uploaded_once_for_all_clips(store: FileStore) -> None:
    """Five clips that ask at once, and one later, get one address; name and type tell what it is."""
    provider, large = Uploads(), reference(bytes_of(300_000))
    sender = images(store, provider, large)
    urls = await asyncio.gather(*(sender.url(plain(large)) for _ in range(5)))
    urls.append(await sender.url(plain(large)))
    assert set(urls) == {f"{URL}1"}
    assert provider.taken == [(large.data, f"sha256-{large.digest}.png", "image/png")]


async def test_an_upload_of_an_earlier_run_is_known_by_its_address(store: FileStore) -> None:
    """So that a prediction which a killed run created is told from that of another picture."""
    provider, picture = Uploads(), reference(bytes_of(300_000))
    image = plain(picture)
    address = await images(store, provider, picture).url(image)
    assert images(store, provider, picture).name_at(address) == image.name
    assert images(store, provider, picture).name_at("https://elsewhere.example/1") is None


async def test_a_large_picture_at_a_public_address_is_named_by_it(store: FileStore) -> None:
    """The provider fetches it itself; a small one travels with the request all the same."""
    provider, public = Uploads(), "https://pictures.example/sea.png"
    large, small = reference(bytes_of(300_000), url=public), reference(b"\x89PNG small", url=public)
    sender = images(store, provider, large, small)
    assert await sender.url(plain(large)) == public
    assert (await sender.url(plain(small))).startswith("data:image/png;base64,")
    assert provider.asked == 0


async def test_different_pictures_are_not_taken_for_each_other(store: FileStore) -> None:
    """Each has an address of its own."""
    provider, one, two = Uploads(), reference(bytes_of(300_000)), reference(bytes_of(300_001))
    sender = images(store, provider, one, two)
    urls = await asyncio.gather(sender.url(plain(one)), sender.url(plain(two)))
    assert set(urls) == {f"{URL}1", f"{URL}2"}
    assert {data for data, _, _ in provider.taken} == {one.data, two.data}


@pytest.mark.parametrize(
    "passing",
    [
        pytest.param(TransientError("reset"), id="lost-answer"),
        pytest.param(RateLimitedError("throttled", retry_after_s=0.05), id="rate-limit"),
    ],
)
async def test_an_upload_is_repeated_over_what_passes(store: FileStore, passing: Exception) -> None:
    """A clip does not fail for one broken connection."""
    provider, large = Uploads(passing), reference(bytes_of(300_000))
    assert await images(store, provider, large).url(plain(large)) == f"{URL}1"
    assert provider.asked == 2


@pytest.mark.parametrize(
    ("refusal", "error"),
    [
        pytest.param(InputRejectedError("refused (413): too large"), UnusableReferenceError, id="refused"),
        pytest.param(GoneError("not found"), UnreachableError, id="unreachable"),
        pytest.param(AuthenticationError("refused the token (401)"), AuthenticationError, id="account"),
    ],
)
async def test_a_picture_that_cannot_be_uploaded_says_whose_fault_it_is(
    store: FileStore, refusal: Exception, error: type[Exception]
) -> None:
    """The picture's, the network's or the account's; asked once."""
    provider, large = Uploads(refusal), reference(bytes_of(300_000))
    with pytest.raises(error, match=str(refusal).split(" ", maxsplit=1)[0]):
        await images(store, provider, large).url(plain(large))
    assert provider.asked == 1


async def test_an_upload_that_failed_is_tried_again_by_the_next_clip(store: FileStore) -> None:
    """A failure is not remembered in place of an address."""
    provider, large = Uploads(GoneError("not found")), reference(bytes_of(300_000))
    sender = images(store, provider, large)
    with pytest.raises(UnreachableError):
        await sender.url(plain(large))
    assert await sender.url(plain(large)) == f"{URL}1"


# -- composed ---------------------------------------------------------------------------------------------------------


async def test_a_composed_frame_is_sent_and_kept(store: FileStore, tmp_path: Path) -> None:
    """What a person finds in `frames/` is, byte for byte, what the model was shown, in the size asked for."""
    provider, sea, keeper = Uploads(), picture("blue"), picture("red", (8, 24), "RGBA")
    frame = ImageInput(size=(320, 180), background=sea.digest, characters=(keeper.digest,))
    url = await images(store, provider, sea, keeper).url(frame)
    sent = base64.b64decode(url.removeprefix("data:image/jpeg;base64,"))
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [str(path.relative_to(tmp_path)) for path in kept] == [
        f"frames/{frame.name.removeprefix('frame:')[:16]}.jpg"
    ]
    assert kept[0].read_bytes() == sent
    assert sent == compose_frame(size=(320, 180), background=sea, characters=[keeper])
    assert Image.open(io.BytesIO(sent)).size == (320, 180)


async def test_characters_keep_their_order_and_need_no_background(store: FileStore) -> None:
    """The frame is made of the references named, left to right, and of no others."""
    one, two, other = (picture(colour, (8, 24), "RGBA") for colour in ("red", "green", "blue"))
    frame = ImageInput(size=(320, 180), characters=(two.digest, one.digest))
    url = await images(store, Uploads(), one, two, other).url(frame)
    expected = compose_frame(size=(320, 180), background=None, characters=[two, one])
    assert url == f"data:image/jpeg;base64,{base64.b64encode(expected).decode()}"


async def test_a_large_frame_is_uploaded_under_its_recipes_name(store: FileStore, tmp_path: Path) -> None:
    """Composed once for all clips that want it, and without the colon that its name has in requests."""
    provider = Uploads()
    noise = Image.frombytes("RGB", (1280, 720), bytes_of(1280 * 720 * 3))
    buffer = io.BytesIO()
    noise.save(buffer, "PNG")
    sea = reference(buffer.getvalue())
    frame = ImageInput(size=(1280, 720), background=sea.digest)
    sender = images(store, provider, sea)
    urls = await asyncio.gather(*(sender.url(frame) for _ in range(3)))
    assert set(urls) == {f"{URL}1"}
    [(data, name, media_type)] = provider.taken
    assert (name, media_type) == (f"{frame.name.replace(':', '-')}.jpeg", "image/jpeg")
    assert [path.read_bytes() for path in (tmp_path / "frames").iterdir()] == [data]


class FullStore(FileStore):
    """A folder in which no unfinished picture finds room."""

    def scratch(self, name: str) -> Path:
        path = super().scratch(name)
        if name.endswith(".jpg"):
            path.symlink_to("/dev/full")
        return path


async def test_a_frame_that_cannot_be_kept_is_not_sent(tmp_path: Path) -> None:
    """A full disk stops the clip before anything is paid."""
    provider, sea = Uploads(), picture("blue")
    frame = ImageInput(size=(320, 180), background=sea.digest)
    with pytest.raises(StorageError, match=r"cannot write frames/.*\.jpg"):
        await images(FullStore(tmp_path), provider, sea).url(frame)
    assert provider.asked == 0
