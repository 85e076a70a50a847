"""The review room in a browser: play in sync, choose, rate, note, retake, and control the run in progress."""

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Error, Locator, Page, Route, expect

from tests.browser.axe import grave_problems
from tests.browser.conftest import WILD, Watched
from tests.flows.conftest import wait_until
from tests.support.review_rooms import (
    FILM,
    REGISTRY,
    TOKEN,
    WATCH_TOKEN,
    FakeController,
    Reviewed,
    read_started_runs,
    reviewing,
    write_fake_run,
)
from videogen.emulator import EmulatorSettings, run_emulator
from videogen.gateway.controller import JournalController

pytestmark = pytest.mark.xdist_group("browser")  # one browser, whichever worker has it


@pytest.fixture
def controller() -> FakeController:
    return FakeController()


@pytest.fixture
def room(tmp_path: Path, controller: FakeController, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reviewed]:
    """A film with two takes of each scene, one with wild HTML as its prompt. A retake waits until it may end."""
    monkeypatch.setenv("VIDEOGEN_REGISTRY", str(REGISTRY))
    monkeypatch.delenv("REPLICATE_API_TOKEN", raising=False)
    (tmp_path / "wait").touch()
    film = {**FILM, "scenes": [FILM["scenes"][0], {**FILM["scenes"][1], "prompt": WILD}]}
    with reviewing(tmp_path, film=film, controller=controller, command=write_fake_run(tmp_path)) as reviewed:
        yield reviewed
        (tmp_path / "wait").unlink(missing_ok=True)


@pytest.fixture
def room_of_four(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reviewed]:
    """A film with four takes of each scene."""
    monkeypatch.setenv("VIDEOGEN_REGISTRY", str(REGISTRY))
    with reviewing(tmp_path, film={**FILM, "takes": 4}) as reviewed:
        yield reviewed


def enter(tab: Page, room: Reviewed, token: str = TOKEN, *, takes: int = 4) -> Page:
    """Open the review room as a person does: by the address with the token, then from page to page."""
    tab.goto(f"{room.visitor.origin}/?token={token}")
    tab.get_by_role("link", name="film").first.click()
    tab.get_by_role("link", name="Review the takes").click()
    expect(tab.locator(".take")).to_have_count(takes)
    return tab


def take(tab: Page, take_id: str) -> Locator:
    return tab.locator(f'[data-take="{take_id}"]')


def read_choices(room: Reviewed) -> dict[str, Any]:
    return tomllib.loads((room.folder / "choices.toml").read_text(encoding="utf-8"))


def read_times(videos: Locator) -> list[float]:
    """Return the time in seconds at which each video is."""
    times: list[float] = videos.evaluate_all("videos => videos.map(video => video.currentTime)")
    return times


def test_a_take_is_chosen_rated_and_noted_with_the_mouse(tab: Page, watched: Watched, room: Reviewed) -> None:
    """And the choices, the manifest and the page all say so; what is said a second time is taken back."""
    enter(tab, room)
    card = take(tab, "storm.take-1")
    expect(take(tab, "storm.take-2").locator(".chip")).to_have_text("chosen")
    card.get_by_role("button", name="Choose").click()
    expect(card.locator(".chip")).to_have_text("chosen")
    expect(take(tab, "storm.take-2").locator(".chip")).to_have_text("delivered")
    card.get_by_role("button", name="4 of 5").click()
    expect(card.get_by_role("button", name="4 of 5")).to_have_attribute("aria-pressed", "true")
    card.get_by_role("textbox").fill(WILD)
    card.get_by_role("button", name="Save the note").click()
    expect(card.get_by_role("button", name="Save the note")).to_be_hidden()
    assert read_choices(room) == {"storm": {"chosen": 1, "takes": {"1": {"rating": 4, "note": WILD}}}}
    assert (room.manifest["storm.take-1"]["chosen"], room.manifest["storm.take-1"]["rating"]) == (True, 4)
    expect(tab.get_by_role("log")).to_contain_text("storm, take 1: chosen")
    card.get_by_role("button", name="4 of 5").click()
    expect(card.get_by_role("button", name="4 of 5")).to_have_attribute("aria-pressed", "false")
    assert "rating" not in read_choices(room)["storm"]["takes"]["1"]
    tab.reload()
    expect(card.get_by_role("textbox")).to_have_value(WILD)
    assert not watched.errors


def test_what_is_said_of_a_take_is_text(tab: Page, watched: Watched, room: Reviewed) -> None:
    """HTML in a prompt or in a note neither runs nor becomes part of the page, for those who act and who watch."""
    room.visitor.act("/runs/r1/choices", {"take_id": "calm.take-1", "note": WILD})
    for token in (TOKEN, WATCH_TOKEN):
        enter(tab, room, token)
        expect(take(tab, "calm.take-1").locator(".prompt")).to_have_text(WILD)
        assert tab.evaluate("typeof ran") == "undefined"
        assert tab.locator("main b, main script, main img").count() == 0
    expect(take(tab, "calm.take-1").locator(".note")).to_have_text(WILD)
    assert all(request.startswith((room.visitor.origin, "data:,")) for request in watched.requests), watched.requests
    assert not watched.errors


def test_the_keyboard_is_enough(tab: Page, watched: Watched, room: Reviewed) -> None:
    """Tab leads to the takes, arrows from take to take, Space plays all takes of the scene in sync and pauses them."""
    enter(tab, room)
    expect(tab.locator('.take[tabindex="0"]')).to_have_count(2)  # one of each scene
    for _ in range(20):
        tab.keyboard.press("Tab")
        if tab.evaluate("document.activeElement.matches('.take')"):
            break
    expect(take(tab, "storm.take-1")).to_be_focused()
    tab.keyboard.press("Space")
    videos = tab.locator(".scene").first.locator("video")
    wait_until(lambda: min(read_times(videos)) > 0.3)
    assert videos.evaluate_all("videos => videos.map(video => video.paused)") == [False, False]
    first, second = read_times(videos)
    assert abs(first - second) < 0.3
    assert videos.evaluate_all("videos => videos.map(video => video.muted)") == [False, True]
    tab.keyboard.press("Space")
    expect(tab.get_by_role("button", name="Play all 2 takes of storm")).to_be_visible()
    assert videos.evaluate_all("videos => videos.every(video => video.paused)")
    for key, focused in [
        ("ArrowRight", "storm.take-2"),
        ("ArrowRight", "storm.take-2"),
        ("ArrowDown", "calm.take-2"),
        ("ArrowLeft", "calm.take-1"),
        ("ArrowUp", "storm.take-1"),
        ("ArrowUp", "storm.take-1"),
    ]:
        tab.keyboard.press(key)
        expect(take(tab, focused)).to_be_focused()
    tab.keyboard.press("5")
    expect(take(tab, "storm.take-1")).to_have_attribute("aria-label", re.compile("rated 5 of 5"))
    tab.keyboard.press("Enter")
    expect(take(tab, "storm.take-1")).to_have_attribute("aria-label", re.compile("chosen"))
    assert read_choices(room) == {"storm": {"chosen": 1, "takes": {"1": {"rating": 5}}}}
    expect(take(tab, "storm.take-1")).to_be_focused()
    assert not watched.errors


def test_keys_that_are_typed_into_a_note_are_its_text(tab: Page, room: Reviewed) -> None:
    enter(tab, room)
    note = take(tab, "storm.take-1").get_by_role("textbox")
    note.click()
    tab.keyboard.type("2 is 5\nnear")
    tab.keyboard.press("ArrowLeft")
    expect(note).to_have_value("2 is 5\nnear")
    expect(note).to_be_focused()
    assert not (room.folder / "choices.toml").exists()


def test_a_note_that_is_being_typed_stays_while_the_page_hears_of_others(tab: Page, room: Reviewed) -> None:
    enter(tab, room)
    note = take(tab, "storm.take-1").get_by_role("textbox")
    note.fill("half a thou")
    room.visitor.act("/runs/r1/choices", {"take_id": "storm.take-1", "rating": 2})
    expect(take(tab, "storm.take-1")).to_have_attribute("aria-label", re.compile("rated 2 of 5"), timeout=30_000)
    expect(note).to_have_value("half a thou")


def test_the_takes_of_a_scene_are_played_to_their_end(tab: Page, room: Reviewed) -> None:
    """One is longer than the other. The slider moves all of them."""
    enter(tab, room)
    tab.get_by_role("slider", name="Time in the takes of storm").fill("2.2")
    videos = tab.locator(".scene").first.locator("video")
    wait_until(lambda: read_times(videos) == [2, 2.2])
    assert videos.evaluate_all("videos => videos.map(video => video.paused)") == [True, True]
    tab.get_by_role("button", name="Play all 2 takes of storm").click()
    expect(videos.nth(1)).to_have_js_property("ended", True, timeout=30_000)
    expect(tab.get_by_role("button", name="Play all 2 takes of storm")).to_be_visible()


def test_a_retake_asks_first_and_is_made_once(tab: Page, watched: Watched, room: Reviewed) -> None:
    """The price is shown, another prompt has another price, two clicks start one run, and the page follows it."""
    enter(tab, room)
    take(tab, "storm.take-1").get_by_role("button", name="Retake with this prompt").click()
    dialog = tab.get_by_role("dialog", name="Retake of storm")
    prompt, make = dialog.get_by_label("Prompt"), dialog.get_by_role("button", name=re.compile("Make storm.take-3 for"))
    expect(prompt).to_have_value("A storm")
    dialog.get_by_role("button", name="Show the price").click()
    expect(dialog.get_by_role("status")).to_contain_text("One clip for about $0.06")
    expect(dialog.get_by_role("status")).to_contain_text("The budget of the job is $1.00.")
    prompt.fill("A heavier storm")
    expect(make).to_be_hidden()
    dialog.get_by_role("button", name="Show the price").click()
    expect(make).to_be_focused()
    assert read_started_runs(room) == []
    make.dblclick()
    expect(dialog).to_be_hidden()
    expect(tab.get_by_role("status").first).to_contain_text("storm.take-3 is starting")
    wait_until(lambda: len(read_started_runs(room)) == 1)

    room.shown.begin("r2", "storm.take-1", "storm.take-2", "storm.take-3")
    card = take(tab, "storm.take-3")
    expect(card).to_have_count(0)
    room.shown.tell("r2", "clip.started", clip_index=2, scene_id="storm.take-3", attempt=1, take=3, take_of="storm")
    expect(card.locator(".chip")).to_have_text("running", timeout=30_000)
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    tab.route("**/takes", hold)  # the event alone tells
    room.shown.tell("r2", "clip.progress", clip_index=2, scene_id="storm.take-3", remaining=7.0, fraction=0.25)
    expect(card).to_contain_text("about 7 s left")
    tab.unroute("**/takes")
    for route in held:
        with suppress(Error):  # the browser has given that request up meanwhile
            route.continue_()
    finish_retake(room)
    expect(card.locator(".chip")).to_have_text("chosen", timeout=30_000)
    expect(card.locator("video")).to_have_count(1)
    assert tab.locator(".scene").first.locator(".take").count() == 3
    assert read_choices(room)["storm"]["takes"]["3"] == {"prompt": "A heavier storm"}
    assert len(read_started_runs(room)) == 1
    assert not watched.errors


def finish_retake(room: Reviewed) -> None:
    """Leave what the run of the retake leaves: a clip, the manifest, and the end of the run."""
    manifest = json.loads((room.folder / "manifest.json").read_text(encoding="utf-8"))
    first = manifest["clips"][0]
    retake = {**first, "scene_id": "storm.take-3", "take": 3, "clip_index": 4, "prompt": "A heavier storm"}
    manifest |= {"run_id": "r2", "clips": [*manifest["clips"], {**retake, "chosen": True}]}
    for clip in manifest["clips"]:
        room.shown.tell("r2", "clip.completed", completed=5, total=5, **clip)
    (room.folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    room.shown.tell("r2", "run.completed", completed=5, total=5, verdict={"status": "complete", "reason": "all"})
    room.shown.journal.end_run("r2", verdict="complete")
    (room.job_file.parent / "wait").unlink()


def test_a_refusal_is_said_and_can_be_closed(tab: Page, watched: Watched, room: Reviewed) -> None:
    """Here the job is running already when the price is accepted."""
    enter(tab, room)
    take(tab, "storm.take-1").get_by_role("button", name="Retake with this prompt").click()
    dialog = tab.get_by_role("dialog")
    dialog.get_by_role("button", name="Show the price").click()
    expect(dialog.get_by_role("button", name="Make ")).to_be_focused()
    room.shown.begin("r2", "storm.take-1")
    tab.keyboard.press("Enter")
    expect(dialog.get_by_role("status")).to_contain_text("run r2 of film is in progress")
    tab.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    assert read_started_runs(room) == []
    assert all("409" in error for error in watched.errors), watched.errors


def test_who_only_watches_has_no_controls(
    tab: Page, watched: Watched, room: Reviewed, controller: FakeController
) -> None:
    """They see takes, choices, ratings and notes, and play them. Keys that act do nothing."""
    room.visitor.act("/runs/r1/choices", {"take_id": "storm.take-1", "rating": 3, "note": "The sail is right."})
    room.shown.begin("r2", "storm.take-1")
    before = room.read_files()
    enter(tab, room, WATCH_TOKEN)
    card = take(tab, "storm.take-1")
    expect(card.get_by_role("img", name="rated 3 of 5")).to_be_visible()
    expect(card).to_contain_text("The sail is right.")
    names = tab.get_by_role("button").evaluate_all("all => all.map(each => each.textContent)")
    assert set(names) == {"Play all 2 takes"}
    assert tab.get_by_role("textbox").count() == 0
    card.focus()
    for key in ("5", "Enter", "ArrowRight", "1", "Enter"):
        tab.keyboard.press(key)
    tab.keyboard.press("Space")
    wait_until(lambda: max(read_times(tab.locator("video"))) > 0.2)
    assert (room.read_files(), controller.commands) == (before, [])
    assert not any(f"{room.visitor.origin}/review/token" in request for request in watched.requests)
    assert not watched.errors


def test_a_run_in_progress_is_controlled(
    tab: Page, watched: Watched, room: Reviewed, controller: FakeController
) -> None:
    """Paused, resumed, with another cap, one clip cancelled. A refusal is said with its reason."""
    enter(tab, room)
    expect(tab.get_by_role("button", name="Pause the run")).to_be_hidden()
    room.shown.begin("r2", "storm.take-1", "storm.take-2")
    room.shown.tell("r2", "clip.started", clip_index=0, scene_id="storm.take-1", attempt=1)
    error = {"code": "model-error", "message": "no", "retryable": True}
    failed = {**room.manifest["storm.take-2"], "status": "failed", "error": error}
    room.shown.tell("r2", "clip.failed", completed=1, total=2, **failed)
    tab.get_by_role("button", name="Pause the run").click(timeout=30_000)
    expect(tab.get_by_role("log")).to_contain_text("pause: accepted")
    expect(tab.get_by_role("button", name="Resume the run")).to_be_hidden()
    room.shown.tell("r2", "run.paused", paused=True)
    tab.get_by_role("button", name="Resume the run").click()
    expect(tab.get_by_role("log")).to_contain_text("resume: accepted")
    tab.get_by_role("button", name="Raise its cap").click()
    tab.get_by_label("At most, in USD").fill("2.50")
    tab.get_by_role("button", name="Raise the cap", exact=True).click()
    expect(tab.get_by_role("log")).to_contain_text("cap: accepted")
    take(tab, "storm.take-1").get_by_role("button", name="Cancel").click()
    expect(tab.get_by_role("log")).to_contain_text("cancel storm.take-1: accepted")
    controller.outcome = "the budget is used up"
    take(tab, "storm.take-2").get_by_role("button", name="Try again").click()
    expect(tab.get_by_role("alert")).to_contain_text("retry storm.take-2: the budget is used up")
    tab.get_by_role("button", name="Close").click()
    expect(tab.get_by_role("alert")).to_be_hidden()
    expect(take(tab, "storm.take-1").get_by_role("button", name="Retake with this prompt")).to_be_hidden()
    actions = [(action, scene_id, value and str(value)) for _, action, scene_id, value in controller.commands]
    assert actions == [
        ("pause", None, None),
        ("resume", None, None),
        ("cap", None, "2.50"),
        ("cancel", "storm.take-1", None),
        ("retry", "storm.take-2", None),
    ]
    assert not watched.errors


@pytest.mark.long
def test_a_run_of_another_process_is_paused_and_a_clip_cancelled(
    tab: Page, watched: Watched, tmp_path: Path, prefect_api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With real clicks, a real journal and a real run. The ledger is the witness: the first prediction never ends."""
    plan = tmp_path / "plan.toml"
    plan.write_text('[[rules]]\ndo = "stick"\nnth_create = [1]\n', encoding="utf-8")
    film = {**FILM, "takes": 1, "concurrency": 1, "scenes": [{**each, "prompt": "A sea"} for each in FILM["scenes"]]}
    with run_emulator(EmulatorSettings(latency_s=(0.2, 0.2), faults=plan)) as emulator:
        for name, value in {
            "VIDEOGEN_REGISTRY": str(REGISTRY),
            "REPLICATE_BASE_URL": emulator.url,
            "REPLICATE_API_TOKEN": "r8_test",
            "PREFECT_API_URL": prefect_api,
            "PREFECT_HOME": str(tmp_path / "prefect"),
        }.items():
            monkeypatch.setenv(name, value)
        controller = JournalController(f"sqlite:///{tmp_path / 'out' / 'journal.db'}")
        with reviewing(tmp_path, film=None, controller=controller) as room:
            room.job_file.write_text(json.dumps(film), encoding="utf-8")
            command = [sys.executable, "-m", "videogen", "run", str(room.job_file), f"--out={room.shown.out}"]
            log = tmp_path / "run.log"
            with log.open("wb") as output:
                run = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)

            def has_running(predictions: int) -> bool:
                assert run.poll() is None, log.read_text(encoding="utf-8")
                running: int = emulator.ledger()["running"]
                return running == predictions

            try:
                wait_until(lambda: has_running(1), tell=lambda: log.read_text(encoding="utf-8"))
                enter(tab, room, takes=2)
                tab.get_by_role("button", name="Pause the run").click(timeout=30_000)
                expect(tab.get_by_role("log")).to_contain_text("pause: accepted", timeout=30_000)
                take(tab, "storm").get_by_role("button", name="Cancel").click()
                expect(tab.get_by_role("log")).to_contain_text("cancel storm: accepted", timeout=30_000)
                wait_until(lambda: has_running(0), tell=lambda: log.read_text(encoding="utf-8"))
                assert (emulator.ledger()["creates"], emulator.ledger()["cancels"]) == (1, 1)
                tab.get_by_role("button", name="Resume the run").click(timeout=30_000)
                expect(tab.get_by_role("log")).to_contain_text("resume: accepted", timeout=30_000)
                code = run.wait(timeout=250)
            finally:
                run.kill()
                run.wait()
            assert code == 0, log.read_text(encoding="utf-8")
            expect(take(tab, "calm").locator(".chip")).to_have_text("chosen", timeout=30_000)
            clips = {name: (clip["status"], (clip["error"] or {}).get("code")) for name, clip in room.manifest.items()}
            assert clips == {"storm": ("failed", "cancelled"), "calm": ("success", None)}
        ledger = emulator.ledger()
        assert (ledger["creates"], ledger["cancels"], ledger["running"]) == (2, 1, 0)
    assert not watched.errors


def test_four_takes_are_a_row_to_swipe_on_a_phone(tab: Page, room_of_four: Reviewed) -> None:
    """The page stays as wide as the phone, and each take can be chosen."""
    tab.set_viewport_size({"width": 390, "height": 844})
    enter(tab, room_of_four, takes=8)
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
    first = take(tab, "storm.take-1")
    first.get_by_role("button", name="Choose").click()
    expect(first.locator(".chip")).to_have_text("chosen")
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
    assert read_choices(room_of_four) == {"storm": {"chosen": 1}}


@pytest.mark.parametrize(
    ("width", "scheme"),
    [
        (390, "light"),
        pytest.param(1440, "dark", marks=pytest.mark.long),
        pytest.param(390, "dark", marks=pytest.mark.long),
        pytest.param(1440, "light", marks=pytest.mark.long),
    ],
)
def test_the_room_can_be_used_by_everybody(
    tab: Page, room: Reviewed, width: int, scheme: Literal["dark", "light"]
) -> None:
    """With takes, a question, a run in progress and a notice, and for watchers: nothing grave, nothing wide."""
    tab.set_viewport_size({"width": width, "height": 844})
    tab.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    room.visitor.act("/runs/r1/choices", {"take_id": "storm.take-1", "rating": 3, "note": WILD})
    enter(tab, room)
    assert grave_problems(tab) == []
    take(tab, "storm.take-1").get_by_role("button", name="Retake with this prompt").click()
    tab.get_by_role("button", name="Show the price").click()
    expect(tab.get_by_role("button", name="Make ")).to_be_focused()
    assert grave_problems(tab) == []
    tab.keyboard.press("Escape")
    room.shown.begin("r2", "storm.take-1", "calm.take-9")
    error = {"code": "model-error", "message": WILD * 20, "retryable": True}
    failed = {**room.manifest["storm.take-1"], "status": "failed", "video_path": None, "error": error}
    room.shown.tell("r2", "clip.failed", completed=1, total=2, **failed)
    expect(tab.get_by_role("button", name="Pause the run")).to_be_visible(timeout=30_000)
    expect(take(tab, "storm.take-1")).to_contain_text("no clip", timeout=30_000)
    tab.evaluate("notice('It was refused.')")
    assert grave_problems(tab) == []
    assert tab.evaluate("document.documentElement.scrollWidth") == width
    enter_again = tab.context.browser
    assert enter_again
    with enter_again.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme) as context:
        other = context.new_page()
        other.goto(f"{room.visitor.origin}/?token={WATCH_TOKEN}")
        other.goto(f"{room.visitor.origin}/review?run=r1")
        expect(other.locator(".take").first).to_be_visible()
        assert grave_problems(other) == []
        assert other.evaluate("document.documentElement.scrollWidth") == width
