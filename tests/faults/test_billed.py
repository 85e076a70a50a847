"""What is booked is what was billed, by the provider's own books, and what differs from the plan is said."""

import json
from decimal import Decimal
from typing import Any

import pytest

from tests.faults.conftest import PRICE, Stage, code, job_of, only
from tests.flows.conftest import CommandLine
from videogen.app import prepare_job
from videogen.journal.store import Journal
from videogen.results.run_result import RunResult

SOURCE = "look it up at https://replicate.com/bytedance/seedance-1-pro"


def bills(inputs: str, *, times: int | str = '"always"', on: str = "") -> str:
    return f'do = "bill"\ninputs = {inputs}\ntimes = {times}\n{on}'


def compare_books(stage: Stage, batch: RunResult) -> Decimal:
    """Return what was billed by the ledger. The journal, the manifest and the cost note must say the same."""
    billed = Decimal(stage.emulator.ledger()["billed"])
    manifest = json.loads((stage.job_folder / "manifest.json").read_text())
    note = json.loads((stage.job_folder / ".costs.json").read_text())[stage.origin]
    journal = Journal(f"sqlite:///{stage.folder / 'out' / 'journal.db'}")
    spent = journal.get_job_spending(batch.job_id, stage.origin)
    journal.close()
    assert Decimal(manifest["total_cost"]) == Decimal(manifest["job_cost"]) == Decimal(note["cost"]) == billed
    assert (batch.total_cost, spent) == (billed, (billed, Decimal(0)))
    return billed


async def test_other_seconds_than_planned_are_booked_and_said(stage: Stage) -> None:
    """Of three clips two are billed for more than double; the plan had $0.18."""
    stage.emulate(bills("{ duration = 5 }", times=2))
    batch = await stage.shoot("a", "b", "c")
    assert compare_books(stage, batch) == Decimal("0.36")
    assert sorted(clip.cost for clip in batch.clips) == [PRICE, Decimal("0.15"), Decimal("0.15")]
    said = (
        "quick: 2 clips were billed $0.15 each, not $0.06 as planned (5 s instead of 2 s): the registry's price looks "
        f"stale, {SOURCE}"
    )
    assert (batch.verdict.status, batch.verdict.warnings) == ("complete", (said,))
    assert sorted(clip.warnings for clip in batch.clips) == [(), ("billed",), ("billed",)]
    manifest = RunResult.from_manifest((stage.job_folder / "manifest.json").read_text())
    assert manifest.verdict.warnings == (said,)
    assert said in (stage.job_folder / "index.html").read_text().replace("&#39;", "'")


async def test_fewer_seconds_than_planned_are_booked(stage: Stage) -> None:
    stage.emulate(bills("{ duration = 1 }"))
    batch = await stage.shoot("a")
    assert compare_books(stage, batch) == Decimal("0.03")
    assert "billed $0.03, not $0.06 as planned" in batch.verdict.warnings[0]


async def test_a_clip_that_was_billed_as_planned_needs_no_word(stage: Stage) -> None:
    """Nor does one that an earlier run was warned of, and that is reused."""
    stage.emulate(bills("{ duration = 5 }", times=1, on="nth_create = 2"))
    assert (await stage.shoot("a")).verdict.warnings == ()
    assert len((await stage.shoot("a", "b")).verdict.warnings) == 1
    again = await stage.shoot("a", "b")
    assert (again.verdict.warnings, again.total_cost) == ((), Decimal(0))
    assert Decimal(stage.emulator.ledger()["billed"]) == Decimal("0.21")


async def test_sound_that_is_billed_unasked_has_its_price(stage: Stage) -> None:
    """The registry knows both prices of the model, $0.80 and $1.60."""
    stage.emulate(bills("{ generate_audio = true }"))
    batch = await stage.shoot("A boat", model="heard")
    assert compare_books(stage, batch) == Decimal("1.60")
    (said,) = batch.verdict.warnings
    assert said.startswith("heard: 1 clip was billed $1.60, not $0.80 as planned (with sound instead of without): ")


async def test_another_resolution_is_said(stage: Stage) -> None:
    """The registry has no price for it: the plan's is booked, and the word says where to look."""
    stage.emulate(bills('{ resolution = "1080p" }'))
    batch = await stage.shoot("a")
    assert only(batch).cost == PRICE
    assert only(batch).warnings == ("billed",)
    (said,) = batch.verdict.warnings
    assert (
        said == f"quick: 1 clip was billed 1080p instead of 480p: the registry's price may be wrong for that, {SOURCE}"
    )


@pytest.mark.long_variants
@pytest.mark.parametrize("seconds", ["nan", "-5", "1e9", '"soon"', "[5]", "true"])
async def test_seconds_that_cannot_be_true_are_not_booked(stage: Stage, seconds: str) -> None:
    """The plan's price is."""
    stage.emulate(f'do = "show"\nfields = {{ metrics = {{ video_output_duration_seconds = {seconds} }} }}')
    batch = await stage.shoot("a")
    assert (compare_books(stage, batch), batch.verdict.warnings) == (PRICE, ())


async def test_a_provider_that_tells_no_metrics_is_booked_by_the_plan(stage: Stage) -> None:
    stage.emulate('do = "show"\njson_text = \'{"metrics": null}\'')
    batch = await stage.shoot("a")
    assert (compare_books(stage, batch), batch.verdict.warnings) == (PRICE, ())


async def test_49_the_cap_holds_with_the_price_that_is_billed(stage: Stage) -> None:
    """Three clips are planned for $0.18, and each is billed double. By the plan there is room for another one after the
    first, but not by the bill of the first."""
    stage.emulate(bills("{ duration = 4 }"))
    batch = await stage.shoot("a", "b", "c", max_cost="0.23", concurrency=1, min_clips=1)
    assert compare_books(stage, batch) == Decimal("0.12")
    assert sorted(str(code(clip)) for clip in batch.clips) == ["None", "budget", "budget"]


async def test_49_the_next_run_counts_what_was_billed(stage: Stage) -> None:
    stage.emulate(bills("{ duration = 4 }"))
    await stage.shoot("a", max_cost="0.17")
    plan = (await prepare_job(job_of("a", "b", max_cost="0.17"), stage.options)).plan
    assert plan.spent_before == Decimal("0.12")
    batch = await stage.shoot("a", "b", max_cost="0.17", min_clips=1)
    assert (Decimal(stage.emulator.ledger()["billed"]), code(batch.clips[1])) == (Decimal("0.12"), "budget")


async def test_a_failed_clip_is_booked_as_it_was_billed(stage: Stage) -> None:
    """It came too long, three times, and was billed so; the word counts it, too."""
    stage.emulate(bills("{ duration = 10 }"), 'do = "wrong_duration"\nseconds = 10\ntimes = "always"')
    batch = await stage.shoot("a", attempts=2)
    assert (code(only(batch)), compare_books(stage, batch)) == ("duration", Decimal("0.60"))
    assert "quick: 1 clip was billed $0.60, not $0.12 as planned (10 s instead of 2 s)" in batch.verdict.warnings[0]


async def test_what_an_earlier_run_left_is_booked_as_it_was_billed(stage: Stage) -> None:
    """The prediction ended after its run was interrupted; the run that delivers it says the word."""
    stage.emulate(bills("{ duration = 5 }"), 'on = "download"\ndo = "refuse"\ntimes = 3')
    first = await stage.shoot("a")
    assert code(only(first)) == "unreachable"
    batch = await stage.shoot("a")
    assert (only(batch).status, only(batch).cost, only(batch).paid_before) == ("success", *[Decimal("0.15")] * 2)
    assert len(batch.verdict.warnings) == 1
    assert Decimal(stage.emulator.ledger()["billed"]) == Decimal("0.15")


def test_the_terminal_says_it(stage: Stage, command: CommandLine) -> None:
    """After the verdict."""
    stage.emulate(bills("{ duration = 5 }"))
    done = command.run(command.quick_job(1))
    assert done.code == 0
    _, verdict, rest = done.out.partition("complete: all 1 clips delivered; $0.15 of $0.06 planned")
    assert verdict
    assert "warning: quick: 1 clip was billed $0.15, not $0.06 as planned (5 s instead of 2 s): " in rest


def test_a_manifest_of_an_earlier_version_is_read(stage: Stage) -> None:
    """It has no warnings."""
    old: dict[str, Any] = {
        "run_id": "r",
        "job_id": "j",
        "model": "quick",
        "aspect_ratio": "16:9",
        "provider": "p",
        "verdict": {"status": "complete", "min_clips": 1, "reason": "all 0 clips delivered"},
        "total_generation_time": 1.0,
        "clips": [],
    }
    assert RunResult.from_manifest(json.dumps(old)).verdict.warnings == ()
