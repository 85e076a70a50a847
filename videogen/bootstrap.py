"""Composition root: from a job and the settings to a plan, and from the plan to a session that makes its clips."""

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
from videogen.earlier import Earlier, kept_clips, look_back
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
    from videogen.run import Run, Slot, Slots

BEAT_S = 5.0
FLUSH_S = 8.0
"""How long the last events of a run may take to be recorded, once it was interrupted."""
FORGETS = timedelta(0)
"""The emulator of a run ends with it, and so does what it made."""
HOLDER_LOOK_S = 0.5
EMULATOR_START_S = 60.0
EMULATOR_LATENCY = "1:3"
"""Seconds that a clip takes on the emulator that a run starts for itself."""

Listener = Callable[[RunEvent, Mapping[str, Any]], None]
"""Called with every event and its payload, after it is in the journal."""


class Options(BaseModel):
    """How to run a job, as far as it is not the job's own affair. None means what the environment says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    out: str | None = None
    """Folder in which the job gets its own: a path, or an address such as `s3://bucket/prefix`."""
    provider: ProviderName | None = None
    registry: Path | None = None
    """A `models.toml` that extends the shipped one."""
    fresh: bool = False
    """Make every clip anew, also those that were delivered before."""
    retry_failed: bool = False
    """Keep every clip of the last run, whatever the job says now, and make those it has not."""
    rough_cut: bool = False
    """Also write `rough_cut.mp4`."""
    music: Path | None = None
    """Sound that is put under `rough_cut.mp4`."""
    on_interrupt: Literal["cancel", "leave"] = "cancel"
    """What becomes of the predictions that are running when the run is interrupted or cancelled: `cancel` cancels them,
    which is billed for the time they ran; `leave` lets them run for the next run, which continues them."""
    folder: str = "."
    """Where the job's relative reference paths start."""

    def settings(self) -> Settings:
        """The environment's settings with these options over them. Raises `SettingsError`."""
        given = {"out": self.out or None, "provider": self.provider, "registry": self.registry}
        return read_settings().model_copy(update={name: value for name, value in given.items() if value is not None})


@dataclass(frozen=True)
class Prepared:
    """A job that can be run: planned, its references at hand, nothing spent yet."""

    job: Job
    plan: Plan
    settings: Settings
    options: Options
    provider: ProviderName
    why: str
    """Why this provider."""
    origin: str
    references: Mapping[str, "ReferenceImage"]
    kept: Mapping[str, Clip]
    """By scene id: clips of the last run that stay as they are."""
    recovering: bool
    """What earlier runs paid for is not in the journal."""

    @property
    def folder(self) -> str:
        """The address of the job's own folder."""
        return self.settings.get_job_folder(self.job.id)

    @property
    def work_folder(self) -> Path:
        """Where its files are made on this disk."""
        return self.settings.get_work_folder(self.job.id)


@dataclass(frozen=True)
class Handover:
    """What a command line gives to the flow it calls, past Prefect's parameters: those are for what can be stored."""

    prepared: Prepared
    listeners: tuple[Listener, ...]
    file: str | None
    """The job's file, which stands for a job that is too large for a parameter."""
    stop: asyncio.Event
    """Set when the command line is interrupted while clips are being made."""


_handover: ContextVar[Handover | None] = ContextVar("handover", default=None)


@contextmanager
def handing_over(
    prepared: Prepared, *listeners: Listener, file: str | None = None, stop: asyncio.Event | None = None
) -> Iterator[None]:
    """Inside, the same job is not prepared again, sessions tell these listeners, and `stop` ends their work."""
    token = _handover.set(Handover(prepared, listeners, file, stop or asyncio.Event()))
    try:
        yield
    finally:
        _handover.reset(token)


def stop_requested() -> asyncio.Event:
    """Return the event that is set when the command line is interrupted; without a command line it is never set."""
    handed = _handover.get()
    return handed.stop if handed else asyncio.Event()


async def prepare(job: Job | str, options: Options) -> Prepared:
    """Fetches the job's references, looks up what was delivered before, and plans.

    Args:
        job: or the address of its file: a path, `https://…` or `s3://…`. Reference paths start beside a file on disk.

    Raises:
        ValidationError, SettingsError: the job cannot be run as it is.
    """
    handed = _handover.get()
    if handed and handed.prepared.options == options and job in (handed.prepared.job, handed.file):
        return handed.prepared
    if isinstance(job, str):
        from videogen.adapters.jobs import job_at

        address, job = job, await asyncio.to_thread(job_at, job)
        options = options if is_remote(address) else options.model_copy(update={"folder": str(Path(address).parent)})
    from videogen.adapters.folders import open_folder

    settings = options.settings()
    registry = read_registry(settings.registry)
    validate_job(job, registry)  # what is wrong is said before anything is fetched
    provider, why = settings.choose_provider()
    origin = _origin(settings, provider)
    references = await _references(job, Path(options.folder))
    digests = {source: reference.digest for source, reference in references.items()}
    cut_outs = {reference.digest for reference in references.values() if reference.can_be_cut_out}
    buffer, today = settings.duration_buffer, datetime.now(UTC).date()
    planned = plan_job(job, registry, digests=digests, cut_outs=cut_outs, buffer=buffer, today=today)
    folders, url = cache(open_folder), settings.get_journal_url()
    folder = folders(settings.get_job_folder(job.id))

    async def look(planned: Plan) -> Earlier:
        return await asyncio.to_thread(look_back, url, origin, folder, planned, folders=folders, fresh=options.fresh)

    if cut_outs and not options.fresh:  # what was made before characters were cut out is paid for, and stays
        before = plan_job(job, registry, digests=digests, buffer=buffer, today=today)
        planned = planned.with_kept_requests(before, made=(await look(before)).delivered)
    if references:
        from videogen.references import warn_of_cards

        planned = planned.with_warnings(*warn_of_cards(planned.requests, references))
    can_keep = options.retry_failed and not options.fresh
    kept = await asyncio.to_thread(kept_clips, folder, origin) if can_keep else {}
    earlier = await look(planned)
    planned = planned.with_reuse(earlier.delivered, paid=earlier.paid, kept=kept).with_warnings(*earlier.warnings)
    planned = planned.with_prior_cost(earlier.spent)
    validate_budget(planned)
    return Prepared(job, planned, settings, options, provider, why, origin, references, kept, earlier.lost)


async def check_local_references(job: Job, folder: Path) -> None:
    """Look at the job's pictures that are files or `data:` addresses; nothing is fetched.

    Raises `ValidationError` with each that is missing, broken or no picture.
    """
    from videogen.scene import is_url

    sources = {source for scene in job.scenes for source in scene.reference_urls}
    await _load(job, {each for each in sources if not is_url(each) or each[:5].lower() == "data:"}, folder)


async def _references(job: Job, folder: Path) -> Mapping[str, "ReferenceImage"]:
    return await _load(job, {source for scene in job.scenes for source in scene.reference_urls}, folder)


async def _load(job: Job, sources: set[str], folder: Path) -> Mapping[str, "ReferenceImage"]:
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
                for where, source in _reference_places(job)
                if display_name(source) in problems
            ]
        ) from None


def _reference_places(job: Job) -> Iterator[tuple[str, str]]:
    """Where in the job each reference is named, and its address."""
    for index, scene in enumerate(job.scenes):
        if scene.scene_reference_url:
            yield f"scenes.{index}.scene_reference_url", scene.scene_reference_url
        for number, source in enumerate(scene.character_reference_urls):
            yield f"scenes.{index}.character_reference_urls.{number}", source


def _origin(settings: Settings, provider: ProviderName) -> str:
    return "local" if provider == "local" else settings.replicate_base_url.split("://")[-1].strip("/")


class Session:
    """A run in progress: makes clips one by one, then judges them."""

    def __init__(self, prepared: Prepared, run: "Run", slots: "Slots", events: "_Recorder") -> None:
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

    def slot(self) -> "Slot":
        """The right to one of the plan's `concurrency` predictions at a time."""
        from videogen.run import Slot

        return Slot(self._slots)

    async def clips(self, attempted: "Attempted | None" = None) -> list[Clip]:
        """What came of every request of the plan, in its order, those that take longest begun first; `attempted` as in
        `clip`.

        When the run is cancelled, or one of them raises, nothing is created any more, and all are cancelled and waited
        for: each cancels its prediction.
        """
        started = {
            request.scene.id: asyncio.create_task(self.clip(request, attempted)) for request in self.plan.start_order
        }
        tasks = [started[request.scene.id] for request in self.plan.requests]
        try:
            return await asyncio.gather(*tasks)
        except BaseException:
            self.run.calls.shut()
            for task in tasks:
                if not task.cancelling():  # once: a second time would end the cancelling of its prediction
                    task.cancel()
            await asyncio.wait(tasks)
            raise

    async def clip(self, request: ClipRequest, attempted: "Attempted | None" = None) -> Clip:
        """The clip of a request, or of its first fallback that brings one; else why there is none.

        `attempted` makes all attempts at one request and returns the clip or the last error; by default they follow
        each other without a pause.
        """
        from videogen.generation import falls_back

        if kept := self._prepared.kept.get(request.scene.id):
            return self._keep(kept, request)
        async with self.slot() as slot:
            for each in request.alternatives:
                result = await (attempted or _attempted)(each, self, slot)
                if isinstance(result, Clip):
                    return result
                if not falls_back(each, result):
                    return await self._failed(each, result)
        raise AssertionError("the last alternative has no fallback")

    async def generate(self, request: ClipRequest, slot: "Slot") -> Clip:
        """One attempt at a clip, see `videogen.generation.generate`."""
        from videogen.generation import generate

        return await generate(request, self.run, slot)

    async def flush(self) -> None:
        """Returns when every event so far is in the journal and told."""
        await self._events.flush()

    def _keep(self, clip: Clip, request: ClipRequest) -> Clip:
        from videogen.delivery import as_reused

        clip = as_reused(clip).model_copy(update={"clip_index": request.clip_index})
        self._events.emit(ClipCompleted(clip=clip))
        return clip

    async def _failed(self, request: ClipRequest, error: BaseException) -> Clip:
        """The clip that there is not, and what its attempts took."""
        from videogen.delivery import spent

        attempts = await self.run.journal.attempts(self.run.id, request.scene.id)
        clip = Clip.make_failed(request, error, **spent(attempts))
        if clip.scene_id not in self._events.done:  # an error that no attempt has told
            self._events.emit(ClipFailed(clip=clip))
        return clip

    async def finish(self, clips: Sequence[Clip]) -> RunResult:
        """Judges the clips, writes the pictures of it and `manifest.json` last, and closes the run in the journal."""
        job, plan = self._prepared.job, self.plan
        required = frozenset(request.scene.id for request in plan.requests if request.scene.required)
        spent, reserved = await self.run.journal.job_spending(job.id, self._prepared.origin)
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
        """Writes what a person looks at. Returns what could not be written and why: the verdict stands without it."""
        from videogen import contact_sheet, rough_cut

        store = self.run.store
        prompts = {request.scene.id: request.scene.prompt for request in self.plan.requests}
        files, warnings = ["manifest.json"], []
        writers: dict[str, Callable[[Event], None]] = {
            contact_sheet.PICTURE: lambda _: contact_sheet.write_picture(batch, store)
        }
        if self._prepared.options.rough_cut:
            writers[rough_cut.NAME] = lambda stop: rough_cut.write(
                batch, store, prompts=prompts, music=self._prepared.options.music, stop=stop
            )
        writers[contact_sheet.PAGE] = lambda _: contact_sheet.write_page(batch, prompts, store, files=files)
        for name, write in writers.items():
            try:
                await self.run.decode(write)
            except Exception as exc:  # whatever it is, what was paid for is delivered
                warnings.append(f"{name} was not written: {exc}")
            else:
                files.append(name)
        return tuple(warnings)


Attempted = Callable[[ClipRequest, Session, "Slot"], Awaitable[Clip | BaseException]]


async def _attempted(request: ClipRequest, session: Session, slot: "Slot") -> Clip | BaseException:
    for attempt in range(1, request.attempts + 1):
        try:
            return await session.generate(request, slot)
        except Exception as exc:
            if attempt == request.attempts or not is_retryable(exc):
                return exc
    raise AssertionError("a request has at least one attempt")


@asynccontextmanager
async def opened(prepared: Prepared, *listeners: Listener) -> AsyncIterator[Session]:
    """A session on the prepared job, alone in its folder; the account is checked when it will be used.

    Its events are told to the `listeners`, and to those that were handed over.

    Raises:
        JobLockedError: another run of this job is going on.
        AuthenticationError: the token is refused.
        StorageError: the folder cannot be written.
        SettingsError: the limit that all runs share does not exist.
    """
    from videogen.adapters.files import lock_folder
    from videogen.adapters.folders import open_folder, open_store
    from videogen.adapters.images import ReferenceImages
    from videogen.calls import Calls
    from videogen.journal import AsyncJournal, Journal
    from videogen.limits import check_limit, sharing
    from videogen.matching import find_lookalikes
    from videogen.patience import NO_PATIENCE, Patience
    from videogen.run import Run, Slots

    async with AsyncExitStack() as stack:
        store, calls = open_store(prepared.folder, prepared.work_folder), Calls()
        await asyncio.to_thread(store.check_writable)
        is_locked = stack.enter_context(lock_folder(prepared.work_folder))
        provider = await stack.enter_async_context(_provider(prepared))
        handed = _handover.get()
        if prepared.plan.to_create and not handed:  # who hands over has checked it
            await calls.repeat(provider.check_account, tries=4)
        sync_journal = await asyncio.to_thread(Journal, prepared.settings.get_journal_url())
        journal = AsyncJournal(sync_journal)
        stack.push_async_callback(journal.aclose)
        run_id, limit = uuid.uuid4().hex[:12], prepared.settings.get_limit_name()
        if limit:
            await asyncio.to_thread(check_limit, sync_journal, limit)
        keys = {each.key for request in prepared.plan.requests for each in request.alternatives}
        made = await asyncio.to_thread(sync_journal.made_afresh, prepared.origin, prepared.folder)
        await _start(journal, run_id, prepared, alone=is_remote(prepared.folder) or not is_locked)
        stack.push_async_callback(_leave, journal, run_id)
        if is_remote(prepared.folder):  # whether it can be written shows before anything is paid for
            holder = f"run {run_id}, process {os.getpid()} on {socket.gethostname()}\n"
            await asyncio.to_thread(store.put_text, holder, ".run")
        heard_by = (*listeners, *(handed.listeners if handed else ()))
        events = _Recorder(journal, run_id, len(prepared.plan.requests), heard_by)
        stack.push_async_callback(events.aclose)
        run = Run(
            id=run_id,
            folder=prepared.folder,
            provider=provider,
            store=store,
            folders=cache(open_folder),
            journal=journal,
            images=ReferenceImages(prepared.references, provider, store, calls),
            events=events,
            calls=calls,
            job_id=prepared.job.id,
            max_cost=prepared.plan.max_cost,
            patience=NO_PATIENCE if prepared.provider == "local" else Patience(),
            lookalikes=find_lookalikes(prepared.plan.requests),
            anew=keys - made if prepared.options.fresh else set(),
            recovering=prepared.recovering,
            leaves_running=prepared.options.on_interrupt == "leave",
        )
        beating = asyncio.create_task(_beat(run))
        stack.callback(beating.cancel)
        shared = await stack.enter_async_context(sharing(sync_journal, limit, run_id)) if limit else None
        try:
            yield Session(prepared, run, Slots(prepared.plan.concurrency, shared), events)
        except BaseException as exc:
            if isinstance(exc, RunInterruptedError) or not isinstance(exc, Exception):  # Ctrl-C, cancelled, a signal
                await _end_interrupted(journal, run_id)
            raise


async def _start(journal: "AsyncJournal", run_id: str, prepared: Prepared, *, alone: bool) -> None:
    """Starts the run in the journal; `alone`: that is what keeps others out, of a remote folder or one without locks.

    A run there that may be dead is waited for until its lease has ended; one that lives is not.
    """
    folder = prepared.folder
    seen = await journal.holder_seen(folder) if alone else None
    while seen and await journal.holder_seen(folder) == seen:
        await asyncio.sleep(HOLDER_LOOK_S)
    await journal.start_run(
        run_id,
        job_id=prepared.job.id,
        origin=prepared.origin,
        folder=folder,
        recovering=prepared.recovering,
        alone=alone,
    )


async def _end_interrupted(journal: "AsyncJournal", run_id: str) -> None:
    with anyio.move_on_after(FLUSH_S, shield=True), suppress(JournalError):
        await journal.end_run(run_id, verdict="interrupted")


async def _leave(journal: "AsyncJournal", run_id: str) -> None:
    with suppress(JournalError):
        await journal.left(run_id)


async def _beat(run: "Run") -> None:
    """Says that the run is alive; a journal that is busy for long is no reason to end it.

    A run that was taken over meanwhile, since it was not heard of for too long, creates nothing any more.
    """
    while True:
        await asyncio.sleep(BEAT_S)
        try:
            await run.journal.beat(run.id)
        except LeaseLostError as exc:
            run.calls.shut(exc)
        except JournalError:
            pass


class _Recorder:
    """`videogen.ports.EventSink`: numbers and keeps each event in the journal, then tells the listeners.

    Nobody waits for the journal: events are recorded one after the other in the background. One that cannot be recorded
    is told to the listeners all the same.
    """

    def __init__(self, journal: "AsyncJournal", run_id: str, total: int, listeners: Sequence[Listener]) -> None:
        self._journal, self._run_id, self._listeners = journal, run_id, listeners
        self._total = total
        self._emitted: asyncio.Queue[tuple[RunEvent, dict[str, Any]]] = asyncio.Queue()
        self._recording = asyncio.create_task(self._record())
        self.done: set[str] = set()
        """Ids of the scenes whose clip is delivered or failed; one that fails and comes all the same counts once."""
        self._failed: set[str] = set()

    def emit(self, event: RunEvent) -> None:
        if isinstance(event, ClipEnded):
            self.done.add(event.clip.scene_id)
            (self._failed.add if event.clip.error else self._failed.discard)(event.clip.scene_id)
        done = {"completed": len(self.done), "failed": len(self._failed), "total": self._total}
        counts = {"run_id": self._run_id, **done}
        self._emitted.put_nowait((event, {**event.payload(), **counts}))

    async def flush(self) -> None:
        """Returns when every event is recorded and told."""
        await self._emitted.join()

    async def aclose(self) -> None:
        """Records what was emitted, within reason, and ends."""
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
async def _provider(prepared: Prepared) -> AsyncIterator[Any]:
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
    if not prepared.plan.to_create:  # everything is on disk: nobody will be called
        yield ReplicateProvider("local", base_url="http://127.0.0.1:9", origin=prepared.origin, outputs_kept=FORGETS)
        return
    async with _emulator() as url:
        provider = ReplicateProvider("local", base_url=url, origin=prepared.origin, outputs_kept=FORGETS)
        try:
            yield provider
        finally:
            await provider.aclose()


@asynccontextmanager
async def _emulator() -> AsyncIterator[str]:
    """The address of an emulator of our own, which ends with us, however we end: it watches its standard input."""
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
