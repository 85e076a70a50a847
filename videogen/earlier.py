"""What earlier runs of a job left: clips that are reused, predictions that are paid for, results that are kept.

The journal knows. Where it does not (it was deleted or damaged, the folder was moved), the job's folder is read: its
manifest says which clips were delivered, and their bytes say whether that still holds.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from videogen.clip import Batch, Clip
from videogen.errors import InvalidError
from videogen.planning import Plan
from videogen.ports import Folder, OpenFolder

if TYPE_CHECKING:
    from videogen.journal import Delivery, Journal

LOOKS_AT_ONCE = 8
"""A look at a clip elsewhere is a call; thousands of them are not made one by one."""


@dataclass(frozen=True)
class Earlier:
    """What the plan of a job can make use of."""

    delivered: frozenset[str] = frozenset()
    """Keys of clips that are where they were delivered, whole."""
    paid: frozenset[str] = frozenset()
    """Keys of clips with a prediction that was begun and not ended."""
    lost: bool = False
    """The folder was used before, but the journal does not know how: there may be predictions that nobody remembers."""
    warnings: tuple[str, ...] = ()


def look_back(journal_url: str, origin: str, folder: Folder, planned: Plan, *, folders: OpenFolder) -> Earlier:
    """What is there for this plan. Where nothing is, no journal is made.

    Raises `JournalError` when the database cannot be used, `StorageError` when a folder cannot be asked.
    """
    url_of_file = "sqlite:///"
    is_new = journal_url.startswith(url_of_file) and not Path(journal_url.removeprefix(url_of_file)).exists()
    used_before = folder.exists()
    if is_new and not used_before:
        return Earlier()
    from videogen.journal import Journal

    journal = Journal(journal_url)
    try:
        warnings = [journal.set_aside] if journal.set_aside else []
        lost = used_before and not journal.knows(folder.address)
        if lost:
            warnings.append(
                f"the journal knows of no run in {folder.address}, which was used before: what is paid for already "
                "is looked for in the account"
            )
        if lost and (count := _restore(journal, origin, folder, planned)):
            warnings.append(
                f"the journal does not know {count} clips in {folder.address}; its manifest does: they are reused"
            )
        asked = {each.key: each for request in planned.requests for each in request.alternatives}
        deliveries = {
            key: delivery
            for key, delivery in journal.deliveries(origin, list(asked)).items()
            if asked[key].takes(delivery.clip)
        }
        return Earlier(
            delivered=frozenset(_intact_keys(deliveries, folders)),
            paid=frozenset(journal.begun(origin, list(asked))),
            lost=lost,
            warnings=tuple(warnings),
        )
    finally:
        journal.close()


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
    return {clip.scene_id: clip for clip in _whole(batch, folder)}


def _restore(journal: "Journal", origin: str, folder: Folder, planned: Plan) -> int:
    """Enters into the journal what the manifest says was delivered; returns how many clips of the plan that are."""
    batch = _manifest(folder)
    if batch is None or batch.provider != origin:
        return 0
    clips = {clip.video_path: clip for clip in _whole(batch, folder)}
    found = [
        (each.key, clips[each.video_path])
        for request in planned.requests
        for each in request.alternatives
        if each.video_path in clips
    ]
    for key, clip in found:
        journal.restore(key, origin=origin, folder=folder.address, clip=clip)
    return len(found)


def _whole(batch: Batch, folder: Folder) -> list[Clip]:
    from videogen.journal import Delivery

    clips = [clip for clip in batch.clips if clip.status == "success"]
    deliveries = {clip.scene_id: Delivery(folder.address, clip) for clip in clips}
    whole = _intact_keys(deliveries, lambda _: folder)
    return [clip for clip in clips if clip.scene_id in whole]


def _intact_keys(deliveries: Mapping[str, "Delivery"], folders: OpenFolder) -> set[str]:
    """The keys of those deliveries that are still there."""
    with ThreadPoolExecutor(LOOKS_AT_ONCE) as pool:
        intact = pool.map(lambda delivery: is_intact(delivery, folders), deliveries.values())
        return {key for key, found in zip(deliveries, intact, strict=True) if found}


def _manifest(folder: Folder) -> Batch | None:
    """None where there is none that can be read."""
    try:
        text = folder.text("manifest.json")
        return None if text is None else Batch.from_manifest(text)
    except ValueError:
        return None
