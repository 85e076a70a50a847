"""Replicate's own clients, as they are published, against the emulator: the verbs that the README says work."""

import asyncio
import io
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from replicate.client import Client
from replicate.exceptions import ModelError, ReplicateError

from tests.support.tools import find_tool
from videogen.emulator import EmulatorSettings, run_emulator

SEEDANCE, HAILUO, WAN = "bytedance/seedance-1-pro", "minimax/hailuo-2.3", "wan-video/wan-2.5-i2v"
COGVIDEOX = "cuuupid/cogvideox-5b"
COGVIDEOX_VERSION = "5b14e2c2c648efecc8d36c6353576552f8a124e690587212f8e8bb17ecda3d8c"
SMALL = {"prompt": "x", "resolution": "480p", "duration": 2}
LONGER_THAN_THE_WAIT_S = 1.2

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def url(films: Path) -> Iterator[str]:
    """An emulator whose predictions take longer than the wait of one second that the tests ask for."""
    settings = EmulatorSettings(latency_s=(LONGER_THAN_THE_WAIT_S, LONGER_THAN_THE_WAIT_S), queue_s=(0, 0), cache=films)
    with run_emulator(settings) as emulator:
        yield emulator.url


@pytest.fixture
def client(url: str) -> Iterator[Any]:
    """The Python client. It has no `close`, so its parts are closed."""
    made = Client(api_token="r8_test", base_url=url)
    yield made
    made._client.close()


def picture() -> io.BytesIO:
    buffer = io.BytesIO()
    Image.new("RGB", (320, 180), "teal").save(buffer, "PNG")
    buffer.name = "frame.png"
    buffer.seek(0)
    return buffer


REFERENCES = [
    pytest.param(SEEDANCE, SMALL, id="official"),
    pytest.param(f"{SEEDANCE}:OFFICIAL", SMALL, id="official-with-version"),
    pytest.param(f"{COGVIDEOX}:{COGVIDEOX_VERSION}", {"prompt": "x"}, id="community"),
]


@pytest.mark.long_variants
@pytest.mark.parametrize("wait", [1, True, False], ids=["wait-too-short", "wait-long-enough", "polling"])
@pytest.mark.parametrize(("reference", "inputs"), REFERENCES)
def test_run_returns_the_output_whatever_it_waits(
    client: Any, url: str, reference: str, inputs: dict[str, Any], wait: bool | int
) -> None:
    """Also of a model that takes longer than its wait, which the client takes for done unless told `starting`."""
    digits = client.models.get(SEEDANCE).latest_version.id
    output = client.run(reference.replace("OFFICIAL", digits), input=inputs, wait=wait)
    assert str(output).startswith(f"{url}/files/")


def test_run_tells_why_a_model_failed(client: Any) -> None:
    """As its own error, with the prediction."""
    with pytest.raises(ModelError, match="1080p resolution only supports") as caught:
        client.run(HAILUO, input={"prompt": "x", "duration": 10, "resolution": "1080p"}, wait=1)
    assert caught.value.prediction.status == "failed"


async def test_async_run_returns_the_output(url: str) -> None:
    """Two at once, in one event loop."""
    client = Client(api_token="r8_test", base_url=url)
    outputs = await asyncio.gather(*(client.async_run(SEEDANCE, input=SMALL, wait=1) for _ in range(2)))
    await client._async_client.aclose()
    assert all(str(output).startswith(f"{url}/files/") for output in outputs)


@pytest.mark.long_variants
@pytest.mark.parametrize("wanted", ["version", "model"])
def test_a_prediction_is_created_waited_for_and_found(client: Any, wanted: str) -> None:
    """`create`, `reload`, `wait`, `get`, `list` and `progress` agree on it."""
    given = {"version": COGVIDEOX_VERSION} if wanted == "version" else {"model": SEEDANCE}
    created = client.predictions.create(**given, input={"prompt": "x"})
    assert created.status == "starting"
    created.wait()
    assert (created.status, created.progress.percentage) == ("succeeded", 1.0)
    assert created.metrics["total_time"] >= created.metrics["predict_time"] == LONGER_THAN_THE_WAIT_S
    assert client.predictions.get(created.id).output == created.output
    assert created.id in [found.id for found in client.predictions.list().results]


@pytest.mark.parametrize("by", ["id", "itself"])
def test_a_prediction_is_canceled(client: Any, by: str) -> None:
    """By its id, or on the object."""
    created = client.predictions.create(model=SEEDANCE, input=SMALL)
    if by == "id":
        assert client.predictions.cancel(created.id).status == "canceled"
    else:
        created.cancel()
        assert created.status == "canceled"
    assert client.predictions.get(created.id).status == "canceled"


def test_models_and_versions_are_told(client: Any) -> None:
    """`models.get` and `list`, `versions.list` and `get`."""
    model = client.models.get(COGVIDEOX)
    assert COGVIDEOX in [f"{each.owner}/{each.name}" for each in client.models.list().results]
    (version,) = model.versions.list().results
    assert version.id == COGVIDEOX_VERSION == model.versions.get(COGVIDEOX_VERSION).id
    assert "prompt" in version.openapi_schema["components"]["schemas"]["Input"]["properties"]


def test_files_are_kept_and_used(client: Any, url: str) -> None:
    """`files.create`, `get`, `list`, `delete`; and a file object as an input is uploaded by the client."""
    made = client.files.create(picture(), metadata={"scene": 3})
    assert client.files.get(made.id).metadata == {"scene": 3}
    assert made.id in [found.id for found in client.files.list()]
    output = client.run(WAN, input={"prompt": "x", "image": made.urls["get"], "resolution": "480p"})
    assert str(output).startswith(f"{url}/files/")
    assert client.files.delete(made.id)
    with pytest.raises(ReplicateError, match="could not be found"):
        client.files.get(made.id)
    assert client.run(WAN, input={"prompt": "x", "image": picture(), "resolution": "480p"}, wait=1)


def test_the_account_and_the_secret_are_told(client: Any) -> None:
    """`accounts.current` and `webhooks.default.secret`."""
    assert client.accounts.current().username == "local"
    assert client.webhooks.default.secret().key.startswith("whsec_")


# The JavaScript client. Its verbs are in clients.mjs; each prints a line of JSON.

VERBS = [
    "run",
    "run-with-version",
    "run-community",
    "run-polling",
    "run-failing",
    "predictions",
    "cancel",
    "models",
    "files",
    "file-input",
    "account",
]


@pytest.fixture(scope="module")
def javascript(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where `replicate` is installed."""
    find_tool("node", package="nodejs")
    folder = tmp_path_factory.mktemp("javascript")
    done = subprocess.run(
        [find_tool("npm", package="npm"), "install", "--no-audit", "--no-fund", "replicate@1.4"],
        cwd=folder, capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    shutil.copy(Path(__file__).with_name("clients.mjs"), folder)
    return folder


@pytest.mark.long
@pytest.mark.xdist_group("javascript")
@pytest.mark.parametrize("verb", VERBS)
def test_the_javascript_client_works(javascript: Path, url: str, verb: str) -> None:
    """Each method works as the README says. The script throws if one does not."""
    done = subprocess.run(
        ["node", "clients.mjs", url, verb],
        cwd=javascript, capture_output=True, text=True, timeout=250, check=False, env={"PATH": os.environ["PATH"]},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["verb"] == verb


def test_every_verb_of_the_script_is_run() -> None:
    """None is left out of the list above."""
    text = Path(__file__).with_name("clients.mjs").read_text("utf-8")
    assert [line.split('"')[1] for line in text.splitlines() if line.startswith('  "')] == VERBS
