"""A client that talks to a running emulator the way the documentation says, and nothing of videogen's own."""

import base64
import contextlib
import io
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from videogen.emulator import EmulatorSettings, run_emulator

TERMINAL = {"succeeded", "failed", "canceled", "aborted"}
SVD = "3f0457e4619daac51203dedb472816fd4af51f3149fa7a9e0b5ffcf1b8172438"
COGVIDEOX = "5b14e2c2c648efecc8d36c6353576552f8a124e690587212f8e8bb17ecda3d8c"
VERSIONS = {"stability-ai/stable-video-diffusion": SVD, "cuuupid/cogvideox-5b": COGVIDEOX}


@dataclass(frozen=True)
class Client:
    """One emulator seen through HTTP."""

    http: httpx.Client

    def post(self, model: str, inputs: dict[str, Any], **headers: str) -> httpx.Response:
        """Create, by name or for community models by version; header names with `_` for `-`."""
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        if version := VERSIONS.get(model):
            return self.http.post("/v1/predictions", json={"version": version, "input": inputs}, headers=names)
        return self.http.post(f"/v1/models/{model}/predictions", json={"input": inputs}, headers=names)

    def create(self, model: str, inputs: dict[str, Any], **headers: str) -> dict[str, Any]:
        """The prediction of an accepted create."""
        answer = self.post(model, inputs, **headers)
        assert answer.status_code in (201, 202), answer.text
        prediction: dict[str, Any] = answer.json()
        return prediction

    def get(self, prediction_id: str) -> dict[str, Any]:
        """Poll once."""
        prediction: dict[str, Any] = self.http.get(f"/v1/predictions/{prediction_id}").raise_for_status().json()
        return prediction

    def until(self, prediction_id: str, statuses: set[str], timeout_s: float = 250) -> dict[str, Any]:
        """Poll until the status is one of these."""
        deadline = time.monotonic() + timeout_s
        while (prediction := self.get(prediction_id))["status"] not in statuses:
            assert time.monotonic() < deadline, prediction
            time.sleep(0.01)
        return prediction

    def run(self, model: str, inputs: dict[str, Any]) -> dict[str, Any]:
        """Create and wait for the end."""
        return self.until(self.create(model, inputs)["id"], TERMINAL)

    def ledger(self) -> dict[str, Any]:
        """The ledger's report."""
        report: dict[str, Any] = self.http.get("/_emulator/ledger").json()
        return report

    def entry(self, prediction_id: str) -> dict[str, Any]:
        """The ledger's line on one prediction."""
        found: dict[str, Any] = next(row for row in self.ledger()["predictions"] if row["id"] == prediction_id)
        return found


Launch = Callable[..., Client]


@contextlib.contextmanager
def _run_client(**settings: Any) -> Iterator[Client]:
    headers = {"Authorization": "Bearer r8_test"}
    given = {"latency_s": (0, 0), "queue_s": (0, 0)} | settings
    limits = httpx.Limits(keepalive_expiry=1)  # uvicorn closes idle connections after 5 s, also while one is used again
    with (
        run_emulator(EmulatorSettings(**given)) as emulator,
        httpx.Client(
            base_url=emulator.url, headers=headers, trust_env=False, verify=False, timeout=250, limits=limits
        ) as http,
    ):
        yield Client(http)


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips rendered once for all tests."""
    return tmp_path_factory.mktemp("films")


@pytest.fixture(scope="session")
def client(films: Path) -> Iterator[Client]:
    """An emulator without waiting times that many tests share: assert nothing about its counters."""
    with _run_client(cache=films) as shared:
        yield shared


@pytest.fixture(scope="session")
def slow() -> Iterator[Client]:
    """A shared emulator whose predictions start at once and never end by themselves."""
    with _run_client(latency_s=(9999, 9999)) as shared:
        yield shared


@pytest.fixture
def launch(films: Path) -> Iterator[Launch]:
    """Start an emulator of one's own with these settings; no waiting times unless told."""
    with contextlib.ExitStack() as stack:
        yield lambda **settings: stack.enter_context(_run_client(**{"cache": films} | settings))


def make_png(size: tuple[int, int] = (320, 180), colour: str = "red") -> bytes:
    """A one-coloured PNG."""
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def picture() -> Callable[..., str]:
    """A one-coloured picture as a data URL: `picture((width, height), "red")`."""

    def make(size: tuple[int, int] = (320, 180), colour: str = "red") -> str:
        return "data:image/png;base64," + base64.b64encode(make_png(size, colour)).decode()

    return make


@pytest.fixture
def download(tmp_path: Path) -> Callable[[Client, dict[str, Any]], Path]:
    """Fetch a prediction's output into a file."""

    def fetch(client: Client, prediction: dict[str, Any]) -> Path:
        assert prediction["status"] == "succeeded", prediction
        path = tmp_path / f"{prediction['id']}.mp4"
        path.write_bytes(httpx.get(prediction["output"], trust_env=False, verify=False).raise_for_status().content)
        return path

    return fetch
