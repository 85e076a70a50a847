"""The Replicate token from a Secret block, on a real Prefect server."""

import asyncio
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from prefect.blocks.system import Secret
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.workers.process import ProcessWorker

from tests.flows.conftest import CommandLine
from tests.support.prefect_api import call_prefect
from tests.support.tokens import TOKEN
from videogen.emulator import Emulator

pytestmark = pytest.mark.integration
RUN = """
import asyncio
from videogen.flows.generate import generate
print(asyncio.run(generate("film.json")).verdict.status)
"""


@pytest.fixture
def without_token(on_emulator: CommandLine) -> CommandLine:
    """The command line as for Replicate, but without a token, and with a block that nobody has created."""
    del on_emulator.environment["REPLICATE_API_TOKEN"]
    on_emulator.environment["VIDEOGEN_TOKEN_BLOCK"] = f"token-{uuid4().hex[:8]}"
    return on_emulator


@pytest.fixture
def save(without_token: CommandLine, prefect_api: str) -> Callable[[Any], None]:
    """Save a value in the block."""

    def save_value(value: Any) -> None:
        with temporary_settings({PREFECT_API_URL: prefect_api}):
            asyncio.run(Secret(value=value).asave(without_token.environment["VIDEOGEN_TOKEN_BLOCK"], overwrite=True))

    return save_value


def read_all_of_prefect(api: str) -> str:
    """Return what Prefect's server tells of runs: parameters, states, artifacts, events and logs."""
    kinds = ("flow_runs", "task_runs", "artifacts", "logs", "deployments", "work_pools", "block_documents")
    return json.dumps([call_prefect("POST", f"{api}/{kind}/filter", {}) for kind in (*kinds, "events")])


def test_a_run_has_the_token_of_the_block(
    without_token: CommandLine, emulator: Emulator, prefect_api: str, save: Callable[[Any], None]
) -> None:
    """At the command line and in a flow of somebody else. The token is nowhere that people read."""
    save(TOKEN)
    job = without_token.quick_job(1)
    done = without_token.run(job, "--log-level", "debug")
    assert (done.code, done.err.count(TOKEN), done.out.count(TOKEN)) == (0, 0, 0), done.err
    assert done.out.splitlines()[0].endswith("(VIDEOGEN_TOKEN_BLOCK is set)")
    flow = subprocess.run(
        [sys.executable, "-c", RUN],
        cwd=without_token.folder,
        env=without_token.whole_environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert flow.stdout == "complete\n"
    assert TOKEN not in flow.stdout + flow.stderr
    ledger = emulator.ledger()
    assert (ledger["creates"], [p["input"]["prompt"] for p in ledger["predictions"]]) == (1, ["scene 0"])
    assert TOKEN not in read_all_of_prefect(prefect_api)


def test_a_missing_block_is_told_with_the_command_that_creates_it(
    without_token: CommandLine, emulator: Emulator, prefect_api: str
) -> None:
    """The plan needs no token. The command on the message does what it says."""
    job = without_token.quick_job(1)
    plan = without_token.run(job, "--dry-run")
    assert (plan.code, "replicate" in plan.out) == (0, True), plan.err
    done = without_token.run(job)
    block = without_token.environment["VIDEOGEN_TOKEN_BLOCK"]
    assert (done.code, emulator.ledger()["creates"]) == (2, 0)
    assert f"VIDEOGEN_TOKEN_BLOCK: there is no Secret block '{block}' in Prefect. Create it: python -c" in done.err
    program, *arguments = shlex.split(done.err.partition("Create it: ")[2])
    assert program == "python"
    subprocess.run(
        [sys.executable, *arguments],
        input=f"{TOKEN}\n",
        env=without_token.whole_environment,
        cwd=without_token.folder,
        capture_output=True,
        text=True,
        check=True,
        start_new_session=True,  # without a terminal
    )
    assert without_token.run(job).code == 0


@pytest.mark.long_variants
@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("", "has no text. Save it again: python -c"),
        ({"token": "r8_x"}, "has no text. Save it again: python -c"),
        ("r8_one two", "must be one word of printable ASCII characters"),
    ],
    ids=["empty", "object", "two-words"],
)
def test_a_block_without_a_token_is_refused(
    value: Any, message: str, without_token: CommandLine, emulator: Emulator, save: Callable[[Any], None]
) -> None:
    save(value)
    done = without_token.run(without_token.quick_job(1))
    assert (done.code, emulator.ledger()["creates"]) == (2, 0)
    assert message in done.err
    assert "r8_" not in done.err


@pytest.mark.long
def test_a_token_that_replicate_refuses_is_told_before_the_first_create(
    without_token: CommandLine, emulator: Emulator, save: Callable[[Any], None]
) -> None:
    """By the check of the account, which the command line leaves to the flow."""
    save("bad")
    done = without_token.run(without_token.quick_job(1))
    assert (done.code, emulator.ledger()["creates"]) == (3, 0)
    assert "Replicate refused the token (401)" in done.err


@pytest.mark.long
def test_the_environment_variable_counts_if_both_are_set(without_token: CommandLine, emulator: Emulator) -> None:
    """The block is not even read: it does not exist."""
    without_token.environment["REPLICATE_API_TOKEN"] = TOKEN
    done = without_token.run(without_token.quick_job(1))
    assert (done.code, emulator.ledger()["creates"]) == (0, 1), done.err
    assert "(REPLICATE_API_TOKEN is set" in done.out


def test_a_program_without_prefect_says_that_it_does_not_read_the_block(without_token: CommandLine) -> None:
    job = without_token.quick_job(1)
    code = f"import asyncio, videogen; asyncio.run(videogen.run_job({str(job)!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=without_token.folder,
        env=os.environ | without_token.whole_environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "REPLICATE_API_TOKEN is not set (VIDEOGEN_TOKEN_BLOCK is, which only flows read)" in done.stderr
    assert not list(Path(without_token.folder, "out").rglob("*.mp4"))


@pytest.mark.long
@pytest.mark.xdist_group("deployed-runs")
def test_a_worker_takes_the_token_into_the_environment_of_its_runs(
    without_token: CommandLine, emulator: Emulator, prefect_api: str, save: Callable[[Any], None]
) -> None:
    """From a template in the work pool, as docs/prefect.md says: Prefect's server keeps the template."""
    save(TOKEN)
    block = without_token.environment.pop("VIDEOGEN_TOKEN_BLOCK")
    template = ProcessWorker.get_default_base_job_template()
    variables = {"REPLICATE_API_TOKEN": f"{{{{ prefect.blocks.secret.{block} }}}}"}
    template["variables"]["properties"]["env"]["default"] = variables
    pool = {"name": block, "type": "process", "base_job_template": template}
    call_prefect("POST", f"{prefect_api}/work_pools/", pool)
    job = without_token.quick_job(1)
    steps = [{"prefect.deployments.steps.set_working_directory": {"directory": str(without_token.folder)}}]
    fields = {
        "name": block,
        "flow_id": call_prefect("POST", f"{prefect_api}/flows/", {"name": "videogen"})["id"],
        "pull_steps": steps,
        "entrypoint": "videogen.flows.generate.generate",
        "work_pool_name": block,
        "parameters": {"job": str(job)},
    }
    deployment = call_prefect("POST", f"{prefect_api}/deployments/", fields)["id"]
    run = call_prefect("POST", f"{prefect_api}/deployments/{deployment}/create_flow_run", {})["id"]
    worker = [sys.executable, "-m", "prefect", "worker", "start", "--pool", block, "--run-once"]
    subprocess.run(worker, cwd=without_token.folder, env=without_token.whole_environment, check=True, timeout=250)
    assert call_prefect("GET", f"{prefect_api}/flow_runs/{run}")["state"]["name"] == "Completed"
    assert emulator.ledger()["creates"] == 1
    assert TOKEN not in read_all_of_prefect(prefect_api)
