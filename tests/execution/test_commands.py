"""Commands to a run in progress, with the fake provider's account as the witness of what was created and cancelled."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders import plan_of
from tests.support.fakes import FakeProvider, Script, run_of
from videogen.errors import JournalError, RateLimitedError
from videogen.events import RunEvent
from videogen.execution import commands, poller
from videogen.execution.commands import CommandReader, obey_command, obey_commands
from videogen.execution.options import PreparedJob, RunOptions
from videogen.execution.rate_limit_gate import ProviderGate
from videogen.execution.recorder import EventRecorder
from videogen.execution.runner import JobRunner
from videogen.execution.slots import Slots
from videogen.job.choices import Choices
from videogen.job.model import Job
from videogen.journal.commands import ACCEPTED, Command, CommandAction
from videogen.journal.store import Journal
from videogen.planning.plan import Plan
from videogen.planning.planner import build_plan
from videogen.registry.load import read_registry
from videogen.results.clip import Clip
from videogen.settings import read_settings
from videogen.storage.local import FileStore

pytestmark = pytest.mark.integration
PRICE, NOTHING = Decimal("0.35"), Decimal(0)
RUNNING = Script(polls=None)


class CountingGate(ProviderGate):
    """Knows how many clips wait for the end of a pause."""

    def __init__(self) -> None:
        super().__init__(backoff_s=0.01)
        self.held = 0

    async def wait_until_resumed(self) -> None:
        self.held += 1
        try:
            await super().wait_until_resumed()
        finally:
            self.held -= 1


class SlowStore(FileStore):
    """Puts files into their place when the test wants it."""

    def __init__(self, root: Path, put: Callable[..., None]) -> None:
        super().__init__(root)
        self._put = put

    def put(self, *args: Any, **kwargs: Any) -> None:
        self._put(self, *args, **kwargs)


class Play:
    """A run on fakes, and another process that sends it commands through the journal."""

    def __init__(self, folder: Path, plan: Plan, provider: FakeProvider, journal: Journal, **changes: Any) -> None:
        self.provider, self.journal = provider, journal
        journal.start_run("run1", job_id="film", origin=provider.origin, folder=str(folder))
        self.gate = CountingGate()
        facts: dict[str, Any] = {"gate": self.gate, "job_id": "film", "max_cost": plan.max_cost} | changes
        self.run = replace(run_of(folder, provider), **facts)
        self.events: list[tuple[RunEvent, Mapping[str, Any]]] = []
        self._heard = asyncio.Event()
        self.recorder = EventRecorder(self.run.journal, "run1", len(plan.requests), [self._hear])
        self.slots = Slots(plan.concurrency)
        self.runner = JobRunner(prepare(plan, provider), self.run, self.slots, self.recorder)
        self.run.events = self.recorder
        self.reader = CommandReader(self.run.journal.journal, "run1", self._obey, self.run.notify_settled)
        self.obeyed: list[Command] = []
        self.making = asyncio.create_task(self.runner.make_clips())

    async def say(self, action: str, argument: str | None = None) -> str | None:
        """Send a command, let the run read it, and return its outcome."""
        command = self.send(action, argument)
        await self.reader.read_once()
        found = self.journal.find_command(command.id)
        assert found
        return found.outcome

    def send(self, action: str, argument: str | None = None) -> Command:
        known: Any = action
        kind = "value" if action == "cap" else "scene_id"
        return self.journal.add_command("run1", known, sender="eve@there", **({kind: argument} if argument else {}))

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds, which is looked at after each event, and often in between."""
        while not holds():
            self._heard.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(0.02):
                    await self._heard.wait()

    def count(self, type_: str, scene_id: str | None = None) -> int:
        return sum(
            event.type == type_ and (scene_id is None or payload.get("scene_id") == scene_id)
            for event, payload in self.events
        )

    def types(self, scene_id: str) -> list[str]:
        """The events of a scene, but for its progress."""
        told = ((event.type, payload.get("scene_id")) for event, payload in self.events)
        return [type_ for type_, scene in told if scene == scene_id and type_ != "clip.progress"]

    async def clips(self) -> dict[str, Clip]:
        """The clips of the run once it has made them."""
        made = await self.making
        await self.recorder.flush()
        return {clip.scene_id: clip for clip in made}

    def finish(self, *numbers: int) -> None:
        """Let running predictions succeed."""
        for number in numbers:
            self.provider.scripts[number] = replace(self.provider.scripts[number], polls=1)

    def _hear(self, event: RunEvent, payload: Mapping[str, Any]) -> None:
        self.events.append((event, payload))
        self._heard.set()

    async def _obey(self, command: Command) -> str:
        self.obeyed.append(command)
        return await obey_command(self.runner, command)

    async def close(self) -> None:
        self.making.cancel()
        await asyncio.wait([self.making])
        await self.recorder.aclose()
        await self.run.journal.aclose()


def prepare(plan: Plan, provider: FakeProvider) -> PreparedJob:
    job = Job.model_validate(
        {"id": "film", "model": plan.model, "scenes": [request.scene for request in plan.requests]}
    )
    return PreparedJob(
        job=job,
        plan=plan,
        settings=read_settings(),
        options=RunOptions(),
        provider="local",
        provider_reason="",
        origin=provider.origin,
        references={},
        kept={},
        choices=Choices(),
        recovering=False,
    )


@pytest.fixture(autouse=True)
def frequent_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fake provider's predictions end when they are polled by id, not when they are listed."""
    monkeypatch.setattr(poller, "LISTED_POLL_FACTOR", 1)


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Journal]:
    """The journal as another process has it."""
    with closing(Journal(f"sqlite:///{tmp_path / 'journal.db'}")) as journal:
        yield journal


@asynccontextmanager
async def playing(
    folder: Path, other: Journal, plan: Plan, *scripts: Script, provider: FakeProvider | None = None, **changes: Any
) -> AsyncIterator[Play]:
    provider = provider or FakeProvider()
    provider.scripts = [*scripts, *(Script() for _ in range(20))]
    play = Play(folder, plan, provider, other, **changes)
    try:
        async with asyncio.timeout(250):
            yield play
    finally:
        await play.close()


def chained_plan(**fields: Any) -> Plan:
    """Of two scenes of which the second continues the first, and one more."""
    scenes = [
        {"id": "s0", "prompt": "p 0", "target_duration": 5},
        {"id": "s1", "prompt": "p 1", "target_duration": 5, "continues": "s0"},
        {"id": "s2", "prompt": "p 2", "target_duration": 5},
    ]
    given = {"id": "film", "model": "kling-v2.5-turbo", "concurrency": 2, "attempts": 1, "scenes": scenes}
    return build_plan(Job.model_validate(given | fields), read_registry())


# -- pause -------------------------------------------------------------------------------------------------------------


async def test_a_paused_run_creates_nothing_and_delivers_what_runs(tmp_path: Path, other: Journal) -> None:
    """Clips that wait hold no slot, which other runs may need, and no part of the budget. All of them are made after
    the pause."""
    async with playing(tmp_path, other, plan_of(5), RUNNING, RUNNING) as play:
        await play.until(lambda: play.count("clip.started") == 2)
        assert await play.say("pause") == ACCEPTED
        play.finish(0, 1)
        await play.until(lambda: play.count("clip.completed") == 2 and play.gate.held == 2)
        assert len(play.provider.created) == 2
        assert other.get_job_spending("film", "fake") == (2 * PRICE, NOTHING)
        for _ in range(2):  # both are free
            await play.slots.predictions.acquire(0)
        for _ in range(2):
            play.slots.predictions.release()
        assert not play.making.done()
        assert await play.say("resume") == ACCEPTED
        clips = await play.clips()
        assert len(play.provider.created) == 5
        assert {(clip.status, clip.attempts) for clip in clips.values()} == {("success", 1)}
        types = [event.type for event, _ in play.events]
        begun = [number for number, type_ in enumerate(types) if type_ == "clip.started"]
        assert begun[1] < types.index("run.paused") < types.index("run.resumed") < begun[2]


async def test_a_pause_that_comes_before_the_create_is_sent_holds_it_back(tmp_path: Path, other: Journal) -> None:
    """While the clip waits for a rate limit. Its intent is taken back, and is no attempt."""

    class Limited(FakeProvider):
        async def create(self, *args: Any, **kwargs: Any) -> Any:
            if not play.events or play.count("run.resumed") == 0:
                play.runner.pause("eve@there")
                raise RateLimitedError("too many", retry_after_s=0.01)
            return await super().create(*args, **kwargs)

    async with playing(tmp_path, other, plan_of(1), provider=Limited()) as play:
        await play.until(lambda: play.gate.held == 1)
        assert (play.provider.created, other.find_running_attempts("run1")) == ([], [])
        assert other.get_job_spending("film", "fake") == (NOTHING, NOTHING)
        assert await play.say("resume") == ACCEPTED
        clip = (await play.clips())["s0"]
        assert (clip.status, clip.attempts, len(play.provider.created)) == ("success", 1, 1)


async def test_pause_and_resume_may_be_sent_again(tmp_path: Path, other: Journal) -> None:
    async with playing(tmp_path, other, plan_of(1), RUNNING) as play:
        await play.until(lambda: play.count("clip.started") == 1)
        outcomes = [await play.say(action) for action in ("pause", "pause", "resume", "resume")]
        await play.recorder.flush()
        assert (outcomes, play.count("run.paused"), play.count("run.resumed")) == ([ACCEPTED] * 4, 1, 1)


async def test_a_paused_run_can_be_interrupted(tmp_path: Path, other: Journal) -> None:
    """Ctrl-C cancels the task of the clips."""
    async with playing(tmp_path, other, plan_of(3), RUNNING) as play:
        await play.until(lambda: play.count("clip.started") == 2)
        await play.say("pause")
        play.making.cancel()
        await asyncio.wait([play.making])
        assert play.making.cancelled()
        assert play.provider.running() == []


# -- cancel ------------------------------------------------------------------------------------------------------------


async def test_a_running_clip_is_cancelled_and_all_others_are_made(tmp_path: Path, other: Journal) -> None:
    """Its prediction is cancelled at the provider, which bills it; it is neither tried again nor with a fallback."""
    plan = plan_of(3, fallback_models=["hailuo-2.3"])
    async with playing(tmp_path, other, plan, RUNNING, leaves_running=True) as play:
        await play.until(lambda: play.count("clip.started", "s0") == 1)
        assert await play.say("cancel", "s0") == ACCEPTED
        clips = await play.clips()
        assert (play.provider.cancelled, len(play.provider.created)) == (["prediction0"], 3)
        error = clips["s0"].error
        assert error
        assert (error.code, error.retryable, clips["s0"].attempts) == ("cancelled", False, 1)
        assert [clips[scene].status for scene in ("s1", "s2")] == ["success", "success"]
        assert play.types("s0") == ["clip.started", "clip.failed"]
        assert await play.say("cancel", "s0") != ACCEPTED  # all clips have ended


async def test_a_clip_that_queues_is_kept_from_starting(tmp_path: Path, other: Journal) -> None:
    """For a slot, for the queue, or for the clip that it continues."""
    async with playing(tmp_path, other, plan_of(4, concurrency=1), RUNNING) as play:
        await play.until(lambda: play.count("clip.started") == 1)
        assert [await play.say("cancel", scene) for scene in ("s3", "s1", "s1")] == [ACCEPTED] * 3
        await play.until(lambda: play.count("clip.failed") == 2)
        play.finish(0)
        clips = await play.clips()
        assert [clips[f"s{number}"].status for number in range(4)] == ["success", "failed", "success", "failed"]
        assert (play.provider.cancelled, len(play.provider.created), clips["s1"].cost) == ([], 2, NOTHING)


async def test_clips_that_continue_a_cancelled_one_are_blocked(tmp_path: Path, other: Journal) -> None:
    async with playing(tmp_path, other, chained_plan(), RUNNING, RUNNING) as play:
        await play.until(lambda: play.count("clip.started") == 2)
        assert await play.say("cancel", "s0") == ACCEPTED
        await play.until(lambda: play.count("clip.failed") == 2)
        play.finish(1)
        clips = await play.clips()
        assert (clips["s1"].status, clips["s1"].blocked_by, clips["s2"].status) == ("blocked", ("s0",), "success")


async def test_a_clip_that_waits_for_another_one_is_cancelled(tmp_path: Path, other: Journal) -> None:
    async with playing(tmp_path, other, chained_plan(), RUNNING) as play:
        await play.until(lambda: play.count("clip.started", "s0") == 1)
        assert await play.say("cancel", "s1") == ACCEPTED
        await play.until(lambda: play.count("clip.failed", "s1") == 1)
        play.finish(0)
        clips = await play.clips()
        assert [clips[scene].status for scene in ("s0", "s1", "s2")] == ["success", "failed", "success"]


async def test_a_cancelled_create_is_awaited_and_its_prediction_cancelled(tmp_path: Path, other: Journal) -> None:
    """It was accepted, so it would cost money."""
    sent, answer = asyncio.Event(), asyncio.Event()

    class Slow(FakeProvider):
        async def create(self, *args: Any, **kwargs: Any) -> Any:
            made = await super().create(*args, **kwargs)
            sent.set()
            await answer.wait()
            return made

    async with playing(tmp_path, other, plan_of(1), RUNNING, provider=Slow()) as play:
        await sent.wait()
        assert await play.say("cancel", "s0") == ACCEPTED
        answer.set()
        clip = (await play.clips())["s0"]
        assert clip.error
        assert (clip.error.code, play.provider.cancelled) == ("cancelled", ["prediction0"])
        assert play.provider.running() == []
        assert other.find_running_attempts("run1") == []


async def test_a_clip_that_is_downloaded_is_cancelled_and_stays_paid_for(tmp_path: Path, other: Journal) -> None:
    """Its prediction has succeeded. When it is tried again, it is only downloaded."""
    downloading, others = asyncio.Event(), asyncio.Event()

    class Slow(FakeProvider):
        async def download(self, url: str, part: Path) -> None:
            is_first = not downloading.is_set()
            downloading.set()
            if is_first:
                await others.wait()
            await super().download(url, part)

    async with playing(tmp_path, other, plan_of(2), Script(), RUNNING, provider=Slow()) as play:
        await downloading.wait()
        await play.until(lambda: play.count("clip.started") == 2)
        (scene,) = {"s0", "s1"} - {"s1"}
        assert await play.say("cancel", scene) == ACCEPTED
        await play.until(lambda: play.count("clip.failed", scene) == 1)
        assert play.provider.cancelled == []
        assert await play.say("retry", scene) == ACCEPTED
        await play.until(lambda: play.count("clip.completed", scene) == 1)
        play.finish(1)
        clips = await play.clips()
        assert {clip.status for clip in clips.values()} == {"success"}
        assert len(play.provider.created) == 2


async def test_a_clip_that_is_put_into_its_place_cannot_be_cancelled(
    tmp_path: Path, other: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be half there."""
    putting, others = threading.Event(), threading.Event()

    def put(*args: Any) -> None:
        putting.set()
        others.wait(250)
        FileStore.put(*args)

    async with playing(tmp_path, other, plan_of(1)) as play:
        monkeypatch.setattr(play.run, "store", SlowStore(tmp_path, put))
        await asyncio.to_thread(putting.wait, 250)
        assert await play.say("cancel", "s0") == "s0 is delivered already: it is paid for, and stays"
        others.set()
        assert (await play.clips())["s0"].status == "success"


async def test_a_clip_that_has_ended_cannot_be_cancelled(tmp_path: Path, other: Journal) -> None:
    """It says why, and what is wrong with a name."""
    async with playing(tmp_path, other, plan_of(3, attempts=1), Script(), Script("failed"), RUNNING) as play:
        await play.until(lambda: play.count("clip.completed") + play.count("clip.failed") == 2)
        done, failed = ("s0", "s1") if play.count("clip.completed", "s0") else ("s1", "s0")
        assert await play.say("cancel", done) == f"{done} is delivered already: it is paid for, and stays"
        assert await play.say("cancel", failed) == f"{failed} has failed already: there is nothing to cancel"
        assert await play.say("cancel", "s22") == "'s22' is no scene of this run; did you mean 's2'?"
        play.finish(2)
        await play.clips()
        assert await play.say("cancel", "s2") == "all clips of the run have ended: run `videogen run JOB` again"


# -- retry -------------------------------------------------------------------------------------------------------------


async def test_a_failed_clip_is_made_again_with_those_that_were_blocked(tmp_path: Path, other: Journal) -> None:
    """Its former failure does not count, neither in the result nor in the numbers of the events."""
    plan = chained_plan()
    async with playing(tmp_path, other, plan, Script("failed"), RUNNING) as play:
        await play.until(lambda: play.count("clip.failed") == 2)
        assert (await play.say("retry", "s1") or "").endswith("because there is no clip of s0: retry s0")
        assert await play.say("retry", "s2") == "s2 has not failed: it is still being made"
        assert await play.say("retry", "s0") == ACCEPTED
        await play.until(lambda: play.count("clip.completed") == 2)
        assert (await play.say("retry", "s0") or "").startswith("s0 is delivered already: `videogen retake`")
        play.finish(1)
        clips = await play.clips()
        assert {clip.status for clip in clips.values()} == {"success"}
        assert (clips["s0"].attempts, len(play.provider.created)) == (2, 4)
        assert play.types("s0") == ["clip.started", "clip.failed", "clip.retrying", "clip.started", "clip.completed"]
        assert play.types("s1") == ["clip.failed", "clip.retrying", "clip.started", "clip.completed"]
        counts = [(payload["completed"], payload["failed"]) for _, payload in play.events]
        assert (2, 2) in counts
        assert counts[-1] == (3, 0)
        assert await play.say("retry", "s0") == "all clips of the run have ended: run `videogen run JOB` again"


async def test_a_run_does_not_end_before_a_clip_that_is_made_again(tmp_path: Path, other: Journal) -> None:
    """Although all others have ended meanwhile."""
    plan = plan_of(2, attempts=1)
    async with playing(tmp_path, other, plan, Script("failed"), RUNNING, RUNNING) as play:
        await play.until(lambda: play.count("clip.failed") == 1 and play.count("clip.started") == 2)
        (failed,) = (payload["scene_id"] for event, payload in play.events if event.type == "clip.failed")
        assert await play.say("retry", failed) == ACCEPTED
        await play.until(lambda: play.count("clip.started") == 3)
        play.finish(1)
        await play.until(lambda: play.count("clip.completed") == 1)
        assert not play.making.done()
        play.finish(2)
        assert {clip.status for clip in (await play.clips()).values()} == {"success"}


async def test_a_clip_that_is_made_again_has_all_its_attempts_and_fails_once_more(
    tmp_path: Path, other: Journal
) -> None:
    """Attempts of before do not use them up: `clip.failed` is only told at the end of each round."""
    plan = plan_of(2, attempts=2)
    bad = Script("failed", error="out of memory")
    async with playing(tmp_path, other, plan, RUNNING, bad, bad, bad, bad) as play:
        await play.until(lambda: play.count("clip.failed") == 1)
        (failed,) = (payload["scene_id"] for event, payload in play.events if event.type == "clip.failed")
        assert await play.say("retry", failed) == ACCEPTED
        await play.until(lambda: play.count("clip.failed") == 2)
        round_ = ["clip.started", "clip.retrying", "clip.started", "clip.failed"]
        assert play.types(failed) == [*round_, "clip.retrying", *round_]
        play.finish(0)
        assert (await play.clips())[failed].attempts == 4


async def test_a_retry_stays_within_the_budget(tmp_path: Path, other: Journal) -> None:
    """The failed attempt may have been billed; a higher cap gives room."""
    plan = plan_of(2, attempts=1, max_cost="0.70")
    async with playing(tmp_path, other, plan, RUNNING, Script("failed")) as play:
        await play.until(lambda: play.count("clip.failed") == 1)
        (failed,) = (payload["scene_id"] for event, payload in play.events if event.type == "clip.failed")
        assert await play.say("cap", "0.50") == ACCEPTED
        assert await play.say("retry", failed) == ACCEPTED
        await play.until(lambda: play.count("clip.failed") == 2)
        assert len(play.provider.created) == 2
        assert await play.say("cap", "2") == ACCEPTED
        assert await play.say("retry", failed) == ACCEPTED
        play.finish(0)
        clips = await play.clips()
        assert clips[failed].status == "success"
        assert len(play.provider.created) == 3


# -- cap ---------------------------------------------------------------------------------------------------------------


async def test_a_lower_cap_stops_further_creates_only(tmp_path: Path, other: Journal) -> None:
    """Below what is reserved already: the running prediction is delivered."""
    plan = plan_of(3, concurrency=1, max_cost="2.00")
    async with playing(tmp_path, other, plan, RUNNING) as play:
        await play.until(lambda: play.count("clip.started") == 1)
        assert await play.say("cap", "0.10") == ACCEPTED
        play.finish(0)
        clips = await play.clips()
        codes = {clip.error.code if clip.error else None for clip in clips.values()}
        assert (codes, len(play.provider.created)) == ({None, "budget"}, 1)
        assert play.provider.cancelled == []
        changed = [payload for event, payload in play.events if event.type == "run.cap_changed"]
        assert [(payload["max_cost"], payload["sender"]) for payload in changed] == [("0.10", "eve@there")]


async def test_a_higher_cap_wakes_the_clips_that_wait_for_the_budget(tmp_path: Path, other: Journal) -> None:
    """While the reservation that they waited for is still there."""
    plan = plan_of(3, concurrency=3, max_cost="0.35")
    async with playing(tmp_path, other, plan, *[RUNNING] * 3) as play:
        await play.until(lambda: play.count("clip.started") == 1)
        assert await play.say("cap", "0.70") == ACCEPTED
        await play.until(lambda: play.count("clip.started") == 2)
        assert len(play.provider.running()) == 2
        assert await play.say("cap", "1.05") == ACCEPTED
        await play.until(lambda: play.count("clip.started") == 3)
        play.finish(0, 1, 2)
        assert {clip.status for clip in (await play.clips()).values()} == {"success"}


@pytest.mark.parametrize("value", ["-1", "lots", ""])
async def test_an_odd_cap_is_refused(value: str, tmp_path: Path, other: Journal) -> None:
    async with playing(tmp_path, other, plan_of(1, max_cost="1"), RUNNING) as play:
        assert "no amount in USD" in (await play.say("cap", value) or "")
        assert play.run.max_cost == 1


# -- the reader --------------------------------------------------------------------------------------------------------


class Away(Journal):
    """A journal whose answers are lost, or that cannot be reached, for so many calls."""

    lost_reads = lost_writes = 0

    def find_pending_commands(self, *args: Any, **kwargs: Any) -> list[Command]:
        if self.lost_reads:
            self.lost_reads -= 1
            raise JournalError("it cannot be reached")
        return super().find_pending_commands(*args, **kwargs)

    def record_outcome(self, *args: Any, **kwargs: Any) -> None:
        if self.lost_writes:
            self.lost_writes -= 1
            raise JournalError("it cannot be reached")
        super().record_outcome(*args, **kwargs)


async def test_a_command_is_carried_out_once_although_the_journal_does_not_take_its_outcome(tmp_path: Path) -> None:
    """And in order: the next one waits."""
    obeyed: list[CommandAction] = []

    async def obey(command: Command) -> str:
        obeyed.append(command.action)
        return ACCEPTED

    with closing(Away(f"sqlite:///{tmp_path / 'journal.db'}")) as journal:
        journal.start_run("run1", job_id="film", origin="fake", folder="here")
        journal.lost_reads, journal.lost_writes = 1, 2
        sent = [journal.add_command("run1", action, sender="me@here") for action in ("pause", "resume")]
        left: list[int] = []
        reader = CommandReader(journal, "run1", obey, lambda: left.append(len(journal.find_pending_commands("run1"))))
        seen = []
        for _ in range(4):
            await reader.read_once()
            seen.append(tuple(obeyed))
        assert seen == [(), ("pause",), ("pause",), ("pause", "resume")]
        assert left == [1, 0]  # told when the outcome is in the journal
        assert journal.find_pending_commands("run1") == []
        assert {(found := journal.find_command(each.id)) and found.outcome for each in sent} == {ACCEPTED}
        await reader.close()


async def test_a_run_outlives_a_journal_that_cannot_be_reached_for_a_while(
    tmp_path: Path, other: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader looks again, and then obeys."""
    monkeypatch.setattr(commands, "POLL_S", 0.01)
    async with playing(tmp_path, other, plan_of(1), RUNNING) as play:
        away = Away(f"sqlite:///{tmp_path / 'journal.db'}")
        away.lost_reads = 20
        async with obey_commands(away, play.runner):
            command = play.send("pause")
            await play.until(lambda: play.gate.is_paused)
            assert away.lost_reads == 0
            await play.until(lambda: bool((found := other.find_command(command.id)) and found.outcome))
        away.close()
        play.finish(0)
        assert (await play.clips())["s0"].status == "success"


async def test_a_command_that_comes_after_the_end_is_refused(tmp_path: Path, other: Journal) -> None:
    """It was sent just before the run ended, and nobody else will take it."""
    async with playing(tmp_path, other, plan_of(1)) as play:
        async with obey_commands(play.run.journal.journal, play.runner):
            await play.clips()
            await asyncio.sleep(0)
            command = play.send("pause")
        found = other.find_command(command.id)
        assert found
        assert "have ended" in str(found.outcome) or "has ended" in str(found.outcome)


async def test_an_unknown_command_is_refused_and_a_defect_ends_nothing(
    tmp_path: Path, other: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A newer version may send commands that this one does not know."""
    async with playing(tmp_path, other, plan_of(1), RUNNING) as play:
        assert await play.say("rewind") == "this version of videogen has no command 'rewind'"

        def break_down(_sender: str) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(play.runner, "pause", break_down)
        assert await play.say("pause") == "it failed: ZeroDivisionError"
        assert await play.say("resume") == ACCEPTED
