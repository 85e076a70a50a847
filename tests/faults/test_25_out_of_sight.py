"""Clips that were delivered and cannot be seen now: what cannot be read is not gone, and is not paid for again."""

import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.faults.conftest import Stage, job_of, only, shot
from tests.support.builders import make_broken, make_loop
from tests.support.servers import Bucket
from videogen.app import open_run, prepare_job
from videogen.errors import SettingsError, StorageError
from videogen.results.run_result import RunResult

PROMPTS = ("A boat", "A pier", "A gull", "A storm")


def journal_of(stage: Stage) -> Path:
    return stage.folder / "out" / "journal.db"


def make_old(stage: Stage) -> None:
    """Everything was made two hours ago: the provider has deleted it."""
    with closing(sqlite3.connect(journal_of(stage), isolation_level=None)) as db:
        db.execute("UPDATE attempts SET created_at = datetime(created_at, '-2 hours') || '.000000'")


def move(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))


def empty(path: Path) -> None:
    move(path)
    path.mkdir()


def loop(path: Path) -> None:
    move(path)
    make_loop(path)


def break_link(path: Path) -> None:
    move(path)
    make_broken(path)


def put_a_file(path: Path) -> None:
    move(path)
    path.touch()


def put_back(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.is_dir():
        shutil.rmtree(path)
    path.with_name("elsewhere").rename(path)


@pytest.mark.long_variants
@pytest.mark.parametrize(
    ("place", "harm", "scenes"),
    [
        *((place, harm, 2) for place in ("job", "job/clips") for harm in (move, empty, loop, break_link, put_a_file)),
        ("job", move, 1),
        ("job/clips", loop, 1),
    ],
)
async def test_25_clips_that_are_out_of_sight_are_not_paid_again(
    stage: Stage, place: str, harm: Callable[[Path], None], scenes: int
) -> None:
    """Nothing is created, the message names the folder and what to do; with the disk back all is reused."""
    stage.emulate()
    await stage.shoot(*PROMPTS[:scenes])
    make_old(stage)
    path = stage.folder / "out" / place
    harm(path)
    with pytest.raises((StorageError, SettingsError), match=str(stage.job_folder)) as told:
        await stage.shoot(*PROMPTS[:scenes])
    assert re.search(r"disk|in the way", str(told.value))
    stage.books(creates=scenes, billed=scenes)
    put_back(path)
    assert [clip.reused for clip in (await stage.shoot(*PROMPTS[:scenes])).clips] == [True] * scenes
    stage.books(creates=scenes, billed=scenes)


async def test_25_a_clip_that_a_person_deleted_is_made_again(stage: Stage) -> None:
    """The others are there: this is no disk that is not mounted. The plan says so."""
    stage.emulate()
    await stage.shoot(*PROMPTS)
    make_old(stage)
    next(stage.job_folder.glob("clips/scene-2-*")).unlink()
    prepared = await prepare_job(job_of(*PROMPTS), stage.options)
    assert [warning for warning in prepared.plan.warnings if "1 clips that were delivered to" in warning]
    assert [clip.reused for clip in (await stage.shoot(*PROMPTS)).clips] == [True, False, True, True]


async def test_25_the_only_clip_that_a_person_deleted_is_made_again(stage: Stage) -> None:
    """Its poster is there."""
    stage.emulate()
    await stage.shoot("A boat")
    make_old(stage)
    next(stage.job_folder.glob("clips/*")).unlink()
    assert only(await stage.shoot("A boat")).status == "success"


async def test_25_fresh_makes_what_is_out_of_sight(stage: Stage) -> None:
    """The way out that the message names."""
    stage.emulate()
    await stage.shoot(*PROMPTS[:2])
    make_old(stage)
    shutil.rmtree(stage.job_folder)
    with pytest.raises(StorageError, match=r"use --fresh: it makes, and pays for, every clip .*\(\$0\.120?\)"):
        await stage.shoot(*PROMPTS[:2])
    assert (await stage.shoot(*PROMPTS[:2], options={"fresh": True})).successful_clips == 2


async def test_25_a_bucket_that_lost_everything_is_not_paid_again(
    stage: Stage, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Emptied by a rule of its own, or another one under the same name."""
    stage.emulate()
    monkeypatch.setenv("VIDEOGEN_JOURNAL_URL", f"sqlite:///{journal_of(stage)}")
    monkeypatch.chdir(stage.folder)
    options = {"out": f"{bucket.address}/films"}
    await stage.shoot(*PROMPTS, options=options)
    make_old(stage)
    for name in bucket.names():
        bucket.delete(name)
    with pytest.raises(StorageError, match=r"none of the 4 clips that were delivered to s3://.* is there"):
        await stage.shoot(*PROMPTS, options=options)
    stage.books(creates=4, billed=4)


async def test_25_a_copy_in_the_jobs_own_folder_outlives_the_other_jobs(stage: Stage) -> None:
    """A clip that was taken over from another job is reused when that job's folder was tidied away."""
    stage.emulate()
    await stage.shoot("A boat", id="one")
    assert only(await stage.shoot("A boat", id="two")).reused
    make_old(stage)
    shutil.rmtree(stage.folder / "out" / "one")
    assert only(await stage.shoot("A boat", id="two")).reused
    stage.books(creates=1, billed=1)


# -- an older journal --------------------------------------------------------------------------------------------------


async def shoot_with_backup(stage: Stage, *, then: tuple[str, ...]) -> RunResult:
    """A run, a backup of the journal, another run, and the backup put back."""
    stage.emulate()
    await stage.shoot("A boat")
    backup = journal_of(stage).read_bytes()
    await stage.shoot(*then)
    for ending in ("", "-wal", "-shm"):
        Path(f"{journal_of(stage)}{ending}").unlink(missing_ok=True)
    journal_of(stage).write_bytes(backup)
    return await stage.shoot(*then)


async def test_25_clips_that_an_older_journal_does_not_know_are_reused(stage: Stage) -> None:
    """They are on the disk and in the manifest."""
    batch = await shoot_with_backup(stage, then=("A boat", "A pier", "A gull"))
    assert [clip.reused for clip in batch.clips] == [True] * 3
    stage.books(creates=3, billed=3)


async def test_25_with_an_older_journal_the_account_is_looked_through(stage: Stage) -> None:
    """A prediction may have been made after the backup; a journal that knows the last run needs no look."""
    stage.emulate()
    await stage.shoot("A boat")
    backup = journal_of(stage).read_bytes()
    assert not (await prepare_job(job_of("A boat"), stage.options)).recovering
    await stage.shoot("A boat", "A pier")
    for ending in ("-wal", "-shm"):
        Path(f"{journal_of(stage)}{ending}").unlink(missing_ok=True)
    journal_of(stage).write_bytes(backup)
    next(stage.job_folder.glob("clips/scene-2-*")).unlink()
    prepared = await prepare_job(job_of("A boat", "A pier"), stage.options)
    assert prepared.recovering
    assert [warning for warning in prepared.plan.warnings if "does not know the last run" in warning]
    assert [clip.status for clip in (await stage.shoot("A boat", "A pier")).clips] == ["success"] * 2
    stage.books(creates=2, billed=2)


# -- a fresh run that was killed ---------------------------------------------------------------------------------------


async def make_some_afresh(stage: Stage, number: int) -> None:
    """A `--fresh` run that comes no further."""
    fresh = stage.options.model_copy(update={"fresh": True})
    async with open_run(await prepare_job(job_of(*PROMPTS), fresh)) as session:
        for request in session.plan.requests[:number]:
            await session.make_clip(request)


async def test_25_what_a_killed_fresh_run_made_is_not_made_again(stage: Stage) -> None:
    """By the next `--fresh`, however often it is killed; the plan says so."""
    stage.emulate()
    await stage.shoot(*PROMPTS)
    await make_some_afresh(stage, 1)
    await make_some_afresh(stage, 3)
    stage.books(creates=7, billed=7)
    fresh = stage.options.model_copy(update={"fresh": True})
    plan = (await prepare_job(job_of(*PROMPTS), fresh)).plan
    assert len(plan.to_create) == 1
    assert [warning for warning in plan.warnings if "3 clips that the last --fresh run made" in warning]
    batch = await stage.shoot(*PROMPTS, options={"fresh": True})
    assert [clip.reused for clip in batch.clips] == [True, True, True, False]
    stage.books(creates=8, billed=8)


async def test_25_after_a_run_that_was_judged_fresh_means_all(stage: Stage) -> None:
    """Whether that one was fresh or not."""
    stage.emulate()
    await make_some_afresh(stage, 1)
    await stage.shoot(*PROMPTS)
    stage.books(creates=4, billed=4)
    for creates in (8, 12):
        batch = await stage.shoot(*PROMPTS, options={"fresh": True})
        assert [clip.reused for clip in batch.clips] == [False] * 4
        stage.books(creates=creates, billed=creates)


async def test_25_a_fresh_run_that_is_opened_again_goes_on(stage: Stage) -> None:
    """As Prefect does that retries a flow: with what was prepared the first time."""
    stage.emulate()
    prepared = await prepare_job(job_of(*PROMPTS), stage.options.model_copy(update={"fresh": True}))
    async with open_run(prepared) as session:
        await session.make_clip(session.plan.requests[0])
    async with open_run(prepared) as session:
        assert [clip.reused for clip in (await shot(session)).clips] == [True, False, False, False]
    stage.books(creates=4, billed=4)


async def test_25_a_run_without_fresh_in_between_belongs_to_it(stage: Stage) -> None:
    """It was killed as well, and went on with what the fresh one had left."""
    stage.emulate()
    await make_some_afresh(stage, 2)
    async with open_run(await prepare_job(job_of(*PROMPTS), stage.options)) as session:
        await session.make_clip(session.plan.requests[2])
    batch = await stage.shoot(*PROMPTS, options={"fresh": True})
    assert [clip.reused for clip in batch.clips] == [True, True, True, False]
    stage.books(creates=4, billed=4)


async def test_25_a_clip_of_a_killed_fresh_run_that_was_deleted_is_made(stage: Stage) -> None:
    stage.emulate()
    await make_some_afresh(stage, 2)
    next(stage.job_folder.glob("clips/scene-1-*")).unlink()
    batch = await stage.shoot(*PROMPTS, options={"fresh": True})
    assert [clip.reused for clip in batch.clips] == [False, True, False, False]
