"""Ctrl-C and SIGTERM, once and twice, and an output that nobody reads any more."""

import asyncio
import signal
import sqlite3
import time
from contextlib import closing

import pytest

from tests.faults.conftest import Stage, job_of, wait_for_creates
from tests.flows.conftest import CommandLine
from videogen.app import open_run, prepare_job


@pytest.mark.parametrize(
    ("number", "code"),
    [
        pytest.param(signal.SIGINT, 130, id="ctrl-c"),
        pytest.param(signal.SIGTERM, 143, id="sigterm", marks=pytest.mark.long),
    ],
)
def test_25_the_second_interruption_leaves_at_once_and_says_what_still_runs(
    stage: Stage, command: CommandLine, number: signal.Signals, code: int
) -> None:
    """Where cancels are not answered the first would wait for them; the ids are those of the ledger."""
    stage.emulate('on = "cancel"\ndo = "hang"\ntimes = "always"', latency_s=(30.0, 30.0))
    process = command.start(command.quick_job(5))
    wait_for_creates(stage, 5)
    time.sleep(0.5)  # until the ids are known: that a create was accepted is not yet that it was answered
    process.send_signal(number)
    assert process.stderr
    assert process.stderr.readline().startswith(
        "interrupted: cancelling running predictions; press Ctrl-C again to quit at once"
    )
    process.send_signal(number)
    _, err = process.communicate(timeout=250)
    assert process.returncode == code, err
    ledger = stage.emulator.ledger()
    ids = {row["id"] for row in ledger["predictions"]}
    assert ledger["running"] == len(ids) == 5
    assert set(err.splitlines()) == {f"may still be running: prediction {id_}" for id_ in ids}


@pytest.mark.long
def test_25_who_leaves_at_once_leaves_no_prefect_server_behind(stage: Stage, command: CommandLine) -> None:
    """The run's own server would hold the standard output, and its port, for ever."""
    stage.emulate('on = "cancel"\ndo = "hang"\ntimes = "always"', latency_s=(60.0, 60.0))
    del command.environment["PREFECT_API_URL"]
    process = command.start(command.quick_job(1))
    wait_for_creates(stage, 1)
    process.send_signal(signal.SIGINT)
    assert process.stderr
    while not process.stderr.readline().startswith("interrupted:"):
        pass
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=250)  # returns when nobody has its pipes any more
    assert process.returncode == 130


@pytest.mark.long
def test_25_who_is_killed_leaves_no_prefect_server_behind(stage: Stage, command: CommandLine) -> None:
    """Nothing can be done any more then: it looks after itself."""
    stage.emulate(latency_s=(60.0, 60.0))
    del command.environment["PREFECT_API_URL"]
    process = command.start(command.quick_job(1))
    wait_for_creates(stage, 1)
    process.kill()
    process.communicate(timeout=250)  # returns when nobody has its pipes any more


async def test_25_a_cancelled_run_waits_until_all_its_predictions_are_cancelled(stage: Stage) -> None:
    """Also with more clips than slots, whose waiting ones have nothing to wait for, and cancels that fail at first."""
    stage.emulate('on = "cancel"\ndo = "status"\nstatus = 502\ntimes = 5', latency_s=(30.0, 30.0))
    await interrupted(stage)
    ledger = stage.emulator.ledger()
    assert (ledger["creates"], ledger["cancels"], ledger["running"]) == (5, 5, 0)


async def test_25_an_interrupted_attempt_is_none(stage: Stage) -> None:
    """With one attempt for each clip the next run has one for each, also where nobody saw the cancel take effect."""
    stage.emulate(
        'do = "stick"\nnth_create = [1, 2, 3, 4, 5]\ntimes = 5', 'on = "cancel"\ndo = "lose_answer"\ntimes = "always"'
    )
    await interrupted(stage)
    with closing(sqlite3.connect(stage.folder / "out" / "journal.db", isolation_level=None)) as db:
        db.execute("UPDATE attempts SET state = 'created', ended_at = NULL")  # as a second Ctrl-C leaves them
    batch = await stage.shoot(*EIGHT, attempts=1)
    assert [(clip.status, clip.attempts) for clip in batch.clips] == [("success", 1)] * 8


@pytest.mark.long
def test_25_what_may_still_run_is_told(stage: Stage, command: CommandLine) -> None:
    """After one Ctrl-C, too, when no cancel was answered, by the ids of the ledger."""
    stage.emulate('on = "cancel"\ndo = "hang"\ntimes = "always"', latency_s=(60.0, 60.0))
    process = command.start(command.quick_job(8))
    wait_for_creates(stage, 5)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=250)
    assert process.returncode == 130, err
    told = {line for line in err.splitlines() if line.startswith("may still be running")}
    assert told == {f"may still be running: prediction {row['id']}" for row in stage.emulator.ledger()["predictions"]}


@pytest.mark.long
def test_25_who_stops_reading_does_not_stop_the_run(stage: Stage, command: CommandLine) -> None:
    """`… | head -1`: what is paid for is delivered."""
    stage.emulate(latency_s=(1.0, 1.0))
    process = command.start(command.quick_job(7))
    assert process.stdout
    assert process.stdout.readline().startswith("provider:")
    process.stdout.close()
    assert process.stderr
    with process.stderr:
        assert process.wait(250) == 0
    assert (stage.emulator.ledger()["creates"], stage.emulator.ledger()["running"]) == (7, 0)
    assert len(list(command.folder.glob("out/film/clips/*.mp4"))) == 7


EIGHT = tuple(f"scene {number}" for number in range(8))


async def interrupted(stage: Stage) -> None:
    """A run of eight clips that is cancelled when five predictions are running."""
    async with open_run(await prepare_job(job_of(*EIGHT), stage.options)) as session:
        clips = asyncio.create_task(session.make_clips())
        while stage.emulator.ledger()["running"] < 5:
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.3)
        clips.cancel()
        with pytest.raises(asyncio.CancelledError):
            await clips
