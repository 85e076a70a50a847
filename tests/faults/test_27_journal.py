"""The journal is damaged, of another version, deleted, or left behind: what was paid for is not paid for again."""

import shutil
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import pytest

from tests.faults.conftest import PRICE, Stage, code, job_of, only
from videogen.app import open_run, prepare_job
from videogen.errors import ValidationError
from videogen.job.model import Job
from videogen.journal.store import Journal
from videogen.providers.base import Prediction

PROMPTS = ("A boat", "A pier", "A gull")


def journal_of(stage: Stage) -> Path:
    return stage.folder / "out" / "journal.db"


def overwrite(path: Path) -> None:
    path.write_bytes(b"not a database" * 1000)


def flip_a_page(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    damaged = bytearray(path.read_bytes())
    damaged[4096:8192] = bytes(byte ^ 0xFF for byte in damaged[4096:8192])
    path.write_bytes(damaged)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def make_newer(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("UPDATE alembic_version SET version_num = '9999'")


def make_older(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("DROP TABLE alembic_version")


@pytest.mark.long_variants
@pytest.mark.parametrize("harm", [overwrite, flip_a_page, cut, make_newer, make_older])
async def test_27_a_journal_that_cannot_be_read_is_set_aside_and_clips_are_found_on_disk(
    stage: Stage, harm: Callable[[Path], None]
) -> None:
    """The next plan says so, keeps the file, and reuses every clip."""
    stage.emulate()
    await stage.shoot(*PROMPTS)
    harm(journal_of(stage))
    before = journal_of(stage).read_bytes()
    prepared = await prepare_job(job_of(*PROMPTS), stage.options)
    (kept,) = stage.folder.glob("out/journal.db.set-aside-*[0-9]")
    assert kept.read_bytes() == before
    assert str(kept) in prepared.plan.warnings[0]
    batch = await stage.shoot(*PROMPTS)
    assert [clip.reused for clip in batch.clips] == [True] * 3
    stage.books(creates=3, billed=3)


def flip_events(path: Path) -> None:
    """Damage the last page of events, which no plan reads."""
    with closing(sqlite3.connect(path)) as db:
        for number in range(200):
            db.execute("INSERT INTO events VALUES (NULL, 'another', 'clip.progress', ?, 0, ?)", ("x" * 400, number))
        db.commit()
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (page,) = db.execute("SELECT max(pageno) FROM dbstat WHERE name = 'events' AND pagetype = 'leaf'").fetchone()
    damaged = bytearray(path.read_bytes())
    place = slice(4096 * (page - 1), 4096 * page)
    damaged[place] = bytes(byte ^ 0xFF for byte in damaged[place])
    path.write_bytes(damaged)


async def test_27_a_plan_alone_does_not_read_all_of_the_journal(stage: Stage) -> None:
    """Damage where it does not look is found by the run, before anything is created; where it looks, by the plan."""
    stage.emulate()
    await stage.shoot(*PROMPTS)
    flip_events(journal_of(stage))
    assert (await prepare_job(job_of(*PROMPTS), stage.options, for_run=False)).plan.warnings == ()
    assert list(stage.folder.glob("out/*.set-aside-*")) == []
    assert "damaged" in (await prepare_job(job_of(*PROMPTS), stage.options)).plan.warnings[0]
    flip_a_page(journal_of(stage))
    assert "damaged" in (await prepare_job(job_of(*PROMPTS), stage.options, for_run=False)).plan.warnings[0]
    batch = await stage.shoot(*PROMPTS)
    assert [clip.reused for clip in batch.clips] == [True] * 3
    stage.books(creates=3, billed=3)


async def test_27_without_its_journal_a_job_finds_its_clips_on_disk(stage: Stage) -> None:
    """Deleted by a person who tidied up."""
    stage.emulate()
    await stage.shoot(*PROMPTS)
    journal_of(stage).unlink()
    batch = await stage.shoot(*PROMPTS)
    assert [clip.reused for clip in batch.clips] == [True] * 3
    stage.books(creates=3, billed=3)


async def test_27_a_folder_that_was_moved_keeps_its_clips(stage: Stage) -> None:
    """The journal moves with it, and knows only where it was."""
    stage.emulate()
    await stage.shoot(*PROMPTS)
    (stage.folder / "out").rename(stage.folder / "elsewhere")
    batch = await stage.shoot(*PROMPTS, options={"out": str(stage.folder / "elsewhere")})
    assert [clip.reused for clip in batch.clips] == [True] * 3
    stage.books(creates=3, billed=3)


async def test_27_a_clip_on_disk_that_was_changed_is_not_reused(stage: Stage) -> None:
    """The manifest's sha256 decides, not the name; what the account still has is fetched again, not made again."""
    stage.emulate()
    sha256 = only(await stage.shoot("A boat")).sha256
    journal_of(stage).unlink()
    (path,) = stage.job_folder.glob("clips/*.mp4")
    path.write_bytes(path.read_bytes() + bytes(8))
    clip = only(await stage.shoot("A boat"))
    assert (clip.reused, clip.sha256) == (False, sha256)
    stage.books(creates=1, billed=1)


async def test_27_what_runs_or_has_run_remotely_is_found_in_the_account(stage: Stage) -> None:
    """Neither journal nor clips are left: the predictions of the last hour are looked through before paying again."""
    stage.emulate()
    await stage.shoot(*PROMPTS)
    journal_of(stage).unlink()
    shutil.rmtree(stage.job_folder / "clips")
    batch = await stage.shoot(*PROMPTS)
    assert [clip.status for clip in batch.clips] == ["success"] * 3
    stage.books(creates=3, billed=3)


CAP = 3 * PRICE
Loss = Callable[[Stage, bytes], None]


def lose(stage: Stage, _: bytes) -> None:
    journal_of(stage).unlink()


def restore(stage: Stage, copy: bytes) -> None:
    for ending in ("-wal", "-shm"):
        journal_of(stage).with_name(f"journal.db{ending}").unlink(missing_ok=True)
    journal_of(stage).write_bytes(copy)


def forget_note(stage: Stage, _: bytes) -> None:
    """As the folders of versions that wrote no note."""
    journal_of(stage).unlink()
    (stage.job_folder / ".costs.json").unlink()


@pytest.mark.long_variants
@pytest.mark.parametrize("harm", [lose, restore, forget_note])
async def test_27_a_lost_journal_does_not_refill_the_budget(stage: Stage, harm: Loss) -> None:
    """The job's folder knows what the job has cost. An older copy of the journal knows a part of it."""
    stage.emulate()
    await stage.shoot(*PROMPTS[:1], max_cost=CAP)
    copy = journal_of(stage).read_bytes()
    await stage.shoot(*PROMPTS, max_cost=CAP)
    harm(stage, copy)
    refusal = r"spent so far \$0.18 of \$0.18, .*: the remaining \$0.00 does not cover any clip"
    with pytest.raises(ValidationError, match=refusal):
        await stage.shoot(*PROMPTS, max_cost=CAP, options={"fresh": True})
    batch = await stage.shoot(*PROMPTS, "A whale", max_cost=CAP)
    assert [code(clip) for clip in batch.clips] == [None] * 3 + ["budget"]
    assert batch.job_cost == CAP
    stage.books(creates=3, billed=3)
    batch = await stage.shoot(*PROMPTS, "A whale", max_cost=CAP + PRICE)
    assert batch.job_cost == CAP + PRICE
    stage.books(creates=4, billed=4)


@pytest.mark.long_variants
@pytest.mark.parametrize("harm", [lose, restore])
async def test_27_what_a_run_paid_that_never_ended_is_neither_forgotten_nor_paid_again(
    stage: Stage, harm: Loss
) -> None:
    """It was killed before its manifest, and the journal is lost or a copy from before it."""
    stage.emulate()
    await stage.shoot(*PROMPTS[:1], max_cost=CAP)
    copy = journal_of(stage).read_bytes()
    async with open_run(await prepare_job(job_of(*PROMPTS, max_cost=CAP), stage.options)) as session:
        await session.make_clips()
    harm(stage, copy)
    with pytest.raises(ValidationError, match=r"spent so far \$0.18 of \$0.18"):
        await prepare_job(job_of(*PROMPTS, max_cost=CAP), stage.options.model_copy(update={"fresh": True}))
    batch = await stage.shoot(*PROMPTS, max_cost=CAP)
    assert [clip.status for clip in batch.clips] == ["success"] * 3
    assert batch.job_cost == CAP
    stage.books(creates=3, billed=3)


class Killed(BaseException):
    """The process ends where this is raised: nothing handles it."""


async def kill_before_create(stage: Stage, job: Job) -> None:
    """Run a job of one clip until its cost is noted, and no further."""

    async def kill(*_: object, **__: object) -> Prediction:
        raise Killed

    async with open_run(await prepare_job(job, stage.options)) as session:
        session.run.provider.create = kill  # type: ignore[method-assign]
        with pytest.raises(Killed):
            await session.make_clip(session.plan.requests[0])
    stage.books(creates=0, billed=0)


async def test_27_a_create_that_was_noted_and_not_sent_is_sent_by_the_next_run(stage: Stage) -> None:
    """It was killed in between. The plan has the amount as reserved, and the account shows that nothing came of it. The
    cap counts it all the same, because only the list says so."""
    stage.emulate()
    job = job_of("A boat", max_cost=2 * PRICE)
    await kill_before_create(stage, job)
    plan = (await prepare_job(job, stage.options)).plan
    assert (plan.spent_before, plan.reserved_before, plan.total_cost) == (PRICE, PRICE, Decimal(0))
    batch = await stage.shoot("A boat", max_cost=2 * PRICE)
    assert (only(batch).status, batch.total_cost, batch.job_cost) == ("success", PRICE, 2 * PRICE)
    stage.books(creates=1, billed=1)


async def test_27_a_create_that_was_noted_and_not_sent_counts_for_the_cap_of_a_lost_journal(stage: Stage) -> None:
    """The note is written before the create, so that a create that was sent is never missing from it. Without the
    journal, nobody knows that this one was not."""
    stage.emulate()
    await kill_before_create(stage, job_of("A boat", max_cost=PRICE))
    journal_of(stage).unlink()
    plan = (await prepare_job(job_of("A boat", max_cost=2 * PRICE), stage.options)).plan
    assert (plan.spent_before, plan.reserved_before, plan.total_cost) == (PRICE, Decimal(0), PRICE)
    batch = await stage.shoot("A boat", max_cost=PRICE)
    assert (code(only(batch)), batch.job_cost) == ("budget", PRICE)
    stage.books(creates=0, billed=0)
    batch = await stage.shoot("A boat", max_cost=2 * PRICE)
    assert (only(batch).status, batch.job_cost) == ("success", 2 * PRICE)
    stage.books(creates=1, billed=1)


async def test_27_a_copy_made_during_a_run_knows_too_little(stage: Stage) -> None:
    """It has the run, and not its attempts."""
    stage.emulate()
    async with open_run(await prepare_job(job_of(*PROMPTS, max_cost=CAP), stage.options)) as session:
        with closing(sqlite3.connect(journal_of(stage))) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        copy = journal_of(stage).read_bytes()
        await session.finish(await session.make_clips())
    restore(stage, copy)
    with pytest.raises(ValidationError, match=r"spent so far \$0.18 of \$0.18"):
        await prepare_job(job_of(*PROMPTS, max_cost=CAP), stage.options.model_copy(update={"fresh": True}))
    stage.books(creates=3, billed=3)


async def test_27_a_run_on_the_own_emulator_hides_no_cost(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """It replaces the manifest of the job, and not the note of what the account was billed."""
    stage.emulate()
    await stage.shoot(*PROMPTS, max_cost=CAP)
    manifest = stage.job_folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace(f'"provider": "{stage.origin}"', '"provider": "local"'))
    journal_of(stage).unlink()
    plan = (await prepare_job(job_of(*PROMPTS, max_cost=CAP * 2), stage.options)).plan
    assert plan.spent_before == CAP


async def test_27_predictions_that_a_lost_journal_knew_are_counted_once(stage: Stage) -> None:
    """They are found in the account, and their cost is in the manifest."""
    stage.emulate()
    await stage.shoot(*PROMPTS)
    journal_of(stage).unlink()
    shutil.rmtree(stage.job_folder / "clips")
    batch = await stage.shoot(*PROMPTS)
    assert (batch.job_cost, batch.total_cost, batch.paid_before) == (CAP, CAP, CAP)
    stage.books(creates=3, billed=3)


async def test_27_a_recovery_that_is_interrupted_goes_on_recovering(stage: Stage) -> None:
    """The run that began without a memory never came to its end: the next one looks in the account, too."""
    stage.emulate()
    await stage.shoot(*PROMPTS)
    journal_of(stage).unlink()
    shutil.rmtree(stage.job_folder / "clips")
    async with open_run(await prepare_job(job_of(*PROMPTS), stage.options)) as session:
        await session.make_clip(session.plan.requests[0])
    await stage.shoot(*PROMPTS)
    stage.books(creates=3, billed=3)


async def test_27_a_first_run_asks_the_account_for_nothing(stage: Stage) -> None:
    """Nor does a run whose journal knows its folder."""
    stage.emulate()
    await stage.shoot("A boat")
    await stage.shoot("A boat", "A pier")
    assert stage.books(creates=2, billed=2)["lists"] == 0


async def test_27_outputs_that_are_gone_are_not_waited_for(stage: Stage) -> None:
    """What the account lists without its data cannot be had any more: it is made again, and delivered."""
    stage.emulate('do = "expire"')
    assert code(only(await stage.shoot("A boat", attempts=1))) == "expired"
    journal_of(stage).unlink()
    assert only(await stage.shoot("A boat")).status == "success"
    stage.books(creates=2, billed=2)


def test_27_a_journal_that_is_only_busy_is_not_set_aside(tmp_path: Path) -> None:
    """Another run is writing; this one waits for it."""
    path = tmp_path / "journal.db"
    Journal(f"sqlite:///{path}").close()
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        threading.Timer(0.3, other.execute, ("COMMIT",)).start()
        journal = Journal(f"sqlite:///{path}")
        journal.close()
    assert journal.quarantined is None
    assert [file.name for file in tmp_path.glob("*aside*")] == []
