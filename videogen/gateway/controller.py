"""Send the review room's commands to runs, through their journal."""

from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal

from videogen import control
from videogen.journal.commands import CommandAction
from videogen.journal.store import Journal


class JournalController:
    """`videogen.gateway.review_room.RunController` on the journal at a URL, which it only opens to send a command."""

    def __init__(self, journal_url: str) -> None:
        self._url = journal_url

    def send_command(
        self, run_id: str, action: CommandAction, *, scene_id: str | None = None, value: Decimal | None = None
    ) -> int:
        with self._open() as journal:
            run = control.find_run_to_control(journal, run_id)
            cap = None if value is None else str(value)
            return control.send_command(journal, run, action, scene_id=scene_id, value=cap).id

    def wait_for_outcome(self, command_id: int, timeout_s: float) -> str | None:
        with self._open() as journal:
            command = journal.find_command(command_id)
            return control.wait_for_outcome(journal, command, timeout_s=timeout_s) if command else None

    @contextmanager
    def _open(self) -> Iterator[Journal]:
        journal = Journal(self._url)
        try:
            yield journal
        finally:
            journal.close()
