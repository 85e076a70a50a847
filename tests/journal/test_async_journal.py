"""The journal for an event loop, which goes on while the database is locked or silent."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders import request_of
from tests.support.database_wire import DatabaseWire
from videogen.errors import BudgetError, JournalError
from videogen.journal import postgres
from videogen.journal.async_store import AsyncJournal
from videogen.journal.store import Journal

TICKS = 30


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
async def journal(file: Path) -> AsyncIterator[AsyncJournal]:
    journal = AsyncJournal(Journal(f"sqlite:///{file}"))
    await journal.start_run("run1", job_id="job", origin="fake", folder="here")
    yield journal
    await journal.aclose()


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Another program writes to the file, and takes its time."""
    with closing(sqlite3.connect(file, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        yield
        db.execute("ROLLBACK")


async def tick() -> None:
    """The event loop goes round."""
    for _ in range(TICKS):
        await asyncio.sleep(0.005)


async def test_the_loop_goes_on_while_the_database_is_locked(journal: AsyncJournal, file: Path) -> None:
    with locked(file):
        intending = asyncio.create_task(
            journal.record_intent(request_of(), run_id="run1", origin="fake", folder="here")
        )
        await tick()
        assert not intending.done()
    assert (await intending).state == "intended"


async def test_calls_are_made_in_the_order_in_which_they_are_begun(journal: AsyncJournal, file: Path) -> None:
    with locked(file):
        calls = [asyncio.create_task(journal.add_event("run1", "clip.progress", {"n": n})) for n in range(20)]
        await tick()
    numbers = [await call for call in calls]
    assert numbers == sorted(numbers)
    assert [payload["n"] for _, _, payload in await journal.read_events("run1")] == list(range(20))


async def test_a_cancelled_call_is_made_once_all_the_same(journal: AsyncJournal, file: Path) -> None:
    """Also one that waits in line; and who was cancelled may clean up."""
    cleaned = []

    async def attempt(take: int) -> None:
        request = request_of(take=take)
        try:
            await journal.record_intent(request, run_id="run1", origin="fake", folder="here")
        except asyncio.CancelledError:
            opened = await journal.find_open_attempt("fake", request.key)
            assert opened
            await journal.record_end(opened, error="interrupted", message="the run was interrupted")
            cleaned.append(take)
            raise

    with locked(file):
        attempting = [asyncio.create_task(attempt(take)) for take in (1, 2)]
        await tick()
        for task in attempting:
            task.cancel()
        await tick()
    for task in attempting:
        with pytest.raises(asyncio.CancelledError):
            await task
    assert cleaned == [1, 2]
    assert [each.state for each in await journal.find_attempts("run1", "a")] == ["ended", "ended"]


async def test_errors_come_to_who_awaits_and_to_nobody_else(journal: AsyncJournal, file: Path) -> None:
    """One that is not awaited any more is not reported as lost by asyncio."""
    reported: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    call: dict[str, Any] = {"run_id": "run1", "origin": "fake", "folder": "here", "max_cost": request_of().cost / 2}
    with pytest.raises(BudgetError):
        await journal.record_intent(request_of(), **call)
    with locked(file):
        refused = asyncio.create_task(journal.record_intent(request_of(), **call))
        await tick()
        refused.cancel()
    with pytest.raises(asyncio.CancelledError):
        await refused
    await journal.read_events("run1")
    assert reported == []


async def test_a_journal_that_is_closed_finishes_what_is_begun(file: Path) -> None:
    journal = AsyncJournal(Journal(f"sqlite:///{file}"))
    calls = [asyncio.create_task(journal.add_event("run1", "clip.progress", {"n": n})) for n in range(5)]
    await asyncio.sleep(0)
    await journal.aclose()
    assert len([await call for call in calls]) == 5


async def test_a_silent_database_holds_up_neither_the_loop_nor_the_end(
    wired_url: str, wire: DatabaseWire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is given up at the end, though it would be waited for otherwise."""
    monkeypatch.setattr(postgres, "SILENCE_S", 10_000.0)
    journal = AsyncJournal(Journal(wired_url))
    wire.plan = lambda _: "silent"
    beating = asyncio.create_task(journal.heartbeat("run1"))
    await tick()
    assert not beating.done()
    await journal.aclose(within_s=0.05)
    with pytest.raises(JournalError, match="does not answer"):
        await beating
