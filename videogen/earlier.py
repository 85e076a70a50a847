"""What earlier runs of a job left: clips that are reused, predictions that are paid for, results that are kept.

The journal knows. What it does not know (it was deleted or damaged, it is an old backup, the folder was moved), the
job's folder tells: its manifest says which clips were delivered, and their bytes say whether that still holds.
"""

from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

from videogen.clip import Clip, ClipRequest, RunResult
from videogen.errors import InvalidError, StorageError
from videogen.planning import Plan
from videogen.ports import Folder, OpenFolder

if TYPE_CHECKING:
    from videogen.journal import Delivery, Journal

LOOKS_AT_ONCE = 8
"""A look at a clip elsewhere is a call; thousands of them are not made one by one."""
ROUGH_CLIP_BYTES = 20_000_000
OUTPUTS_KEPT = timedelta(minutes=50)
"""How old a prediction may be whose output is counted on: Replicate keeps it for an hour, and clocks differ."""
FREE_ORIGIN = "local"
"""Of the emulator that a run starts for itself: what it makes again costs nothing."""


@dataclass(frozen=True)
class Earlier:
    """What the plan of a job can make use of."""

    delivered: frozenset[str] = frozenset()
    """Keys of clips that are where they were delivered, whole."""
    paid: frozenset[str] = frozenset()
    """Keys of clips with a prediction that was begun and not ended."""
    lost: bool = False
    """The folder was used before, but the journal does not know how: there may be predictions that nobody remembers."""
    spent: Decimal = Decimal(0)
    """USD that earlier runs of the job have cost, with what is reserved for their predictions."""
    warnings: tuple[str, ...] = ()


def look_back(
    journal_url: str, origin: str, folder: Folder, planned: Plan, *, folders: OpenFolder, fresh: bool = False
) -> Earlier:
    """What is there for this plan. Where nothing is, no journal is made.

    Args:
        fresh: every clip is made anew, but for those that a fresh run of this folder made before it was killed.

    Raises:
        JournalError: the database cannot be used.
        StorageError: a folder cannot be read, or has none of the clips that were delivered to it.
    """
    url_of_file = "sqlite:///"
    is_new = journal_url.startswith(url_of_file) and not Path(journal_url.removeprefix(url_of_file)).exists()
    used_before = folder.exists()
    if is_new and (not used_before or fresh):
        return Earlier(warnings=_room_warnings(folder, len(planned.requests)))
    from videogen.journal import Journal

    journal = Journal(journal_url)
    try:
        looking = _Look(journal, origin, folder, planned, folders)
        earlier = looking.for_a_fresh_run() if fresh else looking.for_a_run(used_before=used_before)
        spent = sum(journal.job_spending(planned.job_id, origin), Decimal(0))
    finally:
        journal.close()
    missing = sum(request.key not in earlier.delivered for request in planned.requests)
    warnings = (*([journal.set_aside] if journal.set_aside else []), *earlier.warnings)
    return replace(earlier, spent=spent, warnings=(*warnings, *_room_warnings(folder, missing)))


class _Look:
    """One look at what the journal and the folders have for a plan."""

    def __init__(self, journal: "Journal", origin: str, folder: Folder, planned: Plan, folders: OpenFolder) -> None:
        self._journal, self._origin, self._folder, self._folders = journal, origin, folder, folders
        self._planned = planned
        self._asked = {each.key: each for request in planned.requests for each in request.alternatives}
        self._deliveries = journal.deliveries(origin, list(self._asked))
        self._paid = frozenset(journal.begun(origin, list(self._asked)))

    def for_a_run(self, *, used_before: bool) -> Earlier:
        manifest = _manifest(self._folder) if used_before else None
        warnings = []
        if lost := self._lost(manifest) if used_before else "":
            warnings.append(f"{lost}: what is paid for already is looked for in the account")
        digests = _digests(self._deliveries, self._folders)
        intact = {key for key, delivery in self._deliveries.items() if digests[key] == delivery.clip.sha256}
        restored = self._restore(manifest, self._asked.keys() - intact)
        if restored:
            warnings.append(
                f"the journal does not know {len(restored)} clips in {self._folder.address}; its manifest does: they "
                "are reused"
            )
        missing = {key for key, digest in digests.items() if digest is None} - restored.keys()
        warnings += self._tell_missing(missing)
        clips = {key: self._deliveries[key].clip for key in intact} | restored
        delivered = frozenset(key for key, clip in clips.items() if self._asked[key].accepts(clip))
        return Earlier(delivered, self._paid, bool(lost), warnings=tuple(warnings))

    def for_a_fresh_run(self) -> Earlier:
        """Of a killed `--fresh` run, what it made: that is as fresh as what is asked for, and paid for."""
        made = self._journal.made_afresh(self._origin, self._folder.address)
        deliveries = {
            key: delivery
            for key, delivery in self._deliveries.items()
            if key in made and self._asked[key].accepts(delivery.clip)
        }
        kept = frozenset(_intact_keys(deliveries, self._folders))
        warning = (
            f"{len(kept)} clips that the last --fresh run made before it was stopped are kept; once a run has come to "
            "its end, --fresh makes them again, too"
        )
        return Earlier(kept, self._paid, warnings=(warning,) if kept else ())

    def _lost(self, manifest: RunResult | None) -> str:
        """Why the journal may not remember everything that was paid for; empty where it does."""
        address = self._folder.address
        if not self._journal.knows(address):
            return f"the journal knows of no run in {address}, which was used before"
        if manifest and self._journal.find_run(manifest.run_id) is None:
            return f"the journal does not know the last run in {address}; it may be an older copy"
        return ""

    def _restore(self, manifest: RunResult | None, keys: Collection[str]) -> dict[str, Clip]:
        """Enters into the journal those of the clips that the manifest says are in the job's folder. Returns them."""
        if manifest is None or manifest.provider != self._origin:
            return {}
        wanted = {self._asked[key].video_path: key for key in keys}
        clips = {
            wanted[str(clip.video_path)]: clip
            for clip in _whole([clip for clip in manifest.clips if clip.video_path in wanted], self._folder)
        }
        for key, clip in clips.items():
            self._journal.restore(key, origin=self._origin, folder=self._folder.address, clip=clip)
        return clips

    def _tell_missing(self, missing: Collection[str]) -> list[str]:
        """What becomes of clips that are not where they were delivered.

        One that a person has deleted is fetched again, or made again. But a folder that has nothing of what was
        delivered to it is rather one that is not mounted: nothing is paid again for that.

        Raises `StorageError` where clips of such a folder would have to be paid for again.
        """
        if not missing:
            return []
        last = self._journal.last_predictions(self._origin, list(missing))
        there_since = datetime.now(UTC) - OUTPUTS_KEPT
        fetched = {key for key, attempt in last.items() if (attempt.created_at or attempt.intended_at) > there_since}
        paid_again = [self._asked[key] for key in missing if key not in fetched and key not in self._paid]
        if self._origin != FREE_ORIGIN:
            self._refuse_unmounted(paid_again)
        where = ", ".join(sorted({self._deliveries[key].folder for key in missing}))
        return [f"{len(missing)} clips that were delivered to {where} are not there any more: they are made again"]

    def _refuse_unmounted(self, paid_again: list[ClipRequest]) -> None:
        for address in sorted({self._deliveries[request.key].folder for request in paid_again}):
            known = self._journal.delivered_to(self._origin, address)
            if _has_any(self._folders(address), known):
                continue
            raise StorageError(
                f"none of the {len(known)} clips that were delivered to {address} is there, and nothing was paid. Is "
                "its disk mounted? Mount it and run the job again. If the clips were deleted, use --fresh: it makes, "
                f"and pays for, every clip of the job again (${self._planned.total_cost})"
            )


def _has_any(folder: Folder, known: "list[Delivery]") -> bool:
    """Return whether the folder has any of the clips. Where it was a single one, its poster tells as well."""
    if any(folder.sha256(str(delivery.clip.video_path)) for delivery in known):
        return True
    return len(known) == 1 and folder.sha256(str(known[0].clip.poster_path)) is not None


def _room_warnings(folder: Folder, clips: int) -> tuple[str, ...]:
    free, needed = folder.free_bytes(), clips * ROUGH_CLIP_BYTES
    if free is None or free >= needed:
        return ()
    return (
        f"{clips} clips may take {needed / 1e6:,.0f} MB, and {folder.address} has room for {free / 1e6:,.0f} MB; a run "
        "stops when its disk is full",
    )


def is_intact(delivery: "Delivery", folders: OpenFolder) -> bool:
    """Whether the video is still there, byte for byte. Raises `StorageError` when that cannot be told."""
    return folders(delivery.folder).sha256(str(delivery.clip.video_path)) == delivery.clip.sha256


def kept_clips(folder: Folder, origin: str) -> dict[str, Clip]:
    """The clips of the last run that were delivered and are still whole, by scene id.

    Raises `InvalidError` when there was no run, or one with another provider.
    """
    batch = _manifest(folder)
    if batch is None:
        raise InvalidError(
            f"--retry-failed: no manifest.json of an earlier run in {folder.address}; run the job without it"
        )
    if batch.provider != origin:
        raise InvalidError(
            f"--retry-failed: the run in {folder.address} was made with {batch.provider}, not with {origin}"
        )
    return {clip.scene_id: clip for clip in _whole(batch.clips, folder)}


def _whole(clips: Collection[Clip], folder: Folder) -> list[Clip]:
    """Those of the clips of a manifest that were delivered and are still what they were."""
    from videogen.journal import Delivery

    delivered = [clip for clip in clips if clip.status == "success"]
    deliveries = {clip.scene_id: Delivery(folder.address, clip) for clip in delivered}
    whole = _intact_keys(deliveries, lambda _: folder)
    return [clip for clip in delivered if clip.scene_id in whole]


def _intact_keys(deliveries: Mapping[str, "Delivery"], folders: OpenFolder) -> set[str]:
    """The keys of those deliveries that are still there."""
    digests = _digests(deliveries, folders)
    return {key for key, delivery in deliveries.items() if digests[key] == delivery.clip.sha256}


def _digests(deliveries: Mapping[str, "Delivery"], folders: OpenFolder) -> dict[str, str | None]:
    """What is where these clips were delivered, as SHA-256 (hex); None where there is no such file."""

    def look(delivery: "Delivery") -> str | None:
        return folders(delivery.folder).sha256(str(delivery.clip.video_path))

    with ThreadPoolExecutor(LOOKS_AT_ONCE) as pool:
        return dict(zip(deliveries, pool.map(look, deliveries.values()), strict=True))


def _manifest(folder: Folder) -> RunResult | None:
    """None where there is none that can be read."""
    try:
        text = folder.text("manifest.json")
        return None if text is None else RunResult.from_manifest(text)
    except ValueError:
        return None
