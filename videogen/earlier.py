"""What earlier runs of a job left: clips that are reused, predictions that are paid for, results that are kept.

The journal knows. Where it does not (it was deleted or damaged, the folder was moved), the job's folder is read: its
manifest says which clips were delivered, and their bytes say whether that still holds.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from videogen.clip import Batch, Clip
from videogen.errors import InvalidError
from videogen.journal import Delivery, Journal
from videogen.planning import Plan


@dataclass(frozen=True)
class Earlier:
    """What the plan of a job can make use of."""

    delivered: frozenset[str] = frozenset()
    """Keys of clips that are on disk, whole."""
    paid: frozenset[str] = frozenset()
    """Keys of clips with a prediction that was begun and not ended."""
    lost: bool = False
    """The folder was used before, but the journal does not know how: there may be predictions that nobody remembers."""
    warnings: tuple[str, ...] = ()


def look_back(journal_url: str, origin: str, folder: Path, planned: Plan) -> Earlier:
    """What is there for this plan. Where nothing is, no journal is made.

    Raises `JournalError` when the database cannot be used.
    """
    url_of_file = "sqlite:///"
    is_new = journal_url.startswith(url_of_file) and not Path(journal_url.removeprefix(url_of_file)).exists()
    if is_new and not folder.exists():
        return Earlier()
    journal = Journal(journal_url)
    try:
        warnings = [journal.set_aside] if journal.set_aside else []
        lost = folder.exists() and not journal.knows(str(folder))
        if lost and (count := _restore(journal, origin, folder, planned)):
            warnings.append(f"the journal does not know {count} clips in {folder}; its manifest does: they are reused")
        asked = [each for request in planned.requests for each in request.alternatives]
        deliveries = ((each, journal.delivery(origin, each.key)) for each in asked)
        return Earlier(
            delivered=frozenset(
                each.key
                for each, delivery in deliveries
                if delivery and each.takes(delivery.clip) and delivery.is_intact()
            ),
            paid=frozenset(each.key for each in asked if journal.open_attempt(origin, each.key)),
            lost=lost,
            warnings=tuple(warnings),
        )
    finally:
        journal.close()


def kept_clips(folder: Path, origin: str) -> dict[str, Clip]:
    """The clips of the last run that were delivered and are still whole, by scene id.

    Raises `InvalidError` when there was no run, or one with another provider.
    """
    batch = _manifest(folder)
    if batch is None:
        raise InvalidError(f"--retry-failed: no manifest.json of an earlier run in {folder}; run the job without it")
    if batch.provider != origin:
        raise InvalidError(f"--retry-failed: the run in {folder} was made with {batch.provider}, not with {origin}")
    return {clip.scene_id: clip for clip in _whole(batch, folder)}


def _restore(journal: Journal, origin: str, folder: Path, planned: Plan) -> int:
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
        journal.restore(key, origin=origin, folder=str(folder), clip=clip)
    return len(found)


def _whole(batch: Batch, folder: Path) -> Iterator[Clip]:
    return (clip for clip in batch.clips if clip.status == "success" and Delivery(str(folder), clip).is_intact())


def _manifest(folder: Path) -> Batch | None:
    """None where there is none that can be read."""
    try:
        return Batch.from_manifest((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
