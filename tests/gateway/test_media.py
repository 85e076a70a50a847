"""The files of delivered clips, and no others."""

import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.conftest import DELIVERED, Played, Shown, watching

CLIP: dict[str, Any] = {**DELIVERED, "clip_index": 0, "scene_id": "a"}


@pytest.fixture
def clip(played: Played) -> str:
    return f"/runs/{played.batch.run_id}/clips/harbour.mp4"


def test_a_clip_and_its_poster_are_served_as_they_were_delivered(finished: Shown, played: Played, clip: str) -> None:
    video = finished.http.get(clip)
    assert hashlib.sha256(video.content).hexdigest() == played.batch.clips[0].sha256
    assert (video.headers["content-type"], video.headers["accept-ranges"]) == ("video/mp4", "bytes")
    poster = finished.http.get(clip.replace(".mp4", ".jpg"))
    assert (poster.headers["content-type"], poster.content[:2]) == ("image/jpeg", b"\xff\xd8")
    head = finished.http.head(clip)
    assert (head.status_code, head.headers["content-length"], head.content) == (200, str(len(video.content)), b"")


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        pytest.param("bytes=100-199", 100, 200, id="from-to"),
        pytest.param("bytes=100-", 100, None, id="from"),
        pytest.param("bytes=-100", -100, None, id="last"),
    ],
)
def test_a_part_is_served_where_one_is_asked_for(
    finished: Shown, clip: str, asked: str, start: int, stop: int | None
) -> None:
    """206, with the right bytes and their place in the whole."""
    whole = finished.http.get(clip).content
    part = finished.http.get(clip, headers={"Range": asked})
    assert (part.status_code, part.content) == (206, whole[start:stop])
    assert part.headers["content-range"].endswith(f"/{len(whole)}")


def test_a_part_past_the_end_is_refused(finished: Shown, clip: str) -> None:
    assert finished.http.get(clip, headers={"Range": "bytes=999999999-"}).status_code == 416


@pytest.mark.parametrize(
    "address",
    [
        pytest.param("cave.mp4", id="failed"),
        pytest.param("none.mp4", id="unknown"),
        pytest.param("..%2Fclips%2Fharbour.mp4", id="path"),
        pytest.param("..%2F..%2F..%2Fetc%2Fpasswd.mp4", id="out-of-the-folder"),
        pytest.param("%2Fetc%2Fpasswd.mp4", id="absolute"),
        pytest.param("../../../journal.db", id="journal"),
    ],
)
def test_what_was_not_delivered_is_not_there(finished: Shown, played: Played, address: str) -> None:
    assert finished.http.get(f"/runs/{played.batch.run_id}/clips/{address}").status_code == 404


def test_other_kinds_of_files_are_not_asked_for(finished: Shown, played: Played) -> None:
    assert finished.http.get(f"/runs/{played.batch.run_id}/clips/harbour.json").status_code == 422


@pytest.mark.parametrize(
    ("folder", "path"),
    [
        pytest.param("film", "../secret.mp4", id="above-its-folder"),
        pytest.param("film", "{elsewhere}/secret.mp4", id="absolute"),
        pytest.param("film", "clips/link.mp4", id="link"),
        pytest.param("{elsewhere}", "secret.mp4", id="run-elsewhere"),
        pytest.param("linked", "secret.mp4", id="linked-folder"),
        pytest.param("film", "clips", id="a-folder"),
        pytest.param("film", "clips/gone.mp4", id="gone"),
    ],
)
def test_a_journal_that_points_elsewhere_leads_nowhere(live: Shown, tmp_path: Path, folder: str, path: str) -> None:
    """Whatever the journal says, and wherever links lead: nothing outside the run's folder and `out`."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for place in (elsewhere, live.out):
        (place / "secret.mp4").write_bytes(b"secret")
    (live.out / "film" / "clips").mkdir(parents=True)
    (live.out / "film" / "clips" / "link.mp4").symlink_to(elsewhere / "secret.mp4")
    (live.out / "linked").symlink_to(elsewhere)
    home = live.out / folder.format(elsewhere=elsewhere)
    live.journal.start_run("r1", job_id="film", origin="local", folder=str(home))
    live.tell("r1", "clip.completed", **CLIP, video_path=path.format(elsewhere=elsewhere), poster_path=None)
    assert live.http.get("/runs/r1/clips/a.mp4").status_code == 404


def test_a_clip_in_a_bucket_is_served_from_the_copy_that_its_run_keeps(live: Shown) -> None:
    """Where there is none the run tells the address of its folder, which it does not where clips are in `out`."""
    live.begin("r1", "a", folder="s3://films/spring/film")
    live.tell("r1", "clip.completed", **CLIP, video_path="clips/a.mp4", poster_path=None)
    assert live.http.get("/runs/r1/clips/a.mp4").status_code == 404
    assert live.get("/runs/r1")["folder"] == "s3://films/spring/film"
    copy = live.out / "s3" / "films" / "spring" / "film" / "clips" / "a.mp4"
    copy.parent.mkdir(parents=True)
    copy.write_bytes(b"clip")
    assert live.http.get("/runs/r1/clips/a.mp4").content == b"clip"
    live.begin("r2", "a")
    assert live.get("/runs/r2")["folder"] is None


def test_a_link_to_the_out_folder_is_followed(played: Played, tmp_path: Path) -> None:
    """The folder may be a link, and the journal name it either way."""
    out = tmp_path / "out"
    shutil.copytree(played.out, tmp_path / "disk")
    out.symlink_to(tmp_path / "disk")
    with watching(out) as gateway:
        gateway.journal.start_run("r1", job_id="film", origin="local", folder=str(out / "film"))
        gateway.tell("r1", "clip.completed", **CLIP, video_path=played.batch.clips[0].video_path)
        assert gateway.http.get("/runs/r1/clips/a.mp4").status_code == 200
