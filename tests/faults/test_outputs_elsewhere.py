"""A job whose folder is in a bucket: runs on machines that share it and the journal, but no disk."""

import asyncio
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.faults.conftest import Stage, code, job_of, only
from tests.support.servers import Bucket
from videogen.app import open_run, prepare_job
from videogen.errors import JobLockedError, StorageError
from videogen.journal.store import Journal
from videogen.media import inspect_video
from videogen.results.run_result import RunResult

PROMPTS = ("A boat", "A gull", "A storm")


class Machine:
    """A working folder of its own; the journal is shared."""

    def __init__(self, stage: Stage, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
        self._stage, self._out, self._monkeypatch = stage, f"{bucket.address}/films", monkeypatch
        self.journal_url = f"sqlite:///{stage.folder / 'shared.db'}"
        monkeypatch.setenv("VIDEOGEN_JOURNAL_URL", self.journal_url)

    def another(self, name: str) -> None:
        """From here on it is one that has run nothing yet."""
        folder = self._stage.folder / name
        folder.mkdir()
        self._monkeypatch.chdir(folder)

    async def shoot(self, *prompts: str, rough_cut: bool = False, **fields: Any) -> RunResult:
        options = {"out": self._out, "rough_cut": rough_cut}
        return await self._stage.shoot(*prompts, options=options, **fields)

    @property
    def options(self) -> Any:
        return self._stage.options.model_copy(update={"out": self._out})


@pytest.fixture
def machine(stage: Stage, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine(stage, bucket, monkeypatch)
    machine.another("first")
    return machine


def written(bucket: Bucket) -> list[str]:
    """Keys without the job's folder, in the order of their PUT."""
    puts = [line.split()[1] for line in bucket.wire.asked if line.startswith("PUT")]
    return [path.split("?")[0].removeprefix(f"/{bucket.name}/films/") for path in puts]


async def test_clips_pictures_and_at_last_the_manifest_are_in_the_bucket(
    stage: Stage, machine: Machine, bucket: Bucket
) -> None:
    """Who finds the manifest finds what it names, byte for byte."""
    stage.emulate()
    batch = await machine.shoot(*PROMPTS)
    assert batch.verdict.status == "complete"
    assert written(bucket)[-1] == "job/manifest.json"
    pictures = ("index.html", "contact_sheet.jpg", "film.otio", "film.fcpxml", "film.edl")
    assert {f"films/job/{name}" for name in pictures} <= bucket.names()
    paths = re.findall(r"^\* FROM CLIP: (.*)$", bucket.read("films/job/film.edl").decode(), re.MULTILINE)
    assert {f"films/job/{path}" for path in paths} <= bucket.names()
    assert len(paths) == 3
    manifest = json.loads(bucket.read("films/job/manifest.json"))
    assert [clip["status"] for clip in manifest["clips"]] == ["success"] * 3
    for clip in manifest["clips"]:
        assert hashlib.sha256(bucket.read(f"films/job/{clip['video_path']}")).hexdigest() == clip["sha256"]
        assert bucket.read(f"films/job/{clip['poster_path']}").startswith(b"\xff\xd8")


@pytest.mark.long_variants
@pytest.mark.parametrize("journal", ["shared", "empty"])
async def test_another_machine_reuses_all_at_no_cost(
    stage: Stage, machine: Machine, bucket: Bucket, journal: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It finds the clips by the journal they share, or else by the manifest, and fetches none of them."""
    stage.emulate()
    await machine.shoot(*PROMPTS)
    machine.another("second")
    if journal == "empty":
        monkeypatch.delenv("VIDEOGEN_JOURNAL_URL")
    bucket.wire.asked.clear()
    batch = await machine.shoot(*PROMPTS)
    assert [clip.reused for clip in batch.clips] == [True] * 3
    assert not [line for line in bucket.wire.asked if line.startswith("GET") and ".mp4" in line]
    stage.books(creates=3, billed=3)


async def test_pictures_are_made_of_what_another_machine_delivered(
    stage: Stage, machine: Machine, bucket: Bucket
) -> None:
    """Posters and clips are fetched for it."""
    stage.emulate()
    await machine.shoot(*PROMPTS)
    bucket.delete("films/job/contact_sheet.jpg")
    machine.another("second")
    await machine.shoot(*PROMPTS, rough_cut=True)
    assert {f"films/job/{name}" for name in ("contact_sheet.jpg", "rough_cut.mp4")} <= bucket.names()
    (film := Path("film.mp4")).write_bytes(bucket.read("films/job/rough_cut.mp4"))
    assert inspect_video(film).duration == pytest.approx(6, abs=0.1)


async def test_a_clip_that_is_gone_from_the_bucket_is_fetched_again(
    stage: Stage, machine: Machine, bucket: Bucket
) -> None:
    """From the provider, which still has it: it is not paid for again. The other ones are reused."""
    stage.emulate()
    batch = await machine.shoot(*PROMPTS)
    bucket.delete(f"films/job/{batch.clips[1].video_path}")
    batch = await machine.shoot(*PROMPTS)
    assert [clip.reused for clip in batch.clips] == [True, False, True]
    stage.books(creates=3, billed=3)


async def test_another_job_takes_over_a_clip_within_the_bucket(stage: Stage, machine: Machine, bucket: Bucket) -> None:
    """From a machine that has no file of the first job."""
    stage.emulate()
    await machine.shoot("A boat")
    machine.another("second")
    clip = only(await machine.shoot("A boat", id="other"))
    assert clip.reused
    assert hashlib.sha256(bucket.read(f"films/other/{clip.video_path}")).hexdigest() == clip.sha256
    stage.books(creates=1, billed=1)


async def test_an_upload_that_is_cut_costs_no_second_prediction(stage: Stage, machine: Machine, bucket: Bucket) -> None:
    """The clip failed for its storage, nothing is under its name, the journal does not think it delivered."""
    stage.emulate()
    bucket.wire.cut_at = (b".mp4", 2_000)
    clip = only(await machine.shoot("A boat"))
    assert code(clip) == "storage"
    assert clip.error
    assert not clip.error.retryable
    assert not [key for key in bucket.names() if key.endswith(".mp4")]
    prepared, journal = await prepare_job(job_of("A boat"), machine.options), Journal(machine.journal_url)
    origin, key = prepared.origin, prepared.plan.requests[0].key
    attempt, delivery = journal.find_open_attempt(origin, key), journal.find_delivery(origin, key)
    journal.close()
    assert delivery is None
    assert attempt
    assert attempt.state == "succeeded"
    bucket.wire.cut_at = None
    machine.another("second")
    clip = only(await machine.shoot("A boat"))
    assert clip.status == "success"
    assert hashlib.sha256(bucket.read(f"films/job/{clip.video_path}")).hexdigest() == clip.sha256
    stage.books(creates=1, billed=1)


async def test_a_manifest_that_cannot_be_written_leaves_all_clips_reusable(
    stage: Stage, machine: Machine, bucket: Bucket
) -> None:
    """The run ends with the reason, the next one has nothing to make."""
    stage.emulate()
    bucket.wire.cut_at = (b"manifest.json HTTP", 10)
    with pytest.raises(StorageError, match=r"cannot write manifest\.json to s3://"):
        await machine.shoot("A boat")
    bucket.wire.cut_at = None
    assert only(await machine.shoot("A boat")).reused
    stage.books(creates=1, billed=1)


@pytest.mark.parametrize("out", ["s3://nobody-has-made-it/films", "cut"])
async def test_a_bucket_that_cannot_be_used_costs_nothing(
    stage: Stage, machine: Machine, bucket: Bucket, out: str
) -> None:
    """It is there and it can be written, or nothing is created."""
    stage.emulate()
    if out == "cut":
        bucket.wire.cut_at = (b"PUT ", 10)
    options = {"out": f"{bucket.address}/films" if out == "cut" else out}
    with pytest.raises(StorageError, match=r"s3://"):
        await stage.shoot("A boat", options=options)
    stage.books(creates=0, billed=0)


async def test_a_second_machine_is_kept_out_while_the_first_is_at_it(
    machine: Machine, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And let in when the first has left."""
    monkeypatch.setattr("videogen.execution.lease.HEARTBEAT_S", 0.2)
    stage.emulate()
    async with open_run(await prepare_job(job_of("A boat"), machine.options)) as first:
        machine.another("second")
        with pytest.raises(JobLockedError, match=f"another run holds s3://.*/films/job: run {first.run.id}"):
            await machine.shoot("A boat")
    assert only(await asyncio.wait_for(machine.shoot("A boat"), 10)).status == "success"


async def test_a_machine_that_died_keeps_the_folder_for_a_lease(
    machine: Machine, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It cannot be told from one that lives until it has not been seen for so long; then the run begins by itself."""
    monkeypatch.setattr("videogen.journal.base.LEASE_S", 1.5)
    stage.emulate()
    async with open_run(await prepare_job(job_of("A boat"), machine.options)):  # its first beat would come after 5 s
        machine.another("second")
        waiting = asyncio.create_task(machine.shoot("A boat"))
        await asyncio.sleep(0.8)
        assert not stage.emulator.ledger()["creates"]
        assert only(await waiting).status == "success"


async def test_a_machine_that_froze_creates_nothing_once_another_one_took_the_folder_over(
    machine: Machine, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It slept for longer than its lease, and wakes up after the other one has ended."""
    monkeypatch.setattr("videogen.journal.base.LEASE_S", 0.5)
    monkeypatch.setattr("videogen.execution.lease.HEARTBEAT_S", 1000)
    stage.emulate()
    async with open_run(await prepare_job(job_of(*PROMPTS), machine.options)) as frozen:
        machine.another("second")
        assert only(await machine.shoot(PROMPTS[0])).status == "success"
        monkeypatch.chdir(stage.folder / "first")
        boat, *others = await frozen.make_clips()
    assert boat.reused
    assert [code(clip) for clip in others] == ["lease-lost"] * 2
    stage.books(creates=1, billed=1)
    assert (await machine.shoot(*PROMPTS)).successful_clips == 3
    stage.books(creates=3, billed=3)


async def test_where_files_are_made_is_told_from_the_address(machine: Machine, stage: Stage, bucket: Bucket) -> None:
    """So that two buckets, or a bucket and the disk, do not mix."""
    stage.emulate()
    await machine.shoot("A boat")
    made = Path("out") / "s3" / bucket.name / "films" / "job"
    assert (made / "manifest.json").exists()
