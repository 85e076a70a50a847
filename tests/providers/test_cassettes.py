"""The provider against recorded traffic: what it sends is what was recorded, and it makes sense of what came back.

Replayed with the network blocked; `cassettes/README.md` says what they were recorded from, and how to do it again.
"""

import asyncio
import base64
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.providers.conftest import MakeProvider
from tests.providers.recording import CASSETTES, CLIP_BYTES, Wire
from videogen.errors import (
    AuthenticationError,
    GoneError,
    InputRejectedError,
    RateLimitedError,
)
from videogen.providers.base import Prediction
from videogen.providers.replicate import ReplicateProvider

pytestmark = pytest.mark.block_network

T = TypeVar("T", bound=Callable[..., Any])

KLING = "kwaivgi/kling-v2.5-turbo-pro"
COGVIDEOX = "cuuupid/cogvideox-5b"
COGVIDEOX_VERSION = "5b14e2c2c648efecc8d36c6353576552f8a124e690587212f8e8bb17ecda3d8c"
PROMPT = "A lighthouse on a rock at dusk, its beam turning over a calm sea"
START_FRAME = base64.b64encode((CASSETTES / "media" / "start-frame.png").read_bytes()).decode()

not_on_demand = pytest.mark.skipif(
    "os.environ.get('REPLICATE_API_TOKEN') and config.getoption('--record-mode') not in (None, 'none')",
    reason="Replicate cannot be asked to do this: the recording from the emulator is kept",
)


def recorded_as(name: str) -> Callable[[T], T]:
    """The test's traffic is in `cassettes/NAME.yaml`."""
    return lambda test: pytest.mark.vcr(pytest.mark.default_cassette(name)(test))


@pytest.fixture
def provider(make_provider: MakeProvider, wire: Wire) -> ReplicateProvider:
    return make_provider(wire.base_url, wire.token)


async def create_kling(provider: ReplicateProvider, **inputs: Any) -> Prediction:
    return await provider.create(KLING, None, {"prompt": PROMPT, "duration": 5, **inputs}, cancel_after_s=630)


async def until_ended(prediction: Prediction, provider: ReplicateProvider, wire: Wire) -> Prediction:
    """The prediction once it has ended, polled as often as was recorded."""
    while not prediction.ended:
        await asyncio.sleep(wire.poll_every_s)
        prediction = await provider.get(prediction.id)
    return prediction


# -- clips -------------------------------------------------------------------------------------------------------------


@pytest.mark.vcr
@pytest.mark.parametrize(
    ("model", "version", "inputs"),
    [
        pytest.param(
            KLING,
            None,
            {"prompt": PROMPT, "duration": 5, "aspect_ratio": "16:9", "resolution": "1080p"},
            marks=pytest.mark.default_cassette("kling-v2.5-turbo-pro"),
            id="official-text-to-video",
        ),
        pytest.param(
            "wan-video/wan-2.5-i2v",
            None,
            {
                "prompt": PROMPT,
                "image": f"data:image/png;base64,{START_FRAME}",
                "duration": 5,
                "resolution": "480p",
                "seed": 7,
            },
            marks=pytest.mark.default_cassette("wan-2.5-i2v"),
            id="official-image-to-video",
        ),
        pytest.param(
            COGVIDEOX,
            COGVIDEOX_VERSION,
            {"prompt": PROMPT, "steps": 30, "num_outputs": 1, "seed": 7},
            marks=pytest.mark.default_cassette("cogvideox-5b"),
            id="community-by-version",
        ),
    ],
)
async def test_a_clip_is_created_polled_and_downloaded(
    provider: ReplicateProvider,
    wire: Wire,
    vcr: Any,
    scratch: Path,
    model: str,
    version: str | None,
    inputs: dict[str, Any],
) -> None:
    """From the create to the bytes on the disk, for each of the three ways to ask for a clip."""
    created = await provider.create(model, version, inputs, cancel_after_s=930)
    assert created.status in ("starting", "processing")
    done = await until_ended(created, provider, wire)
    assert (done.id, done.status) == (created.id, "succeeded")
    assert (done.model, done.version) == (model, version or "hidden")
    assert done.input["prompt"] == PROMPT
    assert done.predict_time_s
    assert done.output_url

    await provider.download(done.output_url, scratch)
    clip = scratch.read_bytes()
    assert clip[4:8] == b"ftyp"
    assert clip[:CLIP_BYTES] == vcr.responses[-1]["body"]["string"]


@recorded_as("failed")
async def test_a_model_that_fails_says_why(provider: ReplicateProvider, wire: Wire) -> None:
    """Inputs that are valid one by one but not together pass the create and fail as a prediction."""
    inputs = {"prompt": PROMPT, "duration": 10, "resolution": "1080p"}
    created = await provider.create("minimax/hailuo-2.3", None, inputs, cancel_after_s=630)
    failed = await until_ended(created, provider, wire)
    assert failed.status == "failed"
    assert failed.error
    assert failed.output_url is None


@recorded_as("canceled")
async def test_a_lost_prediction_is_found_in_the_list_and_cancelled(provider: ReplicateProvider, wire: Wire) -> None:
    """What a run needs after its create got no answer: the id is in the list, by it the prediction ends."""
    created = await create_kling(provider)
    assert created.created_at
    listed = [found async for found in provider.list_since(created.created_at - timedelta(seconds=1))]
    found = next(found for found in listed if found.id == created.id)
    assert (found.model, found.input["prompt"]) == (KLING, PROMPT)
    canceled = await until_ended(await provider.cancel(found.id), provider, wire)
    assert canceled.status == "canceled"
    assert canceled.output_url is None


@not_on_demand
@recorded_as("expired")
async def test_an_output_is_gone_after_an_hour(provider: ReplicateProvider, wire: Wire, scratch: Path) -> None:
    """The prediction still says succeeded, but has no output, and its old address answers 404."""
    done = await until_ended(await create_kling(provider), provider, wire)
    assert done.output_url
    await asyncio.sleep(wire.output_kept_s)
    expired = await provider.get(done.id)
    assert expired.data_removed
    assert (expired.status, expired.output_url, expired.input) == ("succeeded", None, {})
    with pytest.raises(GoneError):
        await provider.download(done.output_url, scratch)
    assert not scratch.exists()


# -- refusals ----------------------------------------------------------------------------------------------------------


@recorded_as("401")
async def test_a_token_that_is_none_is_refused(make_provider: MakeProvider, wire: Wire) -> None:
    """The message repeats the refusal, not the token."""
    with pytest.raises(AuthenticationError, match="valid authentication token") as caught:
        await make_provider(wire.base_url, "not-a-token").check_account()
    assert "not-a-token" not in str(caught.value)


@recorded_as("422-enum")
async def test_a_length_that_the_model_does_not_make_is_refused(provider: ReplicateProvider) -> None:
    """By the name of its input, and with the lengths there are."""
    with pytest.raises(InputRejectedError, match=r"input\.duration: .* one of the following: .*5.*10"):
        await create_kling(provider, duration=7)


@recorded_as("422-version")
async def test_a_version_that_does_not_exist_is_refused(provider: ReplicateProvider) -> None:
    """422, not 404."""
    with pytest.raises(InputRejectedError, match=r"\(422\): .*version does not exist"):
        await provider.create(COGVIDEOX, "0" * 64, {"prompt": PROMPT}, cancel_after_s=630)


@recorded_as("404")
async def test_what_is_not_there_is_told_apart(provider: ReplicateProvider) -> None:
    """A community model asked for by name is a wrong input, an unknown prediction is gone."""
    with pytest.raises(InputRejectedError, match="404"):
        await provider.create(COGVIDEOX, None, {"prompt": PROMPT}, cancel_after_s=630)
    with pytest.raises(GoneError):
        await provider.get("zzzzzzzzzzzzzzzzzzzzzzzzzz")


@not_on_demand
@recorded_as("429")
async def test_a_rate_limit_is_told_with_its_wait(provider: ReplicateProvider, vcr: Any) -> None:
    """Header, field and text of the recorded answer agree, and so does the error."""
    await create_kling(provider)
    with pytest.raises(RateLimitedError, match="throttled") as caught:
        await create_kling(provider)
    headers = vcr.responses[-1]["headers"]
    assert caught.value.retry_after_s == float(headers["retry-after"][0]) > 0
