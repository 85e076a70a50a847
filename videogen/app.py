"""Composition root: build a plan from a job and the settings, and a runner that makes its clips."""

import asyncio
import os
import socket
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from functools import cache
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from videogen.errors import InvalidError, RunInterruptedError
from videogen.execution.judging import open_judge
from videogen.execution.marking import ClipMarker
from videogen.execution.options import PreparedJob, RunOptions, validate_music
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
from videogen.planning.own_inputs import validate_inputs
from videogen.planning.plan import Plan
from videogen.planning.planner import build_plan
from videogen.planning.rules import validate_budget, validate_job
from videogen.planning.ways_out import find_ways_out, fits_cap
from videogen.providers.open import open_provider
from videogen.registry.load import read_registry
from videogen.registry.model_spec import Registry
from videogen.results.takes import find_chosen_ids
from videogen.settings import FREE_ORIGIN, Settings
from videogen.storage.base import is_remote
from videogen.storage.local import check_places

if TYPE_CHECKING:
    from videogen.journal.store import Journal
    from videogen.references.decode import ReferenceImage
    from videogen.results.clip import Clip
    from videogen.storage.base import Folder, OpenFolder


async def prepare_job(job: Job | str, options: RunOptions, *, choices: Choices | None = None) -> PreparedJob:
    """Load the job's references, find the results of earlier runs, and plan.

    Args:
        job: a job, or the address of its file: a path, `https://…` or `s3://…`. Reference paths are relative to a local
            file.
        choices: its takes, in place of those in its folder.

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
    with attribute_to_takes(job, scenes=len(asked.scenes)):
        validate_job(job, registry)  # report problems before anything is fetched
        validate_inputs(job, registry)
        references = await load_job_references(job, Path(options.folder))
    provider, why = settings.choose_provider()
    origin = settings.get_origin(provider)
    planning = _Planning(
        registry=registry,
        settings=settings,
        options=options,
        origin=origin,
        folder=folder,
        open_folder=folders,
        references=references,
        choices=choices,
        scenes=len(asked.scenes),
    )
    planned, earlier, kept = await planning.plan(job, options.only)
    ways_out: Sequence[str] = ()
    if planned.is_above_cap:
        ways_out = await planning.describe_ways_out(planned, earlier, kept, job, can_select=can_select)
    validate_budget(planned, fresh=options.fresh, ways_out=ways_out)
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


@dataclass(frozen=True)
class _Planning:
    """Everything that plans of a job have in common, also those of the job with changes."""

    registry: Registry
    settings: Settings
    options: RunOptions
    origin: str
    folder: "Folder"
    open_folder: "OpenFolder"
    references: Mapping[str, "ReferenceImage"]
    choices: Choices
    scenes: int
    """Number of scenes in the job file: those after them are takes."""
    today: date = field(default_factory=lambda: datetime.now(UTC).date())

    async def plan(self, job: Job, only: Sequence[str]) -> tuple[Plan, PriorWork, dict[str, "Clip"]]:
        """Return the plan of a job with composed prompts, the work of earlier runs that it uses, and the clips of the
        last run that stay, by scene id. Raise `ValidationError` if the job cannot be run."""
        chosen = await self._find_chosen_ids(job, only)
        cut_outs = {reference.digest for reference in self.references.values() if reference.can_be_cut_out}
        with attribute_to_takes(job, scenes=self.scenes):
            planned = self._build_plan(job, cut_outs=cut_outs, chosen=chosen)
        if cut_outs and not self.options.fresh:  # clips of versions that did not cut characters out stay
            before = self._build_plan(job, chosen=chosen)
            planned = planned.with_kept_requests(before, made=(await self._look(before)).delivered)
        if self.references:
            from videogen.references.compose import warn_about_cards, warn_about_plain_pictures

            planned = planned.with_warnings(
                *warn_about_cards(planned.requests, self.references),
                *warn_about_plain_pictures(planned.requests, self.references),
            )
        kept = await self._find_kept_clips(planned, only)
        earlier = await self._look(planned)
        choice_warnings = find_choice_warnings(job, self.choices)
        planned = self._reuse(planned.with_warnings(*earlier.warnings, *choice_warnings), job, earlier, kept, only)
        return planned, earlier, kept

    async def describe_ways_out(
        self, planned: Plan, earlier: PriorWork, kept: Mapping[str, "Clip"], job: Job, *, can_select: bool
    ) -> list[str]:
        """Return the flags with which a job that is above its cap can be run, each with its price.

        Each is planned again with all that earlier runs left, so that none is refused. `can_select` tells whether the
        flag `--only` can be given.
        """
        only = self.options.only

        def make_plan(changed: Job) -> Plan:
            return self._reuse(self._build_plan(changed), changed, earlier, kept, only)

        found = []
        for way in find_ways_out(planned, job, self.registry, make_plan=make_plan):
            if way.only and not can_select:
                continue
            try:
                plan, _, _ = await self.plan(way.job, way.only or only)
            except InvalidError:
                continue
            if fits_cap(plan):
                found.append(replace(way, plan=plan).describe())
        return found

    def _build_plan(self, job: Job, **more: Any) -> Plan:
        digests = {source: reference.digest for source, reference in self.references.items()}
        buffer = self.settings.duration_buffer
        return build_plan(job, self.registry, digests=digests, buffer=buffer, today=self.today, **more)

    async def _look(self, planned: Plan) -> PriorWork:
        url, fresh = self.settings.get_journal_url(), self.options.fresh
        return await inspect_prior_runs(
            url, self.origin, self.folder, planned, open_folder=self.open_folder, fresh=fresh
        )

    def _reuse(
        self, planned: Plan, job: Job, earlier: PriorWork, kept: Mapping[str, "Clip"], only: Sequence[str]
    ) -> Plan:
        """Return the plan with the work and the cost of earlier runs, and with the scenes that are wanted."""
        planned = planned.with_reuse(earlier.delivered, paid=earlier.in_flight, resumable=earlier.resumable, kept=kept)
        if only:
            planned = planned.select(only)
        stale = find_stale(planned, earlier.clips, kept)
        planned = planned.with_stale(stale, remake=self.options.should_remake_stale(job))
        return planned.with_prior_cost(earlier.spent, earlier.reserved)

    async def _find_chosen_ids(self, job: Job, only: Sequence[str]) -> dict[str, str]:
        has_takes = any(scene.take_of is not None for scene in job.scenes) or self.choices.root
        if not has_takes:
            return {}
        return find_chosen_ids(job, self.choices, await asyncio.to_thread(read_manifest, self.folder), making=only)

    async def _find_kept_clips(self, planned: Plan, only: Sequence[str]) -> dict[str, "Clip"]:
        """Return the clips of the last run that stay even if the job has changed, by scene id."""
        retry_failed = self.options.retry_failed
        if not (retry_failed or only):
            return {}
        last = await asyncio.to_thread(find_clips_of_last_run, self.folder, self.origin, is_required=retry_failed)
        if retry_failed:
            return last
        ids = {request.scene.id: request.scene.take_of for request in planned.requests}
        return {id_: clip for id_, clip in last.items() if id_ in ids and not {id_, ids[id_]} & set(only)}


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
