"""Start frames from the job to what a model is sent: in its resolution, with figures that stand in the scene."""

import errno
import hashlib
import json
import os
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from videogen.app import prepare_job
from videogen.cli.main import main
from videogen.execution.options import RunOptions
from videogen.job.model import Job
from videogen.journal.store import Journal
from videogen.planning.planner import build_plan
from videogen.planning.requests import ImageInput
from videogen.registry.load import read_registry
from videogen.results.clip import Clip, get_planned_fields

pytestmark = pytest.mark.integration

SEA, RED = (30, 60, 200), (200, 40, 40)
FRAMES = {
    # model: what it is asked for in 16:9, and how its start frame is sent
    "kling-v2.1": (1920, 1080),
    "kling-v2.5-turbo": (1920, 1080),
    "hailuo-2.3": (1366, 768),
    "wan-2.5-i2v": (1280, 720),
    "veo-3.1": (1920, 1080),
    "seedance-1-pro": (1920, 1080),
}


def figure(background: tuple[int, int, int] | None) -> Image.Image:
    image = Image.new("RGBA", (300, 400), (*background, 255) if background else (0, 0, 0, 0))
    ImageDraw.Draw(image).ellipse((90, 60, 210, 340), fill=(*RED, 255))
    return image


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A job's folder with a sea, a figure before a white wall, one before a landscape, and one that is cut out."""
    Image.new("RGB", (1600, 900), SEA).save(tmp_path / "sea.jpg")
    figure((255, 255, 255)).convert("RGB").save(tmp_path / "wall.jpg", quality=92)
    figure(None).save(tmp_path / "cut.png")
    landscape = figure((120, 170, 230)).convert("RGB")
    landscape.paste((60, 120, 50), (0, 345, 300, 400))
    landscape.paste((90, 90, 60), (0, 0, 40, 300))
    landscape.save(tmp_path / "landscape.jpg")
    monkeypatch.setenv("VIDEOGEN_OUT", str(tmp_path / "out"))
    return tmp_path


def job_of(model: str = "kling-v2.5-turbo", **scene: Any) -> Job:
    fields = {"id": "a", "prompt": "p", "target_duration": 5, "scene_reference_url": "sea.jpg", **scene}
    return Job.model_validate({"id": "film", "model": model, "scenes": [fields]})


async def frame_of(folder: Path, job: Job) -> tuple[ImageInput, tuple[str, ...]]:
    """The only start frame of a job, and what its plan warns of."""
    prepared = await prepare_job(job, RunOptions(folder=str(folder), provider="local"))
    (image,) = prepared.plan.requests[0].prediction.images.values()
    return image, prepared.plan.warnings


@pytest.mark.long_variants
@pytest.mark.parametrize("model", FRAMES)
async def test_a_start_frame_has_the_models_own_resolution(folder: Path, model: str) -> None:
    """A model that is asked for 1080 lines is not shown 720; and the clip's key is what it has always been."""
    image, _ = await frame_of(folder, job_of(model, target_duration=3))
    assert (image.pixels or image.size) == FRAMES[model]
    assert image.name == image.model_copy(update={"pixels": None}).name


def test_keys_of_frames_are_what_they_have_been() -> None:
    """A clip that was paid for stays free: names are those that earlier versions gave."""
    old = "frame:ff7aaed8f999371ac8175a91035954405a11810db9d8726641e5fe522079b444"
    recipe: dict[str, Any] = {"size": (1280, 720), "background": "ab" * 32, "characters": ("cd" * 32,)}
    assert ImageInput(**recipe).name == old
    assert ImageInput(**recipe, pixels=(1920, 1080)).name == old
    assert ImageInput(**recipe, cut_outs=("cd" * 32,)).name != old


@pytest.mark.long_variants
@pytest.mark.parametrize(
    ("scene", "cut", "warns"),
    [
        pytest.param({}, 0, None, id="no-character"),
        pytest.param({"character_reference_urls": ["cut.png"]}, 0, None, id="cut-out"),
        pytest.param({"character_reference_urls": ["wall.jpg"]}, 1, "its plain background is cut away", id="wall"),
        pytest.param({"character_reference_urls": ["landscape.jpg"]}, 0, "it is pasted as a card", id="landscape"),
        pytest.param({"character_reference_urls": ["wall.jpg", "wall.jpg"]}, 1, "is cut away (a)", id="twice"),
        pytest.param({"character_reference_urls": ["wall.jpg", "cut.png"]}, 1, "wall.jpg is opaque", id="beside"),
        pytest.param(
            {"scene_reference_url": None, "character_reference_urls": ["wall.jpg"]}, 0, None, id="alone-it-is-the-frame"
        ),
        pytest.param(
            {"scene_reference_url": None, "character_reference_urls": ["wall.jpg", "cut.png"]},
            1,
            "is cut away",
            id="two-before-a-backdrop",
        ),
    ],
)
async def test_only_frames_that_look_different_are_named_apart(
    folder: Path, scene: dict[str, Any], cut: int, warns: str | None
) -> None:
    """An opaque figure before a plain wall is cut out, and the plan says what becomes of every opaque one."""
    image, warnings = await frame_of(folder, job_of(**scene))
    assert len(image.cut_outs) == cut
    assert (image.name == image.model_copy(update={"cut_outs": ()}).name) == (cut == 0)
    said = [warning for warning in warnings if "is opaque" in warning]
    assert len(said) == (1 if warns else 0)
    assert all(warns and warns in warning for warning in said)


def test_a_plan_without_its_pictures_cuts_nothing() -> None:
    """What is opaque is only known once it is loaded."""
    job = job_of(character_reference_urls=["wall.jpg"])
    planned = build_plan(job, read_registry(None), digests={"sea.jpg": "a" * 64, "wall.jpg": "b" * 64})
    (image,) = planned.requests[0].prediction.images.values()
    assert image.cut_outs == ()


@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
def test_frames_are_written_before_anything_is_paid(
    folder: Path, capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    """`plan --frames`: one for each scene that has one, as it will be sent; the figure stands where the card hung."""
    scenes = [
        {"id": "still", "prompt": "p", "target_duration": 5, "scene_reference_url": "sea.jpg"},
        {
            "id": "met",
            "prompt": "p",
            "target_duration": 5,
            "scene_reference_url": "sea.jpg",
            "character_reference_urls": ["wall.jpg"],
        },
        {"id": "told", "prompt": "p", "target_duration": 5},
    ]
    (folder / "film.json").write_text(json.dumps({"model": "kling-v2.5-turbo", "scenes": scenes}))
    flags = ["--json"] if as_json else []
    frames = folder / "new" / "frames"
    assert main(["plan", str(folder / "film.json"), "--provider", "local", "--frames", str(frames), *flags]) == 0
    out = capsys.readouterr().out
    assert json.loads(out)["scenes"] if as_json else "2 start frames written to" in " ".join(out.split())
    assert sorted(path.name for path in frames.iterdir()) == ["met.jpg", "still.jpg"]
    with Image.open(frames / "met.jpg") as image:
        assert image.size == (1920, 1080)
        assert image.getpixel((960, 700)) == pytest.approx(RED, abs=12)
        assert image.getpixel((960 - 300, 700)) == pytest.approx(SEA, abs=12)
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    ("scene", "warned"),
    [
        ({"scene_reference_url": "sea.jpg"}, "sea.jpg"),
        ({"scene_reference_url": "sea.jpg", "character_reference_urls": ["cut.png"]}, None),
        ({"scene_reference_url": None, "character_reference_urls": ["sea.jpg"]}, "sea.jpg"),
        ({"scene_reference_url": "landscape.jpg", "character_reference_urls": ["cut.png", "sea.jpg"]}, "sea.jpg"),
        ({"scene_reference_url": "landscape.jpg"}, None),
    ],
)
@pytest.mark.parametrize("model", ["kling-v2.5-turbo", "veo-3.1"])
async def test_the_plan_warns_about_a_picture_of_one_colour(
    folder: Path, model: str, scene: dict[str, Any], warned: str | None
) -> None:
    """A plain background behind a character is intended, but not a picture that is sent by itself."""
    if model == "veo-3.1" and scene["scene_reference_url"] == "sea.jpg":
        warned = "sea.jpg"
    job = job_of(model, **scene, target_duration=8)
    prepared = await prepare_job(job, RunOptions(folder=str(folder), provider="local"))
    told = [warning for warning in prepared.plan.warnings if "one colour" in warning]
    assert told == ([f"{warned} has only one colour, so it shows the model nothing (a)"] if warned else [])


def write_job(folder: Path, **scene: Any) -> str:
    fields = {"id": "a", "prompt": "p", "target_duration": 5, **scene}
    (folder / "film.json").write_text(json.dumps({"model": "kling-v2.5-turbo", "scenes": [fields]}))
    return str(folder / "film.json")


def test_that_no_scene_has_a_start_frame_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And no folder is created for none."""
    assert main(["plan", write_job(folder), "--provider", "local", "--frames", str(folder / "new")]) == 0
    assert "no start frames were written: no scene has one" in " ".join(capsys.readouterr().out.split())
    assert not (folder / "new").exists()


@pytest.mark.parametrize("scene", [{}, {"scene_reference_url": "sea.jpg"}], ids=["nothing-to-write", "one-frame"])
@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("sea.jpg", "sea.jpg is not a folder"),
        ("sea.jpg/below", "sea.jpg is not a folder"),
        ("link", "link is a symbolic link to /not/mounted, which does not exist"),
        ("x" * 300, "File name too long"),
    ],
)
def test_an_impossible_folder_for_frames_is_said_first(
    folder: Path, capsys: pytest.CaptureFixture[str], place: str, reason: str, scene: dict[str, str]
) -> None:
    """Also if there is nothing to write."""
    (folder / "link").symlink_to("/not/mounted")
    frames = str(folder / place)
    assert main(["plan", write_job(folder, **scene), "--provider", "local", "--frames", frames]) == 2
    told = capsys.readouterr()
    assert ("--frames: " in told.err, reason in told.err, told.out) == (True, True, "")


def test_a_frame_that_cannot_be_written_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By its path, and with the reason."""
    job = write_job(folder, scene_reference_url="sea.jpg")
    (folder / "frames" / "a.jpg").mkdir(parents=True)
    assert main(["plan", job, "--provider", "local", "--frames", str(folder / "frames")]) == 2
    assert "--frames: " in (err := capsys.readouterr().err)
    assert "a.jpg: exists and is not this frame" in err


def test_a_frame_that_is_there_already_stays(folder: Path) -> None:
    job = write_job(folder, scene_reference_url="sea.jpg")
    assert main(["plan", job, "--provider", "local", "--frames", str(folder / "frames")]) == 0
    before = (folder / "frames" / "a.jpg").stat().st_mtime_ns
    assert main(["plan", job, "--provider", "local", "--frames", str(folder / "frames")]) == 0
    assert (folder / "frames" / "a.jpg").stat().st_mtime_ns == before


@pytest.mark.parametrize("kind", ["file", "link", "dangling-link"])
def test_a_frame_never_replaces_a_file(folder: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    """Not even the job's own picture; a link is not followed, and nothing else is written either."""
    scenes = [{"id": name, "prompt": "p", "target_duration": 5, "scene_reference_url": "sea.jpg"} for name in "ab"]
    (folder / "film.json").write_text(json.dumps({"model": "kling-v2.5-turbo", "scenes": scenes}))
    frame, target, before = folder / "b.jpg", folder / "sea.jpg", (folder / "sea.jpg").read_bytes()
    if kind == "file":
        frame.write_bytes(before)
    else:
        frame.symlink_to(target if kind == "link" else folder / "new.jpg")
    assert main(["plan", str(folder / "film.json"), "--provider", "local", "--frames", str(folder)]) == 2
    assert f"{frame}: exists and is not this frame" in capsys.readouterr().err
    assert target.read_bytes() == before
    assert [(folder / name).exists() for name in ("a.jpg", "new.jpg")] == [False, False]


def test_a_full_disk_leaves_no_part_of_a_frame(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_part(path: Path, data: bytes) -> int:
        with path.open("wb") as file:
            file.write(data[:10])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    job = write_job(folder, scene_reference_url="sea.jpg")
    monkeypatch.setattr(Path, "write_bytes", write_part)
    assert main(["plan", job, "--provider", "local", "--frames", str(folder / "frames")]) == 2
    assert "a.jpg: cannot be written: No space left on device" in capsys.readouterr().err
    assert list((folder / "frames").iterdir()) == []


@pytest.mark.parametrize(("fresh", "cut_out"), [(False, False), (True, True)])
async def test_a_clip_that_was_made_with_a_card_stays_free(
    folder: Path, fresh: bool, cut_out: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A journal and a folder of before characters were cut out: the clip is reused under its old key."""
    job = job_of(character_reference_urls=["wall.jpg"])
    with monkeypatch.context() as before:
        before.setattr("videogen.references.decode.has_plain_border", lambda _: False)
        prepared = await prepare_job(job, RunOptions(folder=str(folder), provider="local"))
    (old,) = prepared.plan.requests
    home = Path(prepared.folder)
    (home / "clips").mkdir(parents=True)
    (home / old.video_path).write_bytes(b"clip")
    sha256 = hashlib.sha256(b"clip").hexdigest()
    clip = Clip(status="success", video_path=old.video_path, sha256=sha256, **get_planned_fields(old))
    with closing(Journal(prepared.settings.get_journal_url())) as journal:
        journal.start_run("r1", job_id="film", origin="local", folder=prepared.folder)
        journal.import_delivery(old.key, origin="local", folder=prepared.folder, clip=clip)
        journal.end_run("r1", verdict="complete")
    now = await prepare_job(job, RunOptions(folder=str(folder), provider="local", fresh=fresh))
    (request,) = now.plan.requests
    assert (request.key == old.key, bool(now.plan.to_create)) == (not cut_out, cut_out)
