"""A disk that is full, at the moments at which a run writes: a small file system of its own, filled to the brim."""

import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.faults.conftest import PROMPT, Stage, job_of, only, shot
from videogen.app import open_run, prepare_job
from videogen.errors import JournalError, StorageError
from videogen.events import ClipCompleted, ClipStarted, RunEvent
from videogen.results.run_result import RunResult

PAGE = 4096


class Disk:
    """A file system of a few megabytes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._filler = root / "filler"

    def fill(self, *, but_bytes: int = 0) -> None:
        """Leaves that much room, in whole pages."""
        with suppress(OSError), self._filler.open("ab", buffering=0) as file:
            while True:
                file.write(bytes(PAGE))
        with self._filler.open("r+b") as file:
            file.truncate(self._filler.stat().st_size - but_bytes)

    def empty(self) -> None:
        self._filler.unlink()


DiskAt = Callable[[str], Disk]
JournalAt = Callable[[Path], Path]


@pytest.fixture
def disk_at(tmp_path: Path) -> Iterator[Callable[[str], Disk]]:
    """Mounts one in the test's folder under a name."""
    mounted: list[Path] = []

    def mount(name: str) -> Disk:
        root = tmp_path / name
        root.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(root)]
        if sys.platform != "linux" or subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("a file system can be mounted on Linux by root only")
        mounted.append(root)
        return Disk(root)

    yield mount
    for root in mounted:
        subprocess.run(["umount", "--lazy", str(root)], check=True)


@pytest.fixture
def journal_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Path]:
    """Has runs keep their journal in a folder."""

    def keep(folder: Path) -> Path:
        monkeypatch.setenv("VIDEOGEN_JOURNAL_URL", f"sqlite:///{folder / 'journal.db'}")
        return folder / "journal.db"

    return keep


async def shoot_and(
    then: Callable[[], None], on: type[RunEvent], stage: Stage, *prompts: str, **fields: Any
) -> RunResult:
    """A job, and what happens when it tells the first event of a kind."""
    prepared = await prepare_job(job_of(*prompts, **fields), stage.options)
    waiting = [then]

    def listen(event: RunEvent, _payload: object) -> None:
        if isinstance(event, on) and waiting:
            waiting.pop()()

    async with open_run(prepared, listen) as session:
        return await shot(session)


def assert_valid(journal: Path, *, known: int) -> None:
    """The database is whole, and knows the predictions of at least so many attempts."""
    with closing(sqlite3.connect(journal)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        rows = db.execute("SELECT prediction_id FROM attempts").fetchall()
    assert len([prediction_id for (prediction_id,) in rows if prediction_id]) >= known


@pytest.mark.long_variants
@pytest.mark.parametrize(
    ("outputs", "posters", "what", "fields"),
    [
        pytest.param(0.5, 0, r"cannot write \w+\.part", {}, id="output"),
        pytest.param(1, 0.5, r"\.(jpg|conformed\.mp4): cannot be written", {}, id="poster"),
        pytest.param(
            1, 2, r"\.conformed\.mp4: cannot be written", {"model": "tall", "aspect_ratio": "9:16"}, id="conformed"
        ),
    ],
)
async def test_23_a_clip_that_finds_no_room_is_only_downloaded_later(
    stage: Stage, disk_at: DiskAt, journal_at: JournalAt, outputs: float, posters: float, what: str, fields: Any
) -> None:
    """Wherever the room ends: in the download, in its poster, in what is made of it. No part is left to fill it."""
    journal, disk = journal_at(stage.folder), disk_at("out")
    stage.emulate()
    await stage.shoot(PROMPT, **fields)
    (poster,) = stage.job_folder.glob("posters/*")
    room_bytes = round(outputs * stage.emulator.ledger()["bytes_served"] + posters * poster.stat().st_size)
    batch = await shoot_and(lambda: disk.fill(but_bytes=room_bytes), ClipStarted, stage, PROMPT, PROMPT, **fields)
    error = batch.clips[1].error
    assert error
    assert (error.code, error.retryable) == ("storage", False)
    assert re.search(f"{what}: No space left on device", error.message)
    assert [path.name for path in stage.job_folder.glob(".scratch/*")] == []
    assert_valid(journal, known=2)
    disk.empty()
    assert (await stage.shoot(PROMPT, PROMPT, **fields)).successful_clips == 2
    stage.books(creates=2, billed=2)


async def test_23_a_journal_that_finds_no_room_stops_the_run_and_stays_valid(
    stage: Stage, disk_at: DiskAt, journal_at: JournalAt
) -> None:
    """What cannot be written down is not done; the next run goes on from what was."""
    disk = disk_at("journals")
    journal = journal_at(disk.root)
    stage.emulate()
    with pytest.raises(JournalError, match=r"database or disk is full\. Make room on its disk, and run the job again"):
        await shoot_and(disk.fill, ClipStarted, stage, PROMPT, PROMPT)
    disk.empty()
    assert_valid(journal, known=1)
    batch = await stage.shoot(PROMPT, PROMPT)
    assert [(clip.status, clip.attempts) for clip in batch.clips] == [("success", 1)] * 2
    stage.books(creates=2, billed=2)


async def test_23_a_manifest_that_finds_no_room_loses_no_clip(stage: Stage, disk_at: DiskAt) -> None:
    """The run says so; the next one has its clips for nothing."""
    disk = disk_at("out")
    stage.emulate()
    with pytest.raises(StorageError, match=r"cannot write manifest.json: No space left on device"):
        await shoot_and(disk.fill, ClipCompleted, stage)
    assert not (stage.job_folder / "manifest.json").exists()
    disk.empty()
    assert only(await stage.shoot()).reused
    assert (stage.job_folder / "manifest.json").is_file()
    stage.books(creates=1, billed=1)
