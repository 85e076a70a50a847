"""Plan a job with the work of its earlier runs, and find changes with which a job that is refused could run."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

from videogen.errors import InvalidError
from videogen.execution.options import RunOptions, locate_budgets
from videogen.execution.recovery import PriorWork, find_clips_of_last_run, inspect_prior_runs, read_manifest
from videogen.execution.staleness import find_stale
from videogen.job.choices import Choices, attribute_to_takes, find_choice_warnings
from videogen.job.model import Job
from videogen.planning.budgets import validate_shared_budgets
from videogen.planning.plan import Plan
from videogen.planning.planner import build_plan
from videogen.planning.ways_out import find_ways_out, fits_cap
from videogen.registry.model_spec import Registry
from videogen.results.takes import find_chosen_ids, find_take_warnings, find_unchosen_ids
from videogen.settings import Settings

if TYPE_CHECKING:
    from videogen.references.decode import ReferenceImage
    from videogen.results.clip import Clip
    from videogen.results.run_result import RunResult
    from videogen.storage.base import Folder, OpenFolder


@dataclass(frozen=True)
class JobPlanning:
    """Everything that plans of a job have in common, also those of the job with changes."""

    asked: Job
    """The job as its file describes it, without the takes that are added."""
    registry: Registry
    settings: Settings
    options: RunOptions
    origin: str
    folder: "Folder"
    open_folder: "OpenFolder"
    references: Mapping[str, "ReferenceImage"]
    choices: Choices
    for_run: bool
    """Whether a run follows. Else the plan is only shown."""
    today: date = field(default_factory=lambda: datetime.now(UTC).date())

    async def plan(self, job: Job, only: Sequence[str]) -> tuple[Plan, PriorWork, dict[str, "Clip"]]:
        """Return the plan of a job with takes and composed prompts, the work of earlier runs that it uses, and the
        clips of the last run that stay, by scene id. Raise `ValidationError` if the job cannot be run."""
        last = await self._read_last_result(job)
        chosen = find_chosen_ids(job, self.choices, last, making=only) if self._has_takes(job) else {}
        cut_outs = {reference.digest for reference in self.references.values() if reference.can_be_cut_out}
        with attribute_to_takes(job, self.choices, scenes=len(self.asked.scenes)):
            planned = self._build_plan(job, cut_outs=cut_outs, chosen=chosen)
        if cut_outs and not self.options.fresh:  # clips of versions that did not cut characters out stay
            before = self._build_plan(job, chosen=chosen)
            planned = planned.with_kept_requests(before, made=(await self._look(before)).delivered)
        planned = planned.with_warnings(*self._find_picture_warnings(planned))
        kept = await self._find_kept_clips(planned, only)
        earlier = await self._look(planned)
        planned = planned.with_warnings(
            *earlier.warnings,
            *find_choice_warnings(job, self.choices),
            *find_take_warnings(self.asked, self.choices, last),
        )
        return self._reuse(planned, job, earlier, kept, only, last=last), earlier, kept

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
                validate_shared_budgets(plan)
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
        return await inspect_prior_runs(
            self.settings.get_journal_url(),
            self.origin,
            self.folder,
            planned,
            open_folder=self.open_folder,
            fresh=self.options.fresh,
            budgets=locate_budgets(self.asked, self.settings),
            checks_journal=self.for_run,
        )

    def _reuse(
        self,
        planned: Plan,
        job: Job,
        earlier: PriorWork,
        kept: Mapping[str, "Clip"],
        only: Sequence[str],
        *,
        last: "RunResult | None" = None,
    ) -> Plan:
        """Return the plan with the work and the cost of earlier runs, and with the scenes that are wanted."""
        planned = planned.with_reuse(earlier.delivered, paid=earlier.in_flight, resumable=earlier.resumable, kept=kept)
        if only:
            planned = planned.select(only)
        stale = find_stale(planned, earlier.clips, kept) - find_unchosen_ids(self.choices, last)
        planned = planned.with_stale(stale, remake=self.options.should_remake_stale(job))
        return planned.with_prior_cost(earlier.spent, earlier.reserved).with_budgets(earlier.budgets)

    def _find_picture_warnings(self, planned: Plan) -> tuple[str, ...]:
        if not self.references:
            return ()
        from videogen.references.compose import warn_about_cards, warn_about_plain_pictures

        cards = warn_about_cards(planned.requests, self.references)
        return (*cards, *warn_about_plain_pictures(planned.requests, self.references))

    def _has_takes(self, job: Job) -> bool:
        return any(scene.take_of is not None for scene in job.scenes) or bool(self.choices.root)

    async def _read_last_result(self, job: Job) -> "RunResult | None":
        """Return the last run's result, which only matters for takes; None if there is none."""
        return await asyncio.to_thread(read_manifest, self.folder) if self._has_takes(job) else None

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
