"""The browser's example in docs/follow-a-run.md."""

import pytest
from playwright.sync_api import Page

from tests.browser.conftest import Watched
from tests.gateway.conftest import RUN, Shown, example

pytestmark = pytest.mark.xdist_group("browser")  # one browser, whichever worker has it


def test_the_browsers_example_tells_each_clip_and_stops_when_the_run_is_over(
    tab: Page, watched: Watched, live: Shown
) -> None:
    """It does not come back for more."""
    live.begin(RUN, "a", "b")
    logged: list[str] = []
    tab.on("console", lambda line: logged.append(line.text) if line.type == "log" else None)
    tab.goto(f"{str(live.http.base_url).rstrip('/')}/style.css")  # a page of the gateway that does nothing by itself
    listening = 'new Promise((heard) => events.addEventListener("snapshot", () => heard(true)))'
    assert tab.evaluate(f"() => {{ {example('js')}; return {listening} }}")  # what ends before it is in the snapshot
    for index, scene_id in enumerate(("a", "b")):
        with tab.expect_console_message(lambda line: line.type == "log"):
            live.tell(RUN, "clip.completed", clip_index=index, scene_id=scene_id, completed=index + 1, total=2)
    live.tell(RUN, "run.completed", completed=2, total=2)
    tab.wait_for_timeout(2000)  # a browser comes back after one
    assert logged == ["a", "b"]
    assert sum(request.endswith("/events") for request in watched.requests) == 1
