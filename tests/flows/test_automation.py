"""The automation in `deployments/`, against a real Prefect server."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.flows.conftest import CommandLine, wait_until
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


def deployment_that_ran(command: CommandLine, api: str, emulator: Emulator) -> str:
    """The id of a deployment of one scene, run once as a worker would."""
    name = emulator.url.rsplit(":", 1)[-1]
    flow = post(f"{api}/flows/", {"name": "generate"})["id"]
    scene = {"id": "a", "prompt": f"a film for {name}", "target_duration": 5}
    job = {"id": f"film-{name}", "model": "kling-v2.5-turbo", "scenes": [scene]}
    steps = [{"prefect.deployments.steps.set_working_directory": {"directory": str(ROOT)}}]
    fields = {"name": name, "flow_id": flow, "pull_steps": steps, "entrypoint": "flows/generate.py:generate"}
    deployment: str = post(f"{api}/deployments/", {**fields, "parameters": {"job": job}})["id"]
    flow_run = post(f"{api}/deployments/{deployment}/create_flow_run", {})["id"]
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
    paused: bool = httpx.get(f"{api}/deployments/{deployment}", trust_env=False).json()["paused"]
    return paused


def post(address: str, fields: dict[str, Any]) -> Any:
    answer = httpx.post(address, json=fields, trust_env=False)
    assert answer.is_success, answer.text
    return answer.json()
