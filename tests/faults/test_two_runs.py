"""Two runs on one journal at the same time, as two terminals or two machines have them."""

import asyncio
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from tests.faults.conftest import PRICE, Stage, job_of, only
from tests.support.builders import request_of
from videogen.app import open_run, prepare_job
from videogen.errors import BudgetError
from videogen.journal.store import Journal


async def test_two_jobs_with_the_same_scene_pay_for_it_once(stage: Stage) -> None:
    """The second waits for the first, then takes over its clip."""
    stage.emulate(latency_s=(0.5, 0.5))
    first, second = await asyncio.gather(stage.shoot("A boat", id="one"), stage.shoot("A boat", "A gull", id="two"))
    shared = [only(first), second.clips[0]]
    assert sorted(clip.reused for clip in shared) == [False, True]
    assert shared[0].sha256 == shared[1].sha256
    assert second.successful_clips == 2
    stage.books(creates=2, billed=2)


async def test_three_runs_of_one_job_on_one_postgresql_pay_for_each_clip_once(stage: Stage, direct_url: str) -> None:
    """As three machines have them, each with a folder of its own: all have all clips in the end."""
    stage.keep_journal_at(direct_url, direct_url=direct_url)
    stage.emulate()
    folders = [stage.folder / f"machine-{number}" for number in range(3)]
    batches = await asyncio.gather(
        *(stage.shoot("A boat", "A pier", "A gull", options={"out": str(folder)}) for folder in folders)
    )
    assert [batch.verdict.status for batch in batches] == ["complete"] * 3
    for clips in zip(*(batch.clips for batch in batches), strict=True):
        assert sorted(clip.reused for clip in clips) == [False, True, True]
        assert len({clip.sha256 for clip in clips}) == 1
    assert [batch.job_cost for batch in batches] == [3 * PRICE] * 3
    assert all((folder / "job" / str(clip.video_path)).is_file() for folder in folders for clip in batches[0].clips)
    stage.books(creates=3, billed=3)


async def test_what_a_dead_run_of_another_job_began_is_continued(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once it has not been heard of for the length of a lease: its prediction is waited for, not made again."""
    monkeypatch.setattr("videogen.journal.base.LEASE_S", 1.0)
    stage.emulate()
    async with open_run(await prepare_job(job_of("A boat", id="one"), stage.options)) as session:
        (request,), run = session.plan.requests, session.run
        attempt = await run.journal.record_intent(request, run_id=run.id, origin=run.provider.origin, folder=run.folder)
        prediction = await run.provider.create(
            request.prediction.endpoint, None, request.prediction.inputs, cancel_after_s=60
        )
        assert await run.journal.record_prediction(attempt, prediction.id, prediction.created_at)
    with closing(sqlite3.connect(stage.folder / "out" / "journal.db", isolation_level=None)) as db:
        now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
        db.execute("UPDATE runs SET ended_at = NULL, seen_at = ?", (now,))  # as kill -9 leaves it
    clip = only(await stage.shoot("A boat", id="two"))
    assert (clip.status, clip.prediction_ids) == ("success", (prediction.id,))
    with closing(sqlite3.connect(stage.folder / "out" / "journal.db")) as db:
        ((continued,),) = db.execute("SELECT at FROM events WHERE type = 'clip.started'")
    assert datetime.fromisoformat(continued) >= datetime.fromisoformat(now) + timedelta(seconds=1)
    stage.books(creates=1, billed=1)


def test_creates_of_two_processes_stay_within_the_budget(tmp_path: Path) -> None:
    """Each reserves its price in one transaction: of forty at once as many are made as the cap allows."""
    url = f"sqlite:///{tmp_path / 'journal.db'}"
    first = Journal(url)
    first.start_run("run", job_id="job", origin="here", folder="folder")
    journals = [first, Journal(url)]
    requests = [request_of(id=f"s{number}", take=number + 1) for number in range(40)]
    cap = 7 * requests[0].cost + Decimal("0.001")

    def intend(number: int) -> bool:
        try:
            journals[number % 2].record_intent(
                requests[number], run_id="run", origin="here", folder="folder", max_cost=cap
            )
        except BudgetError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(intend, range(40))) == 7
    for journal in journals:
        journal.close()


async def test_five_slots_stay_within_the_budget(stage: Stage) -> None:
    """No create could take what is reserved and spent above the cap; those that run finish."""
    stage.emulate('do = "fail"\nerror = "out of memory"\ntimes = 2')
    batch = await stage.shoot("a", "b", "c", "d", "e", max_cost=str(5 * PRICE), min_clips=1)
    assert batch.total_cost <= 5 * PRICE
    assert "budget" in batch.verdict.reason or batch.successful_clips == 5
    assert batch.verdict.status in {"partial", "complete"}
