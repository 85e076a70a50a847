"""How far a run is: what its events add up to. `page.js` adds up those that follow by the same rules."""

from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from videogen.journal import Event, Journal, RunRecord
from videogen.ports import is_remote

STATES = {
    "clip.started": "running",
    "clip.progress": "running",
    "clip.retrying": "retrying",
    "clip.completed": "delivered",
    "clip.failed": "failed",
}
"""What a clip is after an event of that type; before the first it is `waiting`."""
COUNTS = ("run_id", "completed", "failed", "total")
"""What every event tells of its run."""
AT_THE_START = {"elapsed": 0.0, "remaining": None, "fraction": 0.0}
"""A new prediction knows nothing of the progress of the one before, and one that has ended has none."""


class RunSummary(BaseModel):
    """One line about a run. Times of day are UTC, `elapsed` and `quiet` seconds."""

    model_config = ConfigDict(frozen=True)

    run_id: str
    job_id: str
    provider: str
    model: str | None
    status: str
    """`running`, or the verdict's: `complete`, `partial`, `failed`."""
    started_at: datetime
    ended_at: datetime | None
    elapsed: float
    """Since the start, until the end where there is one."""
    quiet: float
    """Since it was last seen alive: a run that was killed says nothing more."""
    completed: int
    """How many clips are delivered or failed."""
    failed: int
    """How many of them failed; 0, too, for runs of versions that did not count it."""
    total: int


class RunPage(BaseModel):
    """Runs, newest first."""

    runs: tuple[RunSummary, ...]
    next: str | None
    """What `before` has to be for the older ones; None where there are none."""


class RunView(RunSummary):
    """A run's manifest so far. Money is USD."""

    aspect_ratio: str | None
    planned_cost: Decimal | None
    max_cost: Decimal | None
    spent_before: Decimal | None
    """By earlier runs of the job; None for runs of versions that did not count it."""
    spent: Decimal
    reserved: Decimal
    """For predictions that have not ended."""
    verdict: dict[str, Any] | None
    folder: str | None
    """Address of the job's folder, where that is not below the gateway's own: clips may not be served then."""
    clips: tuple[dict[str, Any], ...]
    """In scene order: `scene_id`, `prompt`, `state`, and what the clip's events have told, named as in the manifest."""
    event: int
    """Number of the latest event in here."""


def summary(run: RunRecord) -> RunSummary:
    return RunSummary(**_summary(run))


def view(journal: Journal, run: RunRecord, out: Path) -> RunView:
    """How far the run is now, for who serves the clips below `out`."""
    events = [(number, type_, mend(payload)) for number, type_, payload in journal.snapshot_events(run.id)]
    spent, reserved = journal.get_spending(run.id)
    facts, clips = added_up(events)
    verdict = facts.get("verdict")
    now = {"status": verdict["status"]} if verdict else {}
    return RunView(
        **_summary(run) | {name: facts[name] for name in COUNTS if name in facts} | now,
        **{name: facts.get(name) for name in ("aspect_ratio", "planned_cost", "max_cost", "spent_before", "verdict")},
        folder=run.folder if is_remote(run.folder) or not home(out, run.folder).is_relative_to(out) else None,
        spent=spent,
        reserved=reserved,
        clips=tuple(sorted(clips.values(), key=lambda clip: clip["clip_index"])),
        event=events[-1][0] if events else 0,
    )


def mend(value: Any) -> Any:
    """Return a value of JSON with half characters replaced: a provider's text may have them, and UTF-8 has none."""
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, dict):
        return {mend(name): mend(each) for name, each in value.items()}
    return [mend(each) for each in value] if isinstance(value, list) else value


def home(out: Path, folder: str) -> Path:
    """Where on this disk the files of a job's folder are; links are followed.

    A run keeps a copy of what it makes for a bucket below its own machine's `out`, see `Settings.work_folder`.
    """
    return (out / (folder.replace("://", "/", 1) if is_remote(folder) else folder)).resolve()


def added_up(events: Iterable[Event]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """What events say of the run as a whole, and of its clips, by scene."""
    run: dict[str, Any] = {}
    clips: dict[str, dict[str, Any]] = {}
    for _, type_, payload in events:
        run |= {name: value for name, value in payload.items() if name in COUNTS}
        told = {name: value for name, value in payload.items() if name not in COUNTS}
        if type_ in STATES:
            clip = clips.setdefault(told["scene_id"], {})
            if type_ != "clip.progress":
                _forget_progress(clip)
            clip |= (AT_THE_START if type_ == "clip.started" else {}) | told | {"state": STATES[type_]}
        else:
            clips |= {scene["scene_id"]: {**scene, "state": "waiting"} for scene in told.pop("scenes", ())}
            run |= told
    return run, clips


def _forget_progress(clip: dict[str, Any]) -> None:
    for name in AT_THE_START:
        clip.pop(name, None)


def _summary(run: RunRecord) -> dict[str, Any]:
    now = datetime.now(UTC)
    return {
        "run_id": run.id,
        "job_id": run.job_id,
        "provider": run.origin,
        "model": run.model,
        "status": run.verdict or "running",
        "started_at": run.started_at,
        "ended_at": run.ended_at,
        "elapsed": _seconds(run.started_at, run.ended_at or now),
        "quiet": _seconds(run.seen_at, now),
        "completed": run.completed,
        "failed": run.failed,
        "total": run.total,
    }


def _seconds(begin: datetime, end: datetime) -> float:
    return round(max(0.0, (end - begin).total_seconds()), 1)
