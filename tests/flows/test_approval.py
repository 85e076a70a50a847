"""The approval of a flow run's cost, on a real Prefect server. Runs are executed as a worker does, one after the other.

With real workers and a browser: `tests/deployments/test_approval.py`.
"""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings

from tests.flows.conftest import FAULT_REGISTRY, CommandLine
from tests.support.builders import job_of, small_registry
from tests.support.prefect_api import call_prefect
from videogen.emulator import Emulator, EmulatorSettings, run_emulator
from videogen.flows.approval import Question, render_question
from videogen.flows.take_over import cancel_unapproved_runs
from videogen.planning.budgets import Budget, BudgetUse
from videogen.planning.planner import build_plan

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("deployed-runs")]
ROOT = Path(__file__).parents[2]


def film(prompt: str = "scene", *, clips: int = 4, **fields: Any) -> dict[str, Any]:
    """Return a job whose clips cost $0.06 each."""
    scenes = [{"id": f"s{n}", "prompt": f"{prompt} {n}", "target_duration": 2} for n in range(clips)]
    return {"id": "film", "model": "quick", "min_clips": 1, "scenes": scenes, **fields}


@dataclass
class Approved:
    """A flow run of a deployment, and the command line that executes it as a worker does."""

    api: str
    command: CommandLine
    emulator: Emulator
    run: str = ""

    def begin(self, **parameters: Any) -> str:
        """Execute a new run of the job, and return the name of its state."""
        call = {"name": "videogen", "type": "process"}
        pools = call_prefect("POST", f"{self.api}/work_pools/filter", {})
        if "videogen" not in {pool["name"] for pool in pools}:
            call_prefect("POST", f"{self.api}/work_pools/", call)
        steps = [{"prefect.deployments.steps.set_working_directory": {"directory": str(ROOT)}}]
        fields = {
            "name": f"approved-{uuid4().hex[:8]}",
            "flow_id": call_prefect("POST", f"{self.api}/flows/", {"name": "videogen"})["id"],
            "pull_steps": steps,
            "entrypoint": "videogen.flows.generate.generate",
            "work_pool_name": "videogen",
            "parameters": {"job": film(), **parameters},
        }
        deployment = call_prefect("POST", f"{self.api}/deployments/", fields)["id"]
        self.run = call_prefect("POST", f"{self.api}/deployments/{deployment}/create_flow_run", {})["id"]
        return self.execute()

    def execute(self) -> str:
        environment = self.command.whole_environment | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-m", "prefect", "flow-run", "execute", self.run],
            env=environment,
            cwd=self.command.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return str(self.state["name"])

    def execute_again(self) -> str:
        """Execute the run once more, as after a take-over or with the button *Retry*."""
        state = {"type": "SCHEDULED", "name": "AwaitingRetry"}
        call_prefect("POST", f"{self.api}/flow_runs/{self.run}/set_state", {"state": state, "force": True})
        return self.execute()

    def answer(self, **fields: Any) -> str:
        """Fill in the form, and return the status with which Prefect takes it."""
        answer = call_prefect("POST", f"{self.api}/flow_runs/{self.run}/resume", {"run_input": fields})
        return str(answer["status"])

    @property
    def state(self) -> Any:
        return call_prefect("GET", f"{self.api}/flow_runs/{self.run}")["state"]

    @property
    def books(self) -> tuple[int, Decimal]:
        """How many predictions were created, and what was billed."""
        ledger = self.emulator.ledger()
        return ledger["creates"], Decimal(ledger["billed"])

    @property
    def codes(self) -> list[str]:
        manifest = json.loads((self.command.folder / "out" / "film" / "manifest.json").read_text())
        return sorted(str(clip["error"] and clip["error"]["code"]) for clip in manifest["clips"])

    def cancel_unapproved(self, *, after: timedelta) -> list[str]:
        """Return the ids of the runs that are cancelled when the worker looks after this time."""

        async def look() -> list[str]:
            async with get_client() as client:
                found = await cancel_unapproved_runs(client, now=datetime.now(UTC) + after)
            return [str(run.id) for run, _ in found]

        with temporary_settings({PREFECT_API_URL: self.api}):
            return asyncio.run(look())


@pytest.fixture
def approved(on_emulator: CommandLine, emulator: Emulator, prefect_api: str) -> Approved:
    on_emulator.environment |= {
        "VIDEOGEN_REGISTRY": str(FAULT_REGISTRY),
        "VIDEOGEN_OUT": str(on_emulator.folder / "out"),
    }
    return Approved(prefect_api, on_emulator, emulator)


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with run_emulator(EmulatorSettings(latency_s=(0.2, 0.2))) as server:
        yield server


@pytest.mark.long
def test_the_approved_amount_holds_however_often_the_run_is_executed(approved: Approved) -> None:
    """While it waits it has no lease, no lock and no file. Then the clips are made that the amount covers, and a later
    execution, whose plan would need no approval, makes no more of them."""
    assert approved.begin(approve_above=0.13) == "Suspended"
    assert not (approved.command.folder / "out").exists()
    assert approved.answer() == "REJECT"  # a decision is needed
    assert approved.answer(decision="approve", max_cost=0.14) == "ACCEPT"
    assert approved.execute() == "PartialSuccess"
    assert (approved.codes, approved.books) == (["None", "None", "budget", "budget"], (2, Decimal("0.12")))
    assert approved.execute_again() == "PartialSuccess"
    assert (approved.codes, approved.books) == (["None", "None", "budget", "budget"], (2, Decimal("0.12")))


@pytest.mark.long
def test_a_price_that_has_risen_is_held_by_the_approved_amount(approved: Approved) -> None:
    """The form offers the price at which the run asked, and not the one when it goes on."""
    registry = approved.command.folder / "models.toml"
    registry.write_text(FAULT_REGISTRY.read_text())
    approved.command.environment["VIDEOGEN_REGISTRY"] = str(registry)
    assert approved.begin(approve_above=0.1) == "Suspended"
    registry.write_text(registry.read_text().replace('per_second = "0.03"', 'per_second = "0.06"'))
    approved.answer(decision="approve")
    assert approved.execute() == "PartialSuccess"
    assert (approved.codes, approved.books[0]) == (["None", "None", "budget", "budget"], 2)


@pytest.mark.long
def test_an_approval_does_not_raise_the_cap_of_the_job(approved: Approved) -> None:
    """What earlier runs spent counts for it as ever."""
    assert approved.begin(approve_above=0.1, job=film(max_cost="0.25")) == "Suspended"
    approved.answer(decision="approve", max_cost=9)
    assert approved.execute() == "Completed"
    assert approved.begin(approve_above=0.1, job=film("another", max_cost="0.25")) == "Suspended"
    approved.answer(decision="approve", max_cost=9)
    assert approved.execute() == "Failed"
    assert (approved.codes, approved.books) == (["budget"] * 4, (4, Decimal("0.24")))


def test_a_run_that_waits_says_what_for_and_how_to_answer(approved: Approved) -> None:
    """Prefect's state `Suspended` has no message: the log of the run and an artifact say it. Nothing is spent."""
    assert approved.begin(approve_above="0.1") == "Suspended"
    of_run = {"flow_runs": {"id": {"any_": [approved.run]}}}
    (artifact,) = call_prefect("POST", f"{approved.api}/artifacts/filter", of_run)
    assert artifact["key"] == "film-approval"
    assert artifact["description"].startswith("$0.24 until ")
    assert "choose Resume, and approve or refuse" in artifact["description"]
    assert "**film** costs **about $0.24**, above the $0.10 that need no approval." in artifact["data"]
    of_run = {"logs": {"flow_run_id": {"any_": [approved.run]}}}
    logs = call_prefect("POST", f"{approved.api}/logs/filter", of_run)
    assert [log for log in logs if "waits for an approval until" in log["message"] and "Resume" in log["message"]]
    assert approved.books == (0, Decimal(0))


@pytest.mark.long
def test_a_refused_run_ends_as_cancelled_for_good(approved: Approved) -> None:
    """With the reason, and however often it is executed."""
    assert approved.begin(approve_above="0.1") == "Suspended"
    approved.answer(decision="refuse", note="Not before Friday")
    for execute in (approved.execute, approved.execute_again):
        assert execute() == "Cancelled"
        assert approved.state["message"] == (
            "refused to spend $0.24: Not before Friday. Nothing was spent. Run the job again to ask again"
        )
    assert approved.books == (0, Decimal(0))


@pytest.mark.long
def test_a_run_that_nobody_approves_in_time_is_cancelled(approved: Approved) -> None:
    """Neither earlier, nor if it is suspended by hand. If it is executed again, it asks again; an answer that comes too
    late does not count."""
    assert approved.begin(approve_above=0.1, approve_within_hours=2) == "Suspended"
    assert approved.cancel_unapproved(after=timedelta(hours=1.9)) == []
    assert approved.cancel_unapproved(after=timedelta(hours=2.1)) == [approved.run]
    assert approved.state["type"] == "CANCELLED"
    assert approved.state["message"].startswith("nobody approved $0.24 until ")
    assert approved.execute_again() == "Suspended"
    approved.answer(decision="approve")
    assert approved.execute() == "Completed"
    assert approved.begin(approve_above=0, approve_within_hours=1e-6, options={"fresh": True}) == "Suspended"
    approved.answer(decision="approve")
    assert approved.execute() == "Cancelled"
    assert approved.books == (4, Decimal("0.24"))


@pytest.mark.long
def test_clips_that_cost_nothing_need_no_approval(approved: Approved) -> None:
    """Those of the emulator that the run starts for itself."""
    for name in ("REPLICATE_API_TOKEN", "REPLICATE_BASE_URL"):
        del approved.command.environment[name]
    assert approved.begin(approve_above=0, job=film(clips=1)) == "Completed"


@pytest.mark.long
def test_a_flow_without_a_deployment_cannot_wait(approved: Approved) -> None:
    code = (
        "import asyncio, json, sys; from videogen.flows.generate import generate; from videogen.job.model import Job; "
        "job = Job.model_validate_json(sys.argv[1]); "
        "state = asyncio.run(generate(job, approve_above=0.1, return_state=True)); print(state.message)"
    )
    environment = os.environ | approved.command.environment | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(film())],
        env=environment,
        cwd=approved.command.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "approve_above works for runs of a deployment only" in done.stdout, done.stderr
    assert approved.books == (0, Decimal(0))


def test_the_form_shows_what_is_left_of_the_budgets() -> None:
    budget = Budget(name="team_a", amount=Decimal(200), period="total")
    use = BudgetUse(budget=budget, span=budget.find_span(datetime.now(UTC)), spent=Decimal(30), reserved=Decimal(0))
    plan = build_plan(job_of({}, model="kling"), small_registry(kling={})).with_budgets((use,))
    question = Question(number=1, spent_before=Decimal(0), cost=plan.total_cost, until=datetime.now(UTC))
    text = render_question(plan, question, Decimal(0))
    assert "\nBudget team\\_a: $30.00 of $200.00 spent or reserved in total, $0.50 for this run.\n" in text
