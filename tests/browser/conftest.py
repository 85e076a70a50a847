"""Chromium as Debian has it, and what a page does in it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Dialog, Page, sync_playwright

from tests.gateway.conftest import Shown, watching
from tests.support.tools import find_tool


@dataclass
class Watched:
    """What a page said and fetched while it was open."""

    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)

    def dismiss(self, dialog: Dialog) -> None:
        self.dialogs.append(dialog.message)
        dialog.dismiss()


@contextmanager
def chromium() -> Iterator[Browser]:
    """Chromium, as it is installed on this machine."""
    command = find_tool("chromium", "chromium-browser", "google-chrome", package="chromium")
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []  # root has no sandbox
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=command, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="module")  # while it is there an event loop runs, so async tests of other modules cannot
def browser() -> Iterator[Browser]:
    """Chromium for the tests of a module."""
    with chromium() as browser:
        yield browser


@pytest.fixture
def watched() -> Watched:
    return Watched()


@pytest.fixture
def tab(browser: Browser, watched: Watched) -> Iterator[Page]:
    """An empty tab, 1440 px wide, whose errors, requests and dialogs are written down."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    page.on("console", lambda line: watched.errors.append(line.text) if line.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: watched.errors.append(str(error)))
    page.on("request", lambda request: watched.requests.append(request.url))
    page.on("dialog", watched.dismiss)
    yield page
    context.close()


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Shown]:
    """A gateway on an empty journal, which the test writes."""
    with watching(tmp_path / "out") as shown:
        yield shown


WILD = '<script>ran = 1</script><img src=x onerror=\'ran = 2\'><b>bold</b> " onclick="ran = 3" {{ 7 * 7 }}'
