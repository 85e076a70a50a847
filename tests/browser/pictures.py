"""Pictures of a run on the live page: `python -m tests.browser.pictures FOLDER`.

Plays examples/lighthouse.toml on the emulator, with a clip that comes at the second attempt and one that never comes,
and takes the page in the middle and at the end, on a phone and a desktop, light and dark. All eight come into the
folder, to be looked at; those that the docs show also into docs/images.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, expect

from tests.browser.conftest import chromium
from tests.gateway.conftest import gateway
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
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (home / "faults.toml").write_text(FAULTS)
        emulator = EmulatorSettings(latency_s=(6, 25), queue_s=(0.5, 1), faults=home / "faults.toml")
        url = stack.enter_context(run_emulator(emulator)).url
        _, address = stack.enter_context(gateway(home / "out"))
        browser = stack.enter_context(chromium())
        page = browser.new_page()
        page.goto(address)
        stack.enter_context(generating(home, url))
        page.get_by_role("link", name="lighthouse").click(timeout=120_000)
        expect(page.locator(".play").nth(1)).to_be_visible(timeout=120_000)
        take(browser, page.url, folder, "middle")
        expect(page.locator(".reason")).to_contain_text("delivered", timeout=120_000)
        take(browser, page.url, folder, "end")
    for taken, name in SHOWN.items():
        shutil.copy(folder / f"{taken}.jpg", HERE / "docs" / "images" / f"{name}.jpg")


def generating(home: Path, emulator: str) -> "subprocess.Popen[bytes]":
    """The run, as a person starts it."""
    environment = {
        **os.environ,
        "REPLICATE_BASE_URL": emulator,
        "REPLICATE_API_TOKEN": "r8_local",
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    }
    command = [sys.executable, "-m", "flows.generate", str(JOB), "--out", str(home / "out"), "--max-cost", "5"]
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
