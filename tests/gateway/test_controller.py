"""Commands of the review room, sent through the journal."""

from contextlib import closing
from decimal import Decimal

import pytest

from videogen.errors import InvalidError
from videogen.gateway.controller import JournalController
from videogen.journal.store import Journal


def test_a_command_is_in_the_journal_and_its_outcome_comes_from_there(journal_url: str) -> None:
    controller = JournalController(journal_url)
    with closing(Journal(journal_url)) as journal:
        journal.start_run("run1", job_id="film", origin="local", folder="/out/film")
        number = controller.send_command("run1", "cap", value=Decimal("2.50"))
        assert controller.wait_for_outcome(number, 0.1) is None
        (command,) = journal.find_pending_commands("run1")
        assert (command.id, command.action, command.value) == (number, "cap", "2.50")
        journal.record_outcome(command, "accepted")
        assert controller.wait_for_outcome(number, 10) == "accepted"
        assert controller.wait_for_outcome(number + 1, 10) is None


def test_a_run_that_has_ended_takes_none(journal_url: str) -> None:
    controller = JournalController(journal_url)
    with closing(Journal(journal_url)) as journal:
        journal.start_run("run1", job_id="film", origin="local", folder="/out/film")
        journal.end_run("run1", verdict="complete")
        with pytest.raises(InvalidError, match="run run1 of film has ended"):
            controller.send_command("run1", "pause")
        assert journal.find_pending_commands("run1") == []
