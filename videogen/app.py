"""Composition root: build a plan from a job and the settings, and a runner that makes its clips."""

import asyncio
import os
import socket
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import cache
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from videogen.errors import RunInterruptedError
from videogen.execution.job_planning import JobPlanning
from videogen.execution.judging import open_judge
from videogen.execution.marking import ClipMarker
from videogen.execution.options import PreparedJob, RunOptions, validate_music
from videogen.execution.recorder import EventRecorder, Listener
from videogen.execution.runner import JobRunner
from videogen.job.choices import (
    Choices,
    add_takes,
    attribute_to_takes,
    parse_choices,
    read_choices_text,
    validate_selection,
)
from videogen.job.model import Job
from videogen.job.prompts import compose_scenes
from videogen.planning.budgets import validate_shared_budgets
from videogen.planning.own_inputs import validate_inputs
from videogen.planning.rules import validate_budget, validate_job
from videogen.providers.open import open_provider
from videogen.registry.load import read_registry
from videogen.settings import FREE_ORIGIN, Settings
from videogen.storage.base import is_remote
from videogen.storage.local import check_places

if TYPE_CHECKING:
    from videogen.journal.store import Journal
    from videogen.results.clip import Clip


async def prepare_job(
    job: Job | str, options: RunOptions, *, choices: Choices | None = None, for_run: bool = True
) -> PreparedJob:
    """Load the job's references, find the results of earlier runs, and plan.

    Args:
        job: a job, or the address of its file: a path, `https://…` or `s3://…`. Reference paths are relative to a local
            file.
        choices: its takes, in place of those in its folder.
        for_run: whether it may be run. Otherwise the plan is only shown, and the journal is not checked for damage.

    Raises:
        ValidationError, SettingsError: the job cannot be run as it is.
    """
    if isinstance(job, str):
        from videogen.storage.job_files import read_job_at

        address, job = job, await asyncio.to_thread(read_job_at, job)
        options = options if is_remote(address) else options.model_copy(update={"folder": str(Path(address).parent)})
    from videogen.references.load import load_job_references
    from videogen.storage.open import open_folder

    settings = _resolve_settings(options, job.id)
    marker = await asyncio.to_thread(ClipMarker.of, settings)
    if options.music:
        await asyncio.to_thread(validate_music, options.music)
    registry = read_registry(settings.registry)
    folders = cache(open_folder)
    folder = folders(settings.get_job_folder(job.id))
    can_select = choices is None  # the commands that give choices have no --only
    if choices is None:
        choices = parse_choices(await asyncio.to_thread(read_choices_text, folder))
    asked, job = job, compose_scenes(add_takes(job, choices))
    validate_selection(job, options.only)
    judge = open_judge(job.judge, allows_programs=settings.allow_judges) if job.judge else None
    with attribute_to_takes(job, choices, scenes=len(asked.scenes)):
        validate_job(job, registry)  # report problems before anything is fetched
        validate_inputs(job, registry)
        references = await load_job_references(job, Path(options.folder))
    provider, why = settings.choose_provider()
    origin = settings.get_origin(provider)
    planning = JobPlanning(
        asked=asked,
        registry=registry,
        settings=settings,
        options=options,
        origin=origin,
        folder=folder,
        open_folder=folders,
        references=references,
        choices=choices,
        for_run=for_run,
    )
    planned, earlier, kept = await planning.plan(job, options.only)
    ways_out: Sequence[str] = ()
    if planned.is_above_cap:
        ways_out = await planning.describe_ways_out(planned, earlier, kept, job, can_select=can_select)
    validate_budget(planned, fresh=options.fresh, ways_out=ways_out)
    validate_shared_budgets(planned)
    return PreparedJob(
        asked,
        planned,
        settings,
        options,
        provider,
        why,
        origin,
        references,
        kept,
        choices,
        recovering=earlier.history_lost,
        unrecorded=earlier.unrecorded,
        marker=marker,
        judge=judge,
    )


def _resolve_settings(options: RunOptions, job_id: str) -> Settings:
    """Return the settings. Raise `SettingsError` if the job's folder or the journal cannot be used."""
    settings = options.resolve_settings()
    check_places(settings.get_work_folder(job_id))
    if settings.journal_url:  # otherwise it is in the folder that was checked
        from videogen.journal.database import check_journal_url

        check_journal_url(settings.journal_url)
    return settings


@asynccontextmanager
async def open_run(prepared: PreparedJob, *listeners: Listener, check_account: bool = True) -> AsyncIterator[JobRunner]:
    """Open a run of the prepared job, with its folder locked.

    Args:
        listeners: receive the run's events.
        check_account: ask the provider whether it accepts the token, if the run needs it.

    Raises:
        JobLockedError: another run of this job is in progress.
        AuthenticationError: the token is refused.
        StorageError: the folder cannot be written.
        SettingsError: the limit that all runs share does not exist.
    """
    from videogen.execution.commands import obey_commands
    from videogen.execution.context import RunContext
    from videogen.execution.cost_note import CostNoteWriter
    from videogen.execution.lease import release_lease, send_heartbeats, start_run
    from videogen.execution.matching import find_lookalikes
    from videogen.execution.patience import NO_PATIENCE, Patience
    from videogen.execution.rate_limit_gate import ProviderGate
    from videogen.execution.shared_limit import join_limit, require_limit
    from videogen.execution.slots import Slots
    from videogen.journal.async_store import AsyncJournal
    from videogen.providers.reference_images import ReferenceSender
    from videogen.storage.local import lock_folder
    from videogen.storage.open import open_folder, open_store

    async with AsyncExitStack() as stack:
        store, gate = open_store(prepared.folder, prepared.work_folder), ProviderGate()
        await asyncio.to_thread(store.check_writable)
        is_locked = stack.enter_context(lock_folder(prepared.work_folder))
        provider = await stack.enter_async_context(open_provider(prepared))
        if prepared.plan.to_make and check_account:
            await gate.call_with_retries(provider.check_account, tries=4)
        sync_journal = await _open_journal(prepared.settings.get_journal_url(), stack)
        journal = AsyncJournal(sync_journal)
        stack.push_async_callback(journal.aclose)
        run_id, limit = uuid.uuid4().hex[:12], prepared.settings.get_limit_name()
        if limit:
            await asyncio.to_thread(require_limit, sync_journal, limit)
        keys = {each.key for request in prepared.plan.requests for each in request.iterate_all()}
        made = await asyncio.to_thread(sync_journal.find_fresh_keys, prepared.origin, prepared.folder)
        await start_run(journal, run_id, prepared, exclusive=is_remote(prepared.folder) or not is_locked)
        stack.push_async_callback(release_lease, journal, run_id)
        if is_remote(prepared.folder):  # a folder that cannot be written fails before anything is paid for
            await asyncio.to_thread(store.put_text, _describe_holder(run_id), ".run")
        events = EventRecorder(journal, run_id, len(prepared.plan.requests), listeners)
        stack.push_async_callback(events.aclose)
        cost_note = None
        if prepared.origin != FREE_ORIGIN:
            cost_note = CostNoteWriter(store, journal, run_id=run_id, job_id=prepared.job.id, origin=prepared.origin)
        upstreams: dict[str, Clip] = {}
        run = RunContext(
            id=run_id,
            folder=prepared.folder,
            provider=provider,
            store=store,
            open_folder=cache(open_folder),
            journal=journal,
            images=ReferenceSender(prepared.references, provider, store, gate, clips=upstreams),
            upstreams=upstreams,
            events=events,
            gate=gate,
            job_id=prepared.job.id,
            max_cost=prepared.plan.max_cost,
            budgets=prepared.budgets,
            patience=NO_PATIENCE if prepared.provider == "local" else Patience(),
            lookalikes=find_lookalikes(prepared.plan.requests),
            force_keys=keys - made if prepared.options.fresh else set(),
            recovering=prepared.recovering,
            unrecorded=prepared.unrecorded,
            cost_note=cost_note,
            judge=prepared.judge,
            retake_below=prepared.job.retake_below,
            marker=prepared.marker,
            remakes_stale=prepared.options.should_remake_stale(prepared.job),
            leaves_running=prepared.options.on_interrupt == "leave",
        )
        stack.callback(asyncio.create_task(send_heartbeats(run)).cancel)
        shared = await stack.enter_async_context(join_limit(sync_journal, limit, run_id)) if limit else None
        slots = Slots(prepared.plan.concurrency, shared)
        runner = await stack.enter_async_context(obey_commands(sync_journal, JobRunner(prepared, run, slots, events)))
        await stack.enter_async_context(_end_if_interrupted(runner))
        yield runner


@asynccontextmanager
async def _end_if_interrupted(runner: JobRunner) -> AsyncIterator[None]:
    """End the run as interrupted if the block is. The error then also says what the run has brought."""
    try:
        yield
    except RunInterruptedError as exc:
        raise RunInterruptedError(await runner.end_interrupted(str(exc))) from None
    except BaseException as exc:
        if not isinstance(exc, Exception):  # Ctrl-C, cancelled, a signal
            await runner.end_interrupted("interrupted")
        raise


def _describe_holder(run_id: str) -> str:
    return f"run {run_id}, process {os.getpid()} on {socket.gethostname()}\n"


async def _open_journal(url: str, stack: AsyncExitStack) -> "Journal":
    """Open the journal. No thread waits for its database any longer than until the stack is closed."""
    from videogen.journal.store import Journal

    given_up = Event()
    stack.callback(given_up.set)
    return await asyncio.to_thread(Journal, url, given_up=given_up)
