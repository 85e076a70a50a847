"""The automation in `deployments/`, against a real Prefect server."""

import asyncio
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from tests.flows.conftest import CommandLine, wait_until
from tests.support.prefect_api import call_prefect
from tests.support.tokens import TOKEN
from videogen.emulator import Emulator, EmulatorSettings, run_emulator

ROOT = Path(__file__).parents[2]
REFUSED = '[[rules]]\ntimes = "always"\ndo = "fail"\nerror = "flagged as sensitive (E005)"\n'


@pytest.mark.long
def test_a_failed_verdict_pauses_the_deployment_it_came_from(command: CommandLine, prefect_api: str) -> None:
    """Its schedule spends nothing more until a person has looked; one that succeeds goes on."""
    prefect(command, "automation", "create", "--from-file", str(ROOT / "deployments/automations/failed-verdict.yaml"))
    faults = command.folder / "faults.toml"
    faults.write_text(REFUSED)
    with run_emulator(EmulatorSettings(latency_s=(0.1, 0.1))) as works:
        good = deployment_that_ran(command, prefect_api, works)
    with run_emulator(EmulatorSettings(latency_s=(0.1, 0.1), faults=faults)) as fails:
        bad = deployment_that_ran(command, prefect_api, fails)
    wait_until(lambda: is_paused(prefect_api, bad))
    assert not is_paused(prefect_api, good)


def test_an_upgrade_removes_the_automation_that_took_over_without_an_end(prefect_api: str) -> None:
    """Earlier versions created it, and it would take over the ended runs of a schedule for ever. Automations of other
    people stay."""
    trigger = {"type": "event", "posture": "Reactive", "expect": ["nothing.ever"], "threshold": 1, "within": 0}
    for name in ("videogen-take-over", "somebody-elses"):
        call_prefect(
            "POST",
            f"{prefect_api}/automations/",
            {"name": name, "trigger": trigger, "actions": [{"type": "do-nothing"}]},
        )
    apply = runpy.run_path(str(ROOT / "deployments/automations/apply.py"))
    try:
        with temporary_settings({PREFECT_API_URL: prefect_api}):
            for _ in range(2):  # as often as you like
                asyncio.run(apply["main"]())
        there = automations(prefect_api)
        assert "videogen-take-over" not in there
        assert {"somebody-elses", "videogen - pause after a failed verdict"} <= there.keys()
    finally:
        for automation in automations(prefect_api).values():
            call_prefect("DELETE", f"{prefect_api}/automations/{automation}")


def automations(api: str) -> dict[str, str]:
    """Return the ids of all automations of the server, by name."""
    return {each["name"]: each["id"] for each in call_prefect("POST", f"{api}/automations/filter", {})}


def deployment_that_ran(command: CommandLine, api: str, emulator: Emulator) -> str:
    """The id of a deployment of one scene, run once as a worker would."""
    name = emulator.url.rsplit(":", 1)[-1]
    flow = call_prefect("POST", f"{api}/flows/", {"name": "generate"})["id"]
    scene = {"id": "a", "prompt": f"a film for {name}", "target_duration": 5}
    job = {"id": f"film-{name}", "model": "kling-v2.5-turbo", "scenes": [scene]}
    steps = [{"prefect.deployments.steps.set_working_directory": {"directory": str(ROOT)}}]
    fields = {"name": name, "flow_id": flow, "pull_steps": steps, "entrypoint": "flows/generate.py:generate"}
    deployment: str = call_prefect("POST", f"{api}/deployments/", {**fields, "parameters": {"job": job}})["id"]
    flow_run = call_prefect("POST", f"{api}/deployments/{deployment}/create_flow_run", {})["id"]
    command.environment |= {
        "REPLICATE_API_TOKEN": TOKEN,
        "REPLICATE_BASE_URL": emulator.url,
        "VIDEOGEN_OUT": str(command.folder / "out"),
    }
    prefect(command, "flow-run", "execute", flow_run)
    return deployment


def prefect(command: CommandLine, *arguments: str) -> None:
    environment = os.environ | command.environment | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "prefect", *arguments],
        env=environment,
        cwd=command.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def is_paused(api: str, deployment: str) -> bool:
    paused: bool = call_prefect("GET", f"{api}/deployments/{deployment}")["paused"]
    return paused
