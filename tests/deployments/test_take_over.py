"""Runs of a schedule and lost workers, on a real server with real workers: who is taken over, and how often."""

from collections.abc import Iterator
from datetime import datetime
from itertools import count, pairwise

import pytest

from tests.deployments.stage import Stage, job_of, stage_in

pytestmark = [pytest.mark.xdist_group("take-over"), pytest.mark.timeout(900), pytest.mark.long]
_names = count(1)
EVERY_MINUTE, TICK_S, TICKS = "* * * * *", 60, 4


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("take-over")
    with stage_in(folder / "stage", folder / "films", latency_s=(2.0, 4.0)) as stage:
        yield stage


@pytest.fixture
def stage(house: Stage) -> Stage:
    """With two workers, and no prediction in its ledger."""
    for name in {"one", "two"} - house.workers.keys():
        house.start_worker(name, bounded=False)
    house.emulator.reset()
    return house


def test_a_schedule_makes_as_many_runs_as_it_ticks(stage: Stage) -> None:
    """Each is run once, and stays ended while others are looked after: for three minutes, which a take-over of what
    has ended would need half of."""
    job = f"film-{next(_names)}"
    schedule = stage.add_schedule(job_of(job, 2), cron=EVERY_MINUTE)
    stage.wait_for_runs(job, TICKS)
    stage.remove_schedule(schedule)
    due = [datetime.fromisoformat(run["expected_start_time"]) for run in stage.begun_runs_of(job)]
    assert [(b - a).total_seconds() for a, b in pairwise(due)] == [TICK_S] * (len(due) - 1)
    runs = [run["id"] for run in stage.begun_runs_of(job)]
    assert stage.wait_for_end(*runs) == ["Completed"] * len(runs)
    for run in runs:
        states = stage.states(run)
        assert (states.count("Running"), states.count("TakenOver"), states[-1]) == (1, 0, "Completed")
    ledger = stage.emulator.ledger()
    assert (ledger["creates"], ledger["running"]) == (2 * len(runs), 0)


def test_a_run_whose_worker_is_killed_is_taken_over_once_and_stopped_ones_are_not(stage: Stage) -> None:
    """Its clips are made by the new worker, and none is paid for twice. Runs that a person has suspended or paused
    stay so, though their worker was killed, too."""
    stopped: dict[str, str] = {}
    for state in ("Suspended", "Paused"):
        job = f"film-{next(_names)}"
        stopped[state] = stage.schedule(job_of(job, 100) | {"concurrency": 1})  # longer than all that follows
        stage.wait_for_creates(2, job_id=job)
        stage.pause(stopped[state], state)
    job = f"film-{next(_names)}"
    lost = stage.schedule(job_of(job, 12))
    stage.wait_for_creates(7, job_id=job)
    for name in list(stage.workers):
        stage.kill_worker(name)
    stage.start_worker("one", bounded=False)
    assert stage.wait_for_end(lost, within_s=600) == ["Completed"]
    assert stage.states(lost).count("TakenOver") == 1
    made = stage.predictions_of(job)
    assert [prediction["status"] for prediction in made] == ["succeeded"] * 12
    for state, flow_run in stopped.items():
        assert stage.state(flow_run)["name"] == state
        assert "TakenOver" not in stage.states(flow_run)


def test_a_cancel_in_prefect_ends_the_run_of_a_worker(stage: Stage) -> None:
    """Once Prefect says that it is cancelled nothing is created any more, and nothing runs."""
    flow_run = stage.schedule(job_of(f"film-{next(_names)}", 40))
    stage.wait_for_creates(8)
    stage.cancel(flow_run)
    assert stage.wait_for_end(flow_run) == ["Cancelled"]
    ledger = stage.emulator.ledger()
    assert (ledger["creates"] < 40, ledger["cancels"] > 0, ledger["running"]) == (True, True, 0)
    assert stage.verdict(flow_run) == "interrupted"
