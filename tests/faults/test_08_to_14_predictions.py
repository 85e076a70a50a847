"""Predictions that fail, hang, are ended by others, or are told in an unexpected way."""

import asyncio
from decimal import Decimal

import pytest

from tests.faults.conftest import PRICE, PROMPT, Change, Stage, code, job_of, only
from videogen.app import prepare_job
from videogen.execution.rate_limit_gate import ProviderGate

FLAGGED = "The input or output was flagged as sensitive. Please try again with different inputs. (E005)"
PASSING = [
    "CUDA out of memory. Tried to allocate 20.25 GiB",
    "Prediction interrupted; please retry (code: PA)",
    "Director: unexpected error handling prediction (E9828)",
]


async def test_08_a_flagged_prompt_is_not_tried_again(stage: Stage) -> None:
    """Permanent, with its own code, after one prediction, which costs nothing."""
    stage.emulate(f'do = "fail"\nerror = "{FLAGGED}"\ntimes = "always"')
    clip = only(await stage.shoot())
    assert clip.error
    assert (clip.error.code, clip.error.retryable, clip.attempts, clip.cost) == ("moderation", False, 1, Decimal(0))
    stage.books(creates=1, billed=0)


@pytest.mark.long_variants
@pytest.mark.parametrize("error", PASSING)
async def test_09_a_passing_failure_gets_new_predictions(stage: Stage, error: str) -> None:
    """The third one brings the clip; only that one is paid for."""
    stage.emulate(f'do = "fail"\nerror = "{error}"\ntimes = 2')
    clip = only(await stage.shoot())
    assert (clip.status, clip.attempts, clip.retry_count, clip.cost) == ("success", 3, 2, PRICE)
    stage.books(creates=3, billed=1)


async def test_09_three_predictions_are_all(stage: Stage) -> None:
    stage.emulate(f'do = "fail"\nerror = "{PASSING[0]}"\ntimes = "always"')
    clip = only(await stage.shoot())
    assert (code(clip), clip.attempts, len(clip.prediction_ids)) == ("model-error", 3, 3)
    stage.books(creates=3, billed=0)


async def test_10_a_stuck_prediction_is_cancelled_before_the_next_one(stage: Stage) -> None:
    """It is paid for, as the manifest says; never do two of one clip run at once."""
    stage.emulate('do = "stick"')
    clip = only(await stage.shoot(timeout_seconds=1))
    assert (clip.status, clip.attempts, clip.cost) == ("success", 2, 2 * PRICE)
    ledger = stage.books(creates=2, billed=2, cancels=1)
    assert [row["status"] for row in ledger["predictions"]] == ["canceled", "succeeded"]
    assert ledger["peak"] == 1


@pytest.mark.long_variants
@pytest.mark.parametrize(
    ("do", "ended_as", "billed"),
    [pytest.param("abort", "aborted", 0, id="aborted"), pytest.param("cancel", "canceled", 1, id="canceled")],
)
async def test_11_a_prediction_that_others_ended_is_made_again(
    stage: Stage, do: str, ended_as: str, billed: int
) -> None:
    """Under its own code; we cancel nothing."""
    stage.emulate(f'do = "{do}"\ntimes = 4')
    assert code(only(await stage.shoot())) == ended_as
    clip = only(await stage.shoot())
    assert (clip.status, clip.attempts) == ("success", 2)
    stage.books(creates=5, billed=4 * billed + 1)


async def test_11_what_the_user_cancels_is_not_made_again(stage: Stage) -> None:
    """One create, cancelled remotely, and nothing runs on."""
    stage.emulate('do = "stick"')
    making = asyncio.create_task(stage.shoot())
    while not await asyncio.to_thread(lambda: stage.emulator.ledger()["creates"]):
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.3)
    making.cancel()
    with pytest.raises(asyncio.CancelledError):
        await making
    stage.books(creates=1, billed=1, cancels=1)


@pytest.mark.long_variants
@pytest.mark.parametrize("fault", ['do = "status"\nstatus = 500\ntimes = 2', 'do = "lose_answer"', 'do = "hang"'])
async def test_12_a_cancel_that_fails_is_repeated(stage: Stage, fault: str) -> None:
    """The next attempt begins when the end of the last one is certain."""
    stage.emulate('do = "stick"', f'on = "cancel"\n{fault}')
    clip = only(await stage.shoot(timeout_seconds=1))
    assert (clip.status, clip.attempts) == ("success", 2)
    ledger = stage.books(creates=2, billed=2, cancels=2 if "lose" in fault else 1)
    assert ledger["peak"] == 1


async def test_12_a_clip_that_succeeds_while_it_is_cancelled_is_kept(stage: Stage) -> None:
    """It is paid for."""
    stage.emulate('on = "cancel"\ndo = "status"\nstatus = 500\ntimes = "always"', latency_s=(1.8, 1.8))
    clip = only(await stage.shoot(timeout_seconds=1))
    assert (clip.status, clip.attempts, clip.cost) == ("success", 1, PRICE)
    stage.books(creates=1, billed=1)


async def test_12_where_the_end_is_uncertain_nothing_is_created(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The prediction may still run: this run leaves it, and the next one goes on with it."""
    monkeypatch.setattr("videogen.execution.prediction.CLEAN_UP_S", 0.3)
    stage.emulate('on = "cancel"\ndo = "status"\nstatus = 500\ntimes = "always"', latency_s=(2.5, 2.5))
    assert code(only(await stage.shoot(timeout_seconds=1))) == "unreachable"
    assert stage.emulator.ledger()["creates"] == 1
    assert only(await stage.shoot()).status == "success"
    stage.books(creates=1, billed=1)


async def test_13_polls_that_fail_in_a_row_are_outlived(stage: Stage, defaults: Change) -> None:
    """More of them than any call but a poll is repeated, of every kind: one create, no attempt, no cancel."""
    defaults(ProviderGate.__init__, backoff_s=0.003)
    stage.emulate(
        'on = "poll"\ndo = "status"\nstatus = 503\ntimes = 2',
        'on = "poll"\ndo = "refuse"\ntimes = 2',
        'on = "poll"\ndo = "lose_answer"',
        'on = "poll"\ndo = "reset"',
        'on = "poll"\ndo = "hang"',
        'on = "poll"\ndo = "html_500"\nstatus = 502',
        'on = "poll"\ndo = "malformed_json"',
    )
    clip = only(await stage.shoot())
    assert (clip.status, clip.attempts) == ("success", 1)
    assert stage.books(creates=1, billed=1)["faults"] == [2, 2, 1, 1, 1, 1, 1]


async def test_13_polls_that_never_work_end_at_the_deadline(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cancelled to be safe, and left for the next run: never a second create."""
    monkeypatch.setattr("videogen.execution.prediction.CLEAN_UP_S", 0.5)
    stage.emulate('on = "poll"\ndo = "status"\nstatus = 503\ntimes = "always"')
    clip = only(await stage.shoot(timeout_seconds=1))
    assert (code(clip), clip.attempts) == ("unreachable", 1)
    stage.books(creates=1, billed=1, cancels=1)


TOLD_ODDLY = [
    pytest.param('on = "poll"\ndo = "malformed_json"', id="malformed"),
    pytest.param('on = "poll"\ndo = "unknown_status"\ntimes = 3', id="unknown-status"),
    pytest.param('on = "create"\ndo = "unknown_status"', id="unknown-status-of-a-create"),
    pytest.param('do = "list_output"\ntimes = "always"', id="list"),
    pytest.param('do = "dict_output"\ntimes = "always"', id="dict"),
]


@pytest.mark.long_variants
@pytest.mark.parametrize("rule", TOLD_ODDLY)
async def test_14_what_is_told_oddly_is_understood(stage: Stage, rule: str) -> None:
    """A status that nobody knows is still running; an output may be in a list or an object."""
    stage.emulate(rule)
    clip = only(await stage.shoot())
    assert (clip.status, clip.attempts) == ("success", 1)
    stage.books(creates=1, billed=1)


async def test_14_a_status_that_nobody_knows_ends_at_the_deadline_of_its_clip(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is cancelled, and counts as billed. No later run waits for it: the attempt is over."""
    monkeypatch.setattr("videogen.execution.prediction.CLEAN_UP_S", 0.5)
    unknown = 'do = "unknown_status"\nstatus = "on fire"\ntimes = "always"'
    stage.emulate(f'on = "poll"\n{unknown}', f'on = "cancel"\n{unknown}', latency_s=(60, 60))
    clip = only(await stage.shoot(timeout_seconds=1, attempts=1))
    assert (code(clip), clip.attempts, clip.cost) == ("timeout", 1, PRICE)
    stage.books(creates=1, billed=1, cancels=1)
    plan = (await prepare_job(job_of(), stage.options)).plan
    assert (plan.spent_before, plan.total_cost) == (PRICE, PRICE)


async def test_14_an_output_that_is_told_late_is_waited_for(stage: Stage) -> None:
    """Succeeded with output null, once: it is looked at again, for it is paid for."""
    stage.emulate('do = "null_output"')
    clip = only(await stage.shoot())
    assert (clip.status, clip.attempts) == ("success", 1)
    stage.books(creates=1, billed=1)


async def test_14_a_success_without_output_has_failed(stage: Stage) -> None:
    """It is asked for again for a while, not made again; what it cost is told, and the answer is kept."""
    stage.emulate('do = "null_output"\ntimes = "always"')
    clip = only(await stage.shoot(PROMPT))
    assert (code(clip), clip.attempts, clip.cost) == ("bad-output", 1, PRICE)
    assert [path.name for path in stage.job_folder.glob(".scratch/*.rejected.json")]
    stage.books(creates=1, billed=1)
