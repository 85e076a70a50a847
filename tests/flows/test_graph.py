"""Prefect's run graph of a job whose scenes continue others."""

import pytest

from tests.flows.conftest import FAULT_REGISTRY, CommandLine
from tests.support.prefect_api import call_prefect
from tests.support.tokens import TOKEN
from videogen.emulator import EmulatorSettings, run_emulator

REFUSED = '[[rules]]\nprompt = "storm"\ndo = "fail"\nerror = "flagged as sensitive"\ntimes = "always"\n'


@pytest.mark.long
def test_the_run_graph_shows_which_clips_are_made_from_which(command: CommandLine, prefect_api: str) -> None:
    """Also which segments. A clip that is not tried is a task run that did not run, with the reason."""
    plan = command.folder / "plan.toml"
    plan.write_text(REFUSED)
    scenes = [
        {"id": "after", "prompt": "calm", "target_duration": 1.5, "continues": "storm"},
        {"id": "later", "prompt": "dawn", "target_duration": 1.5, "continues": "after"},
        {"id": "storm", "prompt": "a storm", "target_duration": 1.5, "continues": "pier"},
        {"id": "boat", "prompt": "a boat", "target_duration": 1.5, "continues": "pier"},
        {"id": "deck", "prompt": "a deck", "target_duration": 1.5, "continues": "boat"},
        {"id": "long", "prompt": "a shore", "target_duration": 4, "continues": "pier", "long_scenes": "continue"},
        {"id": "pier", "prompt": "a pier", "target_duration": 1.5},
    ]
    with run_emulator(EmulatorSettings(latency_s=(0.1, 0.1), faults=plan)) as emulator:
        command.environment |= {
            "REPLICATE_API_TOKEN": TOKEN,
            "REPLICATE_BASE_URL": emulator.url,
            "VIDEOGEN_REGISTRY": str(FAULT_REGISTRY),
        }
        done = command.run(command.job(*scenes, id="graph-of-clips", model="framed", min_clips=1))
    assert done.code == 0, done.err
    (run,) = call_prefect(
        "POST", f"{prefect_api}/flow_runs/filter", {"flow_runs": {"name": {"any_": ["graph-of-clips · framed"]}}}
    )
    graph = call_prefect("GET", f"{prefect_api}/flow_runs/{run['id']}/graph-v2")
    nodes = dict(graph["nodes"])
    names = {node_id: node["label"] for node_id, node in nodes.items()}
    parents = {names[node_id]: {names[parent["id"]] for parent in node["parents"]} for node_id, node in nodes.items()}
    assert parents == {
        "pier": set(),
        "boat": {"pier"},
        "deck": {"boat"},
        "long#1": {"pier"},
        "long#2": {"long#1"},
        "long#3": {"long#2"},
        "storm": {"pier"},
        "after": {"storm"},
        "later": {"after"},
    }
    of_run = {"flow_runs": {"id": {"any_": [run["id"]]}}}
    states = {each["name"]: each["state"] for each in call_prefect("POST", f"{prefect_api}/task_runs/filter", of_run)}
    assert {name: state["name"] for name, state in states.items()} == {
        "pier": "Completed",
        "boat": "Completed",
        "deck": "Completed",
        "long#1": "Completed",
        "long#2": "Completed",
        "long#3": "Completed",
        "storm": "Failed",
        "after": "Blocked",
        "later": "Blocked",
    }
    assert states["later"]["message"] == "not tried, because there is no clip of storm"
