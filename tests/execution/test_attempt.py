import asyncio
import hashlib
import itertools
import os
import threading
from concurrent.futures import Executor, Future
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders import change_prediction, request_of, small_clip, strip_record
from tests.support.fakes import LOST, FakeProvider, Heard, NoImages, Script, generate, run_of
from videogen.errors import (
    AuthenticationError,
    BadOutputError,
    BillingError,
    BudgetError,
    ClipError,
    ClipTimeoutError,
    DurationError,
    GoneError,
    InputRejectedError,
    ModerationError,
    NotSentError,
    OutputExpiredError,
    PredictionFailedError,
    RateLimitedError,
    StorageError,
    TransientError,
    UnreachableError,
    is_retryable,
)
from videogen.events import RunEvent
from videogen.execution import attempt as generation
from videogen.execution import prediction
from videogen.execution.attempt import attempt_clip as generate_in_slot
from videogen.execution.context import RunContext
from videogen.execution.slots import Slot, Slots
from videogen.planning.budgets import Budget
from videogen.planning.requests import ClipRequest, ImageInput
from videogen.providers.base import Prediction
from videogen.results.clip import Clip

pytestmark = pytest.mark.integration


async def attempted(request: ClipRequest, run: RunContext) -> Clip:
    """What Prefect does: attempts as long as they may help and there are some left."""
    for attempt in range(1, request.attempts + 1):
        try:
            return await generate(request, run)
        except ClipError as exc:
            if attempt == request.attempts or not is_retryable(exc):
                raise
    raise AssertionError("unreachable")


async def test_a_clip_is_made_measured_and_delivered(tmp_path: Path) -> None:
    """The file is under its final name, whole, and the clip says what was measured."""
    provider, heard = FakeProvider(), Heard()
    run, request = run_of(tmp_path, provider, heard=heard), request_of(target_duration=4.5)
    clip = await generate(request, run)
    assert clip.video_path == f"clips/{request.name}.mp4"
    data = (tmp_path / clip.video_path).read_bytes()
    assert (clip.sha256, strip_record(data)) == (hashlib.sha256(data).hexdigest(), small_clip())
    assert (clip.actual_duration, clip.duration_diff, clip.width, clip.height, clip.fps) == (5.0, 0.5, 128, 72, 8.0)
    assert (clip.cost, clip.attempts, clip.retry_count, clip.prediction_ids) == (
        Decimal("0.350"),
        1,
        0,
        ("prediction0",),
    )
    assert (tmp_path / str(clip.poster_path)).exists()
    assert heard.types == ["clip.started", "clip.completed"]
    assert not list((tmp_path / ".scratch").iterdir())


async def test_waiting_behind_other_clips_to_be_checked_takes_none_of_a_clips_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of thousands of quick clips most wait longer than one of them may take; they are on the disk by then."""
    monkeypatch.setattr(generation, "LATE_DOWNLOAD_S", 0.3)
    run = run_of(tmp_path, FakeProvider())
    decoders = os.cpu_count() or 1
    for _ in range(decoders):
        await run.free_decoders.acquire()
    making = asyncio.create_task(generate(request_of(job_timeout_seconds=1), run))
    await asyncio.sleep(2)
    for _ in range(decoders):
        run.free_decoders.release()
    assert (await making).status == "success"


async def test_what_was_delivered_is_reused_for_nothing(tmp_path: Path) -> None:
    """By a later run, under another scene's name as well; no call goes out."""
    provider = FakeProvider()
    await generate(request_of(), run_of(tmp_path, provider))
    request = request_of(id="b", target_duration=4)
    clip = await generate(request, run_of(tmp_path, provider, run_id="run2"))
    assert len(provider.created) == 1
    assert clip.reused
    assert (clip.cost, clip.attempts, clip.scene_id, clip.duration_diff) == (Decimal(0), 0, "b", 1.0)
    assert strip_record((tmp_path / str(clip.video_path)).read_bytes()) == small_clip()


@pytest.mark.long_variants
@pytest.mark.parametrize("damage", ["deleted", "changed"])
@pytest.mark.parametrize(("age", "creates"), [(timedelta(minutes=59), 1), (timedelta(minutes=61), 2)], ids=str)
async def test_a_delivered_file_that_is_no_longer_whole_is_fetched_or_made_again(
    damage: str, age: timedelta, creates: int, tmp_path: Path
) -> None:
    """A clip is reused for what its bytes are, not for what the journal remembers; it is paid again only once the
    provider does not have it any more."""
    provider = FakeProvider()
    clip = await generate(request_of(), run_of(tmp_path, provider))
    path = tmp_path / str(clip.video_path)
    path.unlink() if damage == "deleted" else path.write_bytes(b"x")
    provider.ahead = age
    again = await generate(request_of(), run_of(tmp_path, provider, run_id="run2"))
    assert (again.reused, len(provider.created)) == (False, creates)
    assert strip_record(path.read_bytes()) == small_clip()


async def test_clips_of_another_provider_are_not_reused(tmp_path: Path) -> None:
    """What the emulator drew is not what Replicate would deliver."""
    await generate(request_of(), run_of(tmp_path, FakeProvider(origin="local")))
    clip = await generate(request_of(), run_of(tmp_path, FakeProvider(origin="api.replicate.com"), run_id="run2"))
    assert not clip.reused


async def test_the_same_clip_twice_at_once_is_made_once(tmp_path: Path) -> None:
    """The second one waits for the first and reuses it."""
    provider = FakeProvider()
    run = run_of(tmp_path, provider)
    first, second = await asyncio.gather(generate(request_of(), run), generate(request_of(id="b"), run))
    assert len(provider.created) == 1
    assert sorted([first.reused, second.reused]) == [False, True]


async def test_a_run_that_was_killed_is_continued(tmp_path: Path) -> None:
    """The prediction in the journal is gone on with; nothing is created."""
    provider = FakeProvider([Script(polls=3)])
    run, request = run_of(tmp_path, provider), request_of()
    attempt = await run.journal.record_intent(request, run_id=run.id, origin=provider.origin, folder=run.folder)
    prediction = await provider.create(request.prediction.endpoint, None, request.prediction.inputs, cancel_after_s=60)
    await run.journal.record_prediction(attempt, prediction.id, prediction.created_at)
    clip = await generate(request, run_of(tmp_path, provider, run_id="run2"))
    assert (clip.prediction_ids, len(provider.created)) == (("prediction0",), 1)
    assert clip.cost == Decimal("0.350")


async def test_a_create_that_only_the_provider_knows_of_is_found(tmp_path: Path) -> None:
    """Killed between the create and its id: the account's list is asked before anything is created."""
    provider = FakeProvider()
    run, request = run_of(tmp_path, provider), request_of()
    await run.journal.record_intent(request, run_id=run.id, origin=provider.origin, folder=run.folder)
    await provider.create(request.prediction.endpoint, None, request.prediction.inputs, cancel_after_s=60)
    clip = await generate(request, run_of(tmp_path, provider, run_id="run2"))
    assert (clip.prediction_ids, len(provider.created)) == (("prediction0",), 1)


async def test_an_intent_that_came_to_nothing_is_followed_by_a_create(tmp_path: Path) -> None:
    """Killed before the create: the list knows nothing, so nothing was paid."""
    provider = FakeProvider()
    run, request = run_of(tmp_path, provider), request_of()
    await run.journal.record_intent(request, run_id=run.id, origin=provider.origin, folder=run.folder)
    clip = await generate(request, run_of(tmp_path, provider, run_id="run2"))
    assert (clip.cost, len(provider.created)) == (Decimal("0.350"), 1)


async def test_an_answer_that_is_lost_is_looked_for_before_creating_again(tmp_path: Path) -> None:
    """The create was accepted: its prediction is adopted."""
    provider = FakeProvider(faults={"answer": [LOST]})
    clip = await generate(request_of(), run_of(tmp_path, provider))
    assert (len(provider.created), clip.prediction_ids) == (1, ("prediction0",))


async def test_a_create_that_was_not_accepted_is_sent_again(tmp_path: Path) -> None:
    """Neither in the list: only then is it created once more, without using an attempt."""
    provider = FakeProvider(faults={"create": [LOST, NotSentError("refused")]})
    clip = await generate(request_of(), run_of(tmp_path, provider))
    assert (len(provider.created), clip.attempts) == (1, 1)


async def test_somebody_elses_prediction_is_not_adopted(tmp_path: Path) -> None:
    """Another prompt, and one that an attempt of ours already has."""
    provider = FakeProvider()
    run = run_of(tmp_path, provider)
    await generate(request_of(), run)
    await provider.create(
        "kwaivgi/kling-v2.5-turbo-pro", None, request_of(prompt="other").prediction.inputs, cancel_after_s=60
    )
    provider.faults["create"] = [LOST]
    clip = await generate(request_of(id="b", take=2), run)
    assert clip.prediction_ids == ("prediction2",)


async def test_a_rate_limit_uses_no_attempt_and_is_waited_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As long as the answer says."""
    caplog.set_level("INFO", "videogen")
    provider = FakeProvider(faults={"create": [RateLimitedError("slow down", retry_after_s=0.3)] * 2})
    clip = await generate(request_of(), run_of(tmp_path, provider))
    assert caplog.text.count("waiting 0.3 s before the next call") == 2
    assert clip.attempts == 1


async def test_polling_survives_what_passes(tmp_path: Path) -> None:
    """Errors in a row never make a new prediction."""
    provider = FakeProvider(faults={"get": [TransientError("503"), NotSentError("refused"), TransientError("reset")]})
    await generate(request_of(), run_of(tmp_path, provider))
    assert len(provider.created) == 1


@pytest.mark.parametrize(
    ("status", "error", "raised"),
    [
        pytest.param("failed", "CUDA out of memory", "model-error", id="passing"),
        pytest.param("failed", None, "model-error", id="no-reason"),
        pytest.param("failed", "flagged", "moderation", id="moderation"),
        pytest.param("canceled", None, "canceled", id="canceled"),
        pytest.param("aborted", None, "aborted", id="aborted"),
    ],
)
async def test_each_end_without_output_has_its_code(
    status: Any, error: str | None, raised: str, tmp_path: Path
) -> None:
    """The code decides whether another attempt follows."""
    provider = FakeProvider([Script(status=status, error=error)])
    with pytest.raises(ClipError) as caught:
        await generate(request_of(), run_of(tmp_path, provider))
    assert caught.value.code == raised
    assert is_retryable(caught.value) is (raised != "moderation")


async def test_a_passing_failure_gets_new_predictions_up_to_three(tmp_path: Path) -> None:
    """Two failures and a success: three predictions, two of them told as retries."""
    provider, heard = FakeProvider([Script("failed", error="E9828")] * 2), Heard()
    clip = await attempted(request_of(), run_of(tmp_path, provider, heard=heard))
    assert (clip.attempts, clip.retry_count, len(provider.created)) == (3, 2, 3)
    assert heard.types.count("clip.retrying") == 2


async def test_after_three_failures_the_clip_has_failed(tmp_path: Path) -> None:
    """The last event says so, with what it took."""
    provider, heard = FakeProvider([Script("failed", error="E9828")] * 3), Heard()
    with pytest.raises(PredictionFailedError, match="E9828"):
        await attempted(request_of(), run_of(tmp_path, provider, heard=heard))
    assert len(provider.created) == 3
    assert heard.types[-1] == "clip.failed"
    assert heard.events[-1].payload()["attempts"] == 3


async def test_moderation_is_not_tried_again(tmp_path: Path) -> None:
    """The same prompt would be flagged again."""
    provider = FakeProvider([Script("failed", error="flagged as sensitive")])
    with pytest.raises(ModerationError):
        await attempted(request_of(), run_of(tmp_path, provider))
    assert len(provider.created) == 1


async def test_a_refused_input_is_final_after_one_call(tmp_path: Path) -> None:
    """422 names the field; nothing is open in the journal."""
    provider, heard = FakeProvider(faults={"create": [InputRejectedError("input.duration: 5 or 10")]}), Heard()
    run = run_of(tmp_path, provider, heard=heard)
    with pytest.raises(InputRejectedError, match=r"input\.duration"):
        await attempted(request_of(), run)
    assert await run.journal.find_open_attempt(provider.origin, request_of().key) is None
    assert heard.types == ["clip.failed"]


@pytest.mark.parametrize("error", [AuthenticationError("401"), BillingError("402")], ids=["401", "402"])
async def test_a_refused_account_stops_all_creates(error: Exception, tmp_path: Path) -> None:
    """The next clip is not even sent."""
    provider = FakeProvider(faults={"create": [error]})
    run = run_of(tmp_path, provider)
    with pytest.raises(type(error)):
        await generate(request_of(), run)
    with pytest.raises(type(error)):
        await generate(request_of(id="b", prompt="q"), run)
    assert provider.created == []


async def test_a_stuck_prediction_is_cancelled_and_another_one_made(tmp_path: Path) -> None:
    """The remote end is confirmed before the next attempt."""
    provider = FakeProvider([Script(polls=None)])
    run, request = run_of(tmp_path, provider), change_prediction(request_of(), timeout_s=0.1)
    with pytest.raises(ClipTimeoutError, match="prediction0 was canceled"):
        await generate(request, run)
    assert (provider.cancelled, provider.running()) == (["prediction0"], [])
    clip = await generate(request_of(), run)
    assert clip.prediction_ids == ("prediction0", "prediction1")
    assert clip.cost == Decimal("0.700"), "a prediction cancelled while it ran is billed"


async def test_a_clip_that_succeeds_while_it_is_given_up_is_kept(tmp_path: Path) -> None:
    """It is paid for."""
    provider = FakeProvider([Script(polls=None, cancel_as="succeeded")])
    clip = await generate(change_prediction(request_of(), timeout_s=0.1), run_of(tmp_path, provider))
    assert (clip.status, len(provider.created)) == ("success", 1)


async def test_the_remote_deadline_is_a_little_above_the_timeout(tmp_path: Path) -> None:
    """So that nothing runs on when we are gone, and never ends a clip before we do."""
    provider, request = FakeProvider(), request_of()
    await generate(request, run_of(tmp_path, provider))
    assert request.prediction.timeout_s < provider.cancel_after_s[0] <= request.prediction.timeout_s + 60


async def test_gpu_time_ends_within_the_rest_of_the_budgets_that_are_for_the_model(tmp_path: Path) -> None:
    """$0.20 are 20 s; the budget for other models limits nothing."""
    by_time = {"gpu_cost_per_s": Decimal("0.01"), "cost": Decimal("0.05")}
    provider, request = FakeProvider(), change_prediction(request_of(), **by_time)
    run = run_of(tmp_path, provider)
    run.budgets = ("team", "veo")
    for name, amount, models in (("team", "0.20", ()), ("veo", "0", ("veo-*",))):
        budget = Budget(name=name, amount=Decimal(amount), period="day", models=models)
        run.journal.journal.set_budget(budget)
    await generate(request, run)
    assert provider.cancel_after_s == [20.0]


async def test_an_interrupted_clip_is_cancelled_remotely(tmp_path: Path) -> None:
    """Nothing is left running, and the next run makes it anew."""
    provider = FakeProvider([Script(polls=None)])
    run = run_of(tmp_path, provider)
    task = asyncio.create_task(generate(request_of(), run))
    await asyncio.sleep(0.5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (provider.cancelled, provider.running()) == (["prediction0"], [])
    assert await run.journal.find_open_attempt(provider.origin, request_of().key) is None


@pytest.mark.parametrize("moment", range(1, 8))
async def test_an_interrupted_clip_leaves_nothing_running_at_any_moment(
    tmp_path: Path, moment: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever call to the journal the interruption meets."""
    provider = FakeProvider([Script(polls=None)])
    run, calls = run_of(tmp_path, provider), itertools.count(1)
    task = asyncio.create_task(generate(request_of(), run))
    call = run.journal._call

    def interrupted_at_its_moment(*arguments: Any) -> Any:
        if next(calls) == moment:
            task.cancel()
        return call(*arguments)

    monkeypatch.setattr(run.journal, "_call", interrupted_at_its_moment)
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 60)
    assert (provider.running(), next(calls) > moment) == ([], True)
    assert await run.journal.find_open_attempt(provider.origin, request_of().key) is None


async def test_a_download_is_repeated_without_a_new_prediction(tmp_path: Path) -> None:
    """Cut twice, whole the third time."""
    provider = FakeProvider(faults={"download": [TransientError("cut"), TransientError("cut")]})
    await generate(request_of(), run_of(tmp_path, provider))
    assert (len(provider.created), len(provider.downloads)) == (1, 3)


async def test_a_download_that_fails_is_left_for_the_next_run(tmp_path: Path) -> None:
    """The prediction is paid for: the next run only downloads."""
    provider = FakeProvider(faults={"download": [TransientError("cut")] * 3})
    with pytest.raises(UnreachableError) as caught:
        await attempted(request_of(), run_of(tmp_path, provider))
    assert not is_retryable(caught.value)
    clip = await generate(request_of(), run_of(tmp_path, provider, run_id="run2"))
    assert (clip.status, len(provider.created)) == ("success", 1)


@pytest.mark.parametrize("looks", [1, 2, 3])
async def test_an_output_that_is_refused_for_a_while_is_asked_for_again(looks: int, tmp_path: Path) -> None:
    """The address is asked for anew each time: the prediction is paid for."""
    provider = FakeProvider(faults={"download": [GoneError("404")] * looks})
    await generate(request_of(), run_of(tmp_path, provider))
    assert (len(provider.created), len(provider.downloads)) == (1, looks + 1)


async def test_an_output_that_stays_refused_is_left_for_the_next_run(tmp_path: Path) -> None:
    """The provider says that it has it, so it is paid for, and no other prediction is created."""
    provider = FakeProvider(faults={"download": [GoneError("403")] * 1000})
    with pytest.raises(UnreachableError, match="paid for"):
        await attempted(request_of(), run_of(tmp_path, provider))
    provider.faults.clear()
    clip = await generate(request_of(), run_of(tmp_path, provider, run_id="run2"))
    assert (len(provider.created), clip.prediction_ids) == (1, ("prediction0",))


async def test_an_output_that_is_refused_once_it_may_be_removed_has_expired(tmp_path: Path) -> None:
    provider = FakeProvider(faults={"download": [GoneError("404")] * 1000}, outputs_kept=timedelta(0))
    with pytest.raises(OutputExpiredError):
        await generate(request_of(), run_of(tmp_path, provider))
    assert len(provider.created) == 1


async def test_an_output_that_the_provider_has_removed_has_expired(tmp_path: Path) -> None:
    """It says so itself: asking again would not help."""
    provider = FakeProvider([Script(removed=True)], faults={"download": [GoneError("404")]})
    with pytest.raises(OutputExpiredError, match="no longer has"):
        await generate(request_of(), run_of(tmp_path, provider))
    assert len(provider.downloads) == 1


@pytest.mark.parametrize(
    "output",
    [pytest.param(b"<html>not yet</html>", id="html"), pytest.param(small_clip()[:2000], id="cut")],
)
async def test_what_is_no_video_is_fetched_once_more_and_then_kept_aside(output: bytes, tmp_path: Path) -> None:
    """No new prediction: the same one would answer the same."""
    provider = FakeProvider([Script(output=output)])
    with pytest.raises(BadOutputError):
        await attempted(request_of(), run_of(tmp_path, provider))
    assert (len(provider.created), len(provider.downloads)) == (1, 2)
    assert (tmp_path / ".scratch" / "prediction0.rejected").read_bytes() == output
    assert not (tmp_path / "clips").exists()


async def test_what_was_no_video_is_downloaded_again_by_the_next_run(tmp_path: Path) -> None:
    """A captive portal answered every download: the prediction is paid for, and its output is still there."""
    provider = FakeProvider([Script(output=b"<html>log in</html>")])
    with pytest.raises(BadOutputError):
        await attempted(request_of(), run_of(tmp_path, provider))
    provider.scripts = []
    clip = await generate(request_of(), run_of(tmp_path, provider, run_id="run2"))
    assert (len(provider.created), clip.prediction_ids) == (1, ("prediction0",))


async def test_a_clip_of_the_wrong_length_is_an_attempt(tmp_path: Path) -> None:
    """2 s came for 5 s: another prediction, and the measure is in the message."""
    provider = FakeProvider([Script(output=small_clip(2))])
    run = run_of(tmp_path, provider)
    with pytest.raises(DurationError, match=r"2\.00 s came for the 5 s asked for \(±2 s\)"):
        await generate(request_of(), run)
    clip = await generate(request_of(), run)
    assert (clip.attempts, clip.actual_duration) == (2, 5.0)


async def test_a_clip_of_another_ratio_is_cropped_to_the_one_asked_for(tmp_path: Path) -> None:
    """4:3 from a model that only knows 16:9."""
    clip = await generate(request_of(job_aspect_ratio="4:3"), run_of(tmp_path, FakeProvider()))
    assert (clip.width, clip.height) == (96, 72)


async def test_a_slot_is_free_again_as_soon_as_the_prediction_has_ended(tmp_path: Path) -> None:
    """The next clip is created while this one is still being downloaded; never two predictions in one slot."""
    provider = FakeProvider([Script(polls=3), Script(polls=3)])
    run, slots = run_of(tmp_path, provider), Slots(1)
    requests = [request_of(), request_of(id="b", prompt="q")]
    tasks = [asyncio.create_task(generate_in_slot(request, run, Slot(slots))) for request in requests]
    while not all(task.done() for task in tasks):
        assert len(provider.running()) <= 1
        await asyncio.sleep(0.01)
    assert [task.result().status for task in tasks] == ["success", "success"]
    await slots.acquire(0)


async def test_a_failed_attempt_gives_its_slot_back(tmp_path: Path) -> None:
    """To whom it waits for; the next attempt takes one again."""
    slots = Slots(1)
    slot = Slot(slots)
    run = run_of(tmp_path, FakeProvider([Script("failed", error="E9828")]))
    async with slot:
        with pytest.raises(PredictionFailedError):
            await generate_in_slot(request_of(), run, slot)
        slots.release(await slots.acquire(0))
        assert (await generate_in_slot(request_of(), run, slot)).status == "success"


async def test_the_next_clip_is_made_ready_while_the_slots_are_taken(tmp_path: Path) -> None:
    """As many as there are slots are begun ahead, and no more; each leaves the queue once it is created."""
    run, slots = run_of(tmp_path, FakeProvider([Script(polls=3)] * 4)), Slots(1)
    begun: list[str] = []

    async def clip_of(request: ClipRequest) -> Clip:
        async with Slot(slots) as slot:
            begun.append(request.scene.id)
            clip = await generate_in_slot(request, run, slot)
            begun.append(f"{request.scene.id} done")
            return clip

    clips = await asyncio.gather(*(clip_of(request_of(id=name, prompt=name)) for name in "abc"))
    assert [clip.status for clip in clips] == ["success"] * 3
    assert begun.index("b") < begun.index("a done")
    assert begun.index("c") > begun.index("b")


async def test_two_identical_clips_whose_answers_are_lost_find_one_prediction_each(tmp_path: Path) -> None:
    """Two takes of a scene are the same on the wire: each prediction is adopted once, none is created again."""
    provider = FakeProvider([Script(polls=3)] * 2, faults={"answer": [LOST, LOST]})
    run = run_of(tmp_path, provider)
    clips = await asyncio.gather(generate(request_of(), run), generate(request_of(id="b", take=2), run))
    assert len(provider.created) == 2
    assert sorted(name for clip in clips for name in clip.prediction_ids) == ["prediction0", "prediction1"]


async def test_a_prediction_taken_by_an_identical_clip_is_exchanged_for_its_own(tmp_path: Path) -> None:
    """One answer is lost, and the other clip's prediction is taken before its own answer is there."""
    provider = FakeProvider([Script(polls=3)] * 2)
    run = run_of(tmp_path, provider)
    first, second = request_of(), request_of(id="b", take=2)
    lost = await run.journal.record_intent(first, run_id=run.id, origin=provider.origin, folder=run.folder)
    prediction = await provider.create(first.prediction.endpoint, None, first.prediction.inputs, cancel_after_s=60)

    class Overtaken(FakeProvider):
        async def create(self, *args: Any, **kwargs: Any) -> Any:
            made = await provider.create(*args, **kwargs)
            await run.journal.record_prediction(lost, made.id, made.created_at)
            return made

    taken = Overtaken(provider.scripts, predictions=provider.predictions, created=provider.created)
    clip = await generate(second, run_of(tmp_path, taken))
    assert clip.prediction_ids == (prediction.id,)
    assert len(provider.created) == 2


async def test_no_create_could_take_the_run_above_its_cap(tmp_path: Path) -> None:
    """Prices of running predictions are reserved: $0.80 are enough for two of five clips at $0.35."""
    provider = FakeProvider()
    run = replace(run_of(tmp_path, provider), max_cost=Decimal("0.80"))
    requests = [request_of(id=f"s{n}", prompt=f"p{n}") for n in range(5)]
    results = await asyncio.gather(*(generate(request, run) for request in requests), return_exceptions=True)
    assert sum(isinstance(result, Clip) for result in results) == 2
    assert sum(isinstance(result, BudgetError) for result in results) == 3
    assert len(provider.created) == 2


async def test_predictions_do_not_run_far_ahead_of_the_decoders(tmp_path: Path) -> None:
    """Clips that wait to be checked are bounded, however many there are and however quick their model is."""
    provider, slots = FakeProvider(), Slots(1)
    run = run_of(tmp_path, provider)
    decoders = os.cpu_count() or 1
    for _ in range(decoders):
        await run.free_decoders.acquire()

    async def made(take: int) -> Clip:
        async with Slot(slots) as slot:
            return await generate_in_slot(request_of(take=take, id=f"s{take}"), run, slot)

    making = [asyncio.create_task(made(take)) for take in range(1, 41)]
    async with asyncio.timeout(250):
        while len(provider.created) < 20:
            await asyncio.sleep(0.1)
    await asyncio.sleep(1)
    assert len(provider.created) == 20
    for _ in range(decoders):
        run.free_decoders.release()
    assert {clip.status for clip in await asyncio.gather(*making)} == {"success"}


class CountingSink(Heard):
    """Hears how many predictions there were when the first clip had failed."""

    def __init__(self, provider: FakeProvider) -> None:
        super().__init__()
        self._provider = provider
        self.created_at_first_failure: int | None = None

    def emit(self, event: RunEvent) -> None:
        super().emit(event)
        if event.type == "clip.failed" and self.created_at_first_failure is None:
            self.created_at_first_failure = len(self._provider.created)


async def test_nothing_is_created_after_the_first_clip_that_cannot_be_stored(tmp_path: Path) -> None:
    """The disk would refuse the next clip, too, and it would be paid for: of twelve clips in two slots, those stay
    unmade that had not begun."""
    provider = FakeProvider()
    heard, slots = CountingSink(provider), Slots(2)
    run = run_of(tmp_path, provider, heard=heard)
    (tmp_path / "posters").touch()  # a file where the folder has to be

    async def make(take: int) -> Clip:
        async with Slot(slots) as slot:
            return await generate_in_slot(request_of(take=take, id=f"s{take}"), run, slot)

    results = await asyncio.gather(*(make(take) for take in range(1, 13)), return_exceptions=True)
    assert {type(result) for result in results} == {StorageError}
    assert heard.types.count("clip.failed") == 12
    assert heard.created_at_first_failure == len(provider.created) < 12
    spent, reserved = await run.journal.get_job_spending(run.id, provider.origin)
    assert (spent, reserved) == (len(provider.created) * request_of().cost, Decimal(0))


class WatchedSlots(Slots):
    """Says when a clip waits for a slot."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.is_wanted = asyncio.Event()

    async def acquire(self, priority: float) -> int:
        self.is_wanted.set()
        return await super().acquire(priority)


async def test_a_clip_that_another_job_delivered_during_the_wait_for_a_slot_is_reused(tmp_path: Path) -> None:
    """It is looked up again once there is a slot, also when nothing may be created any more."""
    provider, slots = FakeProvider(), WatchedSlots(1)
    run = run_of(tmp_path, provider)
    other = replace(run_of(tmp_path / "other", provider, run_id="run2"), journal=run.journal)
    await slots.predictions.acquire(0)
    waiting = asyncio.create_task(generate_in_slot(request_of(), run, Slot(slots)))
    await slots.is_wanted.wait()
    made = await generate(request_of(), other)
    run.gate.stop_creates()
    slots.predictions.release()
    clip = await waiting
    assert (clip.reused, clip.sha256, len(provider.created)) == (True, made.sha256, 1)
    assert await run.journal.find_attempts(run.id, "a") == []


class MeanwhileDelivered(NoImages):
    """Takes so long to send a picture that another job makes the same clip."""

    def __init__(self, request: ClipRequest, other: RunContext) -> None:
        self._request, self._other = request, other

    async def url(self, image: ImageInput) -> str:
        await generate(self._request, self._other)
        return await super().url(image)


async def test_a_clip_that_another_job_delivered_right_before_the_intent_is_reused(tmp_path: Path) -> None:
    """The journal refuses the intent, and the run takes the clip instead."""
    provider, image = FakeProvider(), ImageInput(background="1" * 64)
    request = change_prediction(request_of(), images={image.name: image})
    run = run_of(tmp_path, provider)
    other = replace(run_of(tmp_path / "other", provider, run_id="run2"), journal=run.journal)
    clip = await generate(request, replace(run, images=MeanwhileDelivered(request, other)))
    assert (clip.reused, clip.status, len(provider.created)) == (True, "success", 1)
    assert await run.journal.find_attempts(run.id, "a") == []


class UnclearProvider(FakeProvider):
    """Tells a status that nobody knows for its first prediction, whatever becomes of it."""

    async def get(self, prediction_id: str) -> Prediction:
        told = await super().get(prediction_id)
        return replace(told, raw={"status": "on fire"}) if prediction_id == "prediction0" else told


async def test_a_prediction_whose_status_nobody_knows_ends_at_its_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It never ends in words that we know, not even after it is cancelled. It counts as billed, and the next run is
    not held up by it."""
    monkeypatch.setattr(prediction, "CLEAN_UP_S", 0.1)
    provider = UnclearProvider([Script(polls=None, cancel_as="processing")])
    run = run_of(tmp_path, provider)
    with pytest.raises(ClipTimeoutError, match="prediction0 was canceled"):
        await generate(change_prediction(request_of(), timeout_s=0.1), run)
    assert provider.cancelled == ["prediction0"]
    assert await run.journal.find_open_attempt(provider.origin, request_of().key) is None
    assert (await run.journal.get_job_spending(run.id, provider.origin))[0] == request_of().cost
    clip = await generate(request_of(), run_of(tmp_path, provider, run_id="run2"))
    assert (clip.status, len(provider.created)) == ("success", 2)


class LongDecoders(Executor):
    """Decodes as if it never came to an end: only until it is told to stop."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.stops: list[threading.Event] = []

    def submit(self, work: Any, /, *args: Any, **kwargs: Any) -> "Future[Any]":
        (stop,) = args
        self.stops.append(stop)
        decoded: Future[Any] = Future()

        def decode() -> None:
            self.begun.release()
            stop.wait()
            decoded.set_exception(BadOutputError("stopped"))

        threading.Thread(target=decode, daemon=True).start()
        return decoded


async def test_a_decode_that_outlasts_the_timeout_is_told_to_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would keep its thread for minutes. The prediction is paid for: the next run downloads its output again."""
    monkeypatch.setattr(generation, "LATE_DOWNLOAD_S", 0.2)
    provider, decoders = FakeProvider(), LongDecoders()
    run = replace(run_of(tmp_path, provider), decoders=decoders)
    with pytest.raises(UnreachableError, match="could not be downloaded in time"):
        await generate(change_prediction(request_of(), timeout_s=0.5), run)
    assert [stop.is_set() for stop in decoders.stops] == [True, True]
    clip = await generate(request_of(), run_of(tmp_path, provider, run_id="run2"))
    assert (clip.status, clip.prediction_ids) == ("success", ("prediction0",))


async def test_a_decode_is_told_to_stop_when_its_clip_is_interrupted(tmp_path: Path) -> None:
    decoders = LongDecoders()
    run = replace(run_of(tmp_path, FakeProvider()), decoders=decoders)
    making = asyncio.create_task(generate(request_of(), run))
    assert await asyncio.to_thread(decoders.begun.acquire, timeout=250)
    making.cancel()
    with pytest.raises(asyncio.CancelledError):
        await making
    assert [stop.is_set() for stop in decoders.stops] == [True]
