"""Show the progress of a run: a line for each step and, on a terminal, a live view of the clips in progress."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from videogen.events import (
    SEARCHING,
    BudgetAlert,
    ClipEnded,
    ClipProgress,
    ClipRetrying,
    ClipStarted,
    RunCapChanged,
    RunCompleted,
    RunEvent,
    RunPaused,
    RunResumed,
    RunStarted,
)
from videogen.planning.plan import Plan
from videogen.text import escape_unprintable, format_money

HEARTBEAT_S = 15.0
"""Time without any line after which one says that the run is still working."""
MAX_SHOWN_CLIPS = 10
"""How many clips in progress the live view lists one by one."""
REFRESHES_PER_S = 4


@dataclass
class ClipInProgress:
    """State of a clip in progress after its last event. Times are in seconds."""

    prediction_id: str
    attempt: int
    elapsed: float = 0.0
    remaining: float | None = None
    fraction: float = 0.0
    updated_at: float = field(default_factory=time.monotonic)

    def update(self, event: ClipProgress) -> None:
        self.elapsed = event.elapsed
        self.remaining = event.remaining
        self.fraction = event.fraction
        self.updated_at = time.monotonic()

    @property
    def elapsed_now_s(self) -> float:
        """Seconds since its prediction was created, or since the search for it began."""
        return self.elapsed + time.monotonic() - self.updated_at

    @property
    def remaining_now_s(self) -> float | None:
        return None if self.remaining is None else max(0.0, self.remaining - (time.monotonic() - self.updated_at))


class RunProgress:
    """State of a run after its latest event."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.models = {request.scene.id: request.model for request in plan.requests}
        self.run_id: str | None = None
        self.in_progress: dict[str, ClipInProgress] = {}
        """Clips in progress, by scene id."""
        self.searching: dict[str, ClipInProgress] = {}
        """By scene id: clips whose prediction is searched for in the account."""
        self.completed = 0
        self.max_cost = plan.max_cost
        self.is_paused = False
        self._failed: set[str] = set()
        self._costs: dict[str, Decimal] = {}
        """By scene id, because a clip that failed may be made again."""
        self._durations_s: list[float] = []
        self._started_at = time.monotonic()

    def running_cost(self) -> dict[str, Decimal]:
        """Return the maximum cost of each running prediction, in USD, by scene id."""
        prices = {request.scene.id: max(each.cost for each in request.alternatives) for request in self.plan.requests}
        return {scene_id: prices[scene_id] for scene_id in self.in_progress}

    def update(self, event: RunEvent, payload: Mapping[str, Any]) -> None:
        self.run_id = payload["run_id"]
        self.completed = payload["completed"]
        if isinstance(event, ClipStarted | ClipRetrying):
            self.searching.pop(event.scene_id, None)
        if isinstance(event, RunStarted):
            self._started_at = time.monotonic()
        elif isinstance(event, RunPaused | RunResumed):
            self.is_paused = event.paused
        elif isinstance(event, RunCapChanged):
            self.max_cost = event.max_cost
        elif isinstance(event, ClipStarted):
            self.in_progress[event.scene_id] = ClipInProgress(event.prediction_id, event.attempt)
        elif isinstance(event, ClipProgress) and event.status == SEARCHING:
            self.searching[event.scene_id] = ClipInProgress("", 0, event.elapsed, event.remaining)
        elif isinstance(event, ClipProgress) and event.scene_id in self.in_progress:
            self.in_progress[event.scene_id].update(event)
        elif isinstance(event, ClipRetrying):
            self.in_progress.pop(event.scene_id, None)
            self._failed.discard(event.scene_id)
        elif isinstance(event, ClipEnded):
            self._record_end(event)

    def _record_end(self, event: ClipEnded) -> None:
        clip = event.clip
        self.in_progress.pop(clip.scene_id, None)
        self.searching.pop(clip.scene_id, None)
        self._costs[clip.scene_id] = clip.cost - clip.paid_before
        if clip.error:
            self._failed.add(clip.scene_id)
        if clip.error is None and not clip.reused:
            self._durations_s.append(clip.generation_time)

    @property
    def spent(self) -> Decimal:
        """USD that the clips that have ended have cost in this run."""
        return sum(self._costs.values(), Decimal(0))

    @property
    def failed(self) -> int:
        return len(self._failed)

    @property
    def total(self) -> int:
        return len(self.plan.requests)

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._started_at

    @property
    def remaining_s(self) -> float | None:
        """Estimate of the remaining time, at the pace so far; None before there is one."""
        in_progress = list(self.in_progress.values())  # a copy, because the live view reads from another thread
        durations_s = self._durations_s or [
            clip.elapsed + clip.remaining for clip in in_progress if clip.remaining is not None
        ]
        if not durations_s:
            return None
        mean_s = sum(durations_s) / len(durations_s)
        remaining_s = [
            max(0.0, mean_s - clip.elapsed_now_s) if clip.remaining_now_s is None else clip.remaining_now_s
            for clip in in_progress
        ]
        waiting = max(0, self.total - self.completed - len(in_progress))
        searches_s = [search.remaining_now_s or 0.0 for search in list(self.searching.values())]
        return max((sum(remaining_s) + waiting * mean_s) / self.plan.concurrency, *remaining_s, *searches_s, 0.0)


class ProgressLines:
    """Prints a line for each step of a clip.

    A terminal shows the clips in progress below. Elsewhere a line appears at least every 15 s while clips are in
    progress.
    """

    def __init__(self, console: Console, plan: Plan) -> None:
        self.progress = RunProgress(plan)
        self._console = console
        self._printed_at = time.monotonic()
        self._live = self._make_live_view() if console.is_terminal and not console.is_dumb_terminal else None

    def show(self, event: RunEvent, payload: Mapping[str, Any]) -> None:
        if isinstance(event, ClipProgress) and event.status == SEARCHING:
            self._announce_search(event)
        self.progress.update(event, payload)
        if isinstance(event, RunStarted) and self._live:
            self._live.start()
        for line in self._lines(event, payload):
            self.print_line(line)
        if isinstance(event, ClipProgress) and not self._live:
            self._print_heartbeat()
        elif isinstance(event, RunCompleted):
            self.close()

    def print_line(self, line: str) -> None:
        """Print a line literally: it is neither wrapped nor parsed as markup, and control characters are escaped."""
        self._printed_at = time.monotonic()
        self._console.print(escape_unprintable(line), soft_wrap=True)

    def close(self) -> None:
        """Remove the live view and restore the terminal's cursor."""
        if self._live:
            self._live.stop()

    def _lines(self, event: RunEvent, payload: Mapping[str, Any]) -> Iterator[str]:
        if isinstance(event, ClipStarted):
            again = "continued" if event.resumed else "started"
            yield f"  {event.scene_id}: {again}, attempt {event.attempt}, prediction {event.prediction_id}"
        elif isinstance(event, ClipRetrying):
            again = "again" if event.model == self.progress.models[event.scene_id] else f"with {event.model}"
            yield f"  {event.scene_id}: attempt {event.attempt} failed, trying {again}: {event.error.message}"
        elif isinstance(event, ClipEnded):
            yield f"  {event.clip.scene_id}: [{payload['completed']}/{payload['total']}] {_describe_outcome(event)}"
        elif isinstance(event, RunPaused):
            go_on = f"videogen control {payload['run_id']} resume"
            yield f"  paused by {event.sender}: running predictions finish, no others start; to go on: {go_on}"
        elif isinstance(event, RunResumed):
            yield f"  resumed by {event.sender}"
        elif isinstance(event, RunCapChanged):
            yield f"  {event.sender} changed the cap: {format_money(event.max_cost)} at most"
        elif isinstance(event, BudgetAlert):
            amount = format_money(event.amount)
            yield f"  budget {event.budget}: {event.percent}% of {amount} are spent or reserved {event.period}"
        elif isinstance(event, RunCompleted):
            yield from (f"warning: {warning}" for warning in event.warnings)

    def _announce_search(self, event: ClipProgress) -> None:
        """Print a line when a search begins."""
        if event.scene_id not in self.progress.searching:
            longest_s = event.elapsed + event.remaining
            search = f"searching the account for its prediction for up to {longest_s:.0f} s"
            self.print_line(f"  {event.scene_id}: the answer to its create was lost; {search}")

    def _print_heartbeat(self) -> None:
        in_progress = self.progress.in_progress
        if in_progress and time.monotonic() - self._printed_at >= HEARTBEAT_S:
            longest_s = max(clip.elapsed for clip in in_progress.values())
            done = f"[{self.progress.completed}/{self.progress.total}]"
            left = (
                "" if self.progress.remaining_s is None else f", about {format_clock(self.progress.remaining_s)} left"
            )
            self.print_line(f"  … {done} {len(in_progress)} in progress, the longest for {longest_s:.0f} s{left}")
        elif (searching := self.progress.searching) and time.monotonic() - self._printed_at >= HEARTBEAT_S:
            longest_s = max(search.elapsed_now_s for search in searching.values())
            self.print_line(f"  … still searching for {', '.join(searching)}, the longest for {longest_s:.0f} s")

    def _make_live_view(self) -> Live:
        return Live(
            console=self._console,
            get_renderable=lambda: render_view(self.progress),
            refresh_per_second=REFRESHES_PER_S,
            transient=True,
        )


def render_view(progress: RunProgress) -> RenderableType:
    """Render the clips in progress, then the totals."""
    in_progress = list(progress.in_progress.items())
    table = Table.grid(padding=(0, 2))
    for scene_id, clip in in_progress[:MAX_SHOWN_CLIPS]:
        again = f", attempt {clip.attempt}" if clip.attempt > 1 else ""
        left = "" if clip.remaining_now_s is None else f", about {format_clock(clip.remaining_now_s)} left"
        bar = ProgressBar(total=1.0, completed=clip.fraction, width=20)
        table.add_row(f"  {escape_unprintable(scene_id)}", bar, f"{format_clock(clip.elapsed_now_s)}{left}{again}")
    for scene_id, search in list(progress.searching.items())[: max(0, MAX_SHOWN_CLIPS - len(in_progress))]:
        table.add_row(f"  {escape_unprintable(scene_id)}", "searching the account", format_clock(search.elapsed_now_s))
    if len(in_progress) > MAX_SHOWN_CLIPS:
        table.add_row(f"  … and {len(in_progress) - MAX_SHOWN_CLIPS} more", "", "")
    return Group(table, Text(_format_totals(progress), style="bold"))


def _format_totals(progress: RunProgress) -> str:
    plan = progress.plan
    failed = f", {progress.failed} failed" if progress.failed else ""
    left = "" if progress.remaining_s is None else f", about {format_clock(progress.remaining_s)} left"
    spent = progress.spent
    limit = f"{format_money(plan.total_cost)} planned"
    if progress.max_cost is not None:  # this limit covers all runs of the job
        spent += plan.spent_before
        limit = f"{format_money(progress.max_cost)} at most"
    paused = "paused · " if progress.is_paused else ""
    done = f"{paused}{progress.completed} of {progress.total} clips{failed}"
    return f"  {done} · {format_clock(progress.elapsed_s)}{left} · {format_money(spent)} of {limit}"


def format_clock(seconds: float) -> str:
    """Format seconds as a clock: `0:07`, `12:05`, `1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d}"
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def _describe_outcome(event: ClipEnded) -> str:
    clip = event.clip
    if clip.error:
        return f"failed ({clip.error.code}): {clip.error.message}"
    size = f"{clip.actual_duration:.2f} s, {clip.width}x{clip.height}, {clip.fps:g} fps"
    if clip.reused:
        return f"reused, {size}"
    return f"delivered in {clip.generation_time:.1f} s: {size}, {format_money(clip.cost)}"
