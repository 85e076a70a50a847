"""A worker and a browser for the tests of a module, on the stage `house` of that module."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.browser.conftest import chromium
from tests.deployments.person import Person
from tests.deployments.stage import Stage


@pytest.fixture
def stage(house: Stage) -> Stage:
    """With a worker, and no prediction in its ledger."""
    if "one" not in house.workers:
        house.start_worker("one", bounded=False)
    house.emulator.reset()
    return house


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def person(browser: Browser, stage: Stage) -> Iterator[Person]:
    """A person who knows the password of Prefect's server, with the pages in a tab of their own."""
    context = browser.new_context(viewport={"width": 1280, "height": 1000})
    yield Person(context.new_page(), stage)
    context.close()
