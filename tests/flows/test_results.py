"""What the flow returns to the flows of other people, on a real Prefect server. The ledger tells what was created."""

import json
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.flows.conftest import CommandLine, wait_until
from tests.support.prefect_api import call_prefect
from videogen.emulator import Emulator, EmulatorSettings, run_emulator

pytestmark = pytest.mark.integration

HEAD = """
import asyncio
import json
from prefect import flow, task
from prefect.exceptions import CancelledRun
from videogen.flows.generate import JobFailedError, generate
from videogen import InvalidError, Job, RunOptions, RunResult
"""


def run_program(command: CommandLine, text: str) -> Any:
    """Run a program with flows, and return the JSON that it prints last."""
    file = command.folder / "program.py"
    file.write_text(HEAD + textwrap.dedent(text), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(file)],
        cwd=command.folder,
        env=command.whole_environment,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_flow_has_the_result_of_its_subflow(on_emulator: CommandLine, emulator: Emulator, prefect_api: str) -> None:
    """The job comes from a task, and the clips go to another one. The states of Prefect's server have no data, and no
    result is stored, although results are by default. The second run is free."""
    on_emulator.quick_job(0)  # sets the registry
    on_emulator.environment |= {
        "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "true",
        "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
    }
    text = """
        @task
        def plan_scenes() -> Job:
            scenes = [{"id": f"s{n}", "prompt": f"canary scene {n}", "target_duration": 2} for n in range(2)]
            return Job.model_validate({"id": "parent-film", "model": "quick", "scenes": scenes})

        @task
        def compose(result: RunResult) -> list[str]:
            return [clip.video_path for clip in result.clips]

        @flow
        async def make_film():
            result = await generate(plan_scenes.submit())
            state = await generate(plan_scenes(), RunOptions(only=("s0",)), return_state=True)
            again = await state.result()
            assert type(result) is type(again) is RunResult
            reused = [clip.reused for clip in again.clips]
            return result.verdict.status, str(result.total_cost), compose(result), (state.name, state.message), reused

        print(json.dumps(asyncio.run(make_film())))
        """
    verdict, cost, paths, state, reused = run_program(on_emulator, text)
    assert (verdict, cost, state) == ("complete", "0.120", ["Completed", "all 2 clips delivered"])
    assert [(on_emulator.folder / "out" / "parent-film" / path).is_file() for path in paths] == [True, True]
    assert reused == [True, True]
    assert (emulator.ledger()["creates"], emulator.ledger()["billed"]) == (2, "0.12")
    named = {"flow_runs": {"name": {"any_": ["parent-film · quick"]}}}
    runs = call_prefect("POST", f"{prefect_api}/flow_runs/filter", named)
    assert [run["state"]["data"] for run in runs] == [None, None]
    stored = [file for file in (on_emulator.folder / "prefect" / "storage").rglob("*") if file.is_file()]
    results = [file.read_text() for file in stored]
    assert sum("canary scene" in result for result in results) == 1  # the job, from the task of this test
    assert not [result for result in results if "sha256" in result]


def test_a_failed_verdict_raises_and_tells_what_failed(on_emulator: CommandLine, emulator: Emulator) -> None:
    """As for every failed subflow. The state is Failed with the message of the verdict, and its result raises the same
    error. A flow that does not handle the error fails with it."""
    on_emulator.quick_job(0)
    text = """
        import pickle
        scenes = [{"id": f"s{n}", "prompt": f"scene {n}", "target_duration": 2} for n in range(2)]
        job = Job.model_validate({"id": "film", "model": "refused", "scenes": scenes})

        @flow
        async def handle():
            try:
                await generate(job)
            except JobFailedError as error:
                assert str(pickle.loads(pickle.dumps(error))) == str(error)
                return str(error), [clip.error.code for clip in error.result.clips]

        @flow
        async def keep_state():
            state = await generate(job, return_state=True)
            try:
                await state.result()
            except JobFailedError as error:
                return state.type.value, state.name, state.message, error.result.failed_clips

        @flow
        async def let_fail():
            await generate(job)

        state = asyncio.run(let_fail(return_state=True))
        print(json.dumps([asyncio.run(handle()), asyncio.run(keep_state()), [state.type.value, state.message]]))
        """
    handled, kept, failed = run_program(on_emulator, text)
    assert handled[0].startswith("film: 0 of 2 clips delivered, at least 2 needed. s0: ")
    assert "; s1: " in handled[0]
    assert handled[1] == ["input", "input"]
    assert [*kept[:2], kept[3]] == ["FAILED", "Failed", 2]
    assert kept[2].startswith(
        "0 of 2 clips delivered, at least 2 needed. The provider refuses the input: change the scene"
    )
    assert failed[0] == "FAILED"
    assert "JobFailedError: film: 0 of 2 clips delivered" in failed[1]


@pytest.mark.long
def test_a_partial_result_is_returned(on_emulator: CommandLine) -> None:
    """In a state with the name PartialSuccess. The clips that failed have their errors."""
    on_emulator.quick_job(0)
    text = """
        scenes = [{"id": "good", "prompt": "good", "target_duration": 2},
                  {"id": "bad", "prompt": "bad", "target_duration": 2, "model": "refused"}]
        job = Job.model_validate({"id": "film", "model": "quick", "min_clips": 1, "scenes": scenes})

        @flow
        async def make_film():
            state = await generate(job, return_state=True)
            return state.name, await state.result()

        name, result = asyncio.run(make_film())
        print(json.dumps([name, [clip.status for clip in result.clips]]))
        """
    assert run_program(on_emulator, text) == ["PartialSuccess", ["success", "failed"]]


@pytest.mark.long
def test_a_subflow_cannot_wait_for_an_approval(on_emulator: CommandLine, emulator: Emulator) -> None:
    """Prefect suspends no subflow, also in a deployment."""
    on_emulator.quick_job(0)
    text = """
        from uuid import uuid4
        from prefect.runtime import deployment
        scenes = [{"id": "s", "prompt": "scene", "target_duration": 2}]
        job = Job.model_validate({"id": "film", "model": "quick", "scenes": scenes})

        @flow
        async def make_film():
            try:
                await generate(job, approve_above=0.01)
            except InvalidError as error:
                return str(error)

        print(json.dumps(asyncio.run(make_film())))
        """
    on_emulator.environment["PREFECT__RUNTIME__DEPLOYMENT__ID"] = "a-deployment"
    assert "and not for subflows" in run_program(on_emulator, text)
    assert emulator.ledger()["creates"] == 0


@pytest.mark.long
def test_a_killed_flow_that_is_executed_again_pays_for_nothing_twice(
    on_emulator: CommandLine, emulator: Emulator, prefect_api: str
) -> None:
    """The same flow run, whose subflow run is Running in Prefect: kill -9 hits it with predictions in flight."""
    on_emulator.quick_job(0)
    text = """
        @flow
        async def make_film() -> int:
            scenes = [{"id": f"s{n}", "prompt": f"scene {n}", "target_duration": 2} for n in range(7)]
            result = await generate(Job.model_validate({"id": "film", "model": "quick", "scenes": scenes}))
            return len(result.clips)
        """
    (on_emulator.folder / "program.py").write_text(HEAD + textwrap.dedent(text), encoding="utf-8")
    flow = call_prefect("POST", f"{prefect_api}/flows/", {"name": "make-film"})["id"]
    steps = [{"prefect.deployments.steps.set_working_directory": {"directory": str(on_emulator.folder)}}]
    fields = {"name": "killed", "flow_id": flow, "pull_steps": steps, "entrypoint": "program.py:make_film"}
    deployment = call_prefect("POST", f"{prefect_api}/deployments/", fields)["id"]
    run = call_prefect("POST", f"{prefect_api}/deployments/{deployment}/create_flow_run", {})["id"]

    def execute(**variables: str) -> None:
        command = [sys.executable, "-m", "prefect", "flow-run", "execute", run]
        environment = on_emulator.whole_environment | variables
        subprocess.run(command, cwd=on_emulator.folder, env=environment, check=False, timeout=250)

    execute(VIDEOGEN_CRASH_AT="after-id:6")
    assert emulator.ledger()["creates"] == 6
    state = {"type": "SCHEDULED", "name": "TakenOver"}
    call_prefect("POST", f"{prefect_api}/flow_runs/{run}/set_state", {"state": state, "force": True})
    execute()
    assert call_prefect("GET", f"{prefect_api}/flow_runs/{run}")["state"]["name"] == "Completed"
    assert emulator.ledger()["creates"] == 7


@pytest.mark.long
def test_a_flow_that_times_out_leaves_nothing_running(on_emulator: CommandLine) -> None:
    """Its subflow cancels the predictions."""
    on_emulator.quick_job(0)
    text = """
        scenes = [{"id": f"s{n}", "prompt": f"scene {n}", "target_duration": 2} for n in range(3)]
        job = Job.model_validate({"id": "film", "model": "quick", "scenes": scenes})

        @flow(timeout_seconds=15)
        async def make_film():
            await generate(job)

        state = asyncio.run(make_film(return_state=True))
        print(json.dumps([state.type.value, state.name]))
        """
    with run_emulator(EmulatorSettings(latency_s=(300.0, 300.0))) as slow:
        on_emulator.environment["REPLICATE_BASE_URL"] = slow.url
        assert run_program(on_emulator, text) == ["FAILED", "TimedOut"]
        assert slow.ledger()["creates"] > 0
        assert slow.ledger()["running"] == 0


@pytest.mark.long
def test_a_retried_flow_makes_its_clips_once(on_emulator: CommandLine, emulator: Emulator) -> None:
    """What fails is after its clips. The retry has the result of a run that reuses them, and not a stored one."""
    on_emulator.quick_job(0)
    text = """
        scenes = [{"id": f"s{n}", "prompt": f"scene {n}", "target_duration": 2} for n in range(2)]
        job = Job.model_validate({"id": "film", "model": "quick", "scenes": scenes})
        results = []

        @flow(retries=1)
        async def make_film():
            results.append(await generate(job))
            if len(results) == 1:
                raise OSError("no space for the film")

        asyncio.run(make_film())
        print(json.dumps([[clip.reused for clip in result.clips] for result in results]))
        """
    assert run_program(on_emulator, text) == [[False, False], [True, True]]
    assert emulator.ledger()["creates"] == 2


@pytest.mark.long
def test_a_cancelled_subflow_raises(on_emulator: CommandLine, prefect_api: str) -> None:
    """As every other cancelled subflow, once its predictions are cancelled."""
    on_emulator.quick_job(0)
    text = """
        scenes = [{"id": f"s{n}", "prompt": f"scene {n}", "target_duration": 2} for n in range(3)]
        job = Job.model_validate({"id": "cancelled-film", "model": "quick", "scenes": scenes})

        @flow
        async def make_film():
            try:
                await generate(job)
            except CancelledRun as error:
                return str(error)

        print(json.dumps(asyncio.run(make_film())))
        """
    named = {"flow_runs": {"name": {"any_": ["cancelled-film · quick"]}}}
    with run_emulator(EmulatorSettings(latency_s=(300.0, 300.0))) as slow, ThreadPoolExecutor() as pool:
        on_emulator.environment["REPLICATE_BASE_URL"] = slow.url
        running = pool.submit(run_program, on_emulator, text)
        wait_until(lambda: slow.ledger()["running"] == 3)
        (run,) = call_prefect("POST", f"{prefect_api}/flow_runs/filter", named)
        cancelling = {"state": {"type": "CANCELLING", "name": "Cancelling"}}
        call_prefect("POST", f"{prefect_api}/flow_runs/{run['id']}/set_state", cancelling)
        assert running.result().startswith(
            "cancelled in Prefect: 0 of 3 clips delivered, $0.18 spent. Run the job again"
        )
        assert slow.ledger()["running"] == 0
    (run,) = call_prefect("POST", f"{prefect_api}/flow_runs/filter", named)
    assert run["state"]["name"] == "Cancelled"
