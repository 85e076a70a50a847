"""docs/prefect.md, step by step, on a real Prefect server."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.flows.conftest import wait_until
from tests.support.automations import deployment_with_triggers, emit, has_run_with
from tests.support.pages import BLOCK, ROOT, find_consoles, make_environment, run_console, write_files
from tests.support.prefect_api import call_prefect, find_deployment, find_runs
from tests.support.tokens import TOKEN
from videogen import RunResult
from videogen.emulator import EmulatorSettings, run_emulator

pytestmark = pytest.mark.integration

PAGE = (ROOT / "docs" / "prefect.md").read_text(encoding="utf-8")
HASH = re.compile(r"(?<=-)[0-9a-f]{8}(?=\.mp4)")
PREDICTION = re.compile(r"(?<=prediction )\w+")


@pytest.fixture
def environment(tmp_path: Path, prefect_api: str) -> dict[str, str]:
    """Variables of the commands of the page; `python` and `prefect` are those of the tests."""
    environment = make_environment(tmp_path, prefect_api, programs=Path(sys.executable).parent)
    return environment | {"PYTHONPATH": str(ROOT)}


@pytest.mark.long
def test_the_flows_of_the_page_print_what_the_page_shows(tmp_path: Path, environment: dict[str, str]) -> None:
    """Without a token. The page leaves out the hashes in the names of clips, and the ids of predictions."""
    write_files(PAGE, tmp_path)
    for console in find_consoles(PAGE)[:2]:
        printed = [HASH.sub("XXXXXXXX", output) for output in run_console(console, tmp_path, environment)]
        assert [PREDICTION.sub("…", output) for output in printed] == [output for _, output in console]


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.xdist_group("deployed-runs")
def test_the_token_of_the_page_comes_from_its_block(
    tmp_path: Path, environment: dict[str, str], prefect_api: str
) -> None:
    """At a terminal, in a flow and in a deployment, whose job variables do not have it."""
    names = write_files(PAGE, tmp_path)
    consoles = find_consoles(PAGE)
    used = " ".join(command for console in consoles for command, _ in console)
    assert {name for name in names if name not in used} == {"prefect.yaml", "cut_flow.py"}  # events.yaml names the last
    with run_emulator(EmulatorSettings(latency_s=(0.2, 0.2))) as emulator:
        environment["REPLICATE_BASE_URL"] = emulator.url
        run_console(consoles[2], tmp_path, environment)
        assert emulator.ledger()["creates"] == 3
        run_console(consoles[3], tmp_path, environment)
        assert emulator.ledger()["creates"] == 5
    named = {"deployments": {"name": {"any_": ["film"]}}, "flows": {"name": {"any_": ["make-film"]}}}
    (deployment,) = call_prefect("POST", f"{prefect_api}/deployments/filter", named)
    assert deployment["job_variables"] == {"env": {"VIDEOGEN_TOKEN_BLOCK": "replicate-token"}}
    of_deployment = {"deployments": {"id": {"any_": [deployment["id"]]}}}
    (flow_run,) = call_prefect("POST", f"{prefect_api}/flow_runs/filter", of_deployment)
    assert flow_run["state"]["type"] == "COMPLETED"
    assert len(consoles) == 5


def find_triggers(deployment: str) -> list[dict[str, Any]]:
    """Return the triggers of a deployment in the page's `events.yaml`."""
    (text,) = [text for _, text in BLOCK.findall(PAGE) if text.startswith("# events.yaml\n")]
    (triggers,) = [each["triggers"] for each in yaml.safe_load(text)["deployments"] if each["name"] == deployment]
    return triggers  # type: ignore[no-any-return]


def test_the_triggers_of_the_page_hand_over_what_the_events_tell(prefect_api: str) -> None:
    """A run that delivered too few clips is not cut."""
    job = {"job": "lagoon.toml"}
    with deployment_with_triggers(prefect_api, "videogen", find_triggers("new-jobs")) as deployment:
        emit(prefect_api, "videogen.job.appeared", {"prefect.resource.id": "job.lagoon"}, job)
        wait_until(partial(has_run_with, prefect_api, deployment, job))
    with deployment_with_triggers(prefect_api, "cut", find_triggers("cut")) as deployment:
        for _ in range(5):  # Prefect may start a run some seconds later than that of the next event
            emit_verdict(prefect_api, "failed")
        for verdict in ("partial", "complete"):
            emit_verdict(prefect_api, verdict)
            wait_until(partial(has_run_with, prefect_api, deployment, {"folder": f"/films/{verdict}"}))
        assert not has_run_with(prefect_api, deployment, {"folder": "/films/failed"})


def emit_verdict(api: str, verdict: str) -> None:
    """Emit the event of a run with this verdict, whose folder is called like it."""
    resource = {"prefect.resource.id": "videogen.run.r1", "videogen.verdict": verdict}
    emit(api, "videogen.run.completed", resource | {"videogen.folder": f"/films/{verdict}"}, {})


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.xdist_group("deployed-runs")
def test_the_events_of_the_page_start_a_run_and_then_its_cut(
    tmp_path: Path, environment: dict[str, str], prefect_api: str
) -> None:
    """On a real worker. The cut has the clip of the manifest. An event that comes twice is not paid for twice."""
    write_files(PAGE, tmp_path)
    *commands, (start_worker, _) = find_consoles(PAGE)[4]
    try:
        with run_emulator(EmulatorSettings(latency_s=(0.2, 0.2))) as emulator:
            environment |= {"REPLICATE_BASE_URL": emulator.url, "REPLICATE_API_TOKEN": TOKEN}
            environment["VIDEOGEN_HOME"] = str(tmp_path)
            run_console(commands, tmp_path, environment)
            emit(prefect_api, "videogen.job.appeared", {"prefect.resource.id": "job.lagoon"}, {"job": "lagoon.toml"})
            made = partial(find_runs, prefect_api, get_deployment_id(prefect_api, "new-jobs"))
            wait_until(lambda: len(made()) == 2)
            cut = tmp_path / "out" / "lagoon" / "cut.m3u"
            with run_in_background(start_worker, tmp_path, environment) as log:
                wait_until(lambda: all(each["end_time"] for each in made()), log.read_text)
                wait_until(lambda: is_over(prefect_api, "cut", cut.parent), log.read_text)
            assert emulator.ledger()["creates"] == 1
        manifest = RunResult.from_manifest((cut.parent / "manifest.json").read_text(encoding="utf-8"))
        assert cut.read_text(encoding="utf-8").splitlines() == [clip.video_path for clip in manifest.clips]
        assert {each["parameters"]["job"] for each in made()} == {"lagoon.toml"}
        assert "Completed" in {each["state"]["name"] for each in made()}
    finally:
        for automation in call_prefect("POST", f"{prefect_api}/automations/filter", {}):
            if automation["name"] in {each["name"] for name in ("new-jobs", "cut") for each in find_triggers(name)}:
                call_prefect("DELETE", f"{prefect_api}/automations/{automation['id']}")
        for name in ("new-jobs", "cut"):
            call_prefect("DELETE", f"{prefect_api}/deployments/{get_deployment_id(prefect_api, name)}")


@contextmanager
def run_in_background(command: str, folder: Path, environment: dict[str, str]) -> Iterator[Path]:
    """Run a command that ends only when it is told to. Provide the file with its output."""
    log = folder / "background.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            shlex.split(command), cwd=folder, env=environment, stdout=out, stderr=out, start_new_session=True
        )
    try:
        yield log
    finally:
        process.terminate()
        process.wait(250)


def get_deployment_id(api: str, name: str) -> str:
    found = find_deployment(api, name)
    assert found
    return str(found["id"])


def is_over(api: str, deployment: str, folder: Path) -> bool:
    """Return whether the run of the deployment for this folder has completed. Other tests' runs start it, too."""
    runs = find_runs(api, get_deployment_id(api, deployment))
    return "COMPLETED" in [run["state_type"] for run in runs if run["parameters"] == {"folder": str(folder)}]
