"""How an output gets to the disk: whole, continued where it broke off, and without the token."""

import asyncio
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.providers.conftest import MakeProvider
from tests.support.servers import Answer, Loopback, answer, cut, pour, reset, stall, unused_url
from tests.support.tokens import TOKEN
from videogen.emulator import Emulator, EmulatorSettings, run_emulator
from videogen.errors import (
    BadOutputError,
    GoneError,
    NotSentError,
    StorageError,
    TransientError,
)
from videogen.media import inspect_video
from videogen.providers.replicate import Limits

pytestmark = pytest.mark.integration

CLIP = bytes(range(256)) * 4096  # 1 MiB
IMPATIENT = Limits(stalled_s=0.3)
UNUSED = Limits(call_s=0.001, answer_bytes=1)
"""What limits the calls does not limit downloads."""


async def test_a_clip_arrives_as_it_was_sent(make_provider: MakeProvider, scratch: Path) -> None:
    """Byte for byte, however long it takes."""
    async with Loopback(answer(200, CLIP)) as server:
        await make_provider(server.url, limits=UNUSED).download(f"{server.url}/a/clip.mp4", scratch)
    assert scratch.read_bytes() == CLIP
    assert (server.asked[0].method, server.asked[0].target) == ("GET", "/a/clip.mp4")
    assert "range" not in server.asked[0].headers


@pytest.mark.parametrize(
    "broken", [pytest.param(cut(CLIP, after=700_000), id="cut"), pytest.param(stall(CLIP, after=700_000), id="stalled")]
)
async def test_a_download_goes_on_where_it_broke_off(
    make_provider: MakeProvider, scratch: Path, broken: Answer
) -> None:
    """What was received before a cut or a stall is kept to the byte and not fetched again."""
    rest = answer(206, CLIP[700_000:], content_range=f"bytes 700000-{len(CLIP) - 1}/{len(CLIP)}")
    async with Loopback(broken, rest) as server:
        provider = make_provider(server.url, limits=IMPATIENT)
        with pytest.raises(TransientError, match="broke off"):
            async with asyncio.timeout(250):
                await provider.download(server.url, scratch)
        assert scratch.read_bytes() == CLIP[:700_000]
        await provider.download(server.url, scratch)
    assert server.asked[1].headers["range"] == "bytes=700000-"
    assert scratch.read_bytes() == CLIP


async def test_a_server_that_knows_no_ranges_begins_again(make_provider: MakeProvider, scratch: Path) -> None:
    """200 to a question for the rest is the whole: nothing is appended."""
    scratch.write_bytes(b"of an earlier try")
    async with Loopback(answer(200, CLIP)) as server:
        await make_provider(server.url).download(server.url, scratch)
    assert server.asked[0].headers["range"] == "bytes=17-"
    assert scratch.read_bytes() == CLIP


async def test_what_does_not_fit_is_thrown_away(make_provider: MakeProvider, scratch: Path) -> None:
    """416: there is less than we have, so the next try fetches all of it."""
    scratch.write_bytes(CLIP + b"more")
    async with Loopback(answer(416, ""), answer(200, CLIP)) as server:
        provider = make_provider(server.url)
        with pytest.raises(TransientError, match="from the start"):
            await provider.download(server.url, scratch)
        assert not scratch.exists()
        await provider.download(server.url, scratch)
    assert "range" not in server.asked[1].headers
    assert scratch.read_bytes() == CLIP


@pytest.mark.parametrize("status", [401, 403, 404, 410])
async def test_an_expired_address_is_gone(make_provider: MakeProvider, scratch: Path, status: int) -> None:
    """The caller asks the prediction for a fresh one; what is there stays, to be continued."""
    scratch.write_bytes(b"half")
    async with Loopback(answer(status, "<Error>AccessDenied</Error>")) as server:
        with pytest.raises(GoneError, match=str(status)):
            await make_provider(server.url).download(server.url, scratch)
    assert scratch.read_bytes() == b"half"


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(answer(500, "<html>"), id="500"),
        pytest.param(answer(429, "", retry_after="1"), id="429"),
        pytest.param(reset, id="reset"),
        pytest.param(stall(), id="no-answer"),
    ],
)
async def test_a_download_that_fails_before_its_first_byte_leaves_no_file(
    make_provider: MakeProvider, scratch: Path, broken: Answer
) -> None:
    """An error page is never taken for the clip."""
    async with Loopback(broken) as server:
        with pytest.raises(TransientError):
            await make_provider(server.url, limits=IMPATIENT).download(server.url, scratch)
    assert not scratch.exists()


async def test_a_host_that_refuses_the_connection_was_not_asked(make_provider: MakeProvider, scratch: Path) -> None:
    """As with calls, certain."""
    with pytest.raises(NotSentError):
        await make_provider(unused_url()).download(unused_url(), scratch)


@pytest.mark.parametrize("url", ["clip.mp4", "ftp://127.0.0.1/clip.mp4", "http://host:port", "file:///etc/passwd", ""])
async def test_an_output_that_is_no_address_is_a_bad_output(
    make_provider: MakeProvider, scratch: Path, url: str
) -> None:
    """Trying again would not make it one, so no run may wait for it."""
    with pytest.raises(BadOutputError):
        await make_provider("http://127.0.0.1").download(url, scratch)


async def test_a_clip_that_says_it_is_too_large_is_not_begun(make_provider: MakeProvider, scratch: Path) -> None:
    """Judged by its Content-Length, before a byte is written."""
    async with Loopback(answer(200, CLIP)) as server:
        with pytest.raises(BadOutputError, match="larger than 1,000 bytes"):
            await make_provider(server.url, limits=Limits(download_bytes=1000)).download(server.url, scratch)
    assert not scratch.exists()


async def test_an_endless_clip_is_left(make_provider: MakeProvider, scratch: Path) -> None:
    """Without a length, the bytes on the disk count; none of them stay, for a next try would go on from there."""
    async with Loopback(pour(CLIP[:50_000])) as server:
        with pytest.raises(BadOutputError, match="larger than 300,000 bytes"):
            await make_provider(server.url, limits=Limits(download_bytes=300_000)).download(server.url, scratch)
    assert not scratch.exists()


async def test_a_full_disk_is_said_and_leaves_no_part(make_provider: MakeProvider, scratch: Path) -> None:
    """The prediction is paid for: a re-run downloads it from the start."""
    scratch.symlink_to("/dev/full")
    async with Loopback(answer(200, CLIP)) as server:
        with pytest.raises(StorageError, match=r"clip\.part.*[Nn]o space"):
            await make_provider(server.url).download(server.url, scratch)
    assert not os.path.lexists(scratch)


@pytest.mark.parametrize("part", ["file/clip.part", "missing/clip.part"])
async def test_a_folder_that_cannot_be_written_is_said(make_provider: MakeProvider, tmp_path: Path, part: str) -> None:
    """Also when not even the part can be looked at."""
    (tmp_path / "file").touch()
    async with Loopback(answer(200, CLIP)) as server:
        with pytest.raises(StorageError, match=r"clip\.part"):
            await make_provider(server.url).download(server.url, tmp_path / part)


async def test_no_output_host_ever_sees_the_token(make_provider: MakeProvider, scratch: Path) -> None:
    """Neither the one that is named, nor the one it points on to, nor the API's own: outputs need none."""
    async with Loopback(answer(200, CLIP)) as cdn, Loopback(answer(302, "", location=f"{cdn.url}/clip")) as host:
        await make_provider(host.url, TOKEN).download(f"{host.url}/clip", scratch)
    assert [asked.target for asked in host.asked + cdn.asked] == ["/clip", "/clip"]
    for asked in host.asked + cdn.asked:
        assert not {"authorization", "cookie"} & asked.headers.keys()
        assert TOKEN not in repr(asked)
    assert scratch.read_bytes() == CLIP


async def test_a_host_that_points_at_itself_is_left(make_provider: MakeProvider, scratch: Path) -> None:
    """Three redirects are followed, no more."""
    async with Loopback() as host:
        host.then(*[answer(302, "", location=f"{host.url}/clip")] * 10)
        with pytest.raises(TransientError):
            await make_provider(host.url).download(host.url, scratch)
    assert len(host.asked) == 4


# -- against the emulator ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with run_emulator(EmulatorSettings(latency_s=(0, 0), queue_s=(0, 0))) as emulator:
        yield emulator


async def test_a_real_clip_arrives_whole_and_in_parts(
    emulator: Emulator, make_provider: MakeProvider, scratch: Path
) -> None:
    """The rest of a clip makes the same file as all of it, and only the rest is served."""
    provider = make_provider(emulator.url)
    inputs = {"prompt": "A lighthouse", "duration": 2, "resolution": "480p"}
    prediction = await provider.create("bytedance/seedance-1-pro", None, inputs, cancel_after_s=60)
    while not prediction.ended:
        prediction = await provider.get(prediction.id)
    assert prediction.output_url
    await provider.download(prediction.output_url, scratch)
    measured, whole = inspect_video(scratch), scratch.read_bytes()
    assert measured.sha256 == hashlib.sha256(whole).hexdigest()
    assert (measured.width, measured.height) == (864, 480)

    os.truncate(scratch, 10_000)
    served = emulator.ledger()["bytes_served"]
    await provider.download(prediction.output_url, scratch)
    assert scratch.read_bytes() == whole
    assert emulator.ledger()["bytes_served"] - served == len(whole) - 10_000
