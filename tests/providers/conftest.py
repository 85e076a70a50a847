"""What the tests of the adapters share: a provider of their own, and cassettes that must play whole."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.providers.recording import CASSETTES, ReadableYaml, Wire, unplayed, wired
from videogen.providers.replicate import ReplicateProvider

MakeProvider = Callable[..., ReplicateProvider]


@pytest.fixture
async def make_provider() -> AsyncIterator[MakeProvider]:
    """Makes a provider that is closed after the test: `make_provider(base_url, token=…, limits=…)`."""
    async with AsyncExitStack() as stack:

        def make(base_url: str, token: str = "r8_not_a_real_one", **options: Any) -> ReplicateProvider:
            provider = ReplicateProvider(token, base_url=base_url, **options)
            stack.push_async_callback(provider.aclose)
            return provider

        yield make


@pytest.fixture
def wire(record_mode: str) -> Iterator[Wire]:
    """Who answers: the cassette, or while recording Replicate or an emulator of the test's own."""
    with wired(recording=record_mode != "none") as wire:
        yield wire


@pytest.fixture
def vcr_config(wire: Wire) -> dict[str, Any]:
    return wire.vcr_config()


def pytest_recording_configure(vcr: Any) -> None:
    vcr.register_serializer("yaml", ReadableYaml)


@pytest.fixture(scope="module")
def vcr_cassette_dir() -> str:
    return str(CASSETTES)


@pytest.fixture(autouse=True)
def played_whole(vcr: Any, record_mode: str) -> Iterator[None]:
    """Fails a test that leaves a part of its cassette unplayed."""
    yield
    if vcr is not None and record_mode == "none":
        assert not unplayed(vcr)


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """Where a download goes."""
    return tmp_path / "clip.part"
