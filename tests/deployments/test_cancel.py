"""A run on a worker is cancelled in Prefect, or its worker is stopped: what the ledger says then, and the states."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import count

import pytest

from tests.deployments.person import Person
from tests.deployments.stage import ROOT, Stage, job_of, stage_in
from tests.flows.conftest import wait_until

pytestmark = [pytest.mark.xdist_group("cancel"), pytest.mark.timeout(900), pytest.mark.long]
_names = count(1)
CALLER = """
from prefect import flow

from videogen import Job
from videogen.flows.generate import generate


@flow
async def make_film(job: Job) -> None:
    for number in range(3):
        await generate(job.model_copy(update={"id": f"{job.id}-{number}"}), return_state=True)
"""


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("cancel")
    with stage_in(folder / "stage", folder / "films", ui=True, latency_s=(600.0, 600.0)) as stage:
        (stage.folder / "caller.py").write_text(CALLER, encoding="utf-8")
        yield stage


def begin(stage: Stage) -> tuple[str, str]:
    """Return a job and the id of its flow run, of whose 12 predictions five are running."""
    job = f"film-{next(_names)}"
    flow_run = stage.schedule(job_of(job, 12))
    stage.wait_for_creates(5)
    return job, flow_run


def begin_called(stage: Stage) -> tuple[str, str, str]:
    """Return a job, the id of the flow run that calls `generate` three times, and the id of the first subflow run."""
    job = f"film-{next(_names)}"
    deployment = stage.create_deployment("make-film", job, entrypoint="caller.py:make_film")
    caller = stage.run_deployment(deployment, job=job_of(job, 12))
    stage.wait_for_creates(5)
    (called,) = stage.find_subflows(caller)
    return f"{job}-0", caller, called


def assert_cancelled(stage: Stage, job: str, flow_run: str) -> None:
    """All predictions are cancelled and none follows. State, journal and manifest say so."""
    wait_until(lambda: stage.emulator.ledger()["running"] == 0, tell=stage.logs)
    assert stage.wait_for_end(flow_run) == ["Cancelled"]
    wait_until(lambda: stage.workers_of(flow_run) == [])
    ledger = stage.emulator.ledger()
    assert (ledger["creates"], ledger["cancels"], ledger["running"]) == (5, 5, 0)
    assert stage.verdict(flow_run) == "interrupted"
    manifest = json.loads((stage.folder / "out" / job / "manifest.json").read_text())
    assert [clip["error"]["code"] for clip in manifest["clips"]] == ["interrupted"] * 12
    assert "0 of 12 clips delivered, $0.30 spent" in manifest["verdict"]["reason"]


def assert_told(stage: Stage, job: str) -> None:
    """The artifact with the verdict says who ended the run, and how to continue. Prefect's worker replaces the message
    of the state by one of its own."""
    artifacts = stage._post("artifacts/filter", {"artifacts": {"key": {"any_": [f"{job}-verdict"]}}})
    (text,) = (artifact["data"] for artifact in artifacts)
    assert text.startswith(f"# {job}: cancelled\n\ncancelled in Prefect: 0 of 12 clips delivered, $0.30 spent.")
    assert "Run the job again to continue" in text


def test_a_click_on_cancel_stops_spending(stage: Stage, person: Person) -> None:
    job, flow_run = begin(stage)
    person.cancel(flow_run)
    assert_cancelled(stage, job, flow_run)
    assert_told(stage, job)


def test_the_command_to_cancel_stops_spending(stage: Stage) -> None:
    job, flow_run = begin(stage)
    command = [sys.executable, "-m", "prefect", "flow-run", "cancel", flow_run]
    subprocess.run(command, env=stage.environment, cwd=ROOT, check=True, capture_output=True)
    assert_cancelled(stage, job, flow_run)


def test_a_worker_that_is_stopped_stops_spending(stage: Stage) -> None:
    """It kills the processes that it has started, but not Prefect's engine. A stopped run is not taken over."""
    job, flow_run = begin(stage)
    stage.workers["one"].send_signal(signal.SIGTERM)
    assert_cancelled(stage, job, flow_run)
    assert "its process was told to end (SIGTERM): 0 of 12 clips" in stage.state(flow_run)["message"]
    stage.kill_worker("one")


def test_a_container_with_a_worker_that_is_stopped_stops_spending(stage: Stage) -> None:
    """It ends with its first process, and everything in it does."""
    stage.kill_worker("one")
    stage.start_container("contained")
    job, flow_run = begin(stage)
    stage.stop_container("contained")
    assert_cancelled(stage, job, flow_run)


def test_a_flow_that_calls_ours_is_cancelled(stage: Stage) -> None:
    """It would make two further jobs. Neither is begun. Prefect's engine reports a crash first, then the worker that it
    was cancelled."""
    job, caller, called = begin_called(stage)
    stage.cancel(caller)
    assert_cancelled(stage, job, called)
    stage.wait_for_state(caller, "Cancelled")
    assert stage.emulator.ledger()["creates"] == 5


def test_the_worker_of_a_flow_that_calls_ours_is_stopped(stage: Stage) -> None:
    """The state of that flow is as Prefect has it for every flow that gets the signal."""
    job, caller, called = begin_called(stage)
    stage.workers["one"].send_signal(signal.SIGTERM)
    assert_cancelled(stage, job, called)
    assert stage.wait_for_end(caller) == ["Crashed"]
    assert stage.emulator.ledger()["creates"] == 5
    stage.kill_worker("one")


def test_a_flow_that_calls_ours_is_cancelled_without_a_worker(stage: Stage) -> None:
    """Nobody sends a signal to its process, which looks by itself."""
    job = f"film-{next(_names)}"
    code = "import asyncio, json, sys; from caller import make_film; from videogen import Job; "
    code += "asyncio.run(make_film(Job.model_validate_json(sys.argv[1]), return_state=True))"
    environment = stage.environment | {"PYTHONPATH": f"{stage.folder}:{ROOT}"}
    process = subprocess.Popen(
        [sys.executable, "-c", code, json.dumps(job_of(job, 12))], env=environment, cwd=stage.folder
    )
    try:
        stage.wait_for_creates(5)
        caller = stage.find_run(job)
        (called,) = stage.find_subflows(caller)
        stage.cancel(caller)
        assert_cancelled(stage, f"{job}-0", called)
        assert process.wait(250) == 0
        assert stage.emulator.ledger()["creates"] == 5
    finally:
        process.kill()
        process.wait()
