from datetime import UTC, datetime
from decimal import Decimal
from io import StringIO
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from tests.support.builders import clip_of, plan_of
from videogen.cli import progress as progress_module
from videogen.cli.progress import ProgressLines, RunProgress, format_clock, render_view
from videogen.events import (
    SEARCHING,
    BudgetAlert,
    ClipCompleted,
    ClipEnded,
    ClipFailed,
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
from videogen.results.clip import ClipFailure
from videogen.results.run_result import RunResult
from videogen.results.verdict import judge


def started(index: int, attempt: int = 1) -> ClipStarted:
    scene_id = f"s{index}"
    return ClipStarted(
        clip_index=index, scene_id=scene_id, attempt=attempt, prediction_id=f"{scene_id}-{attempt}", resumed=False
    )


def progressed(index: int, *, elapsed: float, remaining: float, fraction: float = 0.5) -> ClipProgress:
    return ClipProgress(
        clip_index=index,
        scene_id=f"s{index}",
        prediction_id="x",
        status="processing",
        elapsed=elapsed,
        remaining=remaining,
        fraction=fraction,
    )


def ended(index: int, *, failure: str | None = None) -> ClipCompleted | ClipFailed:
    clip = clip_of(index, failure=failure)
    return ClipFailed(clip=clip) if failure else ClipCompleted(clip=clip)


def over() -> RunCompleted:
    batch = RunResult(
        run_id="r",
        job_id="film",
        model="kling-v2.5-turbo",
        aspect_ratio="16:9",
        provider="local",
        verdict=judge((), min_clips=0, required=frozenset()),
        total_generation_time=1.0,
        clips=(),
    )
    return RunCompleted(result=batch)


def told(listener: Any, total: int, *events: RunEvent) -> None:
    completed = 0
    for event in events:
        completed += isinstance(event, ClipEnded)
        listener(event, {"run_id": "r", "completed": completed, "total": total})


@pytest.fixture
def stopped_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no time pass for the progress of a run."""
    monkeypatch.setattr(progress_module, "time", SimpleNamespace(monotonic=lambda: 1000.0))


@pytest.mark.usefixtures("stopped_clock")
def test_what_is_left_follows_the_pace_seen() -> None:
    """Nothing is guessed before a clip tells its pace; then the slots share the work that is left."""
    progress = RunProgress(plan_of(6))
    told(progress.update, 6, started(0), started(1))
    assert progress.remaining_s is None
    told(progress.update, 6, progressed(0, elapsed=4, remaining=6), progressed(1, elapsed=8, remaining=2))
    assert progress.remaining_s == 24  # (6 + 2 + four of 10 s) over two slots
    told(progress.update, 6, ended(0))
    assert progress.remaining_s == 21  # one has 2 s left, four have not begun


@pytest.mark.usefixtures("stopped_clock")
def test_the_last_clip_is_waited_for_in_full() -> None:
    """Empty slots do not make it quicker."""
    progress = RunProgress(plan_of(1))
    told(progress.update, 1, started(0), progressed(0, elapsed=4, remaining=6))
    assert progress.remaining_s == 6


def test_money_and_failures_are_counted_as_they_come() -> None:
    """A clip that failed is done, and cost what it cost."""
    progress = RunProgress(plan_of(3, max_cost="2"))
    told(progress.update, 3, started(0), ended(0), started(1), ended(1, failure="moderation"), started(2))
    assert (progress.completed, progress.failed, progress.spent) == (2, 1, Decimal("0.35"))
    assert list(progress.in_progress) == ["s2"]
    assert "2 of 3 clips, 1 failed · 0:00, about 0:10 left · $0.35 of $2.00 at most" in shown(progress)


def test_a_clip_that_is_made_again_counts_once() -> None:
    """Its second end has the cost of all its attempts."""
    progress = RunProgress(plan_of(2))
    failure = ClipFailure(code="model-error", message="out of memory", retryable=True)
    again = ClipRetrying(clip_index=0, scene_id="s0", attempt=1, error=failure, model="kling-v2.5-turbo")
    told(progress.update, 2, started(0), ended(0, failure="model-error"), again)
    assert progress.failed == 0
    told(progress.update, 2, started(0, attempt=2), ended(0), ended(1))
    assert (progress.failed, progress.spent) == (0, Decimal("0.70"))


def test_commands_are_shown() -> None:
    """Who sent them, how to go on, and the cap that holds now."""
    console = Console(file=StringIO(), width=200, highlight=False)
    lines = ProgressLines(console, plan_of(2, max_cost="2"))
    told(lines.show, 2, RunPaused(sender="eve@there"), RunCapChanged(sender="eve@there", max_cost=Decimal(20)))
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    assert "paused by eve@there" in text
    assert "videogen control r resume" in text
    assert "eve@there changed the cap: $20.00 at most" in text
    assert "paused · 0 of 2 clips · 0:00 · $0.00 of $20.00 at most" in shown(lines.progress)
    told(lines.show, 2, RunResumed(sender="eve@there"))
    assert "paused" not in shown(lines.progress)


def test_an_alert_of_a_budget_is_a_line() -> None:
    console = Console(file=StringIO(), width=200, highlight=False)
    alert = BudgetAlert(
        budget="team",
        percent=80,
        amount=Decimal(200),
        taken=Decimal("160.10"),
        period="in November (UTC)",
        ends_at=datetime(2026, 12, 1, tzinfo=UTC),
    )
    told(ProgressLines(console, plan_of(2)).show, 2, alert)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    assert "budget team: 80% of $200.00 are spent or reserved in November (UTC)" in text


def shown(progress: RunProgress) -> str:
    console = Console(file=StringIO(), width=100, highlight=False)
    console.print(render_view(progress))
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


def test_the_view_shows_ten_clips_and_counts_the_others() -> None:
    """Fifty slots do not fill the screen."""
    progress = RunProgress(plan_of(50, concurrency=50))
    told(progress.update, 50, *(started(n, attempt=2) for n in range(14)))
    text = shown(progress)
    assert text.count("attempt 2") == 10
    assert "… and 4 more" in text


def test_on_a_terminal_the_view_stands_below_the_lines_and_goes_in_the_end() -> None:
    """Its cursor is hidden meanwhile, and back afterwards."""
    console = Console(file=StringIO(), force_terminal=True, width=100, highlight=False)
    lines = ProgressLines(console, plan_of(2))
    begin = RunStarted(
        job_id="film",
        model="kling-v2.5-turbo",
        aspect_ratio="16:9",
        provider="local",
        planned_cost=Decimal("0.7"),
        max_cost=None,
        scenes=(),
    )
    told(lines.show, 2, begin, started(0), progressed(0, elapsed=3, remaining=7), ended(0), over())
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    assert text.index("\x1b[?25l") < text.index("s0: [1/2] delivered in 10.0 s") < text.index("\x1b[?25h")
    assert "of 2 clips" in text


def test_elsewhere_there_are_only_lines() -> None:
    """A log file gets no view, and no codes for a terminal."""
    console = Console(file=StringIO(), highlight=False, emoji=False)
    lines = ProgressLines(console, plan_of(2))
    error = ClipFailure(code="transient", message="a :dog: barked", retryable=True)
    retrying = ClipRetrying(clip_index=0, scene_id="s0", attempt=1, error=error, model="kling-v2.5-turbo")
    told(lines.show, 2, started(0), retrying, started(0, 2), progressed(0, elapsed=3, remaining=7), ended(0), over())
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    assert text.splitlines() == [
        "  s0: started, attempt 1, prediction s0-1",
        "  s0: attempt 1 failed, trying again: a :dog: barked",
        "  s0: started, attempt 2, prediction s0-2",
        "  s0: [1/2] delivered in 10.0 s: 5.00 s, 1920x1080, 24 fps, $0.35",
    ]


def searched(index: int, elapsed: float) -> ClipProgress:
    return ClipProgress(
        clip_index=index,
        scene_id=f"s{index}",
        prediction_id="",
        status=SEARCHING,
        elapsed=elapsed,
        remaining=120 - elapsed,
        fraction=0,
    )


def test_a_search_for_a_lost_create_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once when it begins, and then among the lines that say that the run is still working."""
    monkeypatch.setattr("videogen.cli.progress.HEARTBEAT_S", 0.0)
    console = Console(file=StringIO(), highlight=False, emoji=False, width=200)
    lines = ProgressLines(console, plan_of(2))
    search = "the answer to its create was lost; searching the account for its prediction for up to 120 s"
    told(lines.show, 2, searched(0, 0), searched(0, 30.4), started(0), ended(0), searched(1, 0), ended(1, failure="x"))
    assert console.file.getvalue().splitlines() == [  # type: ignore[attr-defined]
        f"  s0: {search}",
        "  … still searching for s0, the longest for 0 s",
        "  … still searching for s0, the longest for 30 s",
        "  s0: started, attempt 1, prediction s0-1",
        "  s0: [1/2] delivered in 10.0 s: 5.00 s, 1920x1080, 24 fps, $0.35",
        f"  s1: {search}",
        "  … still searching for s1, the longest for 0 s",
        "  s1: [2/2] failed (x): it said no",
    ]
    assert lines.progress.searching == {}


def test_a_terminal_shows_a_search_below_the_clips_in_progress() -> None:
    progress = RunProgress(plan_of(3))
    told(progress.update, 3, started(0), searched(1, 12))
    console = Console(file=StringIO(), width=100)
    console.print(render_view(progress))
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    assert text.index("s0") < text.index("s1")
    assert "searching the account" in text
    assert "0:12" in text


@pytest.mark.usefixtures("stopped_clock")
def test_the_time_of_a_search_goes_on_between_its_reports() -> None:
    """They come up to ten seconds apart. The run lasts at least as long as the search may."""
    progress = RunProgress(plan_of(3))
    told(progress.update, 3, started(0), ended(0), searched(1, 12))
    progress.searching["s1"].updated_at = 950.0
    console = Console(file=StringIO(), width=100)
    console.print(render_view(progress))
    assert "searching the account  1:02" in console.file.getvalue()  # type: ignore[attr-defined]
    assert progress.remaining_s == 58


def test_times_read_as_a_clock() -> None:
    """Minutes and seconds, with hours where there are any."""
    assert [format_clock(seconds) for seconds in (0, 7.4, 65, 3723)] == ["0:00", "0:07", "1:05", "1:02:03"]
