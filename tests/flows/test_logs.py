"""The log of videogen in the logs of a flow run, as a deployment has it."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.flows.conftest import CommandLine, wait_until
from tests.support.prefect_api import call_prefect

ROOT = Path(__file__).parents[2]
RUN = "import asyncio; from videogen.flows.generate import generate; asyncio.run(generate({!r}, return_state=True))"


def test_a_flow_run_of_a_deployment_has_the_log(on_emulator: CommandLine, prefect_api: str) -> None:
    """With the variables that `deployments/prefect.yaml` sets: from INFO on, also what task runs say; no prompts."""
    deployments = yaml.safe_load((ROOT / "deployments" / "prefect.yaml").read_text())
    variables = deployments["definitions"]["work_pool"]["job_variables"]["env"]
    job = on_emulator.quick_job(1)
    subprocess.run(
        [sys.executable, "-c", RUN.format(str(job))],
        cwd=on_emulator.folder,
        env={**on_emulator.whole_environment, **variables},
        capture_output=True,
        check=True,
        timeout=250,
    )
    runs = call_prefect("POST", f"{prefect_api}/flow_runs/filter", {"sort": "START_TIME_DESC"})
    (run,) = [run for run in runs if run["parameters"].get("job") == str(job)]
    query = {"logs": {"flow_run_id": {"any_": [run["id"]]}}}

    def read_lines() -> dict[str, str]:
        """The lines of videogen, by the logger of each."""
        logs = call_prefect("POST", f"{prefect_api}/logs/filter", query)
        return {log["name"]: log["message"] for log in logs if log["name"].startswith("videogen.")}

    wait_until(lambda: len(read_lines()) == 2)
    lines = read_lines()
    assert lines["videogen.execution.creation"].startswith("s0: created prediction ")
    assert lines["videogen.execution.runner"].startswith("run ")
    assert "scene 0" not in str(lines)


@pytest.mark.long
def test_the_command_line_shows_the_log_when_asked(on_emulator: CommandLine) -> None:
    """On standard error, also beside JSON; each line once, although Prefect has a console of its own."""
    job = on_emulator.quick_job(1)
    done = on_emulator.run(job, "--json", "--log-level", "info")
    assert (done.code, done.manifest["successful_clips"]) == (0, 1), done.err
    assert "INFO videogen.execution.creation: s0: created prediction " in done.err
    assert done.err.count("s0: created prediction ") == 1
    again = on_emulator.run(job)
    assert "videogen.execution" not in again.out + again.err
    assert again.err == ""
