"""Control a run in progress from the command line."""

import sys
from contextlib import closing

from videogen.cli.exit_codes import FAILED, OK
from videogen.control import (
    SCENE_ACTIONS,
    RunState,
    find_run_to_control,
    read_run_state,
    send_command,
    wait_for_outcome,
)
from videogen.journal.commands import ACCEPTED, Command, CommandAction
from videogen.journal.database import check_journal_url
from videogen.journal.store import Journal
from videogen.settings import Settings
from videogen.text import escape_unprintable, format_money, list_first


def control_run(settings: Settings, name: str, action: CommandAction | None, argument: str | None) -> int:
    """Send a command to a run, wait for its outcome, and return the exit code. Without an action, show the run."""
    if settings.journal_url:
        check_journal_url(settings.journal_url)
    with closing(Journal(settings.get_journal_url())) as journal:
        run = find_run_to_control(journal, name)
        if action is None:
            _print_state(read_run_state(journal, run))
            return OK
        scene_id = argument if action in SCENE_ACTIONS else None
        value = argument if action not in SCENE_ACTIONS else None
        command = send_command(journal, run, action, scene_id=scene_id, value=value)
        outcome = wait_for_outcome(journal, command)
    what = f"run {run.id} of {run.job_id}: {_describe(command)}"
    if outcome is None:
        print(escape_unprintable(f"{what}: sent, not acknowledged yet. See: videogen control {run.id}"))
        return OK
    if outcome == ACCEPTED:
        print(escape_unprintable(f"{what}: accepted"))
        return OK
    print(escape_unprintable(f"error: {what}: refused: {outcome}"), file=sys.stderr)
    return FAILED


def _print_state(state: RunState) -> None:
    run = state.run
    what = "paused" if state.is_paused else "running"
    cap = "no cap" if state.max_cost is None else f"cap {format_money(state.max_cost)}"
    lines = [
        f"run {run.id} of {run.job_id}: {what}, {run.completed} of {run.total} clips, {run.failed} failed",
        f"{cap}: {format_money(state.spent)} spent, up to {format_money(state.reserved)} reserved",
        f"in progress: {list_first(state.in_progress) or 'none'}",
    ]
    if state.failed:
        lines.append(f"failed: {list_first(state.failed)}")
    lines += [
        f"pending: {_describe(each)}, sent at {each.sent_at:%H:%M:%S} UTC by {each.sender}" for each in state.pending
    ]
    for line in lines:
        print(escape_unprintable(line))


def _describe(command: Command) -> str:
    return " ".join(filter(None, (command.action, command.scene_id, command.value)))
