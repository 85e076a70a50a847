"""Compute the state of a run from its events. `page.js` applies later events by the same rules."""

from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from videogen.journal.event_log import Event
from videogen.journal.runs import RunRecord
from videogen.journal.store import Journal
from videogen.storage.base import is_remote

STATE_BY_EVENT = {
    "clip.started": "running",
    "clip.progress": "running",
    "clip.retrying": "retrying",
    "clip.completed": "delivered",
    "clip.failed": "failed",
}
"""State of a clip after an event of each type. Before its first event a clip is `waiting`."""
RUN_FIELDS = ("run_id", "completed", "failed", "total")
"""Fields of every event that describe its run."""
INITIAL_PROGRESS = {"elapsed": 0.0, "remaining": None, "fraction": 0.0}
"""Progress of a clip whose prediction has just started. It replaces the progress of an earlier prediction."""


class RunSummary(BaseModel):
    """One line about a run. Times of day are in UTC, `elapsed` and `quiet` in seconds."""

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
    """Time since the start, or from the start to the end when the run has ended."""
    quiet: float
    """Time since the run was last seen alive. It grows when the run was killed."""
    completed: int
    """How many clips are delivered or failed."""
    failed: int
    """How many of them failed. Also 0 for runs of versions that did not count this."""
    total: int


class RunPage(BaseModel):
    """Runs, newest first."""

    runs: tuple[RunSummary, ...]
    next: str | None
    """Value of `before` for the next, older page; None on the last page."""


class RunView(RunSummary):
    """The manifest of a run so far. Money is in USD."""

    aspect_ratio: str | None
    planned_cost: Decimal | None
    max_cost: Decimal | None
    spent_before: Decimal | None
    """Spent by earlier runs of the job; None for runs of versions that did not count this."""
    spent: Decimal
    reserved: Decimal
    """Reserved for predictions that have not ended."""
    paused: bool
    """Whether a command has paused the run. Running predictions finish, and no others are created."""
    verdict: dict[str, Any] | None
    folder: str | None
    """Address of the job's folder when it is not below the gateway's own folder, so that clips may not be served; else
    None."""
    clips: tuple[dict[str, Any], ...]
    """In scene order: `scene_id`, `prompt`, `state`, and the fields of the clip's events, named as in the manifest."""
    event: int
    """Number of the latest event that is included."""
    has_review: bool = False
    """Whether this gateway has a review room for the job: `/review?run=ID`."""


def make_run_summary(run: RunRecord) -> RunSummary:
    """Return one line about a run."""
    return RunSummary(**_collect_summary(run))


def make_run_view(journal: Journal, run: RunRecord, out: Path) -> RunView:
    """Return the current state of a run, for a gateway that serves the clips below `out`."""
    events = [
        (number, type_, replace_surrogates(payload)) for number, type_, payload in journal.snapshot_events(run.id)
    ]
    spent, reserved = journal.get_spending(run.id)
    facts, clips = fold_events(events)
    verdict = facts.get("verdict")
    now = {"status": verdict["status"]} if verdict else {}
    is_below_out = not is_remote(run.folder) and find_local_folder(out, run.folder).is_relative_to(out)
    return RunView(
        **_collect_summary(run) | {name: facts[name] for name in RUN_FIELDS if name in facts} | now,
        **{name: facts.get(name) for name in ("aspect_ratio", "planned_cost", "max_cost", "spent_before", "verdict")},
        folder=None if is_below_out else run.folder,
        spent=spent,
        reserved=reserved,
        paused=facts.get("paused", False),
        clips=tuple(sorted(clips.values(), key=lambda clip: clip["clip_index"])),
        event=events[-1][0] if events else 0,
    )


def replace_surrogates(value: Any) -> Any:
    """Replace lone surrogates in a JSON value: a provider's text may have them, and UTF-8 cannot encode them."""
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, dict):
        return {replace_surrogates(name): replace_surrogates(each) for name, each in value.items()}
    if isinstance(value, list):
        return [replace_surrogates(each) for each in value]
    return value


def find_local_folder(out: Path, folder: str) -> Path:
    """Return the local folder with the files of a job, with links resolved.

    A run that delivers to a bucket keeps a copy below `out` on its own machine, see `Settings.work_folder`.
    """
    return (out / (folder.replace("://", "/", 1) if is_remote(folder) else folder)).resolve()


def fold_events(events: Iterable[Event]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Return the fields of the run, and those of its clips by scene id, after these events."""
    run: dict[str, Any] = {}
    clips: dict[str, dict[str, Any]] = {}
    for _, type_, payload in events:
        run |= {name: value for name, value in payload.items() if name in RUN_FIELDS}
        told = {name: value for name, value in payload.items() if name not in RUN_FIELDS}
        if type_ in STATE_BY_EVENT:
            clip = clips.setdefault(told["scene_id"], {})
            if type_ != "clip.progress":
                for name in INITIAL_PROGRESS:
                    clip.pop(name, None)
            clip |= (INITIAL_PROGRESS if type_ == "clip.started" else {}) | told | {"state": STATE_BY_EVENT[type_]}
        else:
            clips |= {scene["scene_id"]: {**scene, "state": "waiting"} for scene in told.pop("scenes", ())}
            run |= told
    return run, clips


def _collect_summary(run: RunRecord) -> dict[str, Any]:
    now = datetime.now(UTC)
    return {
        "run_id": run.id,
        "job_id": run.job_id,
        "provider": run.origin,
        "model": run.model,
        "status": run.verdict or "running",
        "started_at": run.started_at,
        "ended_at": run.ended_at,
        "elapsed": _seconds_between(run.started_at, run.ended_at or now),
        "quiet": _seconds_between(run.seen_at, now),
        "completed": run.completed,
        "failed": run.failed,
        "total": run.total,
    }


def _seconds_between(begin: datetime, end: datetime) -> float:
    return round(max(0.0, (end - begin).total_seconds()), 1)
