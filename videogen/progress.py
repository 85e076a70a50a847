"""How a person sees a run go on: a line for each step, and on a terminal a view of what is in the making below them."""

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

from videogen.errors import escape_unprintable
from videogen.events import ClipEnded, ClipProgress, ClipRetrying, ClipStarted, RunCompleted, RunEvent, RunStarted
from videogen.planning import Plan

HEARTBEAT_S = 15.0
SHOWN_CLIPS = 10
"""Clips in the making that the view shows one by one."""
REFRESHES_PER_S = 4


@dataclass
class Making:
    """A clip in the making, as its last event told it. Times are seconds."""

    prediction_id: str
    attempt: int
    elapsed: float = 0.0
    remaining: float | None = None
    fraction: float = 0.0
    told_at: float = field(default_factory=time.monotonic)

    def hear(self, event: ClipProgress) -> None:
        self.elapsed, self.remaining, self.fraction = event.elapsed, event.remaining, event.fraction
        self.told_at = time.monotonic()

    @property
    def now_s(self) -> float:
        """Seconds since its prediction was created."""
        return self.elapsed + time.monotonic() - self.told_at

    @property
    def left_s(self) -> float | None:
        return None if self.remaining is None else max(0.0, self.remaining - (time.monotonic() - self.told_at))


class RunProgress:
    """Where a run is, as its events tell it."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.models = {request.scene.id: request.model for request in plan.requests}
        self.run_id: str | None = None
        self.making: dict[str, Making] = {}
        """By scene."""
        self.completed = self.failed = 0
        self.spent = Decimal(0)
        self._took_s: list[float] = []
        self._began = time.monotonic()

    def running_cost(self) -> dict[str, Decimal]:
        """Return what the predictions that are running cost at most, in USD, by scene."""
        prices = {request.scene.id: max(each.cost for each in request.alternatives) for request in self.plan.requests}
        return {scene_id: prices[scene_id] for scene_id in self.making}

    def hear(self, event: RunEvent, payload: Mapping[str, Any]) -> None:
        self.run_id, self.completed = payload["run_id"], payload["completed"]
        if isinstance(event, RunStarted):
            self._began = time.monotonic()
        elif isinstance(event, ClipStarted):
            self.making[event.scene_id] = Making(event.prediction_id, event.attempt)
        elif isinstance(event, ClipProgress) and event.scene_id in self.making:
            self.making[event.scene_id].hear(event)
        elif isinstance(event, ClipRetrying):
            self.making.pop(event.scene_id, None)
        elif isinstance(event, ClipEnded):
            self._hear_end(event)

    def _hear_end(self, event: ClipEnded) -> None:
        clip = event.clip
        self.making.pop(clip.scene_id, None)
        self.spent += clip.cost
        self.failed += clip.error is not None
        if clip.error is None and not clip.reused:
            self._took_s.append(clip.generation_time)

    @property
    def total(self) -> int:
        return len(self.plan.requests)

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._began

    @property
    def left_s(self) -> float | None:
        """About how long it still takes, at the pace seen so far; None before there is one."""
        making = list(self.making.values())  # a copy: the view reads from another thread
        seen_s = self._took_s or [clip.elapsed + clip.remaining for clip in making if clip.remaining is not None]
        if not seen_s:
            return None
        each_s = sum(seen_s) / len(seen_s)
        lefts = [max(0.0, each_s - clip.now_s) if clip.left_s is None else clip.left_s for clip in making]
        waiting = max(0, self.total - self.completed - len(making))
        return max((sum(lefts) + waiting * each_s) / self.plan.concurrency, *lefts, 0.0)


class ProgressLines:
    """One line for each step of a clip that a person waits for.

    On a terminal the clips in the making are shown below; elsewhere, where nothing happens for 15 s, a line says so.
    """

    def __init__(self, console: Console, plan: Plan) -> None:
        self.progress = RunProgress(plan)
        self._console = console
        self._said_at = time.monotonic()
        self._live = self._view() if console.is_terminal and not console.is_dumb_terminal else None

    def show(self, event: RunEvent, payload: Mapping[str, Any]) -> None:
        self.progress.hear(event, payload)
        if isinstance(event, RunStarted) and self._live:
            self._live.start()
        for line in self._lines(event, payload):
            self.say(line)
        if isinstance(event, ClipProgress) and not self._live:
            self._beat()
        elif isinstance(event, RunCompleted):
            self.close()

    def say(self, line: str) -> None:
        """One line as it is: neither wrapped, nor read as markup, nor obeyed by the terminal."""
        self._said_at = time.monotonic()
        self._console.print(escape_unprintable(line), soft_wrap=True)

    def close(self) -> None:
        """Takes the view away, and gives the terminal its cursor back."""
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
            yield f"  {event.clip.scene_id}: [{payload['completed']}/{payload['total']}] {_outcome(event)}"
        elif isinstance(event, RunCompleted):
            yield from (f"warning: {warning}" for warning in event.warnings)

    def _beat(self) -> None:
        making = self.progress.making
        if making and time.monotonic() - self._said_at >= HEARTBEAT_S:
            longest_s = max(clip.elapsed for clip in making.values())
            done = f"[{self.progress.completed}/{self.progress.total}]"
            left = "" if self.progress.left_s is None else f", about {clock(self.progress.left_s)} left"
            self.say(f"  … {done} {len(making)} in the making, the longest for {longest_s:.0f} s{left}")

    def _view(self) -> Live:
        return Live(
            console=self._console,
            get_renderable=lambda: view(self.progress),
            refresh_per_second=REFRESHES_PER_S,
            transient=True,
        )


def view(progress: RunProgress) -> RenderableType:
    """The clips in the making with their progress, then the totals."""
    making = list(progress.making.items())
    table = Table.grid(padding=(0, 2))
    for scene_id, clip in making[:SHOWN_CLIPS]:
        again = f", attempt {clip.attempt}" if clip.attempt > 1 else ""
        left = "" if clip.left_s is None else f", about {clock(clip.left_s)} left"
        bar = ProgressBar(total=1.0, completed=clip.fraction, width=20)
        table.add_row(f"  {escape_unprintable(scene_id)}", bar, f"{clock(clip.now_s)}{left}{again}")
    if len(making) > SHOWN_CLIPS:
        table.add_row(f"  … and {len(making) - SHOWN_CLIPS} more", "", "")
    return Group(table, Text(_totals(progress), style="bold"))


def _totals(progress: RunProgress) -> str:
    plan = progress.plan
    failed = f", {progress.failed} failed" if progress.failed else ""
    left = "" if progress.left_s is None else f", about {clock(progress.left_s)} left"
    of, spent = f"${plan.total_cost} planned", progress.spent
    if plan.max_cost is not None:  # which holds for the job over all its runs
        of, spent = f"${plan.max_cost} at most", plan.spent_before + progress.spent
    done = f"{progress.completed} of {progress.total} clips{failed}"
    return f"  {done} · {clock(progress.elapsed_s)}{left} · ${spent} of {of}"


def clock(seconds: float) -> str:
    """`0:07`, `12:05`, `1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def _outcome(event: ClipEnded) -> str:
    clip = event.clip
    if clip.error:
        return f"failed ({clip.error.code}): {clip.error.message}"
    size = f"{clip.actual_duration:.2f} s, {clip.width}x{clip.height}, {clip.fps:g} fps"
    return f"reused, {size}" if clip.reused else f"delivered in {clip.generation_time:.1f} s: {size}, ${clip.cost}"
