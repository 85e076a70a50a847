"""Scheduled runs on several workers, with a server, a journal and a limit that they share."""

import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.deployments.stage import Stage, Use, job_of, stage_in

pytestmark = [pytest.mark.xdist_group("deployments"), pytest.mark.timeout(900), pytest.mark.long]
_names = count(1)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("deployments")
    with stage_in(folder / "stage", folder / "films", latency_s=(2.0, 4.0)) as stage:
        for name in ("one", "two"):
            stage.start_worker(name)
        yield stage


@pytest.fixture
def stage(house: Stage) -> Stage:
    """With two workers, and no prediction in its ledger."""
    house.kill_worker("alone")
    for name in {"one", "two"} - house.workers.keys():
        house.start_worker(name)
    house.emulator.reset()
    return house


def use_of(stage: Stage, *, clips: int) -> Use:
    """How the account was used, which must be for these clips only, once each."""
    ledger = stage.emulator.ledger()
    assert (ledger["creates"], ledger["cancels"], ledger["running"]) == (clips, 0, 0)
    assert {each["status"] for each in ledger["predictions"]} == {"succeeded"}
    return Use.of(ledger["predictions"])


def clips_of(folder: Path) -> int:
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["verdict"]["status"] == "complete"
    return sum((folder / clip["video_path"]).stat().st_size > 0 for clip in manifest["clips"])


def test_scheduled_runs_of_two_workers_share_five_slots(stage: Stage) -> None:
    """Three runs of thirty scenes, each of which would take five slots: never above five, and none waits for others."""
    jobs = [f"film-{next(_names)}" for _ in range(3)]
    flow_runs = [stage.schedule(job_of(job, 30)) for job in jobs]
    assert stage.wait_for_end(*flow_runs) == ["Completed"] * 3
    assert [clips_of(stage.folder / "out" / job) for job in jobs] == [30] * 3
    assert use_of(stage, clips=90).peak == 5
    ledger = stage.emulator.ledger()["predictions"]
    begun = [each["input"]["prompt"].partition(",")[0] for each in ledger[:60]]
    assert set(begun) == set(jobs), "a run waited until others had ended"


def test_another_worker_takes_the_run_of_a_killed_one_over(stage: Stage) -> None:
    """Its machine is gone: the same flow run goes on elsewhere, and pays for nothing again."""
    job = f"film-{next(_names)}"
    flow_run = stage.schedule(job_of(job, 12))
    stage.wait_for_creates(7)
    stage.kill_worker(stage.worker_of(flow_run))
    stage.hand_over(flow_run)
    assert stage.wait_for_end(flow_run) == ["Completed"]
    assert clips_of(stage.folder / "out" / job) == 12
    assert use_of(stage, clips=12).peak == 5
    assert stage.states(flow_run).count("Running") == 2


def test_a_run_that_is_taken_over_while_it_lives_is_made_once(stage: Stage) -> None:
    """Its heartbeats were lost, not the run: the second one is refused, and the first one's end is what counts. It may
    come to the same worker."""
    for name in list(stage.workers):
        stage.kill_worker(name)
    stage.start_worker("alone", bounded=False)
    job = f"film-{next(_names)}"
    flow_run = stage.schedule(job_of(job, 60) | {"concurrency": 2})  # 90 s: the second one comes within them
    stage.wait_for_creates(3)
    stage.hand_over(flow_run)
    assert "another run holds" in stage.refusal(flow_run, within_s=85)
    stage.wait_for_state(flow_run, "Completed")
    assert clips_of(stage.folder / "out" / job) == 60
    assert use_of(stage, clips=60).peak == 2


def test_a_run_outlives_a_restart_of_prefects_server(stage: Stage) -> None:
    """Killed and started again in mid-run: all clips, and the state says so."""
    job = f"film-{next(_names)}"
    flow_run = stage.schedule(job_of(job, 12))
    stage.wait_for_creates(6)
    stage.kill_server()
    stage.start_server()
    assert stage.wait_for_end(flow_run) == ["Completed"]
    assert clips_of(stage.folder / "out" / job) == 12
    use_of(stage, clips=12)


def test_setting_up_again_doubles_nothing(stage: Stage) -> None:
    """One of each automation and deployment, and the limit as it was said last."""
    before = stage.set_up_things()
    stage.set_up("4")
    assert stage.set_up_things() == before
    assert stage.limit() == 4
    stage.set_up()
    assert stage.limit() == 5


def test_the_second_deployment_makes_what_the_last_run_has_not(stage: Stage) -> None:
    """From a job file beside the clips: nine of ten clips are kept, whatever the file says of them now."""
    job, file = job_of(f"film-{next(_names)}", 10), stage.folder / "film.json"
    assert stage.wait_for_end(stage.schedule(job)) == ["Completed"]
    next((stage.folder / "out" / job["id"] / "clips").glob("s003*.mp4")).unlink()
    for scene in job["scenes"]:
        scene["prompt"] += ", at night"
    file.write_text(json.dumps(job))
    stage.emulator.reset()
    flow_run = stage.schedule(file.name, deployment="retry-failed")
    assert stage.wait_for_end(flow_run) == ["Completed"]
    assert clips_of(stage.folder / "out" / job["id"]) == 10
    use_of(stage, clips=1)
