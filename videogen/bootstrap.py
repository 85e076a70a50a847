"""Composition root: build a plan from a job and the settings, and a runner that makes its clips."""

import asyncio
import os
import socket
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from threading import Event
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal

import anyio
from pydantic import BaseModel, ConfigDict

from videogen.clip import Clip, ClipRequest, RunResult, judge_by_model
from videogen.crashpoints import crash_if_requested
from videogen.earlier import PriorWork, find_clips_of_last_run, inspect_prior_runs
from videogen.errors import (
    JournalError,
    LeaseLostError,
    Problem,
    RunInterruptedError,
    SettingsError,
    TransientError,
    ValidationError,
    is_retryable,
)
from videogen.events import ClipCompleted, ClipEnded, ClipFailed, RunCompleted, RunEvent, RunStarted, SceneOutline
from videogen.planning import Plan, plan_job, validate_budget, validate_job
from videogen.ports import is_remote
from videogen.registry import read_registry
from videogen.scene import Job
from videogen.settings import ProviderName, Settings, read_settings

if TYPE_CHECKING:
    from videogen.journal import AsyncJournal
    from videogen.references import ReferenceImage
    from videogen.run import RunContext, Slot, Slots

HEARTBEAT_S = 5.0
FLUSH_S = 8.0
"""Time that an interrupted run has to record its last events."""
NO_RETENTION = timedelta(0)
"""The emulator of a run ends with it, and its predictions are gone then."""
HOLDER_POLL_S = 0.5
EMULATOR_START_S = 60.0
EMULATOR_LATENCY = "1:3"
"""Range of seconds that a clip takes on the emulator that a run starts for itself."""

Listener = Callable[[RunEvent, Mapping[str, Any]], None]
"""Called with each event and its payload, after the event was recorded in the journal."""


class RunOptions(BaseModel):
    """Options of a run that are not part of the job. None means the value from the environment."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    out: str | None = None
    """Folder that contains the job's own folder: a path, or an address such as `s3://bucket/prefix`."""
    provider: ProviderName | None = None
    registry: Path | None = None
    """A `models.toml` that extends the shipped one."""
    fresh: bool = False
    """Make every clip again, including those already delivered."""
    retry_failed: bool = False
    """Keep every clip of the last run, even if the job has changed, and make the missing ones."""
    rough_cut: bool = False
    """Also write `rough_cut.mp4`."""
    music: Path | None = None
    """Audio file for the soundtrack of `rough_cut.mp4`."""
    on_interrupt: Literal["cancel", "leave"] = "cancel"
    """What happens to running predictions when the run is interrupted or cancelled: `cancel` cancels them, which is
    billed for the time they ran; `leave` lets them run, and the next run continues them."""
    folder: str = "."
    """Base folder of the job's relative reference paths."""

    def resolve_settings(self) -> Settings:
        """Return the environment's settings, overridden by these options. Raise `SettingsError` if they are invalid."""
        given = {"out": self.out or None, "provider": self.provider, "registry": self.registry}
        return read_settings().model_copy(update={name: value for name, value in given.items() if value is not None})


@dataclass(frozen=True)
class PreparedJob:
    """A job that is ready to run: it is planned, its references are loaded, and nothing is spent yet."""

    job: Job
    plan: Plan
    settings: Settings
    options: RunOptions
    provider: ProviderName
    provider_reason: str
    """Why this provider was chosen."""
    origin: str
    references: Mapping[str, "ReferenceImage"]
    kept: Mapping[str, Clip]
    """By scene id: clips of the last run that stay unchanged."""
    recovering: bool
    """Whether predictions that earlier runs paid for are missing in the journal."""

    @property
    def folder(self) -> str:
        """The path or URL of the job's own folder."""
        return self.settings.get_job_folder(self.job.id)

    @property
    def work_folder(self) -> Path:
        """The local folder in which its files are made."""
        return self.settings.get_work_folder(self.job.id)


@dataclass(frozen=True)
class CliHandover:
    """Values that the command line passes to the flow besides Prefect's parameters, which must be serializable."""

    prepared: PreparedJob
    listeners: tuple[Listener, ...]
    file: str | None
    """The job's file. It stands for a job that is too large for a parameter."""
    stop: asyncio.Event
    """Set when the command line is interrupted while clips are being made."""


_handover: ContextVar[CliHandover | None] = ContextVar("handover", default=None)


@contextmanager
def hand_over(
    prepared: PreparedJob, *listeners: Listener, file: str | None = None, stop: asyncio.Event | None = None
) -> Iterator[None]:
    """Hand the prepared job to the flow that runs inside the block. Runs report to these listeners, and `stop` ends
    their work."""
    token = _handover.set(CliHandover(prepared, listeners, file, stop or asyncio.Event()))
    try:
        yield
    finally:
        _handover.reset(token)


def stop_requested() -> asyncio.Event:
    """Return the event that is set when the command line is interrupted; without a command line it is never set."""
    handed = _handover.get()
    return handed.stop if handed else asyncio.Event()


async def prepare_job(job: Job | str, options: RunOptions) -> PreparedJob:
    """Load the job's references, find the results of earlier runs, and plan.

    Args:
        job: a job, or the address of its file: a path, `https://…` or `s3://…`. Reference paths are relative to a local
            file.

    Raises:
        ValidationError, SettingsError: the job cannot be run as it is.
    """
    handed = _handover.get()
    if handed and handed.prepared.options == options and job in (handed.prepared.job, handed.file):
        return handed.prepared
    if isinstance(job, str):
        from videogen.adapters.jobs import read_job_at

        address, job = job, await asyncio.to_thread(read_job_at, job)
        options = options if is_remote(address) else options.model_copy(update={"folder": str(Path(address).parent)})
    from videogen.adapters.folders import open_folder

    settings = options.resolve_settings()
    registry = read_registry(settings.registry)
    validate_job(job, registry)  # report problems before anything is fetched
    provider, why = settings.choose_provider()
    origin = _name_origin(settings, provider)
    references = await _load_references(job, Path(options.folder))
    digests = {source: reference.digest for source, reference in references.items()}
    cut_outs = {reference.digest for reference in references.values() if reference.can_be_cut_out}
    buffer, today = settings.duration_buffer, datetime.now(UTC).date()
    planned = plan_job(job, registry, digests=digests, cut_outs=cut_outs, buffer=buffer, today=today)
    folders, url = cache(open_folder), settings.get_journal_url()
    folder = folders(settings.get_job_folder(job.id))

    async def look(planned: Plan) -> PriorWork:
        return await asyncio.to_thread(
            inspect_prior_runs, url, origin, folder, planned, open_folder=folders, fresh=options.fresh
        )

    if cut_outs and not options.fresh:  # clips of versions that did not cut characters out are paid for, and stay
        before = plan_job(job, registry, digests=digests, buffer=buffer, today=today)
        planned = planned.with_kept_requests(before, made=(await look(before)).delivered)
    if references:
        from videogen.references import warn_about_cards

        planned = planned.with_warnings(*warn_about_cards(planned.requests, references))
    can_keep = options.retry_failed and not options.fresh
    kept = await asyncio.to_thread(find_clips_of_last_run, folder, origin) if can_keep else {}
    earlier = await look(planned)
    planned = planned.with_reuse(earlier.delivered, paid=earlier.in_flight, kept=kept).with_warnings(*earlier.warnings)
    planned = planned.with_prior_cost(earlier.spent)
    validate_budget(planned)
    return PreparedJob(job, planned, settings, options, provider, why, origin, references, kept, earlier.history_lost)


async def check_local_references(job: Job, folder: Path) -> None:
    """Check the job's images that are files or `data:` URLs. Nothing is fetched.

    Raises:
        ValidationError: names each image that is missing, broken or no image.
    """
    from videogen.scene import is_url

    sources = {source for scene in job.scenes for source in scene.reference_urls}
    await _load_sources(job, {each for each in sources if not is_url(each) or each[:5].lower() == "data:"}, folder)


async def _load_references(job: Job, folder: Path) -> Mapping[str, "ReferenceImage"]:
    return await _load_sources(job, {source for scene in job.scenes for source in scene.reference_urls}, folder)


async def _load_sources(job: Job, sources: set[str], folder: Path) -> Mapping[str, "ReferenceImage"]:
    if not sources:
        return {}
    from videogen.references import load_references
    from videogen.scene import display_name

    try:
        return await load_references(sorted(sources), base_dir=folder)
    except ValidationError as exc:
        problems = {problem.where: problem.message for problem in exc.problems}
        raise ValidationError(
            [
                Problem(f"{display_name(source)}: {problems[display_name(source)]}", where=where)
                for where, source in _find_reference_places(job)
                if display_name(source) in problems
            ]
        ) from None


def _find_reference_places(job: Job) -> Iterator[tuple[str, str]]:
    """Yield the place of each reference in the job, and its address."""
    for index, scene in enumerate(job.scenes):
        if scene.scene_reference_url:
            yield f"scenes.{index}.scene_reference_url", scene.scene_reference_url
        for number, source in enumerate(scene.character_reference_urls):
            yield f"scenes.{index}.character_reference_urls.{number}", source


def _name_origin(settings: Settings, provider: ProviderName) -> str:
    return "local" if provider == "local" else settings.replicate_base_url.split("://")[-1].strip("/")


class JobRunner:
    """A run in progress: makes clips one by one, then judges them."""

    def __init__(self, prepared: PreparedJob, run: "RunContext", slots: "Slots", events: "_EventRecorder") -> None:
        self.plan, self.run, self.settings = prepared.plan, run, prepared.settings
        self._prepared, self._events = prepared, events
        self._slots = slots
        self._began = monotonic()
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

    def make_slot(self) -> "Slot":
        """Return a slot for one of the `concurrency` predictions that may run at a time."""
        from videogen.run import Slot

        return Slot(self._slots)

    async def make_clips(self, run_attempts: "AttemptRunner | None" = None) -> list[Clip]:
        """Make all clips of the plan, those that take longest first, and return them in the plan's order.

        `run_attempts` is passed to `make_clip`. When the run is cancelled, or one clip raises, nothing is created any
        more. All clips are then cancelled, which cancels their predictions, and waited for.
        """
        started = {
            request.scene.id: asyncio.create_task(self.make_clip(request, run_attempts))
            for request in self.plan.start_order
        }
        tasks = [started[request.scene.id] for request in self.plan.requests]
        try:
            return await asyncio.gather(*tasks)
        except BaseException:
            self.run.gate.stop_creates()
            for task in tasks:
                if not task.cancelling():  # a second cancel would interrupt the cancelling of its prediction
                    task.cancel()
            await asyncio.wait(tasks)
            raise

    async def make_clip(self, request: ClipRequest, run_attempts: "AttemptRunner | None" = None) -> Clip:
        """Return the clip of a request or of its first fallback that succeeds. If none does, return the failed clip.

        `run_attempts` makes all attempts at one request and returns the clip or the last error. By default they follow
        each other without a pause.
        """
        from videogen.generation import should_fall_back

        if kept := self._prepared.kept.get(request.scene.id):
            return self._keep_clip(kept, request)
        async with self.make_slot() as slot:
            for each in request.alternatives:
                result = await (run_attempts or _run_attempts_in_process)(each, self, slot)
                if isinstance(result, Clip):
                    return result
                if not should_fall_back(each, result):
                    return await self._finish_failed(each, result)
        raise AssertionError("the last alternative has no fallback")

    async def attempt_clip(self, request: ClipRequest, slot: "Slot") -> Clip:
        """Make one attempt at a clip, see `videogen.generation.attempt_clip`."""
        from videogen.generation import attempt_clip

        return await attempt_clip(request, self.run, slot)

    async def flush(self) -> None:
        """Wait until every event so far is recorded and reported."""
        await self._events.flush()

    def _keep_clip(self, clip: Clip, request: ClipRequest) -> Clip:
        from videogen.delivery import mark_reused

        clip = mark_reused(clip).model_copy(update={"clip_index": request.clip_index})
        self._events.emit(ClipCompleted(clip=clip))
        return clip

    async def _finish_failed(self, request: ClipRequest, error: BaseException) -> Clip:
        """Return the failed clip with the cost of its attempts, and report it unless an attempt did."""
        from videogen.delivery import sum_attempts

        attempts = await self.run.journal.find_attempts(self.run.id, request.scene.id)
        clip = Clip.make_failed(request, error, **sum_attempts(attempts))
        if clip.scene_id not in self._events.done:  # no attempt has reported this error
            self._events.emit(ClipFailed(clip=clip))
        return clip

    async def finish(self, clips: Sequence[Clip]) -> RunResult:
        """Judge the clips, write the contact sheet and then `manifest.json`, and close the run in the journal."""
        job, plan = self._prepared.job, self.plan
        required = frozenset(request.scene.id for request in plan.requests if request.scene.required)
        spent, reserved = await self.run.journal.get_job_spending(job.id, self._prepared.origin)
        verdict, verdicts = judge_by_model(
            tuple(clips), models=job.models_to_run, min_clips=plan.min_clips, required=required
        )
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
            clips=tuple(clips),
        )
        warnings = await self._write_pictures(batch)
        crash_if_requested("before-manifest")
        await asyncio.to_thread(self.run.store.put_text, batch.manifest(), "manifest.json")
        await self.run.journal.end_run(self.run.id, verdict=batch.verdict.status)
        self._events.emit(RunCompleted(result=batch, warnings=warnings))
        await self._events.flush()
        return batch

    async def _write_pictures(self, batch: RunResult) -> tuple[str, ...]:
        """Write the contact sheet and the rough cut. Return a warning for each file that could not be written: the
        verdict is valid without it."""
        from videogen import contact_sheet, rough_cut

        store = self.run.store
        prompts = {request.scene.id: request.scene.prompt for request in self.plan.requests}
        files, warnings = ["manifest.json"], []
        writers: dict[str, Callable[[Event], None]] = {
            contact_sheet.IMAGE_NAME: lambda _: contact_sheet.write_image(batch, store)
        }
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
            else:
                files.append(name)
        return tuple(warnings)


AttemptRunner = Callable[[ClipRequest, JobRunner, "Slot"], Awaitable[Clip | BaseException]]


async def _run_attempts_in_process(request: ClipRequest, session: JobRunner, slot: "Slot") -> Clip | BaseException:
    for attempt in range(1, request.attempts + 1):
        try:
            return await session.attempt_clip(request, slot)
        except Exception as exc:
            if attempt == request.attempts or not is_retryable(exc):
                return exc
    raise AssertionError("a request has at least one attempt")


@asynccontextmanager
async def open_run(prepared: PreparedJob, *listeners: Listener) -> AsyncIterator[JobRunner]:
    """Open a run of the prepared job, with its folder locked. Check the account if it will be used.

    Events go to the `listeners`, and to those that were handed over.

    Raises:
        JobLockedError: another run of this job is in progress.
        AuthenticationError: the token is refused.
        StorageError: the folder cannot be written.
        SettingsError: the limit that all runs share does not exist.
    """
    from videogen.adapters.files import lock_folder
    from videogen.adapters.folders import open_folder, open_store
    from videogen.adapters.images import ReferenceSender
    from videogen.calls import ProviderGate
    from videogen.journal import AsyncJournal, Journal
    from videogen.limits import join_limit, require_limit
    from videogen.matching import find_lookalikes
    from videogen.patience import NO_PATIENCE, Patience
    from videogen.run import RunContext, Slots

    async with AsyncExitStack() as stack:
        store, gate = open_store(prepared.folder, prepared.work_folder), ProviderGate()
        await asyncio.to_thread(store.check_writable)
        is_locked = stack.enter_context(lock_folder(prepared.work_folder))
        provider = await stack.enter_async_context(_open_provider(prepared))
        handed = _handover.get()
        if prepared.plan.to_create and not handed:  # the command line has checked the account already
            await gate.call_with_retries(provider.check_account, tries=4)
        sync_journal = await asyncio.to_thread(Journal, prepared.settings.get_journal_url())
        journal = AsyncJournal(sync_journal)
        stack.push_async_callback(journal.aclose)
        run_id, limit = uuid.uuid4().hex[:12], prepared.settings.get_limit_name()
        if limit:
            await asyncio.to_thread(require_limit, sync_journal, limit)
        keys = {each.key for request in prepared.plan.requests for each in request.alternatives}
        made = await asyncio.to_thread(sync_journal.find_fresh_keys, prepared.origin, prepared.folder)
        await _start_run(journal, run_id, prepared, exclusive=is_remote(prepared.folder) or not is_locked)
        stack.push_async_callback(_release_lease, journal, run_id)
        if is_remote(prepared.folder):  # a folder that cannot be written fails before anything is paid for
            holder = f"run {run_id}, process {os.getpid()} on {socket.gethostname()}\n"
            await asyncio.to_thread(store.put_text, holder, ".run")
        heard_by = (*listeners, *(handed.listeners if handed else ()))
        events = _EventRecorder(journal, run_id, len(prepared.plan.requests), heard_by)
        stack.push_async_callback(events.aclose)
        run = RunContext(
            id=run_id,
            folder=prepared.folder,
            provider=provider,
            store=store,
            open_folder=cache(open_folder),
            journal=journal,
            images=ReferenceSender(prepared.references, provider, store, gate),
            events=events,
            gate=gate,
            job_id=prepared.job.id,
            max_cost=prepared.plan.max_cost,
            patience=NO_PATIENCE if prepared.provider == "local" else Patience(),
            lookalikes=find_lookalikes(prepared.plan.requests),
            force_keys=keys - made if prepared.options.fresh else set(),
            recovering=prepared.recovering,
            leaves_running=prepared.options.on_interrupt == "leave",
        )
        beating = asyncio.create_task(_send_heartbeats(run))
        stack.callback(beating.cancel)
        shared = await stack.enter_async_context(join_limit(sync_journal, limit, run_id)) if limit else None
        try:
            yield JobRunner(prepared, run, Slots(prepared.plan.concurrency, shared), events)
        except BaseException as exc:
            if isinstance(exc, RunInterruptedError) or not isinstance(exc, Exception):  # Ctrl-C, cancelled, a signal
                await _end_interrupted(journal, run_id)
            raise


async def _start_run(journal: "AsyncJournal", run_id: str, prepared: PreparedJob, *, exclusive: bool) -> None:
    """Start the run in the journal. With `exclusive`, the journal is what keeps other runs out of the folder, because
    the folder is remote or has no locks.

    If a run there may be dead, wait until its lease has expired. Do not wait for a live one.
    """
    folder = prepared.folder
    seen = await journal.get_holder_last_seen(folder) if exclusive else None
    while seen and await journal.get_holder_last_seen(folder) == seen:
        await asyncio.sleep(HOLDER_POLL_S)
    await journal.start_run(
        run_id,
        job_id=prepared.job.id,
        origin=prepared.origin,
        folder=folder,
        recovering=prepared.recovering,
        exclusive=exclusive,
    )


async def _end_interrupted(journal: "AsyncJournal", run_id: str) -> None:
    with anyio.move_on_after(FLUSH_S, shield=True), suppress(JournalError):
        await journal.end_run(run_id, verdict="interrupted")


async def _release_lease(journal: "AsyncJournal", run_id: str) -> None:
    with suppress(JournalError):
        await journal.release_lease(run_id)


async def _send_heartbeats(run: "RunContext") -> None:
    """Renew the run's lease regularly. A journal that is busy for long does not end the run.

    If another run took over meanwhile, because the lease had expired, this run creates nothing any more.
    """
    while True:
        await asyncio.sleep(HEARTBEAT_S)
        try:
            await run.journal.heartbeat(run.id)
        except LeaseLostError as exc:
            run.gate.stop_creates(exc)
        except JournalError:
            pass


class _EventRecorder:
    """`videogen.ports.EventSink`: numbers and records each event in the journal, then reports it to the listeners.

    Recording runs in the background, one event after the other, so that no clip waits for the journal. An event that
    cannot be recorded is reported all the same.
    """

    def __init__(self, journal: "AsyncJournal", run_id: str, total: int, listeners: Sequence[Listener]) -> None:
        self._journal, self._run_id, self._listeners = journal, run_id, listeners
        self._total = total
        self._emitted: asyncio.Queue[tuple[RunEvent, dict[str, Any]]] = asyncio.Queue()
        self._recording = asyncio.create_task(self._record())
        self.done: set[str] = set()
        """Ids of the scenes whose clip is delivered or failed. A clip that fails and is delivered later counts once."""
        self._failed: set[str] = set()

    def emit(self, event: RunEvent) -> None:
        if isinstance(event, ClipEnded):
            self.done.add(event.clip.scene_id)
            (self._failed.add if event.clip.error else self._failed.discard)(event.clip.scene_id)
        done = {"completed": len(self.done), "failed": len(self._failed), "total": self._total}
        counts = {"run_id": self._run_id, **done}
        self._emitted.put_nowait((event, {**event.payload(), **counts}))

    async def flush(self) -> None:
        """Wait until every event is recorded and reported."""
        await self._emitted.join()

    async def aclose(self) -> None:
        """Record the remaining events, for `FLUSH_S` at most, and stop."""
        with anyio.move_on_after(FLUSH_S, shield=True):
            await self.flush()
        self._recording.cancel()

    async def _record(self) -> None:
        while True:
            event, payload = await self._emitted.get()
            with suppress(JournalError):
                await self._journal.add_event(self._run_id, event.type, payload)
            for listener in self._listeners:
                listener(event, payload)
            self._emitted.task_done()


@asynccontextmanager
async def _open_provider(prepared: PreparedJob) -> AsyncIterator[Any]:
    from videogen.adapters.replicate import ReplicateProvider

    if prepared.provider == "replicate":
        token = prepared.settings.replicate_api_token
        if token is None:
            raise SettingsError("REPLICATE_API_TOKEN is not set; get one at https://replicate.com/account/api-tokens")
        provider = ReplicateProvider(
            token.get_secret_value(), base_url=prepared.settings.replicate_base_url, origin=prepared.origin
        )
        try:
            yield provider
        finally:
            await provider.aclose()
        return
    if not prepared.plan.to_create:  # everything is delivered: the provider is not called
        yield ReplicateProvider(
            "local", base_url="http://127.0.0.1:9", origin=prepared.origin, outputs_kept=NO_RETENTION
        )
        return
    async with _start_emulator() as url:
        provider = ReplicateProvider("local", base_url=url, origin=prepared.origin, outputs_kept=NO_RETENTION)
        try:
            yield provider
        finally:
            await provider.aclose()


@asynccontextmanager
async def _start_emulator() -> AsyncIterator[str]:
    """Start an emulator and yield its URL. It ends with this process, however that ends, because it watches its
    standard input."""
    command = ["-m", "videogen", "emulator", "--port", "0", "--exit-with-parent", "--latency", EMULATOR_LATENCY]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,  # Ctrl-C at a terminal is for us: our predictions are still to be cancelled there
    )
    assert process.stdin
    assert process.stdout
    try:
        async with asyncio.timeout(EMULATOR_START_S):
            line = (await process.stdout.readline()).decode()
        if "http://" not in line:
            raise TransientError("the emulator did not start")
        yield line[line.index("http://") :].strip()
    finally:
        process.stdin.close()
        await process.wait()
