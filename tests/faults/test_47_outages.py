"""A PostgreSQL journal that is away or silent during a run: nothing is created without it, and nobody waits for it in
vain. For each transition on its own, see `tests/journal/test_outages.py`."""

import asyncio
import threading
from collections.abc import Mapping
from typing import Any

import pytest
import sqlalchemy as sa

from tests.faults.conftest import PRICE, Stage, job_of, shot
from tests.support.database_wire import DatabaseWire
from videogen.app import open_run, prepare_job
from videogen.events import ClipStarted, RunEvent
from videogen.execution import creation, lease, prediction, recorder
from videogen.journal import async_store, postgres

PROMPTS = ("A boat", "A pier", "A gull", "A whale")
ENOUGH_S = 20
"""Ends a test in which a run waits for longer than it says. Nothing takes nearly as long."""


@pytest.fixture
def stage(stage: Stage, wired_url: str, direct_url: str) -> Stage:
    """With its journal on PostgreSQL, over a wire."""
    stage.keep_journal_at(wired_url, direct_url=direct_url)
    return stage


async def wait_for_refusals(wire: DatabaseWire, number: int) -> None:
    """Wait until the run has asked for so many connections more that it did not get."""
    for _ in range(number):
        assert await asyncio.to_thread(wire.refused.acquire, timeout=ENOUGH_S)


async def wait_for_end_of_predictions(stage: Stage) -> dict[str, Any]:
    """Return the ledger once nothing runs any more."""
    async with asyncio.timeout(ENOUGH_S):
        while (ledger := await asyncio.to_thread(stage.emulator.ledger))["running"]:
            await asyncio.sleep(0.05)
    return ledger


def count_intents(url: str) -> int:
    engine = sa.create_engine(url)
    with engine.connect() as db:
        number: int = db.exec_driver_sql("SELECT count(*) FROM attempts").scalar_one()
    engine.dispose()
    return number


async def test_47_a_run_creates_nothing_during_an_outage_and_goes_on_after_it(
    stage: Stage, wire: DatabaseWire, direct_url: str
) -> None:
    """The database goes away after the first create. What runs is waited for, and each clip is paid once."""
    stage.emulate()
    away = asyncio.Event()

    def go_away(event: RunEvent, _payload: Mapping[str, Any]) -> None:
        if isinstance(event, ClipStarted) and not away.is_set():
            wire.is_down = True
            away.set()

    async with open_run(await prepare_job(job_of(*PROMPTS, concurrency=2), stage.options), go_away) as session:
        running = asyncio.create_task(shot(session))
        await away.wait()
        await wait_for_refusals(wire, 1)
        before = await wait_for_end_of_predictions(stage)
        await wait_for_refusals(wire, 3)
        during = await asyncio.to_thread(stage.emulator.ledger)
        assert before["creates"] == during["creates"] < len(PROMPTS)
        assert during["creates"] <= count_intents(direct_url)
        assert not running.done()
        wire.is_down = False
        batch = await running
    assert (batch.verdict.status, batch.job_cost) == ("complete", len(PROMPTS) * PRICE)
    stage.books(creates=len(PROMPTS), billed=len(PROMPTS))


async def test_47_a_run_that_is_cancelled_does_not_wait_for_a_silent_journal(
    stage: Stage, wire: DatabaseWire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step of its end has its own patience. Its prediction is cancelled all the same."""
    monkeypatch.setattr(postgres, "SILENCE_S", 2 * ENOUGH_S)
    for module, name in (
        (creation, "CLEAN_UP_S"),
        (prediction, "CLEAN_UP_S"),
        (recorder, "FLUSH_S"),
        (lease, "FLUSH_S"),
        (async_store, "CLOSING_S"),
    ):
        monkeypatch.setattr(module, name, 0.5)
    stage.emulate(latency_s=(60, 60))
    started = asyncio.Event()

    def note(event: RunEvent, _payload: Mapping[str, Any]) -> None:
        if isinstance(event, ClipStarted):
            started.set()

    async def run() -> None:
        async with open_run(await prepare_job(job_of("A boat"), stage.options), note) as session:
            await session.make_clips()

    running = asyncio.create_task(run())
    await started.wait()
    wire.plan = lambda _: "silent"
    running.cancel()
    _, late = await asyncio.wait([running], timeout=ENOUGH_S)
    assert not late
    assert running.cancelled()
    ledger = stage.emulator.ledger()
    assert (ledger["creates"], ledger["cancels"], ledger["running"]) == (1, 1, 0)


@pytest.mark.parametrize("moment", ["plan", "start"])
def test_47_ctrl_c_before_a_run_does_not_wait_for_a_silent_journal(
    moment: str, stage: Stage, wire: DatabaseWire
) -> None:
    """Nor does the thread that asks the journal: a program ends only after its threads."""
    stage.emulate()

    async def begin() -> None:
        if moment == "plan":
            wire.plan = lambda _: "silent"
        prepared = await prepare_job(job_of("A boat"), stage.options)
        wire.plan = lambda _: "silent"
        async with open_run(prepared):
            pass

    async def interrupt() -> None:
        beginning = asyncio.create_task(begin())
        while not wire.faults:
            await asyncio.sleep(0.01)
        beginning.cancel()
        await beginning

    def run() -> None:
        with pytest.raises(asyncio.CancelledError):
            asyncio.run(interrupt())

    program = threading.Thread(target=run, daemon=True)
    program.start()
    program.join(ENOUGH_S)
    assert wire.faults
    assert not program.is_alive()
