"""One limit over many runs and processes, over SQLite and PostgreSQL."""

import asyncio
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from itertools import accumulate
from pathlib import Path
from threading import Event

import pytest

from videogen.app import open_run, prepare_job
from videogen.cli import main as cli
from videogen.errors import SettingsError
from videogen.execution.options import RunOptions
from videogen.execution.runner import JobRunner
from videogen.execution.shared_limit import SharedLimit, join_limit
from videogen.execution.slots import Slot, Slots
from videogen.job.model import Job
from videogen.journal.store import Journal

pytestmark = pytest.mark.integration

NAME = "replicate"
FORK = multiprocessing.get_context("fork")


@pytest.fixture
def journal(journal_url: str) -> Iterator[Journal]:
    with closing(Journal(journal_url)) as journal:
        yield journal


def videogen(*arguments: str) -> int:
    """The exit code of a command line."""
    try:
        return cli.main(arguments)
    except SystemExit as exc:
        return int(exc.code or 0)


def start_runs(journal: Journal, *run_ids: str) -> None:
    for run_id in run_ids:
        journal.start_run(run_id, job_id=f"job-{run_id}", origin="fake", folder=run_id)


def drive(url: str, run_id: str, clips: int, clip_s: float, log: Path) -> None:
    """A run in a process of its own: clips that each hold a slot for a time, noted as they begin and end."""

    async def clip(slots: Slots) -> None:
        slot = Slot(slots)
        await slot.acquire()
        note(log, run_id, 1)
        await asyncio.sleep(clip_s)
        note(log, run_id, -1)
        slot.release()

    async def beat(journal: Journal) -> None:
        while True:
            await asyncio.sleep(0.5)
            journal.heartbeat(run_id)

    async def drive() -> None:
        with closing(Journal(url)) as journal:
            journal.start_run(run_id, job_id=run_id, origin="fake", folder=run_id)
            beating = asyncio.create_task(beat(journal))
            async with join_limit(journal, NAME, run_id) as shared:
                slots = Slots(5, shared)
                await asyncio.gather(*(clip(slots) for _ in range(clips)))
            beating.cancel()
            journal.end_run(run_id, verdict="complete")

    asyncio.run(drive())
    os._exit(0)


def note(log: Path, run_id: str, change: int) -> None:
    with log.open("a") as file:  # one short write to the end is never torn
        file.write(f"{time.monotonic()} {run_id} {change}\n")


def noted(log: Path) -> list[tuple[float, str, int]]:
    lines = (line.split() for line in log.read_text().splitlines()) if log.exists() else ()
    return sorted((float(at), run_id, int(change)) for at, run_id, change in lines)


def peak_of(log: Path) -> int:
    running, peak = 0, 0
    for _, _, change in noted(log):
        running += change
        peak = max(peak, running)
    return peak


def start(*arguments: object) -> "multiprocessing.context.ForkProcess":
    process = FORK.Process(target=drive, args=arguments, daemon=True)
    process.start()
    return process


def end(*processes: "multiprocessing.context.ForkProcess") -> None:
    for process in processes:
        process.join(60)
        assert process.exitcode == 0


def wait_until_begun(log: Path, count: int) -> None:
    deadline = time.monotonic() + 250
    while sum(change > 0 for _, _, change in noted(log)) < count:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.long_variants
def test_processes_together_stay_within_the_limit_and_use_it(
    journal: Journal, journal_url: str, tmp_path: Path
) -> None:
    """Three runs of eight clips, each allowed five: never more than four at once, and four most of the time."""
    journal.set_limit(NAME, 4)
    log = tmp_path / "log"
    end(*[start(journal_url, f"run{number}", 8, 0.5, log) for number in range(3)])
    assert peak_of(log) == 4
    assert len(noted(log)) == 48
    held = list(accumulate(change for _, _, change in noted(log)))
    assert held.count(4) >= 24 / 4  # the clips last equally long, so the slots are full once in each round of four
    assert journal.find_limit(NAME).used_by == ()  # type: ignore[union-attr]


@pytest.mark.long_variants
def test_of_many_that_ask_in_the_same_moment_as_many_are_granted_as_there_are_slots(
    journal: Journal, journal_url: str
) -> None:
    """Eight runs over two connections, five slots, twenty times."""
    journal.set_limit(NAME, 5)
    runs = [f"run{number}" for number in range(8)]
    start_runs(journal, *runs)
    with closing(Journal(journal_url)) as other, ThreadPoolExecutor(8) as pool:

        def ask(number: int) -> list[int]:
            return (journal, other)[number % 2].sync_tickets(NAME, runs[number], held=(), waiting=2)

        for _ in range(20):
            assert sum(map(len, pool.map(ask, range(8)))) <= 5
            list(pool.map(lambda run: journal.sync_tickets(NAME, run, held=(), waiting=0), runs))


@pytest.mark.long_variants
def test_a_run_that_comes_later_is_not_starved(journal: Journal, journal_url: str, tmp_path: Path) -> None:
    """A small run that asks while a large one holds every slot ends long before it."""
    journal.set_limit(NAME, 2)
    log = tmp_path / "log"
    large = start(journal_url, "large", 16, 0.4, log)
    wait_until_begun(log, 2)
    small = start(journal_url, "small", 2, 0.4, log)
    end(large, small)
    last_small = max(at for at, run_id, _ in noted(log) if run_id == "small")
    after_it = [run_id for at, run_id, change in noted(log) if at > last_small and change > 0]
    assert len(after_it) >= 5


def test_tickets_are_served_in_the_order_they_were_drawn(journal: Journal) -> None:
    """Over all runs; who is not first gets nothing although it asks first."""
    journal.set_limit(NAME, 1)
    start_runs(journal, "a", "b")
    (held,) = journal.sync_tickets(NAME, "a", held=(), waiting=1)
    assert journal.sync_tickets(NAME, "b", held=(), waiting=1) == []
    assert journal.sync_tickets(NAME, "a", held=(held,), waiting=1) == []
    assert journal.sync_tickets(NAME, "a", held=(), waiting=1) == []  # given back, but b drew its ticket earlier
    (of_b,) = journal.sync_tickets(NAME, "b", held=(), waiting=1)
    assert journal.sync_tickets(NAME, "b", held=(), waiting=0) == []
    (of_a,) = journal.sync_tickets(NAME, "a", held=(), waiting=1)
    assert held < of_b < of_a


def test_a_killed_runs_slots_come_back(
    journal: Journal, journal_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After its lease, neither sooner nor never; who waits gets them without being told."""
    monkeypatch.setattr("videogen.journal.base.LEASE_S", 3.0)
    journal.set_limit(NAME, 1)
    log = tmp_path / "log"
    killed = start(journal_url, "killed", 1, 60.0, log)
    wait_until_begun(log, 1)
    os.kill(killed.pid or 0, signal.SIGKILL)
    at = time.monotonic()
    end(start(journal_url, "next", 1, 0.1, log))
    begun = next(when for when, run_id, _ in noted(log) if run_id == "next")
    assert 1.5 < begun - at < 4.5


def test_a_run_that_was_cut_off_holds_its_slots_when_it_is_back(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lease ended and its slot was taken; seen again, it counts again."""
    journal.set_limit(NAME, 1)
    start_runs(journal, "cut-off", "other")
    (held,) = journal.sync_tickets(NAME, "cut-off", held=(), waiting=1)
    journal.release_lease("cut-off")
    (of_other,) = journal.sync_tickets(NAME, "other", held=(), waiting=1)
    journal.heartbeat("cut-off")
    assert journal.sync_tickets(NAME, "other", held=(), waiting=1) == []
    assert journal.sync_tickets(NAME, "cut-off", held=(), waiting=1) == []  # it draws a new ticket, behind
    assert of_other > held


def test_a_changed_number_takes_effect_in_a_run_that_goes_on(
    journal: Journal, journal_url: str, tmp_path: Path
) -> None:
    """From one to three at once, without a restart."""
    journal.set_limit(NAME, 1)
    log = tmp_path / "log"
    run = start(journal_url, "run", 12, 0.4, log)
    wait_until_begun(log, 3)
    assert peak_of(log) == 1
    journal.set_limit(NAME, 3)
    end(run)
    assert peak_of(log) == 3


async def test_a_slot_granted_to_a_cancelled_clip_is_given_back(journal: Journal) -> None:
    """Also when nobody else of its run waits."""
    journal.set_limit(NAME, 1)
    start_runs(journal, "a", "b")
    async with join_limit(journal, NAME, "a") as a, join_limit(journal, NAME, "b") as b:
        ticket = await a.acquire()
        waiting = [asyncio.create_task(b.acquire()) for _ in range(2)]
        await asyncio.sleep(0.3)
        waiting[0].cancel()
        a.release(ticket)
        b.release(await asyncio.wait_for(waiting[1], 5))
        last = await asyncio.wait_for(a.acquire(), 5)
        waiting[0].cancel()
        a.release(last)
    with suppress(asyncio.CancelledError):
        await waiting[0]
    assert journal.find_limit(NAME).used_by == ()  # type: ignore[union-attr]


async def test_a_slot_that_comes_for_a_clip_cancelled_meanwhile_is_free(journal: Journal) -> None:
    """Cancelled while the journal grants it: the journal is told, though nothing else happens."""
    journal.set_limit(NAME, 1)
    start_runs(journal, "a")
    slow = _Slow(journal)
    async with join_limit(slow, NAME, "a") as limit:  # type: ignore[arg-type]
        waiting = asyncio.create_task(limit.acquire())
        await asyncio.to_thread(slow.granting.wait, 5)
        waiting.cancel()
        slow.go_on.set()
        await asyncio.sleep(0.5)
        assert journal.find_limit(NAME).used_by == ()  # type: ignore[union-attr]


class _Slow:
    """A journal whose answer is kept back."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.granting, self.go_on = Event(), Event()

    def sync_tickets(self, *arguments: str, held: frozenset[int], waiting: int) -> list[int]:
        granted = self._journal.sync_tickets(*arguments, held=held, waiting=waiting)
        self.granting.set()
        self.go_on.wait(5)
        return granted


async def test_a_grant_whose_answer_was_lost_is_free_again(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the run does not know that it holds, it does not hold."""
    journal.set_limit(NAME, 1)
    start_runs(journal, "a")
    journal.sync_tickets(NAME, "a", held=(), waiting=1)
    async with join_limit(journal, NAME, "a") as limit:
        assert await asyncio.wait_for(limit.acquire(), 5)


async def test_a_journal_that_fails_for_a_while_loses_no_slot(journal: Journal) -> None:
    """Who waits goes on waiting, and what was given back meanwhile comes back."""
    journal.set_limit(NAME, 1)
    start_runs(journal, "a")
    limit = SharedLimit(_Failing(journal, 6), NAME, "a")  # type: ignore[arg-type]
    keeping = asyncio.create_task(limit.run())
    for _ in range(3):
        limit.release(await asyncio.wait_for(limit.acquire(), 10))
    limit.close()
    await keeping


class _Failing:
    """A journal whose first calls fail, and then every other one."""

    def __init__(self, journal: Journal, failures: int) -> None:
        self._journal, self._failures, self._calls = journal, failures, 0

    def sync_tickets(self, *arguments: str, held: frozenset[int], waiting: int) -> list[int]:
        from videogen.errors import JournalError

        self._calls += 1
        granted = self._journal.sync_tickets(*arguments, held=held, waiting=waiting)
        if self._calls <= self._failures or self._calls % 2:
            raise JournalError("the connection was lost")  # after the commit: the worse case
        return granted


@pytest.mark.parametrize("journal_url", ["sqlite", pytest.param("postgresql", marks=pytest.mark.long)], indirect=True)
async def test_a_run_without_its_limit_does_not_start(
    journal_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With PostgreSQL it is `replicate`, unless another one is asked for; the error says how to create it."""
    monkeypatch.setenv("VIDEOGEN_JOURNAL_URL", journal_url)
    job = Job.model_validate({"scenes": [{"id": "a", "prompt": "p", "target_duration": 5}]})
    options = RunOptions(out=str(tmp_path), provider="local")
    if journal_url.startswith("postgresql"):
        with pytest.raises(SettingsError, match="create it: videogen limit replicate 5"):
            async with open_run(await prepare_job(job, options)):
                pass
    monkeypatch.setenv("VIDEOGEN_LIMIT", "ours")
    with pytest.raises(SettingsError, match="create it: videogen limit ours 5"):
        async with open_run(await prepare_job(job, options)):
            pass
    assert videogen("limit", "ours", "7") == 0
    async with open_run(await prepare_job(job, options)) as session:
        assert JobRunner is type(session)


def test_the_command_creates_changes_and_shows_a_limit(
    journal: Journal, journal_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Twice is as good as once; without a number it only shows, and says when there is none."""
    monkeypatch.setenv("VIDEOGEN_JOURNAL_URL", journal_url)
    assert videogen("limit", NAME) == 2
    assert "create it: videogen limit replicate 5" in capsys.readouterr().err
    assert [videogen("limit", NAME, slots) for slots in ("5", "5", "3")] == [0, 0, 0]
    start_runs(journal, "a")
    assert len(journal.sync_tickets(NAME, "a", held=(), waiting=4)) == 3
    capsys.readouterr()
    assert videogen("limit", NAME) == 0
    assert capsys.readouterr().out == "replicate: 3 slots, 3 held\n  run a of job-a: 3 held, 1 waiting\n"
    assert videogen("limit", NAME, "-1") == 2
