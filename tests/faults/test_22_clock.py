"""The wall clock jumps between two runs: what the journal says of times is then no measure of them."""

import asyncio
import sqlite3
from datetime import UTC, datetime, timedelta

import pytest

from tests.faults.conftest import Stage, code, job_of, only
from videogen.app import open_run, prepare_job

HOURS = [pytest.param(timedelta(hours=-1), id="past"), pytest.param(timedelta(hours=1), id="future")]


async def left_open(stage: Stage, jump: timedelta, *, known: bool = True) -> None:
    """An attempt as a killed run leaves it, whose `intended_at` is that far from now.

    Its prediction runs; whether its id is `known` is whether the run lived long enough to write it down.
    """
    async with open_run(await prepare_job(job_of(timeout_seconds=1), stage.options)) as session:
        (request,), run = session.plan.requests, session.run
        attempt = await run.journal.record_intent(request, run_id=run.id, origin=run.provider.origin, folder=run.folder)
        prediction = await run.provider.create(
            request.prediction.endpoint, None, request.prediction.inputs, cancel_after_s=60
        )
        if known:
            assert await run.journal.record_prediction(attempt, prediction.id, prediction.created_at)
    then = datetime.now(UTC) + jump
    with sqlite3.connect(stage.folder / "out" / "journal.db") as db:
        db.execute("UPDATE attempts SET intended_at = ?", (then.strftime("%Y-%m-%d %H:%M:%S.%f"),))
    db.close()


@pytest.mark.long_variants
@pytest.mark.parametrize("jump", HOURS)
async def test_22_a_clip_found_again_after_a_jump_has_time_to_finish(stage: Stage, jump: timedelta) -> None:
    """An hour by the wall clock does not make it late: it is waited for, neither cancelled nor made again."""
    stage.emulate(latency_s=(1.5, 1.5))
    await left_open(stage, jump)
    clip = only(await stage.shoot(timeout_seconds=10))
    assert (clip.status, clip.attempts) == ("success", 1)
    stage.books(creates=1, billed=1)


@pytest.mark.parametrize("jump", HOURS)
async def test_22_a_clip_found_again_after_a_jump_still_has_a_deadline(stage: Stage, jump: timedelta) -> None:
    """What is stuck is cancelled after the clip's timeout, not an hour later."""
    stage.emulate('do = "stick"')
    await left_open(stage, jump)
    async with asyncio.timeout(250):  # far less than the hour of the jump
        clip = only(await stage.shoot(timeout_seconds=1, attempts=1))
    assert code(clip) == "timeout"
    stage.books(creates=1, billed=1, cancels=1)


@pytest.mark.parametrize("jump", HOURS)
async def test_22_a_create_that_was_lost_before_a_jump_is_found(stage: Stage, jump: timedelta) -> None:
    """It may have been created long after, or long before, the intent by the clock of the journal."""
    stage.emulate()
    await left_open(stage, jump, known=False)
    assert only(await stage.shoot()).status == "success"
    stage.books(creates=1, billed=1)


async def test_22_what_a_clip_took_is_never_less_than_nothing(stage: Stage) -> None:
    """The manifest's `generation_time` is read by people who add it up."""
    stage.emulate()
    await left_open(stage, timedelta(hours=1))
    assert 0 <= only(await stage.shoot()).generation_time < 600
