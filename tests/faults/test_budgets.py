"""Budgets that runs share, by the emulator's own books: nothing is billed above them, whatever fails meanwhile."""

import asyncio
from contextlib import closing
from decimal import Decimal
from typing import Any

import pytest

from tests.faults.conftest import PRICE, Stage, code, job_of
from videogen.app import prepare_job
from videogen.errors import ValidationError
from videogen.journal.store import Journal
from videogen.planning.budgets import Budget

TROUBLE = (
    'do = "fail"\nerror = "CUDA out of memory"\nnth_create = [2, 5, 9]\ntimes = 3',
    'do = "cancel"\nnth_create = [3, 7]\ntimes = 2',
    'do = "lose_answer"\non = "create"\nnth_create = [4, 8]\ntimes = 2',
    'do = "stick"\nnth_create = 6',
)


def journal_of(stage: Stage, url: str | None = None) -> Any:
    return closing(Journal(url or f"sqlite:///{stage.folder / 'out' / 'journal.db'}"))


def have_budget(stage: Stage, name: str = "team", *, clips: str, url: str | None = None, **fields: Any) -> Budget:
    """A budget of the price of so many clips."""
    (stage.folder / "out").mkdir(exist_ok=True)
    amount = Decimal(clips) * PRICE
    budget = Budget.model_validate({"name": name, "amount": amount, "period": "month", **fields})
    with journal_of(stage, url) as journal:
        journal.set_budget(budget)
    return budget


def get_taken(stage: Stage, budget: Budget, url: str | None = None) -> tuple[Decimal, Decimal]:
    with journal_of(stage, url) as journal:
        use = journal.get_budget_use(budget, stage.origin)
    return use.spent, use.reserved


def find_alerts(stage: Stage, run_id: str, url: str | None = None) -> list[dict[str, Any]]:
    with journal_of(stage, url) as journal:
        return [payload for _, type_, payload in journal.read_events(run_id) if type_ == "budget.alert"]


async def test_a_run_counts_for_the_budgets_of_its_environment_and_of_its_job(stage: Stage) -> None:
    stage.emulate()
    budgets = [have_budget(stage, name, clips="10") for name in ("team", "studio", "film", "other")]
    stage.setenv("VIDEOGEN_BUDGET", "team, studio")
    await stage.shoot("A boat", budget=["film", "team"])
    assert [get_taken(stage, budget)[0] for budget in budgets] == [PRICE, PRICE, PRICE, 0]
    await stage.shoot("A gull", id="another", budget="other")
    assert [get_taken(stage, budget)[0] for budget in budgets] == [2 * PRICE, 2 * PRICE, PRICE, PRICE]


async def test_a_run_whose_budget_is_missing_creates_nothing(stage: Stage) -> None:
    """Neither with a new journal, nor with one that has other budgets."""
    stage.emulate()
    with pytest.raises(ValidationError, match="budget: the journal has no budget 'team' yet"):
        await stage.shoot("A boat", budget="team")
    assert not (stage.folder / "out").exists()
    have_budget(stage, clips="10")
    stage.setenv("VIDEOGEN_BUDGET", "teem")
    with pytest.raises(ValidationError) as refused:
        await stage.shoot("A boat", budget=["team", "tream"])
    out = f" --out {stage.folder / 'out'}"  # the command finds this very journal
    assert str(refused.value).splitlines() == [
        "environment: VIDEOGEN_BUDGET: the journal has no budget 'teem'; did you mean 'team'? To create it: videogen "
        f"budget teem 200/month{out}",
        "budget: the journal has no budget 'tream'; did you mean 'team'? To create it: videogen budget tream "
        f"200/month{out}",
    ]
    stage.books(creates=0, billed=0)


async def test_clips_that_a_budget_does_not_cover_fail_until_it_is_raised(stage: Stage) -> None:
    """The plan warns of them. A plan of which no clip is covered is refused."""
    stage.emulate()
    have_budget(stage, clips="2.5")
    job = job_of("a", "b", "c", "d", budget="team", min_clips=1)
    planned = (await prepare_job(job, stage.options)).plan
    assert "does not cover will fail with `budget`" in planned.warnings[-1]
    batch = await stage.shoot("a", "b", "c", "d", budget="team", min_clips=1)
    assert sorted(str(code(clip)) for clip in batch.clips) == ["None", "None", "budget", "budget"]
    with pytest.raises(ValidationError, match=r"budget team: \$0.12 of \$0.15 .* does not cover any clip"):
        await stage.shoot("a", "b", "c", "d", budget="team")
    have_budget(stage, clips="4")
    batch = await stage.shoot("a", "b", "c", "d", budget="team")
    assert batch.verdict.status == "complete"
    stage.books(creates=4, billed=4)


async def test_alerts_are_events_of_the_run_that_reaches_them(stage: Stage) -> None:
    """With the counts of the run, as all events have them; a run that reaches nothing new tells nothing."""
    stage.emulate()
    have_budget(stage, clips="4")
    first = await stage.shoot("a", "b", "c", budget="team", in_turn="created")
    alerts = find_alerts(stage, first.run_id)
    assert [(alert["percent"], alert["taken"], alert["amount"]) for alert in alerts] == [(50, "0.120", "0.24")]
    assert (alerts[0]["run_id"], alerts[0]["total"], alerts[0]["budget"]) == (first.run_id, 3, "team")
    second = await stage.shoot("d", id="another", budget="team")
    assert [alert["percent"] for alert in find_alerts(stage, second.run_id)] == [80, 100]


async def test_a_prediction_that_another_run_continues_counts_for_the_budget_of_its_beginning(stage: Stage) -> None:
    stage.emulate(latency_s=(1.0, 1.0))
    budget = have_budget(stage, clips="10")
    leaving = asyncio.create_task(stage.shoot("A boat", budget="team", options={"on_interrupt": "leave"}))
    while not stage.emulator.ledger()["creates"]:
        await asyncio.sleep(0.02)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    batch = await stage.shoot("A boat")
    assert batch.successful_clips == 1
    assert get_taken(stage, budget) == (PRICE, Decimal(0))
    stage.books(creates=1, billed=1)


@pytest.mark.parametrize("clips", ["7.5", pytest.param("11", marks=pytest.mark.long)])
async def test_three_runs_at_a_time_on_one_postgresql_are_billed_no_more_than_their_budget(
    stage: Stage, direct_url: str, clips: str
) -> None:
    """Of 18 clips with failures, cancels, lost answers and a prediction that hangs; each alert is told by one run."""
    stage.keep_journal_at(direct_url, direct_url=direct_url)
    stage.emulate(*TROUBLE)
    budget = have_budget(stage, clips=clips, url=direct_url)
    stage.setenv("VIDEOGEN_BUDGET", "team")
    batches = await asyncio.gather(
        *(
            stage.shoot(*(f"{name} {number}" for number in range(6)), id=name, min_clips=1, timeout_seconds=2)
            for name in ("one", "two", "three")
        )
    )
    billed = Decimal(stage.emulator.ledger()["billed"])
    spent, reserved = get_taken(stage, budget, direct_url)
    assert billed <= spent + reserved <= budget.amount
    assert billed > budget.amount / 2
    assert any(code(clip) == "budget" for batch in batches for clip in batch.clips)
    told = [alert["percent"] for batch in batches for alert in find_alerts(stage, batch.run_id, direct_url)]
    assert sorted(told)[:2] == [50, 80]
    assert len(told) == len(set(told))
