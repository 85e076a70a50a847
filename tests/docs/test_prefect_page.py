"""docs/prefect.md, step by step, on a real Prefect server."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.prefect_api import call_prefect
from tests.support.tokens import TOKEN
from videogen.emulator import EmulatorSettings, run_emulator

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "prefect.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
HASH = re.compile(r"(?<=-)[0-9a-f]{8}(?=\.mp4)")
PREDICTION = re.compile(r"(?<=prediction )\w+")


def write_files(folder: Path) -> set[str]:
    """Write the files of the page, and return their names."""
    names = set()
    for language, text in BLOCK.findall(PAGE):
        if language != "console":
            name = text.partition("\n")[0].removeprefix("# ")
            (folder / name).write_text(text, encoding="utf-8")
            names.add(name)
    return names


def find_consoles() -> list[list[tuple[str, str]]]:
    """Return the commands of each console of the page, each with its output on the page."""
    consoles = [text for language, text in BLOCK.findall(PAGE) if language == "console"]
    parts = [[part.partition("\n") for part in text.split("$ ")[1:]] for text in consoles]
    return [[(command, output) for command, _, output in console] for console in parts]


@pytest.fixture
def environment(tmp_path: Path, prefect_api: str) -> dict[str, str]:
    """Variables of the commands of the page; `python` and `prefect` are those of the tests."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("REPLICATE_", "VIDEO"))}
    return inherited | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "PREFECT_API_URL": prefect_api,
        "PREFECT_HOME": str(tmp_path / "prefect"),
    }


def run(console: list[tuple[str, str]], folder: Path, environment: dict[str, str]) -> list[str]:
    """Run the commands in one shell, and return the output of each. Its standard input is the token."""
    mark = "= end of command ="
    script = "set -e\n" + "".join(f"{command}\necho '{mark}'\n" for command, _ in console)
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env=environment,
        input=f"{TOKEN}\n",
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
        start_new_session=True,  # without a terminal, at which `getpass` would ask
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert TOKEN not in done.stdout + done.stderr
    return done.stdout.split(f"{mark}\n")[:-1]


@pytest.mark.long
def test_the_flows_of_the_page_print_what_the_page_shows(tmp_path: Path, environment: dict[str, str]) -> None:
    """Without a token. The page leaves out the hashes in the names of clips, and the ids of predictions."""
    write_files(tmp_path)
    for console in find_consoles()[:2]:
        printed = [HASH.sub("XXXXXXXX", output) for output in run(console, tmp_path, environment)]
        assert [PREDICTION.sub("…", output) for output in printed] == [output for _, output in console]


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.xdist_group("deployed-runs")
def test_the_token_of_the_page_comes_from_its_block(
    tmp_path: Path, environment: dict[str, str], prefect_api: str
) -> None:
    """At a terminal, in a flow and in a deployment, whose job variables do not have it."""
    names = write_files(tmp_path)
    consoles = find_consoles()
    used = " ".join(command for console in consoles for command, _ in console)
    assert {name for name in names if name not in used} == {"prefect.yaml"}
    with run_emulator(EmulatorSettings(latency_s=(0.2, 0.2))) as emulator:
        environment["REPLICATE_BASE_URL"] = emulator.url
        run(consoles[2], tmp_path, environment)
        assert emulator.ledger()["creates"] == 3
        run(consoles[3], tmp_path, environment)
        assert emulator.ledger()["creates"] == 5
    named = {"deployments": {"name": {"any_": ["film"]}}, "flows": {"name": {"any_": ["make-film"]}}}
    (deployment,) = call_prefect("POST", f"{prefect_api}/deployments/filter", named)
    assert deployment["job_variables"] == {"env": {"VIDEOGEN_TOKEN_BLOCK": "replicate-token"}}
    of_deployment = {"deployments": {"id": {"any_": [deployment["id"]]}}}
    (flow_run,) = call_prefect("POST", f"{prefect_api}/flow_runs/filter", of_deployment)
    assert flow_run["state"]["type"] == "COMPLETED"
    assert len(consoles) == 4
