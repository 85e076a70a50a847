"""The commands to runs in progress. Any process that reaches the journal may send one; the run takes them in order."""

import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa

from videogen.errors import InvalidError
from videogen.journal.base import JournalBase, as_utc
from videogen.journal.database import sanitize_json
from videogen.journal.schema import COMMANDS, RUNS

CommandAction = Literal["pause", "resume", "cancel", "retry", "cap"]
ACCEPTED = "accepted"
"""The outcome of a command that the run has carried out. Any other outcome is the reason why it was refused."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command to one run. The order of commands is that of their ids."""

    id: int
    run_id: str
    action: CommandAction
    scene_id: str | None
    """The scene that `cancel` and `retry` are about."""
    value: str | None
    """The cap of `cap`, in USD."""
    sent_at: datetime
    sender: str
    """The person and the machine that sent it, as `user@host`."""
    taken_at: datetime | None
    """When the run took it; None if the run has not answered yet."""
    outcome: str | None
    """`ACCEPTED`, or why it was refused; None if the run has not answered yet."""


class CommandStore(JournalBase):
    """Keeps the commands to runs, and what became of them."""

    def add_command(
        self,
        run_id: str,
        action: CommandAction,
        *,
        scene_id: str | None = None,
        value: str | None = None,
        sender: str,
    ) -> Command:
        """Record a command for a run in progress. Raise `InvalidError` if there is no such run, or it has ended.

        Commands are recorded one after another, so that one with a higher id never comes before one with a lower id.
        """
        token = uuid.uuid4().hex
        row = sanitize_json({"run_id": run_id, "scene_id": scene_id, "sender": sender[:255]})
        row |= {"action": action, "value": value, "token": token}
        is_in_progress = sa.select(RUNS.c.id).where(RUNS.c.id == row["run_id"], RUNS.c.ended_at.is_(None))

        def work(db: sa.Connection) -> Command:
            made = db.execute(sa.select(COMMANDS).where(COMMANDS.c.token == token)).one_or_none()
            if made is not None:  # the answer to an earlier commit was lost
                return _read_command(made)
            if db.execute(is_in_progress).first() is None:
                raise InvalidError(f"run {run_id} has ended, or never began: it takes no commands")
            values = row | {"sent_at": self._now_by_shared_clock(db)}
            return _read_command(db.execute(COMMANDS.insert().values(values).returning(*COMMANDS.c)).one())

        return self._run(work, exclusive=True)

    def find_command(self, command_id: int) -> Command | None:
        """Return the command with this id, or None."""
        query = sa.select(COMMANDS).where(COMMANDS.c.id == command_id)
        row = self._read(lambda db: db.execute(query).one_or_none())
        return None if row is None else _read_command(row)

    def find_pending_commands(self, run_id: str, *, is_repeated: bool = True) -> list[Command]:
        """Return the commands that a run has not taken yet, in order.

        Args:
            is_repeated: as in `Database.run`.
        """
        query = sa.select(COMMANDS).where(COMMANDS.c.run_id == run_id, COMMANDS.c.taken_at.is_(None))
        query = query.order_by(COMMANDS.c.id)
        return self._read(lambda db: [_read_command(row) for row in db.execute(query)], is_repeated=is_repeated)

    def record_outcome(self, command: Command, outcome: str) -> None:
        """Record that the run has taken a command. An accepted cap holds for every reservation after this one.

        The caller repeats the call if the journal is unreachable. To repeat it changes nothing.
        """
        taken = COMMANDS.update().where(COMMANDS.c.id == command.id, COMMANDS.c.taken_at.is_(None))
        is_new_cap = command.action == "cap" and outcome == ACCEPTED

        def work(db: sa.Connection) -> None:
            values = {"taken_at": self._now_by_shared_clock(db), "outcome": sanitize_json(outcome)}
            if db.execute(taken.values(values)).rowcount and is_new_cap:
                db.execute(RUNS.update().where(RUNS.c.id == command.run_id).values(max_cost=command.value))

        self._run(work, exclusive=is_new_cap, is_repeated=False)


def _read_command(row: Any) -> Command:
    return Command(
        id=row.id,
        run_id=row.run_id,
        action=row.action,
        scene_id=row.scene_id,
        value=row.value,
        sent_at=as_utc(row.sent_at),
        sender=row.sender,
        taken_at=as_utc(row.taken_at) if row.taken_at else None,
        outcome=row.outcome,
    )
