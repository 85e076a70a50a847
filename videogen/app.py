"""Composition root: build a plan from a job and the settings, and a runner that makes its clips."""

import asyncio
import os
import socket
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from videogen.errors import RunInterruptedError
from videogen.execution.judging import open_judge
from videogen.execution.marking import ClipMarker
from videogen.execution.options import PreparedJob, RunOptions, locate_budgets, validate_music
from videogen.execution.recorder import EventRecorder, Listener
from videogen.execution.recovery import PriorWork, find_clips_of_last_run, inspect_prior_runs, read_manifest
from videogen.execution.runner import JobRunner
from videogen.execution.staleness import find_stale
from videogen.job.choices import (
    Choices,
    add_takes,
    attribute_to_takes,
    find_choice_warnings,
    parse_choices,
    read_choices_text,
    validate_selection,
)
from videogen.job.model import Job
from videogen.job.prompts import compose_scenes
from videogen.planning.budgets import validate_shared_budgets
from videogen.planning.own_inputs import validate_inputs
from videogen.planning.plan import Plan
from videogen.planning.planner import build_plan
from videogen.planning.rules import validate_budget, validate_job
from videogen.providers.open import open_provider
from videogen.registry.load import read_registry
from videogen.results.takes import find_chosen_ids, find_take_warnings, find_unchosen_ids
from videogen.settings import FREE_ORIGIN, Settings
from videogen.storage.base import is_remote
from videogen.storage.local import check_places

if TYPE_CHECKING:
    from videogen.journal.store import Journal
    from videogen.references.decode import ReferenceImage
    from videogen.results.clip import Clip
    from videogen.storage.base import Folder


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
    folders, url = cache(open_folder), settings.get_journal_url()
    folder = folders(settings.get_job_folder(job.id))
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
    digests = {source: reference.digest for source, reference in references.items()}
    cut_outs = {reference.digest for reference in references.values() if reference.can_be_cut_out}
    buffer, today = settings.duration_buffer, datetime.now(UTC).date()
    has_takes = any(scene.take_of is not None for scene in job.scenes) or choices.root
    last = await asyncio.to_thread(read_manifest, folder) if has_takes else None
    chosen = find_chosen_ids(job, choices, last, making=options.only) if has_takes else {}
    plan = partial(build_plan, job, registry, digests=digests, buffer=buffer, today=today, chosen=chosen)
    with attribute_to_takes(job, choices, scenes=len(asked.scenes)):
        planned = plan(cut_outs=cut_outs)

    async def look(planned: Plan) -> PriorWork:
        return await inspect_prior_runs(
            url,
            origin,
            folder,
            planned,
            open_folder=folders,
            fresh=options.fresh,
            checks_journal=for_run,
            budgets=locate_budgets(asked, settings),
        )

    if cut_outs and not options.fresh:  # clips of versions that did not cut characters out are paid for, and stay
        before = plan()
        planned = planned.with_kept_requests(before, made=(await look(before)).delivered)
    planned = planned.with_warnings(*_find_picture_warnings(planned, references))
    kept = await _find_kept_clips(planned, options, folder, origin)
    earlier = await look(planned)
    planned = planned.with_reuse(
        earlier.delivered, paid=earlier.in_flight, resumable=earlier.resumable, kept=kept
    ).with_warnings(*earlier.warnings, *find_choice_warnings(job, choices), *find_take_warnings(asked, choices, last))
    if options.only:
        planned = planned.select(options.only)
    stale = find_stale(planned, earlier.clips, kept) - find_unchosen_ids(choices, last)
    planned = planned.with_stale(stale, remake=options.should_remake_stale(job))
    planned = planned.with_prior_cost(earlier.spent, earlier.reserved).with_budgets(earlier.budgets)
    validate_budget(planned, fresh=options.fresh)
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


def _find_picture_warnings(planned: Plan, references: Mapping[str, "ReferenceImage"]) -> tuple[str, ...]:
    if not references:
        return ()
    from videogen.references.compose import warn_about_cards, warn_about_plain_pictures

    cards = warn_about_cards(planned.requests, references)
    return (*cards, *warn_about_plain_pictures(planned.requests, references))


def _resolve_settings(options: RunOptions, job_id: str) -> Settings:
    """Return the settings. Raise `SettingsError` if the job's folder or the journal cannot be used."""
    settings = options.resolve_settings()
    check_places(settings.get_work_folder(job_id))
    if settings.journal_url:  # otherwise it is in the folder that was checked
        from videogen.journal.database import check_journal_url

        check_journal_url(settings.journal_url)
    return settings


async def _find_kept_clips(planned: Plan, options: RunOptions, folder: "Folder", origin: str) -> dict[str, "Clip"]:
    """Return the clips of the last run that stay even if the job has changed, by scene id."""
    if not (options.retry_failed or options.only):
        return {}
    last = await asyncio.to_thread(find_clips_of_last_run, folder, origin, is_required=options.retry_failed)
    if options.retry_failed:
        return last
    ids = {request.scene.id: request.scene.take_of for request in planned.requests}
    return {id_: clip for id_, clip in last.items() if id_ in ids and not {id_, ids[id_]} & set(options.only)}


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
    from videogen.execution.lease import end_interrupted, release_lease, send_heartbeats, start_run
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
        try:
            yield runner
        except BaseException as exc:
            if isinstance(exc, RunInterruptedError) or not isinstance(exc, Exception):  # Ctrl-C, cancelled, a signal
                await end_interrupted(journal, run_id)
            raise


def _describe_holder(run_id: str) -> str:
    return f"run {run_id}, process {os.getpid()} on {socket.gethostname()}\n"


async def _open_journal(url: str, stack: AsyncExitStack) -> "Journal":
    """Open the journal. No thread waits for its database any longer than until the stack is closed."""
    from videogen.journal.store import Journal

    given_up = Event()
    stack.callback(given_up.set)
    return await asyncio.to_thread(Journal, url, given_up=given_up)
