"""Job folders as people have them: it works, or it is said before anything is paid for."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.conftest import Stage, job_of
from tests.support.builders import make_broken, make_file, make_loop
from videogen.app import open_run, prepare_job
from videogen.errors import JobLockedError, StorageError

PROMPTS = ("A boat", "A pier")


@pytest.mark.parametrize("code", ["EINVAL", "EACCES"])
async def test_50_clips_are_delivered_into_a_folder_that_cannot_be_synced(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    """SMB, VirtualBox, rclone: each clip and its poster, the pictures, the manifest."""
    fsync = os.fsync

    def failing(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(getattr(errno, code), os.strerror(getattr(errno, code)))
        fsync(descriptor)

    stage.emulate()
    monkeypatch.setattr(os, "fsync", failing)
    batch = await stage.shoot(*PROMPTS)
    assert [clip.status for clip in batch.clips] == ["success"] * 2
    assert (stage.job_folder / "manifest.json").is_file()
    stage.books(creates=2, billed=2)


@pytest.mark.parametrize("code", ["ENOSPC", "EROFS"])
async def test_50_a_disk_that_stores_nothing_is_found_before_anything_is_paid(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    def failing(_: int) -> None:
        raise OSError(getattr(errno, code), os.strerror(getattr(errno, code)))

    stage.emulate()
    prepared = await prepare_job(job_of(*PROMPTS), stage.options)
    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(StorageError, match=rf"{stage.job_folder}: files cannot be written .*--out"):
        async with open_run(prepared):
            pass
    stage.books(creates=0, billed=0)


@pytest.mark.parametrize(
    ("place", "make"),
    [
        *((f"out/job/{name}", make_file) for name in ("clips", "posters", "")),
        *((f"out/job/{name}", make) for name in ("clips", "posters", ".lock", "") for make in (make_broken, make_loop)),
        *(("out", make) for make in (make_file, make_broken, make_loop)),
    ],
)
async def test_50_what_is_in_the_way_is_found_before_anything_is_paid(
    stage: Stage, place: str, make: Callable[[Path], None]
) -> None:
    """The message names it."""
    stage.emulate()
    (stage.folder / place).parent.mkdir(parents=True, exist_ok=True)
    make(stage.folder / place)
    with pytest.raises(Exception, match=str(stage.folder / "out")) as told:  # or the journal, which is in `out`, too
        await stage.shoot(*PROMPTS)
    assert type(told.value).__module__ == "videogen.errors"
    stage.books(creates=0, billed=0)


@pytest.mark.long_variants
@pytest.mark.parametrize(
    "name",
    [
        ".scratch/manifest.json.part",
        ".scratch/contact_sheet.jpg.part",
        "manifest.json",
        "index.html",
        "contact_sheet.jpg",
    ],
)
async def test_50_links_that_others_left_are_not_written_through(stage: Stage, name: str) -> None:
    """Their targets stay as they were, and the run delivers."""
    stage.emulate()
    (target := stage.folder / "letters.txt").write_text("precious")
    (path := stage.job_folder / name).parent.mkdir(parents=True)
    path.symlink_to(target)
    assert (await stage.shoot(*PROMPTS)).successful_clips == 2
    assert target.read_text() == "precious"
    assert [each for each in stage.job_folder.rglob("*") if each.is_symlink()] == []
    stage.books(creates=2, billed=2)


async def test_50_links_at_the_names_of_clips_are_replaced(stage: Stage) -> None:
    """A clip's name is known before it is made."""
    stage.emulate()
    (target := stage.folder / "letters.txt").write_text("precious")
    prepared = await prepare_job(job_of(*PROMPTS), stage.options)
    for request in prepared.plan.requests:
        for name in (request.video_path, request.poster_path):
            (path := stage.job_folder / name).parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(target)
    assert (await stage.shoot(*PROMPTS)).successful_clips == 2
    assert target.read_text() == "precious"
    assert not [each for each in stage.job_folder.rglob("*") if each.is_symlink()]


async def test_50_on_a_disk_without_locks_the_journal_keeps_a_second_run_out(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some network shares know no flock."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("videogen.execution.lease.HEARTBEAT_S", 0.2)
    stage.emulate()
    prepared = await prepare_job(job_of(*PROMPTS), stage.options)
    monkeypatch.setattr("fcntl.flock", refuse)
    async with open_run(prepared) as session:
        with pytest.raises(JobLockedError, match=f"another run holds {stage.job_folder}: run {session.run.id}"):
            async with open_run(prepared):
                pass
    assert (await stage.shoot(*PROMPTS)).successful_clips == 2


async def test_50_a_disk_with_little_room_is_told_before_the_start(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once for what is still to be made, and not for what is there."""
    stage.emulate()
    monkeypatch.setattr("videogen.execution.recovery.ROUGH_CLIP_BYTES", 2**60)
    prepared = await prepare_job(job_of(*PROMPTS), stage.options)
    assert [
        warning for warning in prepared.plan.warnings if "2 clips may take" in warning and "has room for" in warning
    ]
    await stage.shoot(*PROMPTS)
    assert not [w for w in (await prepare_job(job_of(*PROMPTS), stage.options)).plan.warnings if "may take" in w]
