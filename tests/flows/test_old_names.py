"""Deployments that version 0.1.0 created, on a server that this version has been set up on."""

import asyncio
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from tests.flows.conftest import CommandLine, wait_until
from tests.flows.test_automation import prefect
from tests.support.prefect_api import call_prefect

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("old-names")]


def create_deployment(api: str, flow: str, name: str, **fields: Any) -> str:
    """Create a deployment of a flow, and return its id."""
    flow_id = call_prefect("POST", f"{api}/flows/", {"name": flow})["id"]
    body = {"name": name, "flow_id": flow_id, **fields}
    return str(call_prefect("POST", f"{api}/deployments/", body)["id"])


@pytest.fixture
def of_two_versions(prefect_api: str) -> Iterator[tuple[str, str]]:
    """The ids of `generate/generate`, whose schedule is active, and of `videogen/generate`, whose is not."""
    times = {"slug": "nightly", "schedule": {"cron": "0 2 * * *", "timezone": "UTC"}}
    old_schedules = [
        {**times, "active": True, "max_scheduled_runs": 1},
        {"active": False, "schedule": {"cron": "0 4 * * *", "timezone": "UTC"}},
    ]
    own = {"job": "own.toml"}
    old = create_deployment(prefect_api, "generate", "generate", schedules=old_schedules, parameters=own)
    new_schedules = [{**times, "active": False}]
    given = {"job": "examples/lighthouse.toml"}
    new = create_deployment(prefect_api, "videogen", "generate", schedules=new_schedules, parameters=given)
    yield old, new
    for deployment in (old, new):
        call_prefect("DELETE", f"{prefect_api}/deployments/{deployment}")


def read_schedules(api: str, deployment: str) -> list[tuple[str | None, bool, dict[str, Any]]]:
    """Return slug, activity and parameters of the schedules of a deployment."""
    found = call_prefect("GET", f"{api}/deployments/{deployment}")["schedules"]
    return [(each["slug"], each["active"], each["parameters"]) for each in found]


def test_active_schedules_move_to_the_new_deployment(prefect_api: str, of_two_versions: tuple[str, str]) -> None:
    """Once, with the job that they had, and no run is scheduled twice."""
    old, new = of_two_versions
    script = runpy.run_path(str(ROOT / "deployments/move_schedules.py"))
    with temporary_settings({PREFECT_API_URL: prefect_api}):
        for _ in range(2):
            asyncio.run(script["main"]())
    assert read_schedules(prefect_api, new) == [("nightly", True, {"job": "own.toml"})]
    assert [is_active for _, is_active, _ in read_schedules(prefect_api, old)] == [False, False]


def test_an_old_deployment_runs_and_says_its_new_name(on_emulator: CommandLine, prefect_api: str) -> None:
    scene = {"id": "a", "prompt": "An old film", "target_duration": 5}
    deployment = create_deployment(
        prefect_api,
        "generate",
        "old-entrypoint",
        entrypoint="flows.generate.generate",
        pull_steps=[{"prefect.deployments.steps.set_working_directory": {"directory": str(ROOT)}}],
        parameters={"job": {"id": "film", "model": "kling-v2.5-turbo", "scenes": [scene]}},
    )
    run = call_prefect("POST", f"{prefect_api}/deployments/{deployment}/create_flow_run", {})["id"]
    on_emulator.environment["VIDEOGEN_OUT"] = str(on_emulator.folder / "out")
    prefect(on_emulator, "flow-run", "execute", run)
    flow_run = call_prefect("GET", f"{prefect_api}/flow_runs/{run}")
    assert (flow_run["state"]["type"], flow_run["name"]) == ("COMPLETED", "film · kling-v2.5-turbo")

    def read_warnings() -> list[str]:
        of_run = {"logs": {"flow_run_id": {"any_": [run]}, "level": {"ge_": 30}}}
        return [line["message"] for line in call_prefect("POST", f"{prefect_api}/logs/filter", of_run)]

    wait_until(lambda: any("is now `videogen`" in message for message in read_warnings()))
