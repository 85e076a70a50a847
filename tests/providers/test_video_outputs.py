"""Where in an output the video is found, in whatever shape a model answers."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from tests.providers.conftest import MakeProvider
from tests.support.servers import Loopback, answer
from videogen.errors import BadOutputError, StorageError
from videogen.providers.replicate import Limits
from videogen.providers.video_outputs import find_video, is_empty

pytestmark = pytest.mark.integration

V = "https://replicate.delivery/xezq/a.mp4"
W = "https://replicate.delivery/xezq/b.mp4"
BARE = "https://replicate.delivery/pbxt/file"
PICTURE = "https://replicate.delivery/xezq/a.jpg"
DATA = "data:video/mp4;base64,AAAAIGZ0eXBpc29t"

SHAPES = {
    "address": (V, V),
    "list": ([V], V),
    "first-of-two": ([V, W], V),
    "thumbnail-first": ({"thumbnail": PICTURE, "video": V}, V),
    "thumbnail-without-suffix": ({"thumbnail": BARE, "video": BARE + "2"}, BARE + "2"),
    "preview-first": ([PICTURE, V], V),
    "log-first": ({"log": "https://example.com/log.txt", "video": V}, V),
    "sound-first": ({"audio": "https://example.com/a.wav", "result": V}, V),
    "objects": ([{"url": V, "content_type": "video/mp4"}], V),
    "nested": ({"output": {"video": V}}, V),
    "fal": ({"video": {"url": V, "content_type": "video/mp4"}, "seed": 1}, V),
    "fal-with-picture": (
        {
            "image": {"url": BARE, "content_type": "image/png"},
            "video": {"url": BARE + "2", "content_type": "video/webm"},
        },
        BARE + "2",
    ),
    "media-type-beats-suffix": ([{"url": PICTURE, "mime_type": "video/mp4"}], PICTURE),
    "suffix-beats-name": ({"video": BARE, "file": V}, V),
    "preview-of-a-video": ({"preview_video": V, "video": W}, W),
    "camel-case": ({"thumbnailUrl": BARE, "videoUrl": BARE + "2"}, BARE + "2"),
    "query-after-the-suffix": ([PICTURE + "?sig=a.mp4", V + "?sig=x.jpg"], V + "?sig=x.jpg"),
    "kind": ([{"type": "image", "url": BARE}, {"type": "video", "url": BARE + "2"}], BARE + "2"),
    "only-one-without-a-hint": ({"seed": 7, "result": BARE}, BARE),
    "under-a-name-of-a-picture": ({"image": BARE}, BARE),
    "octets": ([{"url": V, "content_type": "application/octet-stream"}], V),
    "data": (DATA, DATA),
    "data-in-a-list": (["data:image/png;base64,AA==", DATA], DATA),
    "data-of-no-type": ({"video": "data:;base64,AA=="}, "data:;base64,AA=="),
    "capitals": ("HTTPS://replicate.delivery/A.MP4", "HTTPS://replicate.delivery/A.MP4"),
    "blanks-around": (f" {V}\n", V),
    "beside-numbers": ([None, 3, True, "logs", V], V),
    "deep": ({"a": [{"b": [{"c": {"d": V}}]}]}, V),
}
NO_VIDEO = {
    "picture": PICTURE,
    "pictures": [PICTURE, PICTURE],
    "text": "A lighthouse at dusk.",
    "sound": {"audio": "https://example.com/a.mp3"},
    "typed-picture": [{"url": BARE, "content_type": "image/jpeg"}],
    "typed-text": {"url": V, "content_type": "text/html"},
    "data-picture": "data:image/png;base64,AAAA",
    "number": 42,
    "path": "/tmp/out.mp4",
    "file": "file:///etc/passwd.mp4",
    "ftp": "ftp://example.com/a.mp4",
    "two-lines": "https://example.com/\na.mp4",
    "endless": "https://example.com/" + "x" * 9_000 + ".mp4",
    "half-an-emoji": "https://example.com/\ud83d.mp4",
    "too-deep": json.loads("[" * 40 + f'"{V}"' + "]" * 40),
}
NOTHING_YET: dict[str, Any] = {
    "null": None,
    "text": "",
    "list": [],
    "object": {},
    "nulls": [None, None],
    "empty": {"video": None, "a": []},
}


@pytest.mark.parametrize(("output", "url"), SHAPES.values(), ids=SHAPES)
def test_a_video_that_is_somewhere_in_the_output_is_found(output: Any, url: str) -> None:
    """Its media type counts most, then its suffix, then the names that lead to it, then its place."""
    assert find_video(output) == url


@pytest.mark.parametrize("output", NO_VIDEO.values(), ids=NO_VIDEO)
async def test_an_output_without_a_video_is_told_as_such(make_provider: MakeProvider, output: Any) -> None:
    """There is no sense in asking for it again."""
    async with Loopback(answer(200, {"id": "p1", "status": "succeeded", "output": output})) as server:
        prediction = await make_provider(server.url).get("p1")
    assert prediction.output_url is None
    assert prediction.holds_no_video


@pytest.mark.parametrize("output", NOTHING_YET.values(), ids=NOTHING_YET)
async def test_an_output_that_is_not_there_yet_may_come(make_provider: MakeProvider, output: Any) -> None:
    async with Loopback(answer(200, {"id": "p1", "status": "succeeded", "output": output})) as server:
        prediction = await make_provider(server.url).get("p1")
    assert prediction.output_url is None
    assert not prediction.holds_no_video


def test_a_large_output_is_not_searched_for_ever() -> None:
    """Ten thousand values are looked at, also of a list that holds itself many times over."""
    twice: Any = [PICTURE]
    for _ in range(15):
        twice = [twice] * 100
    assert find_video(twice) is None
    assert not is_empty([None] * 9_000 + ["x"])


# -- data: addresses ---------------------------------------------------------------------------------------------------

CLIP = bytes(range(256)) * 100
BASE64 = base64.b64encode(CLIP).decode()


@pytest.mark.parametrize(
    "url",
    [
        pytest.param(f"data:video/mp4;base64,{BASE64}", id="base64"),
        pytest.param(f"DATA:video/mp4;BASE64,{BASE64}", id="capitals"),
        pytest.param(f"data:;base64,{BASE64}", id="no-type"),
        pytest.param(f"data:video/mp4;base64,{BASE64[:100]}\n{BASE64[100:]}", id="lines"),
        pytest.param("data:video/mp4," + "".join(f"%{byte:02x}" for byte in CLIP), id="percent"),
    ],
)
async def test_a_clip_in_a_data_address_arrives(make_provider: MakeProvider, scratch: Path, url: str) -> None:
    """Over what an earlier try may have left; nobody is connected to."""
    scratch.write_bytes(b"of an earlier try")
    await make_provider("https://api.example").download(url, scratch)
    assert scratch.read_bytes() == CLIP


@pytest.mark.parametrize(
    "url",
    ["data:", "data:video/mp4", "data:video/mp4;base64,%%%", "data:video/mp4;base64,AAA", "data:,\ud83d"],
    ids=ascii,
)
async def test_a_data_address_that_cannot_be_read_is_a_bad_output(
    make_provider: MakeProvider, scratch: Path, url: str
) -> None:
    with pytest.raises(BadOutputError):
        await make_provider("https://api.example").download(url, scratch)
    assert not scratch.exists()


@pytest.mark.parametrize("head", ["data:video/mp4;base64,", "data:video/mp4,"])
async def test_a_data_address_keeps_to_the_cap_of_bytes(make_provider: MakeProvider, scratch: Path, head: str) -> None:
    provider = make_provider("https://api.example", limits=Limits(download_bytes=1000))
    with pytest.raises(BadOutputError, match="larger than 1,000 bytes"):
        await provider.download(head + "A" * 10_000, scratch)
    assert not scratch.exists()


async def test_a_data_address_onto_a_full_disk_is_said(make_provider: MakeProvider, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"clip\.part"):
        await make_provider("https://api.example").download(DATA, tmp_path / "missing" / "clip.part")
