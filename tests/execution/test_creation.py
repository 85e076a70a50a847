"""Creates whose answer is lost, and answers of hops on the way: what counts is what the provider itself says."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tests.support.builders import pictured_request, request_of
from tests.support.fakes import LOST, FakeProvider, Heard, NoImages, Script, generate, run_of
from videogen.errors import (
    AuthenticationError,
    CallError,
    GoneError,
    LeaseLostError,
    NotSentError,
    RunInterruptedError,
    TransientError,
    UnreachableError,
    VideogenError,
)
from videogen.events import ClipProgress
from videogen.execution import creation
from videogen.execution.context import RunContext
from videogen.execution.patience import Patience
from videogen.execution.rate_limit_gate import ProviderGate
from videogen.planning.requests import ClipRequest, ImageInput
from videogen.providers.base import Prediction

pytestmark = pytest.mark.integration

HOPS: list[list[VideogenError]] = [
    [GoneError("404")],
    [GoneError("404")] * 3,
    [GoneError("410")],
    [TransientError("400")],
    [TransientError("302")],
    [TransientError("409")],
    [TransientError("405"), GoneError("404"), TransientError("502")],
    [TransientError("422")],
    [TransientError("400")] * 4,
    [NotSentError("refused"), GoneError("404")],
    [TransientError("HTML")] * 6,
    [GoneError("404"), TransientError("418"), TransientError("reset"), NotSentError("refused")],
]


@pytest.mark.long_variants
@pytest.mark.parametrize("faults", HOPS, ids=lambda faults: "-".join(str(fault) for fault in faults))
async def test_no_status_code_of_a_hop_ends_a_running_prediction(faults: list[VideogenError], tmp_path: Path) -> None:
    """A poll is asked again until the clip's deadline; one create, one attempt."""
    provider = FakeProvider([Script(polls=2)], faults={"get": list(faults)})
    clip = await generate(request_of(), run_of(tmp_path, provider))
    assert (len(provider.created), clip.attempts, provider.cancelled) == (1, 1, [])


@pytest.mark.long_variants
@pytest.mark.parametrize("faults", HOPS, ids=lambda faults: "-".join(str(fault) for fault in faults))
async def test_no_status_code_of_a_hop_loses_the_prediction_of_a_killed_run(
    faults: list[VideogenError], tmp_path: Path
) -> None:
    """The next run asks again, too, or leaves it for the run after it: nothing is created."""
    provider = FakeProvider([Script(polls=2)])
    run, request = run_of(tmp_path, provider), request_of()
    attempt = await run.journal.record_intent(request, run_id=run.id, origin=provider.origin, folder=run.folder)
    prediction = await provider.create(request.prediction.endpoint, None, request.prediction.inputs, cancel_after_s=60)
    await run.journal.record_prediction(attempt, prediction.id, prediction.created_at)
    provider.faults["get"] = list(faults)
    for number in range(2, 5):
        try:
            await generate(request, run_of(tmp_path, provider, run_id=f"run{number}"))
            break
        except UnreachableError:
            assert len(provider.created) == 1
    assert len(provider.created) == 1


async def test_an_id_that_stays_unknown_is_given_up_once_its_output_cannot_be_there(tmp_path: Path) -> None:
    """Before, it may be paid for: nothing is created for its clip."""
    provider = FakeProvider()
    run, request = run_of(tmp_path, provider), request_of()
    attempt = await run.journal.record_intent(request, run_id=run.id, origin=provider.origin, folder=run.folder)
    await run.journal.record_prediction(attempt, "unknown", provider.now())
    with pytest.raises(UnreachableError, match="unknown of an earlier run cannot be looked up"):
        await generate(request, run_of(tmp_path, provider, run_id="run2"))
    assert provider.created == []
    provider.ahead = timedelta(hours=1)
    await generate(request, run_of(tmp_path, provider, run_id="run3"))
    assert len(provider.created) == 1


LISTS: list[list[CallError | VideogenError | None]] = [
    [TransientError("302")],
    [TransientError("400")],
    [TransientError("422")],
    [TransientError("500")] * 3,
    [NotSentError("refused")],
    [GoneError("404")],
    [AuthenticationError("403")],
    [TransientError("405")],
    [None, TransientError("403")],
    [None, None, TransientError("400"), None, TransientError("302")],
]


@pytest.mark.long_variants
@pytest.mark.parametrize("faults", LISTS, ids=lambda faults: "-".join(str(fault) for fault in faults))
@pytest.mark.parametrize("late", [0, 2, 4])
async def test_a_list_that_is_refused_or_late_costs_nothing(
    faults: list[VideogenError], late: int, tmp_path: Path
) -> None:
    """The lost create is found by this run or by a later one; it is never sent again."""
    provider = FakeProvider(
        [Script(polls=2)], faults={"answer": [LOST], "list": list(faults)}, listed_late={"prediction0": late}
    )
    patience = Patience(unknown_s=0.2, unknown_at_most_s=2.0, first_pause_s=0.01)
    for number in range(1, 5):
        run = replace(run_of(tmp_path, provider, run_id=f"run{number}"), patience=patience)
        try:
            clip = await generate(request_of(), run)
            break
        except (UnreachableError, AuthenticationError):
            continue
    assert (len(provider.created), clip.prediction_ids) == (1, ("prediction0",))


async def test_a_create_is_sent_again_only_after_the_list_shows_something_newer(tmp_path: Path) -> None:
    """Until then the list may lag behind, for as long as a stated time."""
    provider = FakeProvider(faults={"create": [LOST]})
    run = replace(
        run_of(tmp_path, provider), patience=Patience(unknown_s=0.0, unknown_at_most_s=60.0, first_pause_s=0.01)
    )
    making = asyncio.create_task(generate(request_of(), run))
    while provider.lists < 3:
        await asyncio.sleep(0.01)
    assert provider.created == []
    await provider.create("somebody/elses", None, {"prompt": "other"}, cancel_after_s=60)
    clip = await making
    assert (len(provider.created), clip.prediction_ids) == (2, ("prediction1",))


async def test_a_search_in_the_account_is_reported_while_it_lasts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With its times, before the clip is said to have started; a search that finds at once says nothing."""
    caplog.set_level("INFO", "videogen.execution.account_search")
    provider = FakeProvider(faults={"answer": [LOST]}, listed_late={"prediction0": 3})
    patience = Patience(unknown_s=30.0, unknown_at_most_s=60.0, first_pause_s=0.01)
    run = replace(run_of(tmp_path, provider, heard=(heard := Heard())), patience=patience)
    await generate(request_of(), run)
    *searches, first = heard.events[:4]
    assert first.type == "clip.started"
    for event in searches:
        assert isinstance(event, ClipProgress)
        assert (event.scene_id, event.status, event.prediction_id, event.fraction) == ("a", "searching", "", 0)
        assert event.elapsed + event.remaining == pytest.approx(60, abs=0.2)
    still_searching = "a: searching the account for the prediction of a create whose answer was lost"
    assert caplog.messages.count(still_searching) == 3

    provider = FakeProvider(faults={"answer": [LOST]})
    run = replace(run_of(tmp_path / "other", provider, heard=(heard := Heard())), patience=patience)
    await generate(request_of(), run)
    assert heard.events[0].type == "clip.started"


async def accept_create_after(provider: FakeProvider, run: RunContext, *, lists: int) -> None:
    """Accept the create of a clip after so many looks at the list, and see that it is found and not made twice."""
    request = request_of()
    making = asyncio.create_task(generate(request, run))
    while provider.lists < lists:
        await asyncio.sleep(0.01)
    await provider.create(request.prediction.endpoint, None, request.prediction.inputs, cancel_after_s=60)
    clip = await making
    assert (len(provider.created), clip.prediction_ids) == (1, ("prediction0",))


async def test_a_create_that_is_accepted_late_is_found(tmp_path: Path) -> None:
    """A gateway answered 504, and the provider accepts only after two looks at the list."""
    provider = FakeProvider(faults={"create": [LOST]})
    run = replace(
        run_of(tmp_path, provider), patience=Patience(unknown_s=0.0, unknown_at_most_s=60.0, first_pause_s=0.01)
    )
    await accept_create_after(provider, run, lists=2)


class SlowListProvider(FakeProvider):
    """A provider whose list takes longer than the search lasts at least. Its predictions come after it was asked."""

    async def list_since(self, created_after: datetime) -> AsyncIterator[Prediction]:
        shown = [each async for each in super().list_since(created_after)]
        await asyncio.sleep(0.3)
        for prediction in shown:
            yield prediction


async def test_a_create_that_is_accepted_while_the_list_is_read_is_found(tmp_path: Path) -> None:
    """A list that took long does not show it, however long it took: only the next one does."""
    provider = SlowListProvider(faults={"create": [LOST]})
    run = replace(run_of(tmp_path, provider), patience=Patience(unknown_s=0.1, unknown_at_most_s=0.2))
    await accept_create_after(provider, run, lists=1)


@pytest.mark.parametrize("minutes", [5, 60, -5, -60])
async def test_a_clock_that_is_wrong_pays_nothing_twice(minutes: int, tmp_path: Path) -> None:
    """Times of the provider are compared with its own clock."""
    provider = FakeProvider(faults={"answer": [LOST]}, ahead=timedelta(minutes=minutes))
    clip = await generate(request_of(), run_of(tmp_path, provider))
    assert (len(provider.created), clip.prediction_ids) == (1, ("prediction0",))


class Pictures(NoImages):
    """Sends each picture under an address of its own, which the provider shows or replaces."""

    def __init__(self, *, is_known: bool) -> None:
        self.is_known = is_known

    async def url(self, image: ImageInput) -> str:
        return f"https://files.example/{image.name}"

    def name_at(self, address: str) -> str | None:
        return address.removeprefix("https://files.example/") if self.is_known else None


def two_scenes() -> list[ClipRequest]:
    return [pictured_request(ImageInput(background=digit * 64), id=name) for name, digit in (("a", "1"), ("b", "2"))]


async def test_scenes_that_differ_in_their_pictures_find_each_its_own_prediction(tmp_path: Path) -> None:
    """Both answers are lost; the pictures tell whose prediction is whose."""
    provider = FakeProvider([Script(polls=3)] * 2, faults={"answer": [LOST, LOST]})
    run = replace(run_of(tmp_path, provider), images=Pictures(is_known=True))
    first, second = two_scenes()
    run.lookalikes = frozenset({first.key, second.key})
    for request in (second, first):
        clip = await generate(request, run)
        prediction = provider.predictions[clip.prediction_ids[0]]
        assert prediction.input["start_image"].endswith(next(iter(request.prediction.images)))
    assert len(provider.created) == 2


@pytest.mark.parametrize("where", ["same job", "another job"])
async def test_a_prediction_that_may_be_another_scenes_is_not_adopted(where: str, tmp_path: Path) -> None:
    """The provider shows the pictures under addresses of its own: that is said, and nothing is created. The other scene
    may be of another job, whose create was lost, too."""
    provider = FakeProvider([Script(polls=3)], faults={"answer": [LOST]})
    run = replace(run_of(tmp_path, provider), images=Pictures(is_known=False))
    first, second = two_scenes()
    if where == "same job":
        run.lookalikes = frozenset({first.key, second.key})
    else:
        await run.journal.record_intent(second, run_id="other", origin=provider.origin, folder="other")
    creating = provider.create

    async def create_and_move(*args, **kwargs):  # type: ignore[no-untyped-def]
        try:
            return await creating(*args, **kwargs)
        finally:
            made = provider.predictions["prediction0"]
            moved = {**made.input, "start_image": "https://delivery.example/picture"}
            provider.predictions["prediction0"] = replace(made, input=moved)

    provider.create = create_and_move  # type: ignore[method-assign]
    with pytest.raises(UnreachableError, match="another image"):
        await generate(first, run)
    assert len(provider.created) == 1
    assert await run.journal.find_open_attempt(provider.origin, first.key)


async def test_nothing_is_created_after_an_interruption(tmp_path: Path) -> None:
    """A create that waits at the gate is not sent, and its attempt is over."""
    provider = FakeProvider()
    run = run_of(tmp_path, provider)
    run.gate.stop_creates(RunInterruptedError("the run was interrupted"))
    with pytest.raises(RunInterruptedError):
        await generate(request_of(), run)
    assert provider.created == []
    assert await run.journal.find_open_attempt(provider.origin, request_of().key) is None


class Clock:
    """The clocks of a machine. The wall clock can be set forward and back, as it is while the machine sleeps."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def time(self) -> float:
        return time.time() + self.ahead_s

    def monotonic(self) -> float:
        return time.monotonic()


class SleepyGate(ProviderGate):
    """A gate at which the machine falls asleep once, after an intent and before its create."""

    def __init__(self, fall_asleep: Callable[[], Awaitable[None]]) -> None:
        super().__init__(backoff_s=0.01)
        self._fall_asleep = fall_asleep
        self._looks = 0

    async def wait_for_create(self) -> None:
        await super().wait_for_create()
        self._looks += 1
        if self._looks == 2:  # the first is before the intent
            await self._fall_asleep()


async def test_a_run_that_slept_sends_no_create_for_a_clip_that_was_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal is asked again after the sleep, and says that the attempt is another run's."""
    monkeypatch.setattr(creation, "time", clock := Clock())
    provider = FakeProvider()
    run, request = run_of(tmp_path, provider), request_of()

    async def sleep_while_another_run_makes_the_clip() -> None:
        clip = await generate(request, run_of(tmp_path, provider, run_id="run2"))
        assert (clip.status, len(provider.created)) == ("success", 1)
        clock.ahead_s += 60

    run.gate = SleepyGate(sleep_while_another_run_makes_the_clip)
    with pytest.raises(LeaseLostError):
        await generate(request, run)
    assert len(provider.created) == 1


@pytest.mark.parametrize("slept_s", [60, -60, creation.INTENT_VALID_S], ids=lambda seconds: f"{seconds:g}s")
async def test_a_run_that_slept_confirms_its_intent_before_it_sends_the_create(
    slept_s: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time of the intent is then that of the create. The wall clock may have been set back meanwhile."""
    monkeypatch.setattr(creation, "time", clock := Clock())
    provider = FakeProvider()
    run = run_of(tmp_path, provider)

    async def sleep() -> None:
        clock.ahead_s += slept_s
        provider.ahead += timedelta(seconds=60)

    run.gate = SleepyGate(sleep)
    begun = provider.now()
    assert (await generate(request_of(), run)).status == "success"
    (attempt,) = await run.journal.find_attempts(run.id, "a")
    assert attempt.intended_at - begun >= timedelta(seconds=60)
    assert len(provider.created) == 1
