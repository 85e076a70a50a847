"""Find out what earlier runs of a job left: clips to reuse, predictions that are paid for, and results to keep.

The journal knows this. If it does not (it was deleted or damaged, it is an old backup, or the folder was moved), the
job's folder tells: its manifest lists the delivered clips, and their bytes show whether they are unchanged.
"""

import asyncio
import shlex
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from videogen.errors import InvalidError, Problem, StorageError, UnreadableJournalError, ValidationError
from videogen.execution.cost_note import CostNote, read_cost_note
from videogen.execution.options import UnrecordedRun
from videogen.planning.budgets import BudgetUse, describe_missing_budget
from videogen.planning.plan import Plan
from videogen.planning.requests import ClipRequest
from videogen.results.clip import Clip
from videogen.results.run_result import RunResult
from videogen.settings import FREE_ORIGIN
from videogen.storage.base import Folder, OpenFolder
from videogen.text import format_money

if TYPE_CHECKING:
    from videogen.journal.deliveries import DeliveryRecord
    from videogen.journal.store import Journal

CONCURRENT_LOOKUPS = 8
"""A lookup in an object store is a call, and there may be thousands."""
ROUGH_CLIP_BYTES = 20_000_000
OUTPUTS_KEPT = timedelta(minutes=50)
"""Greatest age of a prediction whose output is counted on. Replicate keeps outputs for an hour, and clocks differ."""


@dataclass(frozen=True)
class PriorWork:
    """The results of earlier runs that the plan of a job can use."""

    delivered: frozenset[str] = frozenset()
    """Keys of clips that are intact where they were delivered."""
    clips: Mapping[str, Clip] = field(default_factory=dict)
    """Those clips, by their keys."""
    in_flight: frozenset[str] = frozenset()
    """Keys of clips with a prediction that was begun and has not ended."""
    resumable: frozenset[str] = frozenset()
    """Those of `in_flight` whose prediction is so young that the provider still has its output."""
    history_lost: bool = False
    """The folder was used before, but the journal does not know how: there may be predictions that it does not list."""
    spent: Decimal = Decimal(0)
    """USD that earlier runs of the job have cost."""
    reserved: Decimal = Decimal(0)
    """USD that their unsettled predictions may cost in addition."""
    unrecorded: UnrecordedRun | None = None
    """The last run of the job if the journal does not know it. Its cost is part of `spent`."""
    budgets: tuple[BudgetUse, ...] = ()
    """The shared budgets that the run counts for."""
    warnings: tuple[str, ...] = ()


async def inspect_prior_runs(
    journal_url: str,
    origin: str,
    folder: Folder,
    planned: Plan,
    *,
    open_folder: OpenFolder,
    fresh: bool = False,
    budgets: Mapping[str, str] | None = None,
    checks_journal: bool = True,
) -> PriorWork:
    """Return the prior work that this plan can use. If there is none, no journal is created.

    Args:
        fresh: make every clip again, except those that a fresh run of this folder made before it was killed.
        budgets: names of the shared budgets that the run counts for, each with the place that names it: `budget` for
            the job's field, else a variable of the environment. None means no budgets.
        checks_journal: whether the whole journal is checked for damage, which takes longer the more it has. A plan that
            is only shown needs no check.

    Raises:
        ValidationError: one of the budgets does not exist.
        JournalError: the database cannot be used.
        StorageError: a folder cannot be read, or has none of the clips that were delivered to it.
    """
    given_up = Event()
    inspect = partial(
        _inspect_prior_runs, journal_url, origin, folder, planned, open_folder, fresh, budgets or {}, given_up
    )
    try:
        if not checks_journal:
            with suppress(UnreadableJournalError):  # a check sets a damaged journal aside
                return await asyncio.to_thread(inspect, is_checked=False)
        return await asyncio.to_thread(inspect)
    except asyncio.CancelledError:
        given_up.set()  # otherwise the thread would wait for the database, and the event loop for the thread
        raise


def _inspect_prior_runs(
    journal_url: str,
    origin: str,
    folder: Folder,
    planned: Plan,
    open_folder: OpenFolder,
    fresh: bool,
    budgets: Mapping[str, str],
    given_up: Event,
    *,
    is_checked: bool = True,
) -> PriorWork:
    url_of_file = "sqlite:///"
    is_new = journal_url.startswith(url_of_file) and not Path(journal_url.removeprefix(url_of_file)).exists()
    used_before = folder.exists()
    manifest = read_manifest(folder) if used_before else None
    note = read_cost_note(folder, origin) if used_before else None
    if is_new:
        _refuse_missing_budgets(budgets, known=(), journal_url=journal_url)
    if is_new and (not used_before or fresh):
        unrecorded = _describe_unrecorded_run(note, manifest, origin)
        warnings = _warn_of_disk_space(folder, len(planned.requests))
        return PriorWork(spent=_get_cost(unrecorded), unrecorded=unrecorded, warnings=warnings)
    from videogen.journal.store import Journal

    journal = Journal(journal_url, given_up=given_up, is_checked=is_checked)
    try:
        uses = _find_budget_uses(journal, journal_url, origin, budgets)
        looking = _Inspection(journal, origin, folder, planned, open_folder)
        knows_note = note is None or _knows_all_of(journal, note)
        knows_manifest = manifest is None or journal.find_run(manifest.run_id) is not None
        if fresh:
            earlier = looking.inspect_for_fresh_run()
        else:
            is_complete = knows_note and knows_manifest
            earlier = looking.inspect(manifest, used_before=used_before, is_complete=is_complete)
        spent, reserved = journal.get_job_spending(planned.job_id, origin)
        unrecorded = None
        if not (knows_note if note else knows_manifest):
            unrecorded = _describe_unrecorded_run(note, manifest, origin, spent=spent, reserved=reserved)
    finally:
        journal.close()
    missing = sum(request.key not in earlier.delivered for request in planned.requests)
    warnings = (*([journal.quarantined] if journal.quarantined else []), *earlier.warnings)
    return replace(
        earlier,
        spent=spent + _get_cost(unrecorded),
        reserved=reserved,
        unrecorded=unrecorded,
        budgets=uses,
        warnings=(*warnings, *_warn_of_disk_space(folder, missing)),
    )


def _find_budget_uses(
    journal: "Journal", journal_url: str, origin: str, budgets: Mapping[str, str]
) -> tuple[BudgetUse, ...]:
    if not budgets:
        return ()
    known = {budget.name: budget for budget in journal.list_budgets()}
    _refuse_missing_budgets(budgets, known, journal_url)
    return tuple(journal.get_budget_use(known[name], origin) for name in budgets)


def _make_flags_of_journal(url: str) -> str:
    """Return the flags with which a command finds this journal, with a space before them; empty if it needs none."""
    folder = Path(url.removeprefix("sqlite:///")).parent
    if not url.startswith("sqlite:///") or folder == Path("out").absolute():
        return ""
    return f" --out {shlex.quote(str(folder))}"


def _refuse_missing_budgets(budgets: Mapping[str, str], known: Collection[str], journal_url: str) -> None:
    """Raise `ValidationError` if one of the budgets does not exist: a missing budget never means unlimited."""
    flags = _make_flags_of_journal(journal_url)
    problems = [
        Problem(
            describe_missing_budget(name, known, flags=flags),
            where,
            position="" if where == "budget" else "environment",
        )
        for name, where in budgets.items()
        if name not in known
    ]
    if problems:
        raise ValidationError(problems)


def _describe_unrecorded_run(
    note: CostNote | None,
    manifest: RunResult | None,
    origin: str,
    *,
    spent: Decimal = Decimal(0),
    reserved: Decimal = Decimal(0),
) -> UnrecordedRun | None:
    """Return the last run of the folder, which the journal does not know, with the cost that the journal lacks.

    The note has the cost. Folders of older versions have no note, but the manifest of their last judged run.

    Args:
        spent: USD that the journal knows to be spent on the job.
        reserved: USD that the journal has reserved in addition. An older copy may hold reservations that were settled
            since, so they do not make up for costs in the note.
    """
    if note is not None:
        return UnrecordedRun(f"lost {note.run_id}", max(Decimal(0), note.cost - spent), None)
    if manifest is None or manifest.provider != origin:
        return None
    job_cost = manifest.total_cost if manifest.job_cost is None else manifest.job_cost
    predictions = frozenset(number for clip in manifest.clips for number in clip.prediction_ids)
    return UnrecordedRun(f"lost {manifest.run_id}", max(Decimal(0), job_cost - spent - reserved), predictions)


def _knows_all_of(journal: "Journal", note: CostNote) -> bool:
    """Return whether the journal has every cost that the note includes."""
    if note.last_attempt is None:
        return journal.find_run(note.run_id) is not None
    return journal.has_attempt(note.last_attempt)


def _get_cost(run: UnrecordedRun | None) -> Decimal:
    return Decimal(0) if run is None else run.cost


class _Inspection:
    """Inspects the journal and the folders for the clips of one plan."""

    def __init__(self, journal: "Journal", origin: str, folder: Folder, planned: Plan, open_folder: OpenFolder) -> None:
        self._journal, self._origin, self._folder, self._open_folder = journal, origin, folder, open_folder
        self._planned = planned
        self._requests = {each.key: each for request in planned.requests for each in request.iterate_all()}
        self._deliveries = journal.find_deliveries(origin, list(self._requests))
        self._in_flight = frozenset(journal.find_keys_in_flight(origin, list(self._requests)))
        self._resumable: frozenset[str] = frozenset()
        if origin != FREE_ORIGIN:  # its predictions end with their run
            begun_after = datetime.now(UTC) - OUTPUTS_KEPT
            young = journal.find_keys_in_flight(origin, list(self._requests), begun_after=begun_after)
            self._resumable = frozenset(young)

    def inspect(self, manifest: RunResult | None, *, used_before: bool, is_complete: bool) -> PriorWork:
        """Return what this plan can use. `is_complete` tells whether the journal knows what the folder notes."""
        warnings = []
        if history_lost := self._explain_lost_history(is_complete) if used_before else "":
            warnings.append(f"{history_lost}: predictions that are already paid for are searched for in the account")
        digests = _compute_digests(self._deliveries, self._open_folder)
        intact = {key for key, delivery in self._deliveries.items() if digests[key] == delivery.clip.sha256}
        restored = self._import_from_manifest(manifest, self._requests.keys() - intact)
        if restored:
            warnings.append(
                f"the journal does not know {len(restored)} clips in {self._folder.address}; its manifest does: they "
                "are reused"
            )
        whole = (self._requests[key] for key in intact | restored.keys())
        unneeded = {segment.key for request in whole for segment in request.segments}
        missing = {key for key, digest in digests.items() if digest is None} - restored.keys() - unneeded
        warnings += self._warn_of_missing(missing)
        clips = {key: self._deliveries[key].clip for key in intact} | restored
        clips = {key: clip for key, clip in clips.items() if clip.satisfies(self._requests[key])}
        return PriorWork(
            delivered=frozenset(clips),
            clips=clips,
            in_flight=self._in_flight,
            resumable=self._resumable,
            history_lost=bool(history_lost),
            warnings=tuple(warnings),
        )

    def inspect_for_fresh_run(self) -> PriorWork:
        """Return the clips that a killed `--fresh` run made: they are as fresh as requested, and paid for."""
        made = self._journal.find_fresh_keys(self._origin, self._folder.address)
        deliveries = {
            key: delivery
            for key, delivery in self._deliveries.items()
            if key in made and delivery.clip.satisfies(self._requests[key])
        }
        kept = frozenset(_find_intact_keys(deliveries, self._open_folder))
        warning = (
            f"{len(kept)} clips that the last --fresh run made before it was stopped are kept; once a run has come to "
            "its end, --fresh makes them again, too"
        )
        return PriorWork(
            delivered=kept, in_flight=self._in_flight, resumable=self._resumable, warnings=(warning,) if kept else ()
        )

    def _explain_lost_history(self, is_complete: bool) -> str:
        """Return why the journal may not know everything that was paid for. Return an empty text if it does."""
        address = self._folder.address
        if not self._journal.has_complete_history(address):
            return f"the journal knows of no run in {address}, which was used before"
        if not is_complete:
            return f"the journal does not know the last run in {address}; it may be an older copy"
        return ""

    def _import_from_manifest(self, manifest: RunResult | None, keys: Collection[str]) -> dict[str, Clip]:
        """Import into the journal those of the clips that the manifest lists in the job's folder. Return them."""
        if manifest is None or manifest.provider != self._origin:
            return {}
        wanted = {self._requests[key].video_path: key for key in keys}
        clips = {
            wanted[str(clip.video_path)]: clip
            for clip in _find_intact_clips([clip for clip in manifest.clips if clip.video_path in wanted], self._folder)
        }
        for key, clip in clips.items():
            self._journal.import_delivery(key, origin=self._origin, folder=self._folder.address, clip=clip)
        return clips

    def _warn_of_missing(self, missing: Collection[str]) -> list[str]:
        """Return warnings about clips that are missing where they were delivered.

        A clip that a person deleted is downloaded or made again. But a folder without any of its delivered clips is
        more likely not mounted, and nothing is paid again for that.

        Raises:
            StorageError: clips of such a folder would have to be paid for again.
        """
        if not missing:
            return []
        last = self._journal.find_last_attempts(self._origin, list(missing))
        there_since = datetime.now(UTC) - OUTPUTS_KEPT
        fetched = {key for key, attempt in last.items() if (attempt.created_at or attempt.intended_at) > there_since}
        paid_again = [self._requests[key] for key in missing if key not in fetched and key not in self._in_flight]
        if self._origin != FREE_ORIGIN:
            self._refuse_unmounted(paid_again)
        where = ", ".join(sorted({self._deliveries[key].folder for key in missing}))
        return [f"{len(missing)} clips that were delivered to {where} are missing: they are made again"]

    def _refuse_unmounted(self, paid_again: list[ClipRequest]) -> None:
        for address in sorted({self._deliveries[request.key].folder for request in paid_again}):
            known = self._journal.find_deliveries_in(self._origin, address)
            if _has_any_clip(self._open_folder(address), known):
                continue
            raise StorageError(
                f"none of the {len(known)} clips that were delivered to {address} is there, and nothing was paid. Is "
                "its disk mounted? Mount it and run the job again. If the clips were deleted, use --fresh: it makes, "
                f"and pays for, every clip of the job again ({format_money(self._planned.total_cost)})"
            )


def _has_any_clip(folder: Folder, known: "list[DeliveryRecord]") -> bool:
    """Return whether the folder has any of the clips. For a single clip, its poster counts as well."""
    if any(folder.sha256(str(delivery.clip.video_path)) for delivery in known):
        return True
    return len(known) == 1 and folder.sha256(str(known[0].clip.poster_path)) is not None


def _warn_of_disk_space(folder: Folder, clips: int) -> tuple[str, ...]:
    free, needed = folder.free_bytes(), clips * ROUGH_CLIP_BYTES
    if free is None or free >= needed:
        return ()
    return (
        f"{clips} clips may take {needed / 1e6:,.0f} MB, and {folder.address} has room for {free / 1e6:,.0f} MB; a run "
        "stops when its disk is full",
    )


def is_intact(delivery: "DeliveryRecord", open_folder: OpenFolder) -> bool:
    """Return whether the video is still there, byte for byte. Raise `StorageError` if it cannot be read."""
    return open_folder(delivery.folder).sha256(str(delivery.clip.video_path)) == delivery.clip.sha256


def find_clips_of_last_run(folder: Folder, origin: str, *, is_required: bool = True) -> dict[str, Clip]:
    """Return the clips that the last run delivered and that are still intact, by scene id.

    Raises:
        InvalidError: there was no run, or it used another provider, and `is_required`.
    """
    batch = read_manifest(folder)
    if batch is not None and batch.provider == origin:
        return {clip.scene_id: clip for clip in _find_intact_clips(batch.clips, folder)}
    if not is_required:
        return {}
    if batch is None:
        raise InvalidError(
            f"--retry-failed: no manifest.json of an earlier run in {folder.address}; run the job without it"
        )
    raise InvalidError(f"--retry-failed: the run in {folder.address} was made with {batch.provider}, not with {origin}")


def _find_intact_clips(clips: Collection[Clip], folder: Folder) -> list[Clip]:
    """Return those clips of a manifest that were delivered and are unchanged."""
    from videogen.journal.deliveries import DeliveryRecord

    delivered = [clip for clip in clips if clip.status == "success"]
    deliveries = {clip.scene_id: DeliveryRecord(folder.address, clip) for clip in delivered}
    whole = _find_intact_keys(deliveries, lambda _: folder)
    return [clip for clip in delivered if clip.scene_id in whole]


def _find_intact_keys(deliveries: Mapping[str, "DeliveryRecord"], open_folder: OpenFolder) -> set[str]:
    """Return the keys of the deliveries whose video is unchanged."""
    digests = _compute_digests(deliveries, open_folder)
    return {key for key, delivery in deliveries.items() if digests[key] == delivery.clip.sha256}


def _compute_digests(deliveries: Mapping[str, "DeliveryRecord"], open_folder: OpenFolder) -> dict[str, str | None]:
    """Return the SHA-256 (hex) of each delivered video, or None if the file is missing."""

    def look(delivery: "DeliveryRecord") -> str | None:
        return open_folder(delivery.folder).sha256(str(delivery.clip.video_path))

    with ThreadPoolExecutor(CONCURRENT_LOOKUPS) as pool:
        return dict(zip(deliveries, pool.map(look, deliveries.values()), strict=True))


def read_manifest(folder: Folder) -> RunResult | None:
    """Return the manifest of the folder's last run, or None if there is none that can be read."""
    try:
        text = folder.text("manifest.json")
        return None if text is None else RunResult.from_manifest(text)
    except ValueError:
        return None
