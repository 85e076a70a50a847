"""The story of a film maker, as docs/review.md tells it: takes, choices, retakes, the final tier."""

import json
import subprocess
import sys
from decimal import Decimal
from typing import Any

import opentimelineio as otio
import pytest

from tests.flows.conftest import CommandLine
from videogen.emulator import Emulator
from videogen.media import inspect_video

pytestmark = pytest.mark.integration
SCENES = [f"s{number:02d}" for number in range(1, 13)]
REGISTRY = """\
[models.tiered]
replicate = "bytedance/seedance-1-pro"
source = "https://replicate.com/bytedance/seedance-1-pro"
typical_run_seconds = 2
timeout_seconds = 600
duration = { mode = "discrete", sizes = [2], input = "duration" }
parameters = { prompt = "prompt", seed = "seed" }
aspect_ratios = { "16:9" = { aspect_ratio = "16:9" } }
tiers = { draft = { resolution = "480p" }, final = { resolution = "720p" } }
default_tier = "draft"

[models.tiered.price]
as_of = 2026-11-01
basis = "estimated"
rows = [
    { when = { resolution = "480p" }, per_second = "0.03" },
    { when = { resolution = "720p" }, per_second = "0.06" },
]
"""


class FilmMaker:
    """Types commands in the folder of the film, and reads what they leave."""

    def __init__(self, command: CommandLine, emulator: Emulator) -> None:
        self._command, self._emulator = command, emulator
        self.folder = command.folder / "out" / "film"

    def type(self, *words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "videogen", *words],
            env=self._command.whole_environment,
            cwd=self._command.folder,
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @property
    def manifest(self) -> dict[str, Any]:
        read: dict[str, Any] = json.loads((self.folder / "manifest.json").read_text(encoding="utf-8"))
        return read

    @property
    def film(self) -> dict[str, str]:
        """The clip that is chosen for each scene."""
        return {clip["take_of"]: clip["scene_id"] for clip in self.manifest["clips"] if clip["chosen"]}

    def check_books(self, creates: int, billed: str) -> None:
        ledger = self._emulator.ledger()
        assert (ledger["creates"], Decimal(ledger["billed"])) == (creates, Decimal(billed))
        assert Decimal(self.manifest["job_cost"]) == Decimal(billed)


@pytest.mark.long
def test_twelve_scenes_are_made_chosen_made_again_and_finished(on_emulator: CommandLine, emulator: Emulator) -> None:
    """The ledger's total is the report's to the cent, at every step."""
    (on_emulator.folder / "models.toml").write_text(REGISTRY, encoding="utf-8")
    on_emulator.environment["VIDEOGEN_REGISTRY"] = "models.toml"
    scenes = "".join(f'[[scenes]]\nid = "{name}"\nprompt = "Shot {name}"\ntarget_duration = 2\n\n' for name in SCENES)
    (on_emulator.folder / "film.toml").write_text(f'model = "tiered"\ntakes = 2\n{scenes}', encoding="utf-8")
    maker = FilmMaker(on_emulator, emulator)

    maker.type("run", "film.toml")
    maker.check_books(24, "1.44")
    assert maker.film == {name: f"{name}.take-2" for name in SCENES}

    maker.type("choose", "film.toml", "s03=1", "s07=1")
    maker.type("rate", "film.toml", "s03=1", "5", "--note", "The sail is right.")
    assert (maker.film["s03"], maker.film["s07"], maker.film["s12"]) == ("s03.take-1", "s07.take-1", "s12.take-2")

    assert "1 of 25 clips to make" in maker.type("retake", "film.toml", "s07", "--prompt", "Nearer", "--dry-run")
    maker.check_books(24, "1.44")
    maker.type("retake", "film.toml", "s07", "--prompt", "Nearer")
    maker.type("retake", "film.toml", "s08", "--prompt", "Slower", "--seed", "7")
    maker.check_books(26, "1.56")
    assert (maker.film["s07"], maker.film["s08"]) == ("s07.take-3", "s08.take-3")

    plan = maker.type("finish", "film.toml", "--tier", "final", "--dry-run")
    assert "12 of 38 clips to make" in plan
    assert "$1.44" in plan
    maker.type("finish", "film.toml", "--tier", "final", "--yes")
    maker.check_books(38, "3.00")
    by_id = {clip["scene_id"]: clip for clip in maker.manifest["clips"]}
    assert {by_id[clip]["height"] for clip in maker.film.values()} == {704}  # what this model makes of 720p
    prompts = {name: by_id[maker.film[name]]["prompt"] for name in ("s07", "s08", "s12")}
    assert prompts == {"s07": "Nearer", "s08": "Slower", "s12": "Shot s12"}
    assert by_id[maker.film["s08"]]["seed"] == 7
    assert by_id["s03.take-1"]["rating"] == 5

    maker.type("finish", "film.toml", "--tier", "final", "--yes")
    maker.type("run", "film.toml")
    maker.check_books(38, "3.00")

    maker.type("export", "film.toml", "--rough-cut")
    timeline = otio.adapters.read_from_file(str(maker.folder / "film.otio"))
    shots = list(timeline.video_tracks()[0].find_clips())
    assert [shot.name for shot in shots] == SCENES
    assert [shot.duration().to_frames() for shot in shots] == [48] * 12
    assert [len(shot.media_references()) for shot in shots] == [4 if name in ("s07", "s08") else 3 for name in SCENES]
    used = [str(shot.media_reference.target_url) for shot in shots]
    assert used == [by_id[maker.film[name]]["video_path"] for name in SCENES]
    assert inspect_video(maker.folder / "rough_cut.mp4").frames == 12 * 48
    assert all((maker.folder / name).stat().st_size for name in ("film.fcpxml", "film.edl"))
    maker.check_books(38, "3.00")
