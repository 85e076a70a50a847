"""What may be in a cassette, and what makes the playing of one fail."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from vcr import VCR
from vcr.errors import CannotOverwriteExistingCassetteException

from tests.providers import test_cassettes
from tests.providers.conftest import MakeProvider
from tests.providers.recording import CASSETTES, CLIP_BYTES, Wire, find_own_ids, is_list, unplayed
from tests.support.servers import Loopback, answer
from tests.support.tokens import TOKEN
from videogen.providers.replicate import DEFAULT_BASE_URL

pytestmark = pytest.mark.integration

REPLAY = Wire(DEFAULT_BASE_URL, "r8_not_a_real_one")
PREDICTION = {"id": "p1", "status": "starting"}
BEFORE = datetime(2026, 11, 1, tzinfo=UTC)

blocked = pytest.mark.block_network(allowed_hosts=[r"127\.0\.0\.1"])


@contextmanager
def playing(wire: Wire, path: Path, mode: str) -> Iterator[Any]:
    with VCR(record_mode=mode).use_cassette(str(path), **wire.vcr_config()) as cassette:
        yield cassette


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "made.yaml"


# -- made --------------------------------------------------------------------------------------------------------------


async def test_no_secret_gets_into_a_cassette(make_provider: MakeProvider, path: Path) -> None:
    """Neither in headers, which are kept only when known, nor in bodies, wherever the server repeats it."""
    echo = {
        **PREDICTION,
        "logs": f"called with {TOKEN} and key another-secret and r8_someoneElses, whsec_bG9uZyBzZWNyZXQ=",
        "urls": {"get": f"https://user:{TOKEN}@api.replicate.com/v1/predictions/p1?token={TOKEN}"},
    }
    leaks = {"set-cookie": f"session={TOKEN}", "x-request-token": TOKEN, "x-amz-id": "another-secret"}
    async with Loopback(answer(201, echo, **leaks), answer(200, echo, **leaks)) as server:
        wire = Wire(server.url, TOKEN)
        with playing(wire, path, "new_episodes"):
            provider = make_provider(server.url, TOKEN)
            await provider.create("a/b", None, {"prompt": f"my token is {TOKEN}"}, cancel_after_s=60)
            await provider.get("p1")
    text = path.read_text()
    assert "called with [token]" in text
    assert "my token is [token]" in text
    assert not re.search(r"r8_|whsec_|canary|cookie|x-request|x-amz", text, re.IGNORECASE)


async def test_a_token_of_another_form_is_scrubbed_too(make_provider: MakeProvider, path: Path) -> None:
    """Replicate's older tokens are forty hex digits."""
    token = "0123456789abcdef0123456789abcdef01234567"
    async with Loopback(answer(200, {**PREDICTION, "logs": token})) as server:
        with playing(Wire(server.url, token), path, "new_episodes"):
            await make_provider(server.url, token).get("p1")
    assert token not in path.read_text()


async def test_a_recording_from_elsewhere_has_replicates_addresses(make_provider: MakeProvider, path: Path) -> None:
    """So that a recording from Replicate itself has the same shape, and one of either replays for the same client."""
    async with Loopback() as server:
        output = f"{server.url}/files/secret/output.mp4"
        server.then(answer(200, {**PREDICTION, "output": output, "urls": {"web": f"{server.url}/p/p1"}}))
        with playing(Wire(server.url, TOKEN), path, "new_episodes"):
            assert (await make_provider(server.url).get("p1")).output_url == output
    assert "127.0.0.1" not in path.read_text()
    assert "https://replicate.com/p/p1" in path.read_text()
    with playing(REPLAY, path, "none") as cassette:
        prediction = await make_provider(DEFAULT_BASE_URL).get("p1")
    assert prediction.output_url == "https://replicate.delivery/xezq/secret/output.mp4"
    assert unplayed(cassette) == []


async def test_video_is_kept_beside_the_cassette_and_cut(
    make_provider: MakeProvider, path: Path, scratch: Path
) -> None:
    """The YAML holds its name; a replay gets the bytes, and a length that fits them."""
    clip = b"\0\0\0\x20ftypisom" + bytes(range(256)) * 1000
    async with Loopback(answer(200, clip, content_type="video/mp4")) as server:
        with playing(Wire(server.url, TOKEN), path, "new_episodes"):
            await make_provider(server.url).download(f"{server.url}/files/s/output.mp4", scratch)
        assert scratch.read_bytes() == clip
    assert (path.parent / "media" / "made.mp4").read_bytes() == clip[:CLIP_BYTES]
    assert "file: media/made.mp4" in path.read_text()
    assert len(path.read_bytes()) < 1000
    with playing(REPLAY, path, "none") as cassette:
        scratch.unlink()
        await make_provider(DEFAULT_BASE_URL).download("https://replicate.delivery/xezq/s/output.mp4", scratch)
    assert scratch.read_bytes() == clip[:CLIP_BYTES]
    assert cassette.responses[0]["headers"]["content-length"] == [str(CLIP_BYTES)]


OURS = {**PREDICTION, "input": {"prompt": "A sea"}}
FOREIGN = {
    "id": "p2",
    "status": "succeeded",
    "input": {"prompt": "a script nobody shall read"},
    "output": "https://a/b",
}


@pytest.mark.parametrize("foreign_first", [False, True])
async def test_only_our_own_predictions_of_a_list_are_kept(
    make_provider: MakeProvider, path: Path, foreign_first: bool
) -> None:
    """Whatever else the account made stays out; the replay finds ours, and its length fits."""
    rows = [FOREIGN, OURS] if foreign_first else [OURS, FOREIGN]
    page = {"next": None, "previous": None, "results": rows}
    async with Loopback(answer(201, OURS), answer(200, page)) as server:
        with playing(Wire(server.url, TOKEN), path, "new_episodes"):
            provider = make_provider(server.url)
            await provider.create("a/b", None, {"prompt": "A sea"}, cancel_after_s=60)
            assert [found.id async for found in provider.list_since(BEFORE)] == [row["id"] for row in rows]
    assert "nobody shall read" not in path.read_text()
    assert "p2" not in path.read_text()
    with playing(REPLAY, path, "none") as cassette:
        provider = make_provider(DEFAULT_BASE_URL)
        await provider.create("a/b", None, {"prompt": "A sea"}, cancel_after_s=60)
        assert [found.id async for found in provider.list_since(BEFORE)] == ["p1"]
    assert unplayed(cassette) == []
    listed = cassette.responses[1]
    assert listed["headers"]["content-length"] == [str(len(listed["body"]["string"]))]


async def test_a_list_without_a_prediction_of_ours_is_kept_empty(make_provider: MakeProvider, path: Path) -> None:
    """Nothing was created in this cassette, so nothing in the list is ours."""
    async with Loopback(answer(200, {"next": None, "previous": None, "results": [FOREIGN]})) as server:
        with playing(Wire(server.url, TOKEN), path, "new_episodes"):
            assert [found.id async for found in make_provider(server.url).list_since(BEFORE)] == ["p2"]
    assert '"results":[]' in path.read_text()


# -- played ------------------------------------------------------------------------------------------------------------


@pytest.fixture
async def recorded(make_provider: MakeProvider, path: Path) -> Path:
    """A create and two polls."""
    async with Loopback(answer(201, PREDICTION), answer(200, PREDICTION), answer(200, PREDICTION)) as server:
        provider = make_provider(server.url, TOKEN)
        with playing(Wire(server.url, TOKEN), path, "new_episodes"):
            await provider.create("a/b", None, {"prompt": "A sea"}, cancel_after_s=60)
            await provider.get("p1")
            await provider.get("p1")
    return path


@blocked
async def test_a_cassette_that_is_not_played_whole_is_told(make_provider: MakeProvider, recorded: Path) -> None:
    """By the requests that were not made: `played_whole` fails the test over them."""
    with playing(REPLAY, recorded, "none") as cassette:
        provider = make_provider(DEFAULT_BASE_URL)
        await provider.create("a/b", None, {"prompt": "A sea"}, cancel_after_s=60)
        await provider.get("p1")
        assert unplayed(cassette) == ["GET https://api.replicate.com/v1/predictions/p1"]
        await provider.get("p1")
        assert unplayed(cassette) == []


@blocked
async def test_nothing_is_played_twice(make_provider: MakeProvider, recorded: Path) -> None:
    """A third poll was not recorded, so it must not happen."""
    with playing(REPLAY, recorded, "none"):
        provider = make_provider(DEFAULT_BASE_URL)
        await provider.get("p1")
        await provider.get("p1")
        with pytest.raises(CannotOverwriteExistingCassetteException):
            await provider.get("p1")


@blocked
@pytest.mark.parametrize(
    ("base_url", "model", "prompt", "cancel_after_s"),
    [
        pytest.param("https://api.replicate.com", "a/b", "A lake", 60, id="body"),
        pytest.param("https://api.replicate.com", "a/c", "A sea", 60, id="path"),
        pytest.param("https://api.replicate.com", "a/b", "A sea", 90, id="cancel-after"),
        pytest.param("http://api.replicate.com", "a/b", "A sea", 60, id="scheme"),
        pytest.param("https://api.replicate.org", "a/b", "A sea", 60, id="host"),
        pytest.param("https://api.replicate.com:8443", "a/b", "A sea", 60, id="port"),
    ],
)
async def test_another_request_than_the_recorded_one_fails(
    make_provider: MakeProvider, recorded: Path, base_url: str, model: str, prompt: str, cancel_after_s: float
) -> None:
    """Whatever the difference; it is neither answered nor sent."""
    with playing(REPLAY, recorded, "none"), pytest.raises(CannotOverwriteExistingCassetteException):
        await make_provider(base_url).create(model, None, {"prompt": prompt}, cancel_after_s=cancel_after_s)


@blocked
async def test_a_token_that_goes_astray_is_another_request(make_provider: MakeProvider, recorded: Path) -> None:
    """Whether a request carries the token is recorded, though not the token: a download never does."""
    with playing(REPLAY, recorded, "none"), pytest.raises(CannotOverwriteExistingCassetteException):
        await make_provider(DEFAULT_BASE_URL).download(f"{DEFAULT_BASE_URL}/v1/predictions/p1", recorded.parent / "x")


# -- kept --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cassette", sorted(CASSETTES.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_recordings_hold_no_secret_and_no_address_of_a_machine(cassette: Path) -> None:
    """Looked for in what is committed, whoever recorded it."""
    text = cassette.read_text()
    assert not re.search(r"r8_|whsec_|bearer|cookie|127\.0\.0\.1|localhost", text, re.IGNORECASE)
    assert set(re.findall(r"uri: (https?://[^/]+)", text)) <= {
        "https://api.replicate.com",
        "https://replicate.delivery",
    }


@pytest.mark.parametrize("cassette", sorted(CASSETTES.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_recordings_hold_no_prediction_of_anybody_else(cassette: Path) -> None:
    """Every id of a prediction that a recorded list shows is one that another call of the cassette is about."""
    with playing(REPLAY, cassette, "none") as recorded:
        own = find_own_ids(recorded)
        for request, response in zip(recorded.requests, recorded.responses, strict=True):
            if is_list(request):
                assert {row["id"] for row in json.loads(response["body"]["string"])["results"]} <= own


def test_every_recording_is_played_by_a_test() -> None:
    """None is left over from a test that is no more, neither as YAML nor as video."""
    tests = [test for name, test in vars(test_cassettes).items() if name.startswith("test_")]
    marks = [mark for test in tests for mark in test.pytestmark]
    marks += [mark for found in marks if found.name == "parametrize" for case in found.args[1] for mark in case.marks]
    played = {mark.args[0] for mark in marks if mark.name == "default_cassette"}
    assert {path.stem for path in CASSETTES.glob("*.yaml")} == played
    assert {path.stem for path in (CASSETTES / "media").glob("*.mp4")} <= played
