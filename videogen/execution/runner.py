"""Make all clips of a job, and judge them."""

import asyncio
import contextvars
import logging
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from decimal import Decimal
from threading import Event
from time import monotonic
from typing import TYPE_CHECKING

from videogen.errors import (
    BlockedError,
    ClipCancelledError,
    CommandRefusedError,
    JournalError,
    RunInterruptedError,
    StorageError,
    ValidationError,
    is_retryable,
)
from videogen.events import (
    ClipCompleted,
    ClipFailed,
    ClipRetrying,
    RunCapChanged,
    RunCompleted,
    RunPaused,
    RunResumed,
    RunStarted,
    SceneOutline,
)
from videogen.execution.cancel_switch import CancelSwitch
from videogen.failpoints import crash_if_requested
from videogen.job.choices import CHOICES_NAME, Choices, parse_choices, read_choices_text
from videogen.planning.requests import ClipRequest
from videogen.results.clip import Clip, get_planned_fields
from videogen.results.run_result import RunResult, list_film_scenes
from videogen.results.takes import apply_choices
from videogen.results.verdict import judge_by_model
from videogen.source_files.messages import did_you_mean
from videogen.text import format_money, make_loggable

if TYPE_CHECKING:
    from videogen.execution.context import RunContext
    from videogen.execution.slots import Slot, Slots
    from videogen.journal.deliveries import DeliveryRecord
from videogen.execution.options import PreparedJob
from videogen.execution.recorder import EventRecorder

logger = logging.getLogger(__name__)

MANIFEST_S = 3.0
"""Time that an interrupted run has to write its manifest. All of its end may take 15 s."""
ENDING_S = 10.0
"""How long a command that has a failed clip made again waits until the end of the clip is recorded everywhere."""


class JobRunner:
    """A run in progress: makes clips one by one, then judges them."""

    def __init__(self, prepared: PreparedJob, run: "RunContext", slots: "Slots", events: "EventRecorder") -> None:
        self.plan, self.run, self.settings = prepared.plan, run, prepared.settings
        self._prepared, self._events = prepared, events
        self._slots = slots
        self._making: dict[str, asyncio.Task[Clip]] = {}
        """By scene id: the clips that are being made, or were made."""
        self._unfinished: set[asyncio.Task[Clip]] = set()
        self._broken: asyncio.Task[Clip] | None = None
        """The first task that raised instead of returning a clip. It ends the run."""
        self._news = asyncio.Event()
        """Set when all clips have ended, or a task is broken."""
        self._start: Callable[[ClipRequest], None] | None = None
        """Starts a clip, also again. None before clips are made, and after all of them have ended."""
        self._switches: defaultdict[str, CancelSwitch] = defaultdict(CancelSwitch)
        """By scene id."""
        self._tried: set[str] = set()
        """Ids of the scenes that an attempt was made at."""
        self._requests = {request.scene.id: request for request in prepared.plan.requests}
        self._start_order = prepared.plan.start_order
        self._places = {request.scene.id: place for place, request in enumerate(self._start_order)}
        self.interrupted_result: RunResult | None = None
        """What the run had brought when it was interrupted, as in its manifest."""
        self._began = monotonic()
        clips, cost = len(prepared.plan.requests), format_money(prepared.plan.total_cost)
        logger.info("run %s of %s: %d clips, %s planned", run.id, prepared.job.id, clips, cost)
        events.emit(
            RunStarted(
                job_id=prepared.job.id,
                model=prepared.plan.model,
                aspect_ratio=prepared.job.aspect_ratio,
                provider=prepared.origin,
                planned_cost=prepared.plan.total_cost,
                max_cost=prepared.plan.max_cost,
                spent_before=prepared.plan.spent_before,
                fresh=prepared.options.fresh,
                scenes=tuple(SceneOutline.from_request(request) for request in prepared.plan.requests),
            )
        )

    def make_slot(self, scene_id: str) -> "Slot":
        """Return a slot for one of the `concurrency` predictions that may run at a time. Those that wait for one get it
        in the plan's order."""
        from videogen.execution.slots import Slot

        return Slot(self._slots, self._places[scene_id])

    async def make_clips(
        self, run_attempts: "AttemptRunner | None" = None, *, tell_blocked: "BlockedListener | None" = None
    ) -> list[Clip]:
        """Make all clips of the plan, and return them in the plan's order.

        A clip that is made from others waits for them, without a slot. Of those that can be made, the ones with the
        longest path of such clips behind them begin first.

        `run_attempts` is passed to `make_clip`. `tell_blocked` is called with each request whose clip is not tried
        because one that it is made from failed, and with the reason.

        When the run is cancelled, or one clip raises, nothing is created any more. All clips are then cancelled, which
        cancels their predictions, and waited for.
        """
        context = contextvars.copy_context()  # a command comes in another one

        def start(request: ClipRequest) -> None:
            making = self.make_clip(request, run_attempts, tell_blocked=tell_blocked)
            task = asyncio.create_task(making, context=context.copy())
            self._making[request.scene.id] = task
            self._unfinished.add(task)
            task.add_done_callback(self._note_end)

        self._start = start
        try:
            for request in self._start_order:
                start(request)
            while self._unfinished and not self._broken:
                self._news.clear()
                await self._news.wait()
            self._start = None  # from here on, no command starts a clip again
            if self._broken:
                self._broken.result()
            return [self._making[request.scene.id].result() for request in self.plan.requests]
        except BaseException:
            self._start = None
            self.run.gate.stop_creates()
            tasks = list(self._unfinished)
            for task in tasks:
                if not task.cancelling():  # a second cancel would interrupt the cancelling of its prediction
                    task.cancel()
            if tasks:
                await asyncio.wait(tasks)
            raise

    def _note_end(self, task: asyncio.Task[Clip]) -> None:
        self._unfinished.discard(task)
        if task.cancelled() or task.exception():
            self._broken = self._broken or task
        if self._broken or not self._unfinished:
            self._news.set()

    async def make_clip(
        self,
        request: ClipRequest,
        run_attempts: "AttemptRunner | None" = None,
        *,
        tell_blocked: "BlockedListener | None" = None,
    ) -> Clip:
        """Return the clip of a request or of its first fallback that succeeds. If none does, return the failed clip.

        `run_attempts` makes all attempts at one request and returns the clip or the last error. By default they follow
        each other after growing pauses.
        """
        from videogen.execution.attempt import should_fall_back

        if kept := self._prepared.kept.get(request.scene.id):
            return self._keep_clip(kept, request)
        switch, slot = self._switches[request.scene.id], self.make_slot(request.scene.id)
        async with AsyncExitStack() as stack:
            try:
                causes = await switch.guard(self._wait_for_upstreams(request))
                if causes:
                    return await self._block(request, causes, tell_blocked)
                await switch.guard(stack.enter_async_context(slot))
            except ClipCancelledError as exc:
                if tell_blocked:
                    await tell_blocked(request, str(exc))
                return await self._finish_failed(request, exc)
            for each in request.alternatives:
                result = await self._make_alternative(each, run_attempts or run_attempts_in_process, slot)
                if isinstance(result, Clip):
                    return result
                if not should_fall_back(each, result):
                    return await self._finish_failed(each, result)
        raise AssertionError("the last alternative has no fallback")

    async def _make_alternative(
        self, request: ClipRequest, run_attempts: "AttemptRunner", slot: "Slot"
    ) -> Clip | BaseException:
        if not request.segments:
            return await run_attempts(request, self, slot)
        from videogen.execution.long_clips import make_long_clip

        switch = self._switches[request.scene.id]
        return await make_long_clip(request, self.run, lambda segment: run_attempts(segment, self, slot), switch)

    async def _wait_for_upstreams(self, request: ClipRequest) -> tuple[str, ...]:
        """Wait for the clips that this one is made from. Return the ids of the scenes whose clips failed, and because
        of which it cannot be made."""
        clips = await self._wait_for_clips(request.upstream_ids)
        self.run.upstreams |= {clip.scene_id: clip for clip in clips if clip.status == "success"}
        failed = (clip.blocked_by or (clip.scene_id,) for clip in clips if clip.status != "success")
        return tuple(dict.fromkeys(scene_id for ids in failed for scene_id in ids))

    async def _wait_for_clips(self, scene_ids: Sequence[str]) -> list[Clip]:
        """Return the clips of these scenes. One that is made again meanwhile is waited for again."""
        while True:
            tasks = [self._making[scene_id] for scene_id in scene_ids]
            clips = [await asyncio.shield(task) for task in tasks]
            if all(self._making[scene_id] is task for scene_id, task in zip(scene_ids, tasks, strict=True)):
                return clips

    async def _block(
        self, request: ClipRequest, causes: tuple[str, ...], tell_blocked: "BlockedListener | None"
    ) -> Clip:
        error = BlockedError(f"not tried, because there is no clip of {' and '.join(causes)}")
        clip = Clip.make_failed(request, error, blocked_by=causes)
        logger.warning("%s: %s", request.scene.id, error)
        self._events.emit(ClipFailed(clip=clip))
        if tell_blocked:
            await tell_blocked(request, str(error))
        return clip

    async def attempt_clip(self, request: ClipRequest, slot: "Slot") -> Clip:
        """Make one attempt at a clip, see `videogen.execution.attempt.attempt_clip`, unless a command cancels it.

        Raises:
            ClipCancelledError: it was cancelled. Only the attempt is, not the caller, whose task may belong to Prefect.
        """
        from videogen.execution.attempt import attempt_clip

        self._tried.add(request.scene.id)
        return await self._switches[request.scene.id].guard(attempt_clip(request, self.run, slot))

    # -- commands --------------------------------------------------------------------------------------------------

    def pause(self, sender: str) -> None:
        """Create no further prediction until `resume`. Running ones finish and are delivered."""
        self._require_creates()
        if not self.run.gate.is_paused:
            self.run.gate.pause()
            self._events.emit(RunPaused(sender=sender))

    def resume(self, sender: str) -> None:
        """End a pause."""
        if self.run.gate.is_paused:
            self.run.gate.resume()
            self._events.emit(RunResumed(sender=sender))

    def change_cap(self, max_cost: Decimal, sender: str) -> None:
        """Change what the job may cost, in USD. Clips that wait because of the budget look at it again.

        If that is spent or reserved already, running predictions finish, and no further one is created.
        """
        self._require_clips()
        self.run.max_cost = max_cost
        self.run.notify_settled()
        self._events.emit(RunCapChanged(sender=sender, max_cost=max_cost))

    def cancel_clip(self, scene_id: str) -> None:
        """Cancel a clip that has not ended, and its running prediction. Raise `CommandRefusedError` if it has ended."""
        self._require_scene(scene_id)
        if scene_id in self._events.failed and scene_id not in self.run.cancelled:
            raise CommandRefusedError(f"{scene_id} has failed already: there is nothing to cancel")
        if scene_id in self.run.delivering or scene_id in self._events.done - self._events.failed:
            raise CommandRefusedError(f"{scene_id} is delivered already: it is paid for, and stays")
        self.run.cancelled.add(scene_id)
        self._switches[scene_id].request()

    async def retry_clip(self, scene_id: str) -> None:
        """Make a clip that has failed for good again, and those that are blocked because of it.

        Each has all its attempts again, within the budget. Raise `CommandRefusedError` if it has not failed.
        """
        self._require_scene(scene_id)
        attempts = await self.run.journal.find_attempts(self.run.id, scene_id)
        await self._wait_for_failed()
        self._require_creates()
        start, made = self._start, self._making.get(scene_id)
        if start is None or made is None or not made.done():
            raise CommandRefusedError(f"{scene_id} has not failed: it is still being made")
        clip = made.result()
        if clip.blocked_by:
            failed = " and ".join(clip.blocked_by)
            raise CommandRefusedError(f"{scene_id} was not tried, because there is no clip of {failed}: retry {failed}")
        if clip.error is None:
            raise CommandRefusedError(f"{scene_id} is delivered already: `videogen retake` makes another take of it")
        self.run.attempts_before |= Counter(attempt.clip_key for attempt in attempts)
        self.run.cancelled.discard(scene_id)
        del self._switches[scene_id]
        for each in (clip, *self._find_blocked_by(scene_id)):
            request = self._requests[each.scene_id]
            if each.error:
                self._events.emit(
                    ClipRetrying(
                        clip_index=each.clip_index,
                        scene_id=each.scene_id,
                        attempt=each.attempts,
                        error=each.error,
                        model=request.model,
                    )
                )
            start(request)

    async def _wait_for_failed(self) -> None:
        """Wait until the tasks of the clips that have failed have ended, too: Prefect may still record them."""
        making = (self._making.get(scene_id) for scene_id in self._events.failed)
        if ending := [task for task in making if task and not task.done()]:
            await asyncio.wait(ending, timeout=ENDING_S)

    def _find_blocked_by(self, scene_id: str) -> list[Clip]:
        """Return the clips that were not tried because of this scene, in the order in which clips begin."""
        tasks = [self._making[request.scene.id] for request in self._start_order]
        return [clip for clip in (task.result() for task in tasks if task.done()) if scene_id in clip.blocked_by]

    def _require_scene(self, scene_id: str) -> None:
        if scene_id not in self._places:
            raise CommandRefusedError(f"{scene_id!r} is no scene of this run{did_you_mean(scene_id, self._places)}")
        self._require_clips()

    def _require_creates(self) -> None:
        self._require_clips()
        if refusal := self.run.gate.refusal:
            raise CommandRefusedError(f"nothing is created any more: {refusal}")

    def _require_clips(self) -> None:
        """Raise `CommandRefusedError` if no clips are made any more."""
        if self._making and self._start is None:
            raise CommandRefusedError("all clips of the run have ended: run `videogen run JOB` again")

    async def flush(self) -> None:
        """Wait until every event so far is recorded and reported."""
        await self._events.flush()

    def _keep_clip(self, clip: Clip, request: ClipRequest) -> Clip:
        from videogen.execution.delivery import mark_reused

        logger.info("%s: kept the clip of the last run", request.scene.id)
        clip = mark_reused(clip).model_copy(update={"clip_index": request.clip_index})
        self._events.emit(ClipCompleted(clip=clip))
        return clip

    async def _finish_failed(self, request: ClipRequest, error: BaseException) -> Clip:
        """Return the failed clip with the cost of its attempts, and report it unless an attempt did."""
        from videogen.execution.delivery import sum_attempts

        attempts = await self.run.journal.find_attempts(self.run.id, request.scene.id)
        clip = Clip.make_failed(request, error, **sum_attempts(attempts))
        if clip.scene_id not in self._events.done:  # no attempt has reported this error
            self._events.emit(ClipFailed(clip=clip))
        return clip

    async def finish(self, clips: Sequence[Clip]) -> RunResult:
        """Judge the clips, write the contact sheet and then `manifest.json`, and close the run in the journal."""
        batch = await self._judge(clips)
        unwritten = await self._write_pictures(batch)
        await self.run.note_cost()
        crash_if_requested("before-manifest")
        await asyncio.to_thread(self.run.store.put_text, batch.manifest(), "manifest.json")
        await self.run.journal.end_run(self.run.id, verdict=batch.verdict.status)
        cost = format_money(batch.total_cost)
        logger.info("run %s of %s is %s, for %s", self.run.id, batch.job_id, batch.verdict.status, cost)
        self._events.emit(RunCompleted(result=batch, warnings=unwritten))
        await self._events.flush()
        return batch

    async def end_interrupted(self, reason: str) -> str:
        """Write the manifest of an interrupted run, and end the run in the journal. What takes too long is left out.

        Return the reason with what was delivered, what it cost, and how many predictions may still be running.
        """
        from videogen.execution.lease import end_interrupted

        summary = reason
        try:
            async with asyncio.timeout(MANIFEST_S):
                batch = await self._collect_interrupted(reason)
                summary = batch.verdict.reason
                await asyncio.to_thread(self.run.store.put_text, batch.manifest(), "manifest.json")
        except (JournalError, StorageError, TimeoutError) as exc:
            logger.warning("the manifest of the interrupted run was not written: %s", make_loggable(exc))
        finally:
            await end_interrupted(self.run.journal, self.run.id)
        return summary

    async def _collect_interrupted(self, reason: str) -> RunResult:
        """Return the result of an interrupted run, whose verdict says so."""
        keys = {each.key for request in self.plan.requests for each in request.alternatives}
        deliveries = await self.run.journal.find_deliveries(self._prepared.origin, list(keys))
        clips = [await self._find_clip(request, deliveries, reason) for request in self.plan.requests]
        running = [
            f"prediction {attempt.prediction_id or 'whose id was never received'} may still be running: the next run "
            "looks for it"
            for attempt in await self.run.journal.find_running_attempts(self.run.id)
        ]
        batch = await self._judge(clips, *running)
        summary = f"{reason}: {batch.successful_clips} of {batch.total_clips} clips delivered, "
        summary += f"{format_money(batch.total_cost)} spent"
        if running:
            summary += f"; {len(running)} predictions may still be running" if len(running) > 1 else f"; {running[0]}"
        verdict = batch.verdict.model_copy(update={"reason": summary})
        self.interrupted_result = batch.model_copy(update={"verdict": verdict})
        return self.interrupted_result

    async def _find_clip(self, request: ClipRequest, deliveries: "dict[str, DeliveryRecord]", reason: str) -> Clip:
        """Return the clip of an interrupted run: one that it made, one that was there before, or a failed one."""
        from videogen.execution.delivery import mark_reused, sum_attempts

        scene_id = request.scene.id
        task = self._making.get(scene_id)
        if task and task.done() and not task.cancelled() and not task.exception():
            return task.result()
        if kept := self._prepared.kept.get(scene_id):
            return mark_reused(kept).model_copy(update={"clip_index": request.clip_index})
        attempts = await self.run.journal.find_attempts(self.run.id, scene_id) if scene_id in self._tried else []
        for each in request.alternatives:
            delivery = deliveries.get(each.key)
            if delivery and delivery.folder == self.run.folder:
                was_made = any(attempt.state == "delivered" and attempt.clip_key == each.key for attempt in attempts)
                clip = delivery.clip if was_made else mark_reused(delivery.clip)
                return clip.model_copy(update=get_planned_fields(each))
        error = RunInterruptedError(f"{reason}; the next run makes it")
        return Clip.make_failed(request, error, **sum_attempts(attempts))

    async def _judge(self, clips: Sequence[Clip], *warnings: str) -> RunResult:
        """Return the result of the run, with its verdict on these clips, its warnings, and the choices for the film."""
        from videogen.execution.billing import describe_unexpected_bills

        job, plan = self._prepared.job, self.plan
        required = frozenset(request.scene.id for request in plan.requests if request.scene.required)
        spent, reserved = await self.run.journal.get_job_spending(job.id, self._prepared.origin)
        bills = describe_unexpected_bills(self.run.unexpected_bills.values())
        verdict, verdicts = judge_by_model(
            tuple(clips), models=job.models_to_run, min_clips=plan.min_clips, required=required
        )
        verdict = verdict.model_copy(update={"warnings": (*bills, *warnings)})
        batch = RunResult(
            run_id=self.run.id,
            job_id=job.id,
            model=plan.model,
            aspect_ratio=job.aspect_ratio,
            provider=self._prepared.origin,
            verdict=verdict,
            verdicts=verdicts,
            cells_per_scene=plan.variants_per_scene,
            total_generation_time=round(monotonic() - self._began, 3),
            job_cost=spent + reserved,
            scenes=list_film_scenes(job),
            clips=tuple(clips),
        )
        return apply_choices(batch, await self._read_choices())

    async def _read_choices(self) -> Choices:
        """Return the choices as they are now: a person may have chosen during the run."""
        try:
            return parse_choices(await asyncio.to_thread(read_choices_text, self.run.store))
        except (ValidationError, StorageError) as exc:
            logger.warning("%s cannot be read, the choices from before the run count: %s", CHOICES_NAME, exc)
            return self._prepared.choices

    async def _write_pictures(self, batch: RunResult) -> tuple[str, ...]:
        """Write the contact sheet, the timelines and the rough cut. Return a warning for each file that could not be
        written: the verdict is valid without it."""
        from videogen.reports import contact_sheet, contact_sheet_image, rough_cut, timeline

        store = self.run.store
        prompts = {request.scene.id: request.scene.prompt for request in self.plan.requests}
        files, warnings = ["manifest.json"], []
        writers: dict[str, Callable[[Event], None]] = {
            contact_sheet.IMAGE_NAME: lambda _: contact_sheet_image.write_image(batch, store)
        }
        for name in timeline.TIMELINE_NAMES:
            writers[name] = lambda _, name=name: timeline.write_timeline(name, batch, store)  # type: ignore[misc]
        if self._prepared.options.rough_cut:
            writers[rough_cut.ROUGH_CUT_NAME] = lambda stop: rough_cut.write_rough_cut(
                batch, store, prompts=prompts, music=self._prepared.options.music, stop=stop
            )
        writers[contact_sheet.PAGE_NAME] = lambda _: contact_sheet.write_page(batch, prompts, store, files=files)
        for name, write in writers.items():
            try:
                await self.run.run_in_decoder(write)
            except Exception as exc:  # whatever it is, the clips are paid for and delivered
                warnings.append(f"{name} was not written: {exc}")
                logger.warning("%s was not written: %s", name, make_loggable(exc))
            else:
                files.append(name)
        return tuple(warnings)


BlockedListener = Callable[[ClipRequest, str], Awaitable[None]]
AttemptRunner = Callable[[ClipRequest, JobRunner, "Slot"], Awaitable[Clip | BaseException]]


async def run_attempts_in_process(request: ClipRequest, session: JobRunner, slot: "Slot") -> Clip | BaseException:
    """Run all attempts at this request, with growing pauses. Return the clip, or the error of the last attempt."""
    pauses = session.run.patience.make_backoff()
    for attempt in range(1, request.attempts + 1):
        try:
            return await session.attempt_clip(request, slot)
        except Exception as exc:
            if attempt == request.attempts or not is_retryable(exc):
                return exc
        await asyncio.sleep(pauses.next_s())
    raise AssertionError("a request has at least one attempt")
