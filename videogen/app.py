"""Composition root: build a plan from a job and the settings, and a runner that makes its clips."""

import asyncio
import os
import socket
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from videogen.errors import (
    JournalError,
    LeaseLostError,
    Problem,
    RunInterruptedError,
    ValidationError,
)
from videogen.execution.recovery import PriorWork, find_clips_of_last_run, inspect_prior_runs
from videogen.job.model import Job
from videogen.planning.plan import Plan
from videogen.planning.planner import plan_job
from videogen.planning.rules import validate_budget, validate_job
from videogen.registry.load import read_registry
from videogen.settings import ProviderName, Settings
from videogen.storage.base import is_remote

if TYPE_CHECKING:
    from videogen.execution.context import RunContext
    from videogen.journal.async_store import AsyncJournal
    from videogen.references.decode import ReferenceImage
from videogen.execution.options import PreparedJob, RunOptions
from videogen.execution.recorder import FLUSH_S, EventRecorder, Listener
from videogen.execution.runner import JobRunner
from videogen.providers.open import open_provider

HEARTBEAT_S = 5.0
HOLDER_POLL_S = 0.5


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
        from videogen.storage.job_files import read_job_at

        address, job = job, await asyncio.to_thread(read_job_at, job)
        options = options if is_remote(address) else options.model_copy(update={"folder": str(Path(address).parent)})
    from videogen.storage.open import open_folder

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
        from videogen.references.compose import warn_about_cards

        planned = planned.with_warnings(*warn_about_cards(planned.requests, references))
    can_keep = options.retry_failed and not options.fresh
    kept = await asyncio.to_thread(find_clips_of_last_run, folder, origin) if can_keep else {}
    earlier = await look(planned)
    planned = planned.with_reuse(
        earlier.delivered, paid=earlier.in_flight, resumable=earlier.resumable, kept=kept
    ).with_warnings(*earlier.warnings)
    planned = planned.with_prior_cost(earlier.spent, earlier.reserved)
    validate_budget(planned, fresh=options.fresh)
    return PreparedJob(
        job,
        planned,
        settings,
        options,
        provider,
        why,
        origin,
        references,
        kept,
        recovering=earlier.history_lost,
        unrecorded=earlier.unrecorded,
    )


async def check_local_references(job: Job, folder: Path) -> None:
    """Check the job's images that are files or `data:` URLs. Nothing is fetched.

    Raises:
        ValidationError: names each image that is missing, broken or no image.
    """
    from videogen.job.model import is_url

    sources = {source for scene in job.scenes for source in scene.reference_urls}
    await _load_sources(job, {each for each in sources if not is_url(each) or each[:5].lower() == "data:"}, folder)


async def _load_references(job: Job, folder: Path) -> Mapping[str, "ReferenceImage"]:
    return await _load_sources(job, {source for scene in job.scenes for source in scene.reference_urls}, folder)


async def _load_sources(job: Job, sources: set[str], folder: Path) -> Mapping[str, "ReferenceImage"]:
    if not sources:
        return {}
    from videogen.job.model import display_name
    from videogen.references.fetch import load_references

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
    from videogen.execution.context import RunContext
    from videogen.execution.gate import ProviderGate
    from videogen.execution.matching import find_lookalikes
    from videogen.execution.patience import NO_PATIENCE, Patience
    from videogen.execution.shared_limit import join_limit, require_limit
    from videogen.execution.slots import Slots
    from videogen.journal.async_store import AsyncJournal
    from videogen.journal.store import Journal
    from videogen.providers.reference_images import ReferenceSender
    from videogen.storage.local import lock_folder
    from videogen.storage.open import open_folder, open_store

    async with AsyncExitStack() as stack:
        store, gate = open_store(prepared.folder, prepared.work_folder), ProviderGate()
        await asyncio.to_thread(store.check_writable)
        is_locked = stack.enter_context(lock_folder(prepared.work_folder))
        provider = await stack.enter_async_context(open_provider(prepared))
        handed = _handover.get()
        if prepared.plan.to_make and not handed:  # the command line has checked the account already
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
        events = EventRecorder(journal, run_id, len(prepared.plan.requests), heard_by)
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
            unrecorded=prepared.unrecorded,
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
        unrecorded_cost=prepared.unrecorded.cost if prepared.unrecorded else Decimal(0),
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
