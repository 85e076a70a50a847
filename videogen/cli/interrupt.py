"""Ctrl-C and SIGTERM during a run."""

import asyncio
import os
import signal
import sys
from contextlib import suppress
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NoReturn

from videogen.cli.exit_codes import INTERRUPTED, TERMINATED
from videogen.cli.progress import ProgressLines
from videogen.errors import (
    JournalError,
)
from videogen.text import escape_unprintable, format_money

if TYPE_CHECKING:
    from asyncio import Task


class Interruption:
    """Handles Ctrl-C and SIGTERM.

    The first signal ends the run and cancels its predictions, or leaves them running. The second exits at once.
    """

    def __init__(self, *, leaves_running: bool) -> None:
        self.exit_code = INTERRUPTED
        self.stop = asyncio.Event()
        """Set when the run has to stop making clips."""
        self.is_making_clips = False
        """Whether clips are being made. Before and after that only the command itself has to be stopped."""
        self.is_interrupted = False
        self._leaves_running = leaves_running
        self._journal_url = ""
        self._task: Task[Any] | None = None
        self._lines: ProgressLines | None = None

    def watch(self, task: "Task[Any] | None", lines: ProgressLines, journal_url: str) -> None:
        self._task, self._lines, self._journal_url = task, lines, journal_url
        self.arm()

    def arm(self) -> None:
        with suppress(NotImplementedError):  # on Windows, where Ctrl-C cancels the main task anyway
            for number, code in ((signal.SIGINT, INTERRUPTED), (signal.SIGTERM, TERMINATED)):
                asyncio.get_running_loop().add_signal_handler(number, self._interrupt, code)

    def _interrupt(self, code: int) -> None:
        self.exit_code = code
        if self.is_interrupted:
            self._exit_at_once()
        self.is_interrupted = True
        if self.is_making_clips:
            self.stop.set()
        elif self._task:
            self._task.cancel()
        what = "leaving predictions running" if self._leaves_running else "cancelling running predictions"
        cost = self._describe_cancel_cost()
        with suppress(OSError):  # the terminal may be gone
            print(f"interrupted: {what}; press Ctrl-C again to quit at once{cost}", file=sys.stderr)

    def _describe_cancel_cost(self) -> str:
        """Return what it costs to cancel the running predictions, or an empty string if there are none."""
        running = self._lines.progress.running_cost() if self._lines else {}
        if not running:
            return ""
        number, cost = len(running), sum(running.values(), Decimal(0))
        are = "1 prediction is" if number == 1 else f"{number} predictions are"
        if self._leaves_running:
            return f" ({are} left running, for up to {format_money(cost)}: the next run continues them within an hour)"
        hint = "--on-interrupt leave would keep them for the next run"
        return f" ({are} running, cancelling is billed up to {format_money(cost)}; {hint})"

    def exit_unreported(self) -> NoReturn:
        """Exit the process of a run that has ended, without waiting for Prefect any longer."""
        self.report_end()
        print("could not report the final state to Prefect", file=sys.stderr)
        exit_now(self.exit_code)

    def report_end(self) -> None:
        """Print the result and cost of an interrupted run, and the predictions that may still be running."""
        from videogen.journal.store import Journal

        cause = "interrupted" if self.is_interrupted else "cancelled in Prefect"
        progress = self._lines.progress if self._lines else None
        with suppress(JournalError):
            if progress and progress.run_id:
                journal = Journal(self._journal_url, read_only=True)
                for attempt in journal.find_running_attempts(progress.run_id):
                    what = attempt.prediction_id or "whose id was never received; the next run looks for it"
                    print(f"may still be running: prediction {what}", file=sys.stderr)
                spent, _ = journal.get_spending(progress.run_id)
                cancelled = journal.get_interrupted_cost(progress.run_id)
                journal.close()
                done = f"{progress.completed - progress.failed} of {progress.total} delivered"
                of_cancelled = f"of which {format_money(cancelled)} for cancelled predictions"
                print(f"{cause}: {done}, {format_money(spent)} spent, {of_cancelled}", file=sys.stderr)
        print(f"{cause}: delivered clips are kept, run the same command again to continue", file=sys.stderr)

    def _exit_at_once(self) -> NoReturn:
        if self._lines:
            self._lines.close()
            for clip in self._lines.progress.in_progress.values():
                print(f"may still be running: prediction {escape_unprintable(clip.prediction_id)}", file=sys.stderr)
        exit_now(self.exit_code)


def exit_now(code: int) -> NoReturn:
    """Exit the process without waiting for anything."""
    if "videogen.flows.local_server" in sys.modules:
        from videogen.flows.local_server import terminate_own_server

        terminate_own_server()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
