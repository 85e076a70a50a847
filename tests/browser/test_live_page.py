"""The gateway's page in Chromium: a run as it happens, and one that is over."""

import json
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Watched
from tests.flows.conftest import wait_until
from tests.gateway.conftest import DELIVERED, FAULTS, Played, Shown, emulated, gateway, shoot, watching
from tests.support.servers import free_port
from videogen.journal.store import Journal

pytestmark = pytest.mark.xdist_group("browser")  # one browser, whichever worker has it

WILD = '<script>ran = 1</script><img src=x onerror=\'ran = 2\'><b>bold</b> & " onclick="ran = 3"'
PROMPTS = {"storm": "A storm", "wild": WILD, "cave": "A forbidden cave", "harbour": "A harbour"}
FILM = PROMPTS | {"meadow": "A meadow", "summit": "A summit"}
ORDER = """
addEventListener("DOMContentLoaded", () => {
  window.filled = [];
  new MutationObserver((changes) => {
    for (const change of changes) for (const node of change.addedNodes)
      if (node.matches?.(".play")) filled.push(node.closest(".clip").querySelector("h2").textContent);
  }).observe(document.body, { childList: true, subtree: true });
});
"""
"""Writes down which scene's card is filled when."""


@pytest.fixture(scope="session")
def film(tmp_path_factory: pytest.TempPathFactory) -> Played:
    """A run that is over: one clip at the second attempt, one with HTML in its prompt, one failed with HTML."""
    folder = tmp_path_factory.mktemp("film")
    with emulated(folder, FAULTS):
        return Played(folder / "out", shoot(folder / "out", PROMPTS))


@pytest.fixture
def over(film: Played) -> Iterator[Shown]:
    with watching(film.out) as shown:
        yield shown


def address(shown: Shown, query: str = "/") -> str:
    return f"{str(shown.http.base_url).rstrip('/')}{query}"


def test_a_run_is_watched_from_its_first_card_to_its_verdict(tab: Page, watched: Watched, tmp_path: Path) -> None:
    """Run and gateway are processes. Cards fill as clips come, in that order, once; a gateway that is killed in the
    middle and started again changes nothing."""
    out, port = tmp_path / "out", str(free_port())
    with ExitStack() as stack:
        stack.enter_context(emulated(tmp_path, FAULTS, latency_s=(1.5, 2.5)))
        first, url = stack.enter_context(gateway(out, "--port", port))
        tab.add_init_script(ORDER)
        tab.goto(url)
        expect(tab.get_by_text("No runs yet")).to_be_visible()
        journal = stack.enter_context(closing(Journal(f"sqlite:///{out / 'journal.db'}")))
        run = stack.enter_context(shooting(out, FILM))
        wait_until(lambda: "clip.started" in list_event_types(journal))
        freeze(run, out)  # until the page has shown what is there
        tab.get_by_role("link", name="film").click(timeout=120_000)
        cards, delivered = tab.get_by_role("article"), tab.locator(".play")
        expect(cards).to_have_count(6)
        expect(cards.nth(5)).to_contain_text("waiting")
        run.send_signal(signal.SIGCONT)
        expect(cards.nth(0).get_by_role("progressbar")).to_be_visible()
        expect(cards.nth(0)).to_contain_text("CUDA out of memory", timeout=120_000)
        expect(delivered.first).to_be_visible(timeout=120_000)
        freeze(run, out)  # so that it is not over before the gateway is back
        first.kill()
        expect(tab.get_by_text("Connection lost")).to_be_visible()
        stack.enter_context(gateway(out, "--port", port))
        expect(tab.get_by_text("Connection lost")).to_be_hidden(timeout=120_000)
        assert run.poll() is None, "the run was over before the gateway was back"
        run.send_signal(signal.SIGCONT)
        expect(tab.locator(".verdict")).to_have_text("partial5 of 6 clips delivered, 2 were enough", timeout=120_000)
        assert run.wait(250) == 0
        assert tab.get_by_role("heading", level=2).all_inner_texts() == list(FILM)
        (record,) = journal.list_runs(limit=1)
        assert tab.evaluate("filled") == [
            told["scene_id"] for _, type_, told in journal.read_events(record.id) if type_ == "clip.completed"
        ]
        expect(delivered).to_have_count(5)
        expect(cards.nth(0).locator(".attempts")).to_have_text("2")
        expect(cards.nth(2)).to_contain_text("<b>flagged</b>")
        expect(tab.get_by_role("log")).to_contain_text("The run is over: partial")
        assert_posters_are_there(tab)
    assert all("ERR_" in error for error in watched.errors), watched.errors  # what Chromium says of a lost connection


def freeze(run: "subprocess.Popen[bytes]", out: Path) -> None:
    """Stop the run while it does not write to the journal, so that others can."""
    with closing(sqlite3.connect(out / "journal.db", timeout=0.1)) as database:
        while True:
            run.send_signal(signal.SIGSTOP)
            try:
                database.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError:  # it is locked
                run.send_signal(signal.SIGCONT)


def list_event_types(journal: Journal) -> list[str]:
    """Return the types of all events of all runs."""
    return [type_ for record in journal.list_runs(limit=9) for _, type_, _ in journal.read_events(record.id)]


@contextmanager
def shooting(out: Path, prompts: Mapping[str, str]) -> "Iterator[subprocess.Popen[bytes]]":
    """The run of a film as a process of its own; its gateway's journal is there already."""
    code = "import json, sys; from pathlib import Path; from tests.gateway.conftest import shoot\n"
    code += "shoot(Path(sys.argv[1]), json.loads(sys.argv[2]), concurrency=2)"
    run = subprocess.Popen([sys.executable, "-c", code, str(out), json.dumps(prompts)])
    try:
        yield run
    finally:
        run.kill()
        run.wait()


def assert_posters_are_there(tab: Page) -> None:
    """They are loaded when they come into sight."""
    for poster in tab.locator(".play img").all():
        poster.scroll_into_view_if_needed()
        expect(poster).not_to_have_js_property("naturalWidth", 0)


@pytest.mark.parametrize(
    ("width", "scheme"),
    [
        (390, "dark"),
        (1440, "light"),
        pytest.param(390, "light", marks=pytest.mark.long),
        pytest.param(1440, "dark", marks=pytest.mark.long),
    ],
)
def test_a_run_that_is_over_is_shown_as_it_ended(
    tab: Page, watched: Watched, over: Shown, film: Played, width: int, scheme: Literal["dark", "light"]
) -> None:
    """At any width nothing is wider than the screen; the colours are those asked for; nothing is complained about."""
    tab.set_viewport_size({"width": width, "height": 844})
    tab.emulate_media(color_scheme=scheme)
    tab.goto(address(over, f"/?run={film.batch.run_id}"))
    expect(tab.locator(".play")).to_have_count(3)
    expect(tab.locator(".totals")).to_contain_text("4 of 4, 1 failed")
    expect(tab.locator(".totals")).to_contain_text("$0.18 of $1.00 budget")
    expect(tab.locator(".verdict")).to_contain_text("3 of 4 clips delivered")
    assert_posters_are_there(tab)
    assert tab.evaluate("document.documentElement.scrollWidth") == width
    light = sum(map(int, tab.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g)"))) > 3 * 128
    assert light == (scheme == "light")
    assert not watched.errors


def test_what_a_job_says_is_text(tab: Page, watched: Watched, over: Shown, film: Played) -> None:
    """HTML in a prompt or in an error neither runs nor becomes part of the page, which loads nothing from elsewhere."""
    tab.goto(address(over, f"/?run={film.batch.run_id}"))
    expect(tab.get_by_role("article", name="wild").locator(".prompt")).to_have_text(WILD)
    expect(tab.get_by_role("article", name="cave").locator(".error")).to_contain_text("<b>flagged</b>")
    assert tab.evaluate("typeof ran") == "undefined"
    assert tab.locator("b").count() == 0
    assert all(request.startswith((address(over), "data:,")) for request in watched.requests), watched.requests


def test_a_clip_plays_by_keyboard(tab: Page, over: Shown, film: Played) -> None:
    """Tab leads to the clips, Enter plays one, and the player then has the focus."""
    tab.goto(address(over, f"/?run={film.batch.run_id}"))
    expect(tab.locator(".play")).to_have_count(3)
    tab.keyboard.press("Tab")
    expect(tab.get_by_role("link", name="All runs")).to_be_focused()
    tab.keyboard.press("Tab")
    expect(tab.get_by_role("button", name="Play storm")).to_be_focused()
    tab.keyboard.press("Enter")
    expect(tab.locator("video")).to_be_focused()
    expect(tab.locator("video")).to_have_js_property("ended", True)


def test_the_list_tells_new_runs_by_itself(tab: Page, live: Shown) -> None:
    live.begin("r1", "a", job_id="first")
    tab.goto(address(live))
    expect(tab.get_by_role("listitem")).to_have_count(1)
    live.begin("r2", "a", job_id="second")
    expect(tab.get_by_role("listitem")).to_contain_text(["second", "first"])


def test_there_is_a_way_to_older_runs(tab: Page, live: Shown) -> None:
    for number in range(25):
        live.begin(f"r{number}", "a", job_id=f"job-{number}")
    tab.goto(address(live))
    expect(tab.get_by_role("listitem")).to_have_count(20)
    tab.get_by_role("button", name="Show older runs").click()
    expect(tab.get_by_role("listitem")).to_have_count(25)
    expect(tab.get_by_role("button")).to_have_count(0)
    assert tab.locator("main").get_by_role("link").all_inner_texts() == [
        f"job-{number}" for number in range(24, -1, -1)
    ]


def test_a_run_that_is_not_there_is_said(tab: Page, live: Shown) -> None:
    tab.goto(address(live, "/?run=none"))
    expect(tab.get_by_role("status")).to_have_text("There is no run none.")


def test_the_token_opens_the_page_and_leaves_its_address(tab: Page, watched: Watched, tmp_path: Path) -> None:
    """Pictures, script and events are let in by the cookie."""
    with watching(tmp_path / "out", token="secret") as shown:
        shown.begin("r1", "a", max_cost="2.50", spent_before="1.05")
        tab.goto(address(shown, "/?token=secret&run=r1"))
        expect(tab.get_by_role("heading", level=1)).to_have_text("film")
        assert tab.url == address(shown, "/?run=r1")
        expect(tab.locator(".totals")).to_contain_text("$1.05 of $2.50 budget")  # that earlier runs have spent
        assert not watched.errors


CLIP: dict[str, Any] = {**DELIVERED, "actual_duration": 2.04, "cost": "0.06", "reused": False}


def deliver(shown: Shown, index: int, scene_id: str, *, total: int = 1) -> None:
    paths = {"video_path": f"clips/{scene_id}.mp4", "poster_path": "posters/poster.jpg"}
    shown.tell(
        "r1", "clip.completed", clip_index=index, scene_id=scene_id, completed=index + 1, total=total, **CLIP, **paths
    )


def test_a_clip_that_lies_elsewhere_is_said_to_lie_there(tab: Page, live: Shown) -> None:
    """In place of a picture that does not come: the address of a clip in a bucket; that a file is gone."""
    live.begin("r1", "a", folder="s3://films/spring/film")
    deliver(live, 0, "a")
    tab.goto(address(live, "/?run=r1"))
    expect(tab.locator(".frame")).to_have_text("delivered to s3://films/spring/film/clips/a.mp4")
    live.begin("r2", "a")
    live.tell("r2", "clip.completed", clip_index=0, scene_id="a", **CLIP, video_path="clips/a.mp4", poster_path=None)
    tab.goto(address(live, "/?run=r2"))
    expect(tab.locator(".frame")).to_have_text("its file is gone")


def test_the_warnings_of_the_verdict_stand_beside_its_reason(tab: Page, live: Shown) -> None:
    """Verdicts of earlier versions have none."""
    old = {"status": "complete", "min_clips": 1, "reason": "all 1 clips delivered"}
    for run_id, verdict, said in (
        ("r1", {**old, "warnings": ["quick: 1 clip was billed $0.15"]}, "; quick: 1 clip was billed $0.15"),
        ("r2", old, ""),
    ):
        live.begin(run_id, "a")
        live.tell(run_id, "run.completed", completed=1, verdict=verdict, total_cost="0.15", total_generation_time=1.0)
        tab.goto(address(live, f"/?run={run_id}"))
        expect(tab.locator(".reason")).to_have_text(f"all 1 clips delivered{said}")


def test_a_picture_that_did_not_come_is_asked_for_again(tab: Page, over: Shown, film: Played) -> None:
    """The gateway was away for a moment: that says nothing about the clip."""
    tab.route("**/*.jpg", lambda route: route.abort())
    with tab.expect_event("requestfailed", lambda request: request.url.endswith(".jpg")):
        tab.goto(address(over, f"/?run={film.batch.run_id}"))
    tab.wait_for_timeout(300)
    tab.unroute("**/*.jpg")
    assert_posters_are_there(tab)


MANY = 2000


@pytest.mark.long
def test_thousands_of_clips_can_be_watched(tab: Page, watched: Watched, live: Shown, film: Played) -> None:
    """The page of a long film loads no posters that are out of sight, and shows what happens then."""
    scenes = [f"scene-{number}" for number in range(MANY)]
    live.begin("r1", *scenes)
    (live.out / "film" / "posters").mkdir(parents=True)
    shutil.copy(film.out / "film" / str(film.batch.clips[0].poster_path), live.out / "film" / "posters" / "poster.jpg")
    for index, scene_id in enumerate(scenes[:-200]):
        deliver(live, index, scene_id, total=MANY)
    tab.goto(address(live, "/?run=r1"))
    expect(tab.locator(".count")).to_have_text(f"{MANY - 200} of {MANY}", timeout=120_000)
    expect(tab.locator(".play img").first).not_to_have_js_property("naturalWidth", 0)
    for index, scene_id in enumerate(scenes[-200:], MANY - 200):
        deliver(live, index, scene_id, total=MANY)
    expect(tab.locator(".count")).to_have_text(f"{MANY} of {MANY}", timeout=120_000)
    expect(tab.locator(".play")).to_have_count(MANY)
    assert sum(request.endswith(".jpg") for request in watched.requests) < 100
    assert not watched.errors
