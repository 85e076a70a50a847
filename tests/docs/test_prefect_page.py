"""docs/prefect.md, step by step, on a real Prefect server."""

import re
import sys
from pathlib import Path

import pytest

from tests.support.pages import ROOT, find_consoles, make_environment, run_console, write_files
from tests.support.prefect_api import call_prefect
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
    assert {name for name in names if name not in used} == {"prefect.yaml"}
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
    assert len(consoles) == 4
