"""A person approves the cost of scheduled runs in Prefect's pages: a real server and worker, and a real browser."""

import json
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from itertools import count
from typing import Any

import pytest

from tests.deployments.person import Person
from tests.deployments.stage import Stage, job_of, stage_in
from tests.faults.conftest import PRICE
from tests.flows.conftest import wait_until
from videogen.journal.store import Journal

pytestmark = [pytest.mark.xdist_group("approval"), pytest.mark.timeout(900), pytest.mark.long]
_names = count(1)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("approval")
    with stage_in(folder / "stage", folder / "films", ui=True, latency_s=(1.0, 1.0)) as stage:
        yield stage


def ask(stage: Stage, scenes: int = 4, **parameters: Any) -> tuple[str, str]:
    """Schedule a run that needs an approval, and return its job and the id of the flow run once it waits for it."""
    job = f"film-{next(_names)}"
    flow_run = stage.schedule(job_of(job, scenes), **{"approve_above": 0.1, **parameters})
    stage.wait_for_state(flow_run, "Suspended")
    return job, flow_run


def billed(stage: Stage) -> Decimal:
    return Decimal(stage.emulator.ledger()["billed"])


def clip_codes(stage: Stage, job: str) -> list[str | None]:
    manifest = json.loads((stage.folder / "out" / job / "manifest.json").read_text())
    return [clip["error"] and clip["error"]["code"] for clip in manifest["clips"]]


def count_runs(stage: Stage, job: str) -> int:
    """Return how many runs of a job the journal has."""
    with closing(Journal(stage.environment["VIDEOGEN_JOURNAL_URL"], read_only=True)) as journal:
        return sum(run.job_id == job for run in journal.list_runs(limit=100))


def test_a_person_approves_less_than_the_plan_costs(stage: Stage, person: Person) -> None:
    """The form has the price and the budget. The clips that the amount covers are made, and nothing is billed above it.
    While the run waits, it has no process, no lock, no lease and no slot."""
    job, flow_run = ask(stage)
    wait_until(lambda: stage.workers_of(flow_run) == [])
    assert (count_runs(stage, job), stage.emulator.ledger()["creates"]) == (0, 0)
    assert not list((stage.folder / "out").glob(f"{job}/.lock"))
    form = person.open_form(flow_run)
    for text in ("about $0.24", "above the $0.10", "Spent so far $0.00", "$0.72", "s000, s001, s002, s003"):
        form.get_by_text(text).first.wait_for()
    person.page.screenshot(path=stage.folder / "form.png")
    person.answer(form, "approve", amount="0.13")
    assert stage.wait_for_end(flow_run) == ["Failed"]  # with two clips, of which three are needed
    assert sorted(map(str, clip_codes(stage, job))) == ["None", "None", "budget", "budget"]
    assert billed(stage) == 2 * PRICE <= Decimal("0.13")


def test_a_person_approves_the_price_of_the_plan(stage: Stage, person: Person) -> None:
    """By the amount that the form has already."""
    job, flow_run = ask(stage)
    person.answer(person.open_form(flow_run), "approve")
    assert stage.wait_for_end(flow_run) == ["Completed"]
    assert (clip_codes(stage, job), billed(stage)) == ([None] * 4, 4 * PRICE)
    assert stage.states(flow_run).count("Suspended") == 1


def test_a_person_refuses(stage: Stage, person: Person) -> None:
    """The run ends as cancelled, and says why."""
    job, flow_run = ask(stage)
    person.answer(person.open_form(flow_run), "refuse", note="Not before Friday")
    assert stage.wait_for_end(flow_run) == ["Cancelled"]
    assert str(stage.state(flow_run)["message"]).startswith(
        "refused to spend $0.24: Not before Friday. Nothing was spent"
    )
    assert (count_runs(stage, job), stage.emulator.ledger()["creates"]) == (0, 0)


def test_without_an_answer_in_time_the_run_is_cancelled(stage: Stage) -> None:
    """By the worker, within a minute or so."""
    job, flow_run = ask(stage, approve_within_hours=0.001)
    assert stage.wait_for_end(flow_run) == ["Cancelled"]
    assert str(stage.state(flow_run)["message"]).startswith("nobody approved $0.24 until ")
    assert (count_runs(stage, job), stage.emulator.ledger()["creates"]) == (0, 0)


def test_the_approval_outlives_the_worker(stage: Stage, person: Person) -> None:
    """It is killed while the run waits, and again while the run makes clips: the amount holds, and nothing is paid for
    twice. The run was not taken over while it waited."""
    job, flow_run = ask(stage, scenes=12)
    stage.kill_worker("one")
    form = person.open_form(flow_run)
    person.answer(form, "approve", amount="0.60")
    stage.start_worker("two", bounded=False)
    stage.wait_for_creates(6)
    assert "TakenOver" not in stage.states(flow_run)
    stage.kill_worker("two")
    stage.hand_over(flow_run)
    stage.start_worker("one", bounded=False)
    assert stage.wait_for_end(flow_run) == ["PartialSuccess"]
    codes = clip_codes(stage, job)
    assert (codes.count(None), codes.count("budget"), billed(stage)) == (10, 2, 10 * PRICE)
    assert stage.states(flow_run).count("Suspended") == 1


def test_a_run_below_the_amount_needs_no_approval(stage: Stage) -> None:
    job = f"film-{next(_names)}"
    flow_run = stage.schedule(job_of(job, 3), approve_above="0.18")
    assert stage.wait_for_end(flow_run) == ["Completed"]
    assert "Suspended" not in stage.states(flow_run)
