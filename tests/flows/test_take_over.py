"""Which runs are taken over, on a real Prefect server and a real journal. Nothing runs: the states are set as a worker
would, and time is given. With real schedules and workers: `tests/deployments/test_take_over.py`.
"""

import asyncio
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings

from tests.flows.conftest import wait_until
from videogen.errors import JournalError
from videogen.flows.take_over import MAX_TAKE_OVERS, settle_lost_runs
from videogen.journal.store import Journal

pytestmark = pytest.mark.xdist_group("deployed-runs")  # they look at all runs of deployments on the shared server

LATER = timedelta(minutes=10)
"""How long after a run began it is looked at."""

BUSY_TRIES = 30


@dataclass
class House:
    """A work pool `videogen` with a deployment, the flow runs of it, and the journal of their runs."""

    api: str
    journal: Path
    then: datetime = field(default_factory=lambda: datetime.now(UTC) + LATER)
    """When the runs are looked at."""
    _deployment: str = field(init=False)

    def __post_init__(self) -> None:
        self._call("POST", "work_pools/", {"name": "videogen", "type": "process"}, may_exist=True)
        flow = self._call("POST", "flows/", {"name": "videogen"})["id"]
        fields = {"name": f"d-{uuid4().hex[:8]}", "flow_id": flow, "work_pool_name": "videogen"}
        self._deployment = self._call("POST", "deployments/", fields)["id"]

    def add_run(self, *states: str, run_id: str | None = None) -> str:
        """A flow run that was in these states, one after the other; `run_id` is its run in the journal."""
        run: str = self._call("POST", f"deployments/{self._deployment}/create_flow_run", {})["id"]
        for name in states:
            self.set_state(run, name)
        if run_id:
            self._call("PATCH", f"flow_runs/{run}/labels", {"videogen.run": run_id})
        return run

    def set_state(self, run: str, name: str) -> None:
        type_ = {"TakenOver": "SCHEDULED", "Suspended": "PAUSED", "PartialSuccess": "COMPLETED"}.get(name, name.upper())
        state: dict[str, Any] = {"type": type_, "name": name}
        if type_ == "PAUSED":
            timeout = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
            state["state_details"] = {"pause_timeout": timeout, "pause_reschedule": name == "Suspended"}
        self._call("POST", f"flow_runs/{run}/set_state", {"state": state, "force": True})

    def states(self, run: str) -> list[str]:
        return [state["name"] for state in self._call("GET", f"flow_run_states/?flow_run_id={run}")]

    def message(self, run: str) -> str:
        message: str = self._call("GET", f"flow_runs/{run}")["state"]["message"]
        return message

    def beat(self, run: str, *, at: datetime) -> None:
        """A heartbeat of the flow run, once the server has it."""
        event = {
            "occurred": at.isoformat(),
            "event": "prefect.flow-run.heartbeat",
            "resource": {"prefect.resource.id": f"prefect.flow-run.{run}"},
            "id": str(uuid4()),
        }
        self._call("POST", "events", [event])
        wanted = {"filter": {"resource": {"id": [f"prefect.flow-run.{run}"]}, "event": {"name": [event["event"]]}}}
        occurred = {"since": (at - LATER).isoformat(), "until": (at + LATER).isoformat()}
        wanted["filter"] |= {"occurred": occurred}
        wait_until(lambda: self._call("POST", "events/filter", wanted)["total"] > 0)

    def start_run(self, *, seen_at: datetime, verdict: str | None = None) -> str:
        """A run in the journal; its lease counts from `seen_at`."""
        run_id = uuid4().hex[:12]
        with closing(Journal(f"sqlite:///{self.journal}")) as journal:
            journal.start_run(run_id, job_id="film", origin="local", folder="/films/film")
            if verdict:
                journal.end_run(run_id, verdict=verdict)
        with closing(sqlite3.connect(self.journal, isolation_level=None)) as db:
            db.execute("UPDATE runs SET seen_at = ? WHERE id = ?", (f"{seen_at:%Y-%m-%d %H:%M:%S.%f}", run_id))
        return run_id

    def look(self, *runs: str) -> set[str]:
        """Those of the flow runs that are settled by a look ten minutes later."""

        async def look() -> set[str]:
            async with get_client() as client:
                return {str(run.id) for run, _ in await settle_lost_runs(client, now=self.then)}

        with temporary_settings({PREFECT_API_URL: self.api}):
            return asyncio.run(look()) & set(runs)

    def _call(self, method: str, path: str, body: Any = None, *, may_exist: bool = False) -> Any:
        for _ in range(BUSY_TRIES):  # a server on SQLite that is busy answers 503, and wants to be asked again
            answer = httpx.request(method, f"{self.api}/{path}", json=body, trust_env=False, timeout=250)
            if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                break
            time.sleep(1)
        if not (may_exist and answer.status_code == 409):
            answer.raise_for_status()
        return answer.json() if answer.content else None


@pytest.fixture
def house(prefect_api: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    journal = tmp_path / "journal.db"
    monkeypatch.setenv("VIDEOGEN_JOURNAL_URL", f"sqlite:///{journal}")
    house = House(prefect_api, journal)
    before = house._call("POST", "flow_runs/filter", {"flow_runs": {"state": {"type": {"any_": ["RUNNING"]}}}})
    for run in before:
        if run["deployment_id"] == house._deployment:  # of an earlier test here
            house.set_state(run["id"], "Cancelled")
    return house


@pytest.mark.long_variants
@pytest.mark.parametrize(
    "states",
    [
        ["Pending", "Running", "Completed"],
        ["Pending", "Running", "PartialSuccess"],
        ["Pending", "Running", "Failed"],
        ["Pending", "Running", "Crashed"],
        ["Pending", "Running", "Cancelling"],
        ["Pending", "Running", "Cancelling", "Cancelled"],
        ["Pending", "Running", "Paused"],
        ["Pending", "Running", "Suspended"],
        ["Pending"],
        [],
    ],
    ids=lambda states: "-".join(states[-1:]) or "Scheduled",
)
def test_only_what_is_running_is_taken_over(house: House, states: list[str]) -> None:
    """Silent for ten minutes, with a lease that has run out: what has ended, waits or was stopped stays as it is."""
    run = house.add_run(*states, run_id=house.start_run(seen_at=datetime.now(UTC)))
    before = house.states(run)
    assert house.look(run) == set()
    assert house.states(run) == before


def test_a_lost_run_is_taken_over(house: House) -> None:
    """Nobody has heard of it, neither Prefect nor the journal."""
    run = house.add_run("Pending", "Running", run_id=house.start_run(seen_at=datetime.now(UTC)))
    assert house.look(run) == {run}
    assert house.states(run)[-1] == "TakenOver"


def test_a_run_that_made_no_clip_yet_is_taken_over(house: House) -> None:
    """It is in no journal."""
    run = house.add_run("Pending", "Running")
    assert house.look(run) == {run}
    assert house.states(run)[-1] == "TakenOver"


def test_a_run_that_prefect_hears_of_goes_on(house: House) -> None:
    """Though its journal does not."""
    run = house.add_run("Pending", "Running", run_id=house.start_run(seen_at=datetime.now(UTC)))
    house.beat(run, at=house.then - timedelta(seconds=60))
    assert house.look(run) == set()


def test_a_run_with_a_lease_goes_on(house: House) -> None:
    """Its heartbeats are lost, but its process is not: it tells the journal that it is alive."""
    alive = house.start_run(seen_at=house.then - timedelta(seconds=5))
    run = house.add_run("Pending", "Running", run_id=alive)
    assert house.look(run) == set()


def test_a_run_that_began_just_now_goes_on(house: House) -> None:
    """It had no time to be heard of."""
    run = house.add_run("Pending", "Running")

    async def look() -> list[Any]:
        async with get_client() as client:
            return await settle_lost_runs(client, now=datetime.now(UTC) + timedelta(seconds=60))

    with temporary_settings({PREFECT_API_URL: house.api}):
        assert asyncio.run(look()) == []
    assert house.states(run)[-1] == "Running"


@pytest.mark.long_variants
@pytest.mark.parametrize(
    ("verdict", "state"),
    [
        ("complete", "Completed"),
        ("partial", "PartialSuccess"),
        ("failed", "Failed"),
    ],
)
def test_a_run_that_came_to_its_end_is_not_started_again(house: House, verdict: str, state: str) -> None:
    """Its worker was lost after the verdict and before Prefect heard of it: with `fresh` it would be paid for again."""
    run = house.add_run("Pending", "Running", run_id=house.start_run(seen_at=datetime.now(UTC), verdict=verdict))
    house.look(run)
    assert house.states(run)[-1] == state
    assert "TakenOver" not in house.states(run)


def test_a_run_that_was_interrupted_with_its_worker_is_taken_over(house: House) -> None:
    """It has not come to its end; a run that a person cancels is Cancelling."""
    run_id = house.start_run(seen_at=datetime.now(UTC), verdict="interrupted")
    run = house.add_run("Pending", "Running", run_id=run_id)
    assert house.look(run) == {run}
    assert house.states(run)[-1] == "TakenOver"


def test_a_run_is_taken_over_a_few_times_only(house: House) -> None:
    """One that brings down each worker ends as Crashed, and says so."""
    run = house.add_run("Pending", "Running")
    for _ in range(MAX_TAKE_OVERS):
        assert house.look(run) == {run}
        house.set_state(run, "Pending")
        house.set_state(run, "Running")
    assert house.look(run) == {run}
    assert house.states(run).count("TakenOver") == MAX_TAKE_OVERS
    assert house.states(run)[-1] == "Crashed"
    assert "for the 4th time" in house.message(run)
    assert house.look(run) == set()


def test_nothing_is_taken_over_while_the_journal_cannot_be_read(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is alive is not known then."""
    run = house.add_run("Pending", "Running", run_id=house.start_run(seen_at=datetime.now(UTC)))
    house.journal.write_bytes(b"no database")
    with pytest.raises(JournalError):
        house.look(run)
    assert house.states(run)[-1] == "Running"
