"""axe-core finds no serious problem on any page, in either scheme, on a phone and a desktop."""

from collections.abc import Iterator
from functools import partial
from typing import Literal

import pytest
from playwright.sync_api import Page, expect

from tests.browser.axe import grave_problems
from tests.browser.conftest import WILD
from tests.gateway.conftest import FAULTS, PROMPTS, Shown, emulated, shoot, watching
from videogen.reports.contact_sheet import PAGE_NAME

pytestmark = pytest.mark.xdist_group("browser")  # one browser, whichever worker has it


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    """A run that is over, and one in the middle: a card in each state, wild HTML in a prompt and in an error."""
    folder = tmp_path_factory.mktemp("accessible")
    with emulated(folder, FAULTS):
        shoot(folder / "out", PROMPTS | {"wild": WILD})
    with watching(folder / "out") as gateway:
        gateway.begin("middle", "done", "going", "again", "failed", "waits", max_cost="0.50", job_id="middle")
        of_clip = partial(gateway.tell, "middle", total=5)
        done = gateway.get(f"/runs/{gateway.get('/runs')['runs'][1]['run_id']}")["clips"][0]
        of_clip("clip.completed", **(done | {"scene_id": "done", "clip_index": 0, "warnings": ["The clip is frozen."]}))
        of_clip("clip.started", scene_id="going", clip_index=1, attempt=1)
        of_clip("clip.progress", scene_id="going", clip_index=1, elapsed=8.0, remaining=30.0, fraction=0.2)
        error = {"code": "model-error", "message": WILD, "retryable": True}
        of_clip("clip.retrying", scene_id="again", clip_index=2, attempt=1, error=error)
        of_clip("clip.failed", scene_id="failed", clip_index=3, error=error, attempts=3, completed=2)
        yield gateway


SCREENS = [
    (390, "light"),
    (1440, "dark"),
    pytest.param((390, "dark"), marks=pytest.mark.long),
    pytest.param((1440, "light"), marks=pytest.mark.long),
]


@pytest.fixture(params=SCREENS, ids=lambda case: f"{case}")
def screen(request: pytest.FixtureRequest, tab: Page) -> Page:
    """A tab of that width in that scheme."""
    width: int
    scheme: Literal["light", "dark"]
    width, scheme = request.param
    tab.set_viewport_size({"width": width, "height": 844})
    tab.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # a mark that breathes has any contrast
    return tab


def test_the_live_page_can_be_used_by_everybody(screen: Page, shown: Shown) -> None:
    """The list of runs, a run in the middle with a card in each state, and one that is over."""
    url = str(shown.http.base_url).rstrip("/")
    over = shown.get("/runs")["runs"][1]["run_id"]
    for query, ready in (("", ".run"), ("?run=middle", ".clip"), (f"?run={over}", ".play")):
        screen.goto(f"{url}/{query}")
        expect(screen.locator(ready).first).to_be_visible()
        assert grave_problems(screen) == [], query


@pytest.mark.long_variants
def test_the_contact_sheet_can_be_used_by_everybody(screen: Page, shown: Shown) -> None:
    screen.goto((shown.out / "film" / PAGE_NAME).as_uri())
    expect(screen.locator(".play").first).to_be_visible()
    assert grave_problems(screen) == []
