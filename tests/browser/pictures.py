"""Pictures of a run on the live page, of its review room and of spending: `python -m tests.browser.pictures FOLDER`.

Plays examples/lighthouse.toml on the emulator, with a clip that comes at the second attempt and one that never comes,
and takes the page in the middle and at the end, on a phone and a desktop, light and dark. Then plays the first scenes
with two takes each, and takes the review room, and the question before a retake. The page about spending shows a month
that is made up. All twenty come into the folder, to be looked at; those that the docs show also into docs/images.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.conftest import chromium
from tests.gateway.conftest import gateway, watching
from tests.support.spending import record_month
from videogen.emulator import EmulatorSettings, run_emulator

HERE = Path(__file__).parent.parent.parent
JOB = HERE / "examples" / "lighthouse.toml"
SIZES = {"phone": (390, 1500), "desktop": (1440, 1000)}
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
SHOWN = {
    "middle-desktop-light": "live-page",
    "middle-phone-dark": "live-page-phone",
    "end-desktop-dark": "live-page-end",
    "end-phone-light": "live-page-end-phone",
    "review-desktop-light": "review-room",
    "review-desktop-dark": "review-room-dark",
    "review-phone-light": "review-room-phone",
    "retake-phone-dark": "review-room-retake",
    "spending-desktop-light": "spending",
    "spending-phone-dark": "spending-phone",
}
QUALITY = 72
"""Of the JPEG: each stays below 150 kB."""
FAULTS = """
[[rules]]
prompt = "Spiral stairs"
do = "fail"
error = "CUDA out of memory"

[[rules]]
prompt = "storm clouds"
times = "always"
do = "fail"
error = "The input or output was flagged as sensitive. Please try again with different inputs. (E005)"
"""


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as home, chromium() as browser:
        (Path(home) / "live").mkdir()
        take_live_page(browser, Path(home) / "live", folder)
        (Path(home) / "review").mkdir()
        take_review_room(browser, Path(home) / "review", folder)
        take_spending(browser, Path(home) / "spending", folder)
    for taken, name in SHOWN.items():
        shutil.copy(folder / f"{taken}.jpg", HERE / "docs" / "images" / f"{name}.jpg")


def take_live_page(browser: Browser, home: Path, folder: Path) -> None:
    """Take pictures of a run in the middle, and when it is over."""
    (home / "faults.toml").write_text(FAULTS)
    emulator = EmulatorSettings(latency_s=(6, 25), queue_s=(0.5, 1), faults=home / "faults.toml")
    with run_emulator(emulator) as server, gateway(home / "out") as (_, address):
        page = browser.new_page()
        page.goto(address)
        with generating(home, server.url, JOB):
            page.get_by_role("link", name="lighthouse").click(timeout=120_000)
            expect(page.locator(".play").nth(1)).to_be_visible(timeout=120_000)
            take(browser, page.url, folder, "middle")
            expect(page.locator(".reason")).to_contain_text("delivered", timeout=120_000)
            take(browser, page.url, folder, "end")


def take_review_room(browser: Browser, home: Path, folder: Path) -> None:
    """Take pictures of a review: takes that are chosen, rated and noted, and the question before a retake."""
    shutil.copytree(JOB.parent / "references", home / "references")
    job = home / "lighthouse.json"
    film = tomllib.loads(JOB.read_text(encoding="utf-8"))
    job.write_text(json.dumps({**film, "takes": 2, "scenes": film["scenes"][:4]}), encoding="utf-8")
    with run_emulator(EmulatorSettings(latency_s=(0.5, 1))) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("REPLICATE_BASE_URL", server.url)
        patch.setenv("REPLICATE_API_TOKEN", "r8_local")
        with generating(home, server.url, job) as run:
            assert run.wait() == 0
        flags = ("--port", "0", "--out", str(home / "out"), "--review", str(job))
        with gateway(home / "out", *flags, prints_token=True) as (_, entrance):
            address = enter_review(browser, entrance)
            for size, (width_px, height_px) in SIZES.items():
                page = browser.contexts[-1].new_page()
                page.set_viewport_size({"width": width_px, "height": height_px})
                page.goto(address)
                seek = page.locator(".seek").first
                seek.fill("1.5")
                expect(page.locator("video").first).not_to_have_js_property("currentTime", 0)
                seek.blur()
                page.wait_for_timeout(500)  # for the other pictures
                for scheme in SCHEMES:
                    page.emulate_media(color_scheme=scheme)
                    page.screenshot(path=folder / f"review-{size}-{scheme}.jpg", quality=QUALITY)
                page.get_by_role("button", name="Retake with this prompt").nth(1).click()
                page.get_by_label("Prompt").fill("The lighthouse from the sea, in the last light, slow push in.")
                page.get_by_role("button", name="Show the price").click()
                expect(page.get_by_role("button", name="Make ")).to_be_focused()
                for scheme in SCHEMES:
                    page.emulate_media(color_scheme=scheme)
                    page.screenshot(path=folder / f"retake-{size}-{scheme}.jpg", quality=QUALITY)
                page.close()


def take_spending(browser: Browser, home: Path, folder: Path) -> None:
    """Take pictures of a month of three jobs."""
    with watching(home) as shown:
        record_month(shown.journal)
        for size, (width_px, height_px) in SIZES.items():
            page = browser.new_page(viewport={"width": width_px, "height": height_px})
            page.goto(f"{str(shown.http.base_url).rstrip('/')}/spend")
            expect(page.locator("tbody tr")).to_have_count(3)
            for scheme in SCHEMES:
                page.emulate_media(color_scheme=scheme)
                page.screenshot(path=folder / f"spending-{size}-{scheme}.jpg", quality=QUALITY)
            page.close()


def enter_review(browser: Browser, entrance: str) -> str:
    """Open the review room with the token, give opinions by keyboard, and return the room's address."""
    page = browser.new_context().new_page()
    page.goto(entrance)
    page.get_by_role("link", name="lighthouse").click()
    page.get_by_role("link", name="Review the takes").click()
    takes = page.locator(".take")
    takes.nth(1).locator("textarea").fill("The lamp is right, the sky could be darker.")
    page.get_by_role("button", name="Save the note").click()
    expect(page.get_by_role("button", name="Save the note")).to_be_hidden()
    takes.nth(0).focus()
    for key in ("2", "ArrowRight", "5", "ArrowDown", "3", "ArrowLeft", "4", "Enter"):
        page.keyboard.press(key)
    expect(takes.nth(2)).to_have_attribute("data-chosen", "true")
    expect(takes.nth(2)).to_have_attribute("aria-label", re.compile("rated 4 of 5"))
    return page.url


def generating(home: Path, emulator: str, job: Path) -> "subprocess.Popen[bytes]":
    """The run, as a person starts it."""
    environment = {
        **os.environ,
        "REPLICATE_BASE_URL": emulator,
        "REPLICATE_API_TOKEN": "r8_local",
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    }
    command = [sys.executable, "-m", "flows.generate", str(job), "--out", str(home / "out"), "--max-cost", "5"]
    command += ["--concurrency", "4"]
    return subprocess.Popen(command, env=environment, cwd=HERE, stdout=subprocess.DEVNULL)


def take(browser: Browser, address: str, folder: Path, moment: str) -> None:
    """Pictures of the page as it is, of each size and scheme."""
    for size, (width_px, height_px) in SIZES.items():
        page = browser.new_page(viewport={"width": width_px, "height": height_px})
        page.goto(address)
        expect(page.locator(".play img").first).not_to_have_js_property("naturalWidth", 0)
        page.wait_for_timeout(500)  # for the other posters
        for scheme in SCHEMES:
            page.emulate_media(color_scheme=scheme)
            page.screenshot(path=folder / f"{moment}-{size}-{scheme}.jpg", quality=QUALITY)
        page.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
