"""The automations in `deployments/`, against a real Prefect server."""

import asyncio
import json
import os
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any

import pytest
import yaml
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.settings import PREFECT_API_URL, temporary_settings

from tests.flows.conftest import CommandLine, wait_until
from tests.support.automations import deployment_with_triggers, emit, has_run_with
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
        remove_automations(prefect_api, "videogen", "somebody-elses")


def automations(api: str) -> dict[str, str]:
    """Return the ids of all automations of the server, by name."""
    return {each["name"]: each["id"] for each in call_prefect("POST", f"{api}/automations/filter", {})}


def remove_automations(api: str, *prefixes: str) -> None:
    """Remove the automations whose names begin so: tests of other workers have automations, too."""
    for name, automation in automations(api).items():
        if name.startswith(prefixes):
            call_prefect("DELETE", f"{api}/automations/{automation}")


def deployment_that_ran(command: CommandLine, api: str, emulator: Emulator) -> str:
    """The id of a deployment of one scene, run once as a worker would."""
    name = emulator.url.rsplit(":", 1)[-1]
    flow = call_prefect("POST", f"{api}/flows/", {"name": "videogen"})["id"]
    scene = {"id": "a", "prompt": f"a film for {name}", "target_duration": 5}
    job = {"id": f"film-{name}", "model": "kling-v2.5-turbo", "scenes": [scene]}
    steps = [{"prefect.deployments.steps.set_working_directory": {"directory": str(ROOT)}}]
    fields = {"name": name, "flow_id": flow, "pull_steps": steps, "entrypoint": "videogen.flows.generate.generate"}
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


# -- budgets ----------------------------------------------------------------------------------------------------------

BLOCK = "videogen-alerts"


class Receiver:
    """A web server on this machine that keeps what is posted to it."""

    def __init__(self) -> None:
        posted = self.posted = Queue[dict[str, Any]]()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                posted.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(204)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Write nothing to the log of the tests."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/alerts"
        Thread(target=self._server.serve_forever, daemon=True).start()

    def wait_for(self, subject: str) -> dict[str, Any]:
        """Return the next message whose subject has this text. Other tests' runs may be told of meanwhile."""
        while subject not in (message := self.posted.get(timeout=250))["subject"]:
            pass
        return message

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with closing(Receiver()) as receiver:
        yield receiver


@pytest.fixture
def block(prefect_api: str, receiver: Receiver) -> Iterator[Callable[[], None]]:
    """Saves a notification block that posts to the receiver; the server is left without it and our automations."""
    address = f"{prefect_api}/block_types/slug/custom-webhook/block_documents/name/{BLOCK}"

    def save() -> None:
        text = {"subject": "{{subject}}", "body": "{{body}}"}
        with temporary_settings({PREFECT_API_URL: prefect_api}):
            asyncio.run(CustomWebhookNotificationBlock(name="x", url=receiver.url, json_data=text).asave(BLOCK))

    yield save
    remove_automations(prefect_api, "videogen - ")
    call_prefect("DELETE", f"{prefect_api}/block_documents/{call_prefect('GET', address)['id']}")


def apply_automations(api: str) -> None:
    apply = runpy.run_path(str(ROOT / "deployments/automations/apply.py"))
    with temporary_settings({PREFECT_API_URL: api}):
        asyncio.run(apply["main"]())


def test_people_are_told_through_a_block_when_a_budget_is_nearly_spent(
    on_emulator: CommandLine,
    prefect_api: str,
    block: Callable[[], None],
    receiver: Receiver,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`set-up` asks for the block while there is none. Two clips of $0.06 are 80% of $0.15, the first one is 40%."""
    apply_automations(prefect_api)
    assert f"it needs a notification block named {BLOCK}" in capsys.readouterr().out
    assert "videogen - tell of budgets" not in automations(prefect_api)
    block()
    apply_automations(prefect_api)
    assert "videogen - tell of budgets" in automations(prefect_api)
    budget = subprocess.run(
        [sys.executable, "-m", "videogen", "budget", "team", "0.15/total"],
        env=on_emulator.whole_environment | {"PYTHONPATH": str(ROOT)},
        cwd=on_emulator.folder,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "team: $0.15 in total" in budget.stdout
    on_emulator.environment["VIDEOGEN_BUDGET"] = "team"
    done = on_emulator.run(on_emulator.quick_job(2, concurrency=1), "--jsonl")
    assert done.code == 0, done.err
    events = [json.loads(line) for line in done.out.splitlines()]
    assert [event["percent"] for event in events if event["event"] == "budget.alert"] == [50, 80]
    assert "budget team: $0.00 of $0.15 spent or reserved in total, $0.12 for this run" in done.err
    assert "budget team: 80% of $0.15 are spent or reserved in total" in done.err
    told = [receiver.wait_for("budget") for _ in range(2)]
    assert sorted(each["subject"] for each in told) == [
        f"videogen: {percent}% of the budget team" for percent in (50, 80)
    ]
    assert {each["body"] for each in told} == {"$0.12 of $0.15 are spent or reserved in total."}
    assert not [each for each in receiver.posted.queue if "budget" in each["subject"]]


# -- runs -------------------------------------------------------------------------------------------------------------


def test_people_are_told_through_a_block_when_a_run_has_not_delivered_everything(
    command: CommandLine, prefect_api: str, block: Callable[[], None], receiver: Receiver
) -> None:
    """With the reason. A run that delivers everything disturbs nobody."""
    block()
    apply_automations(prefect_api)
    faults = command.folder / "faults.toml"
    faults.write_text(REFUSED + 'prompt = "scene 1"\n')
    with run_emulator(EmulatorSettings(latency_s=(0.1, 0.1), faults=faults)) as emulator:
        command.environment |= {"REPLICATE_API_TOKEN": TOKEN, "REPLICATE_BASE_URL": emulator.url}
        for clips, name in ((1, "Completed"), (2, "PartialSuccess")):
            done = command.run(command.quick_job(clips, id=f"told-{clips}", min_clips=1))
            assert done.code == 0, done.err
            named = {"flow_runs": {"name": {"any_": [f"told-{clips} · quick"]}}}
            (run,) = call_prefect("POST", f"{prefect_api}/flow_runs/filter", named)
            assert run["state"]["name"] == name
    told = receiver.wait_for("told-")
    assert told["subject"] == "videogen: told-2 · quick is PartialSuccess"
    reason, _, page = told["body"].partition("\n")
    assert reason.startswith("1 of 2 clips delivered, 1 were enough. The model's moderation refuses")
    assert page.endswith(f"/runs/flow-run/{run['id']}")


# -- jobs -------------------------------------------------------------------------------------------------------------


def test_an_event_starts_a_run_of_the_job_that_has_appeared(prefect_api: str) -> None:
    """Of a job file and of the job itself, as the deployment that `set-up` creates does once its trigger is enabled."""
    shipped = yaml.safe_load((ROOT / "deployments/prefect.yaml").read_text())
    (trigger,) = next(each["triggers"] for each in shipped["deployments"] if each["name"] == "generate")
    assert trigger["enabled"] is False
    scene = {"id": "a", "prompt": "A storm", "target_duration": 5}
    with deployment_with_triggers(prefect_api, "videogen", [trigger | {"enabled": True}]) as deployment:
        for job in ("jobs/autumn.toml", {"id": "winter", "scenes": [scene]}):
            emit(prefect_api, "videogen.job.appeared", {"prefect.resource.id": "job.new"}, {"job": job})
            wait_until(partial(has_run_with, prefect_api, deployment, {"job": job}))
