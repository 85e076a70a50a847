"""`index.html` of a job's folder, opened from the disk as a person opens it."""

import html
import socket
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import WILD, Watched
from tests.support.builders import deliver_all, job_of, prompts_of, refuse, result_of
from videogen.reports.contact_sheet import PAGE_NAME, write_page

pytestmark = pytest.mark.xdist_group("browser")  # one browser, whichever worker has it

PHONE, DESKTOP = 390, 1440


@pytest.fixture(scope="session")
def sheet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight scenes: a long word and wild HTML in two prompts, the last one refused with HTML in the message."""
    prompts = [WILD, "W" * 500, *(f"Scene {n}, slow push in" for n in range(6))]
    job = job_of(*({"prompt": prompt} for prompt in prompts))
    made = job.model_copy(update={"scenes": job.scenes[:-1]})
    store, batch = deliver_all(tmp_path_factory.mktemp("film"), made, size=(320, 180), fps=24)
    batch = result_of(job, [*batch.clips, refuse(job.scenes[-1], WILD)])
    write_page(batch, prompts_of(job), store, files=["manifest.json"])
    return store.path(PAGE_NAME)


def opened(tab: Page, sheet: Path, *, width_px: int = DESKTOP) -> Page:
    tab.set_viewport_size({"width": width_px, "height": 844})
    tab.goto(sheet.as_uri())
    return tab


def clip(page: Page, scene_id: str) -> Locator:
    return page.locator(f"#{scene_id}")


def moves(video: Locator) -> bool:
    """Whether a clip plays: its time goes on."""
    seconds = video.evaluate("video => video.currentTime")
    video.page.wait_for_timeout(300)
    later = video.evaluate("video => video.currentTime")
    return bool(seconds != later)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.long_variants
@pytest.mark.parametrize("width_px", [PHONE, DESKTOP])
def test_all_posters_are_shown_and_nothing_sticks_out(
    width_px: int, scheme: str, tab: Page, sheet: Path, watched: Watched
) -> None:
    """On a phone and a desktop: every picture is loaded and inside the window, in the ratio of its clip."""
    tab.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    page = opened(tab, sheet, width_px=width_px)
    posters = page.locator("main img")
    expect(posters).to_have_count(7)
    assert posters.evaluate_all("images => images.map(image => image.naturalWidth)") == [320] * 7
    for box in [poster.bounding_box() for poster in posters.all()]:
        assert box
        assert box["width"] >= 250
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width_px
        assert box["width"] / box["height"] == pytest.approx(16 / 9, rel=0.02)
    for place in ("html", ".prompt", ".facts dd", ".error"):
        sticking = "all => all.filter(element => element.scrollWidth > element.clientWidth).length"
        assert page.locator(place).evaluate_all(sticking) == 0, place
    assert watched.errors == []
    assert all(url.startswith("file://") for url in watched.requests)


def test_a_click_plays_the_clip_in_its_place(tab: Page, sheet: Path, watched: Watched) -> None:
    """With controls, over its poster, in the same tab; another click plays that clip and pauses this one."""
    page = opened(tab, sheet)
    first, second = clip(page, "s2"), clip(page, "s3")
    first.locator("a.play").click()
    expect(first.locator("video[controls]")).to_have_count(1)
    assert moves(first.locator("video"))
    assert first.locator("video").bounding_box() == first.locator(".frame").bounding_box()
    second.locator("a.play").click()
    assert moves(second.locator("video"))
    assert not moves(first.locator("video"))
    assert page.url == sheet.as_uri()
    assert watched.errors == []


def test_the_pointer_shows_a_silent_preview(tab: Page, sheet: Path) -> None:
    """As long as it is there; a touch is a click, not a preview."""
    page = opened(tab, sheet)
    card = clip(page, "s2")
    card.locator("a.play").hover()
    expect(card.locator("video")).to_have_count(1)
    assert card.locator("video").evaluate("video => video.muted && !video.controls")
    assert moves(card.locator("video"))
    page.mouse.move(2, 2)
    expect(card.locator("video")).to_have_count(0)


@pytest.mark.parametrize("key", ["Enter", "Space"])
def test_the_keyboard_is_enough(key: str, tab: Page, sheet: Path, watched: Watched) -> None:
    """Tab goes from clip to clip and is seen to; Enter and Space play and pause, Escape ends."""
    page = opened(tab, sheet)
    for _ in range(3):  # past the link to the manifest and the first clip
        page.keyboard.press("Tab")
    card = clip(page, "s1")
    expect(card.locator("a.play")).to_be_focused()
    assert card.locator(".frame").evaluate("frame => getComputedStyle(frame).outlineStyle") == "solid"
    top = page.evaluate("scrollY")
    page.keyboard.press(key)
    assert moves(card.locator("video"))
    page.keyboard.press(key)
    assert not moves(card.locator("video"))
    page.keyboard.press("Escape")
    expect(card.locator("video")).to_have_count(0)
    expect(card.locator("a.play")).to_be_focused()
    assert page.evaluate("scrollY") == top
    assert watched.errors == []


def test_html_in_a_prompt_is_shown_as_text_and_runs_nothing(tab: Page, sheet: Path, watched: Watched) -> None:
    """To the letter, in the prompt and in the message of a failure."""
    page = opened(tab, sheet)
    expect(clip(page, "s0").locator(".prompt")).to_have_text(WILD)
    expect(clip(page, "s7").locator(".error")).to_contain_text(WILD)
    assert page.locator("b").count() == 0
    assert page.evaluate("typeof ran") == "undefined"
    assert (watched.errors, watched.dialogs) == ([], [])


def test_the_policy_stops_what_gets_past_the_escaping(tab: Page, sheet: Path, watched: Watched) -> None:
    """A second wall: a script that is in the page all the same does not run, and nothing is fetched from elsewhere."""
    page_html = sheet.read_text(encoding="utf-8")
    escaped = html.escape(WILD).replace("&quot;", "&#34;").replace("&#x27;", "&#39;")
    assert page_html.count(escaped) == 2
    breached = sheet.with_name("breached.html")
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        spy = f"<img src='http://127.0.0.1:{elsewhere.getsockname()[1]}/spy.gif'>"
        breached.write_text(page_html.replace(escaped, WILD + spy), encoding="utf-8")
        page = opened(tab, breached)
        elsewhere.settimeout(0.3)
        with pytest.raises(TimeoutError):
            elsewhere.accept()
    assert page.locator("b").count() == 2
    assert page.evaluate("typeof ran") == "undefined"
    assert any("Content Security Policy" in error for error in watched.errors)


CONTRAST = """() => {
  const rgb = color => color.match(/[\\d.]+/g).map(Number);
  const linear = value => value <= 10 ? value / 3295 : ((value / 255 + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const ground = element => {
    const color = rgb(getComputedStyle(element).backgroundColor);
    return color.length < 4 || color[3] ? color : ground(element.parentElement);
  };
  const spoken = [...document.querySelectorAll("h1, p, a:not(.play), dt, dd, .chip, .error, .missing")];
  return spoken.map(element => {
    const [low, high] = [light(rgb(getComputedStyle(element).color)), light(ground(element))].sort((a, b) => a - b);
    return [(high + 0.05) / (low + 0.05), element.className || element.tagName];
  });
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_can_be_read(scheme: str, tab: Page, sheet: Path) -> None:
    """Every text stands out from its ground by 4.5 to 1 (WCAG AA), in both schemes."""
    tab.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    page = opened(tab, sheet)
    contrasts = page.evaluate(CONTRAST)
    assert len(contrasts) > 50
    assert min(contrasts)[0] >= 4.5, min(contrasts)


def test_on_paper_cards_are_whole_and_prompts_complete(tab: Page, sheet: Path) -> None:
    """No card is cut by a page's end, no prompt by its box, and there is nothing to click."""
    page = opened(tab, sheet)
    tab.emulate_media(media="print")
    assert clip(page, "s0").evaluate("card => getComputedStyle(card).breakInside") == "avoid"
    assert page.locator(".prompt").evaluate_all("all => all.every(p => p.scrollHeight <= p.clientHeight + 1)")
    expect(page.locator(".files")).to_be_hidden()
