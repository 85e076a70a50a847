"""Servers that are started once for a test run. The tests of a folder that use the Prefect server share one worker."""

import gc
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings

from tests.support.database_wire import DatabaseWire, wire_to_database
from tests.support.servers import (
    KEY_ID,
    SECRET,
    Bucket,
    database,
    join_prefect_server,
    postgresql_server,
    s3_server,
    wire_to,
)
from tests.support.tokens import files_with_token

settings.register_profile("any-machine", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any-machine")


def pytest_configure() -> None:
    """Let Ctrl-C reach the processes of the tests, even if a shell that ignores it began this test run with `&`."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Leave the modules and the collected tests, a million objects, out of all garbage collections to come."""
    gc.freeze()


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    begun: set[str] = set()
    for item in items:
        if item.get_closest_marker("long_variants") and not item.get_closest_marker("long"):
            test, _, variant = item.nodeid.partition("[")
            if variant and test in begun:
                item.add_marker(pytest.mark.long)
            begun.add(test)
        if "prefect_api" in getattr(item, "fixturenames", ()) and not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(f"prefect-{item.path.stem}"))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test that would begin after `TESTS_UNTIL`, in seconds since 1970."""
    until = os.environ.get("TESTS_UNTIL")
    if until and time.time() > float(until):
        pytest.skip(f"no time was left for {item.nodeid}")


@pytest.fixture(scope="session", autouse=True)
def no_token_was_written(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Row 30 of the faults, for every test of this worker: the token they use is in no byte that they have written."""
    yield
    if leaks := files_with_token(tmp_path_factory.getbasetemp()):
        pytest.fail(f"the token was written to {', '.join(map(str, leaks))}")


@pytest.fixture(scope="session")
def prefect_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `prefect_api` keeps its database and its log."""
    own = tmp_path_factory.getbasetemp()
    home = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "prefect"
    home.mkdir(exist_ok=True)
    return home


@pytest.fixture(scope="session")
def prefect_api(prefect_home: Path) -> Iterator[str]:
    """The API's address of the Prefect server that all workers of the test run share."""
    with join_prefect_server(prefect_home) as api:
        yield api


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a PostgreSQL server of our own, as `postgresql://…/postgres?…`."""
    with postgresql_server(tmp_path_factory.mktemp("pg")) as address:
        yield address


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


@pytest.fixture
def wire(postgresql: str) -> Iterator[DatabaseWire]:
    """The way to that PostgreSQL server over which `wired_url` goes."""
    with wire_to_database(str(sa.make_url(postgresql).query["host"]) + "/.s.PGSQL.5432") as wire:
        yield wire


@pytest.fixture
def direct_url(postgresql: str) -> str:
    """An empty database, past the wire."""
    return database(postgresql, "postgresql+psycopg")


@pytest.fixture
def wired_url(direct_url: str, wire: DatabaseWire) -> str:
    """The same database, over the wire."""
    url = sa.make_url(direct_url)
    return (
        f"postgresql+psycopg://{url.username}@127.0.0.1:{wire.port}/{url.database}?sslmode=disable&gssencmode=disable"
    )
