"""The timelines of a job are written anew by hand, and after each choice."""

from pathlib import Path

import opentimelineio as otio
import pytest

from tests.support.builders import deliver, job_of, result_of, small_clip
from videogen.cli.main import main
from videogen.media import inspect_video
from videogen.reports.timeline import TIMELINE_NAMES
from videogen.storage.local import FileStore

pytestmark = pytest.mark.integration

JOB = """id = "film"
takes = 2
[[scenes]]
id = "storm"
prompt = "A storm"
target_duration = 1
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a job with two takes of one scene, after a run of an earlier version: without timelines."""
    monkeypatch.chdir(tmp_path)
    Path("film.toml").write_text(JOB)
    store = FileStore(tmp_path / "out" / "film")
    job = job_of({"id": "storm", "prompt": "A storm", "target_duration": 1}, takes=2)
    clips = [
        deliver(store, scene.model_copy(update={"take_of": None}), small_clip(2), take_of="storm")
        for scene, _ in job.variants()
    ]
    store.put_text(result_of(job, clips, cells_per_scene=2).manifest(), "manifest.json")
    return tmp_path / "out" / "film"


def read_active_urls(folder: Path) -> list[str]:
    timeline = otio.adapters.read_from_file(str(folder / "film.otio"))
    return [clip.media_reference.target_url for clip in timeline.find_clips()]


def test_the_timelines_are_written_anew(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They are listed, and linked on the contact sheet. Nothing else appears."""
    before = {path.name for path in folder.iterdir()}
    assert main(["export", "film.toml"]) == 0
    assert capsys.readouterr().out.splitlines() == [f"{folder}/{name}" for name in TIMELINE_NAMES]
    assert {path.name for path in folder.iterdir()} - before <= {*TIMELINE_NAMES, "index.html", ".scratch"}
    assert read_active_urls(folder) == ["clips/storm.take-2.mp4"]
    page = (folder / "index.html").read_text()
    assert all(f'href="{name}"' in page for name in TIMELINE_NAMES)


def test_they_may_be_for_another_machine(folder: Path) -> None:
    assert main(["export", "film.toml", "--media-root", "/Volumes/film"]) == 0
    assert read_active_urls(folder) == ["file:///Volumes/film/clips/storm.take-2.mp4"]


def test_a_rough_cut_is_made_on_request(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "film.toml", "--rough-cut"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"{folder}/rough_cut.mp4"
    assert inspect_video(folder / "rough_cut.mp4").duration == 1
    assert 'href="rough_cut.mp4"' in (folder / "index.html").read_text()


def test_choices_are_in_the_timelines_at_once(folder: Path) -> None:
    """In all three of them; a rating, too."""
    assert main(["choose", "film.toml", "storm=1"]) == 0
    assert read_active_urls(folder) == ["clips/storm.take-1.mp4"]
    assert "* FROM CLIP: clips/storm.take-1.mp4\n" in (folder / "film.edl").read_text()
    assert main(["rate", "film.toml", "storm=1", "5"]) == 0
    for name in TIMELINE_NAMES:
        assert "★★★★★" in (folder / name).read_text(), name


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--media-root", "films"], "--media-root: 'films' is not the absolute path of a folder"),
        (["--out", "elsewhere"], "run the job first"),
        (["--music", "none.mp3"], "music: none.mp3: cannot be read"),
    ],
)
def test_wrong_flags_are_named(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    """Before anything is written."""
    assert main(["export", "film.toml", *arguments]) == 2
    assert says in capsys.readouterr().err
    assert not (folder / "film.otio").exists()
