"""Control a run in progress from any process that reaches its journal: send commands, and see what became of them."""

import getpass
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from videogen.errors import InvalidError
from videogen.journal.base import LEASE_S
from videogen.journal.commands import Command, CommandAction
from videogen.journal.runs import RunRecord
from videogen.journal.store import Journal
from videogen.source_files.messages import did_you_mean
from videogen.text import is_plain_number

OUTCOME_POLL_S = 0.1
"""Pause between two looks for the outcome of a command."""
OUTCOME_TIMEOUT_S = 5.0
"""How long the outcome of a command is waited for. A run looks for commands every quarter of a second."""
MAX_CAP_CHARS = 32
SCENE_ACTIONS: tuple[CommandAction, ...] = ("cancel", "retry")
"""Commands about one scene."""
RUN_AGAIN = "run `videogen run JOB` again"


@dataclass(frozen=True, slots=True)
class RunState:
    """The state of a run, as far as commands can change it."""

    run: RunRecord
    is_paused: bool
    max_cost: Decimal | None
    """USD that the job may cost; None if there is no cap."""
    spent: Decimal
    """USD that all runs of the job have spent."""
    reserved: Decimal
    """USD that they may have to pay beyond that."""
    scenes: tuple[str, ...]
    in_progress: tuple[str, ...]
    """Ids of the scenes whose prediction is running."""
    failed: tuple[str, ...]
    """Ids of the scenes whose clip has failed."""
    pending: tuple[Command, ...]
    """Commands that the run has not answered yet."""


def find_run_to_control(journal: Journal, name: str) -> RunRecord:
    """Return the run with this id or beginning of an id, or the newest live run of the job with this id.

    Raises:
        InvalidError: there is no such run, or several; or it has ended, or is not alive.
    """
    if run := journal.find_run(name):
        return _require_live(journal, run)
    if run := journal.find_last_run(name, is_seen=True) or journal.find_last_run(name):
        return _require_live(journal, run)
    found = journal.find_runs_by_prefix(name) if name else []
    if len(found) > 1:
        raise InvalidError(f"runs {found[0].id} and {found[1].id} both begin with {name!r}: write more of the id")
    if not found:
        last = journal.list_runs(limit=1)
        hint = f"the last run is {last[0].id} of {last[0].job_id}" if last else "the journal has no runs yet"
        raise InvalidError(
            f"there is no run or job {name!r} in this journal; {hint}. Give the run's --out or VIDEOGEN_JOURNAL_URL"
        )
    return _require_live(journal, found[0])


def _require_live(journal: Journal, run: RunRecord) -> RunRecord:
    if run.ended_at is not None:
        raise InvalidError(f"run {run.id} of {run.job_id} has ended ({run.verdict}): {RUN_AGAIN}")
    if not journal.is_seen(run.id):
        raise InvalidError(
            f"run {run.id} of {run.job_id} was not seen for more than {LEASE_S:g} s: it was killed, or cannot reach "
            f"the journal. To continue its work, {RUN_AGAIN}"
        )
    return run


def read_run_state(journal: Journal, run: RunRecord) -> RunState:
    """Return the state of a run by its events, and the commands that it has not answered yet."""
    facts: dict[str, Any] = {}
    states: dict[str, str] = {}
    for _, type_, payload in journal.snapshot_events(run.id):
        if type_ in ("run.started", "run.paused", "run.resumed", "run.cap_changed"):
            facts |= payload
        if type_ == "run.started":
            states = {scene["scene_id"]: "waiting" for scene in payload["scenes"]}
        elif type_.startswith("clip."):
            states[payload["scene_id"]] = type_.removeprefix("clip.")
    spent, reserved = journal.get_job_spending(run.job_id, run.origin)
    cap = facts.get("max_cost")
    return RunState(
        run=run,
        is_paused=facts.get("paused", False),
        max_cost=None if cap is None else Decimal(cap),
        spent=spent,
        reserved=reserved,
        scenes=tuple(states),
        in_progress=tuple(scene for scene, state in states.items() if state in ("started", "progress")),
        failed=tuple(scene for scene, state in states.items() if state == "failed"),
        pending=tuple(journal.find_pending_commands(run.id)),
    )


def send_command(
    journal: Journal,
    run: RunRecord,
    action: CommandAction,
    *,
    scene_id: str | None = None,
    value: str | None = None,
    sender: str | None = None,
) -> Command:
    """Send a command to a live run, which takes it within a second: see `wait_for_outcome`.

    Args:
        scene_id: the scene, for `cancel` and `retry`.
        value: the cap in USD, for `cap`.
        sender: the person and the machine; None means the user of this process.

    Raises:
        InvalidError: the run has ended, the scene is unknown, or an argument is missing, too much or wrong.
    """
    if (scene_id is not None) != (action in SCENE_ACTIONS):
        raise InvalidError(f"{action} {'needs the id of a scene' if action in SCENE_ACTIONS else 'takes no scene'}")
    if (value is not None) != (action == "cap"):
        raise InvalidError("cap needs an amount in USD, such as 20" if action == "cap" else f"{action} takes no amount")
    if value is not None and not _is_amount(value):
        raise InvalidError(f"cap: {value!r} is no amount in USD, such as 20 or 7.50")
    if scene_id is not None:
        scenes = read_run_state(journal, run).scenes
        if scenes and scene_id not in scenes:  # a run that has just begun knows them itself
            raise InvalidError(f"{scene_id!r} is no scene of run {run.id}{did_you_mean(scene_id, scenes)}")
    return journal.add_command(
        run.id, action, scene_id=scene_id, value=value, sender=describe_sender() if sender is None else sender
    )


def wait_for_outcome(
    journal: Journal,
    command: Command,
    *,
    timeout_s: float = OUTCOME_TIMEOUT_S,
    sleep: Callable[[float], None] = time.sleep,
) -> str | None:
    """Return the outcome of a command, see `Command.outcome`, or None if the run has not answered within `timeout_s`.

    The command is in the journal then, and takes effect as soon as the run reads it.
    """
    for _ in range(max(1, round(timeout_s / OUTCOME_POLL_S))):
        found = journal.find_command(command.id)
        if found and found.outcome is not None:
            return found.outcome
        sleep(OUTCOME_POLL_S)
    return None


def describe_sender() -> str:
    """Return the user of this process and its machine, as `user@host`."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a user without a name, as in some containers
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


def _is_amount(text: str) -> bool:
    return is_plain_number(text) and len(text) <= MAX_CAP_CHARS and Decimal(text) >= 0
