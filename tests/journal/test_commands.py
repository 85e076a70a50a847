"""Commands to runs in the journal, over SQLite and PostgreSQL."""

from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import pytest

from tests.journal.conftest import Clock, intend, start
from tests.support.builders import request_of
from videogen.errors import BudgetError, InvalidError
from videogen.journal.base import LEASE_S
from videogen.journal.commands import ACCEPTED
from videogen.journal.store import Journal

PRICE = request_of().cost


def test_commands_are_taken_in_the_order_in_which_they_were_sent(journal: Journal, other: Journal) -> None:
    """By one run only. What became of each is there for the sender."""
    start(journal, "run1")
    start(journal, "run2")
    first = other.add_command("run1", "pause", sender="me@here")
    second = other.add_command("run1", "cancel", scene_id="s\0", sender="me@here")
    other.add_command("run2", "resume", sender="me@here")
    assert [(each.id, each.action) for each in journal.find_pending_commands("run1")] == [
        (first.id, "pause"),
        (second.id, "cancel"),
    ]
    journal.record_outcome(first, ACCEPTED)
    journal.record_outcome(first, "it was repeated, because the answer was lost")
    assert [each.id for each in journal.find_pending_commands("run1")] == [second.id]
    found = other.find_command(first.id)
    assert found
    assert (found.outcome, found.sender, found.taken_at is not None) == (ACCEPTED, "me@here", True)
    assert other.find_command(second.id) == second
    assert other.find_command(1_000_000) is None


def test_many_senders_at_once_leave_no_gap_in_the_order(journal: Journal, other: Journal) -> None:
    """No command appears before one with a lower id: the run would take them in another order."""
    start(journal, "run1")
    seen: list[int] = []
    with ThreadPoolExecutor(8) as pool:
        sending = [pool.submit(other.add_command, "run1", "pause", sender=f"{n}@here") for n in range(40)]
        while not all(each.done() for each in sending) or journal.find_pending_commands("run1"):
            for command in journal.find_pending_commands("run1"):
                seen.append(command.id)
                journal.record_outcome(command, ACCEPTED)
    assert seen == sorted(each.result().id for each in sending)


@pytest.mark.parametrize("run_id", ["run1", "nobody"])
def test_a_run_that_has_ended_takes_no_commands(run_id: str, journal: Journal, other: Journal) -> None:
    start(journal, "run1")
    journal.end_run("run1", verdict="complete")
    with pytest.raises(InvalidError, match=f"run {run_id} has ended, or never began"):
        other.add_command(run_id, "pause", sender="me@here")


def test_a_cap_that_was_accepted_holds_for_the_next_reservation(journal: Journal, other: Journal) -> None:
    """In its transaction, whatever cap the run believes in: it was lowered meanwhile, or raised."""
    start(journal, "run1")
    intend(journal, request_of(take=1), "run1", max_cost=9 * PRICE)
    for value, believed in ((PRICE, 9 * PRICE), (PRICE, None)):
        journal.record_outcome(other.add_command("run1", "cap", value=str(value), sender="me@here"), ACCEPTED)
        with pytest.raises(BudgetError, match=r"\$0.35 of \$0.35"):
            intend(other, request_of(take=2), "run1", max_cost=believed)
    journal.record_outcome(other.add_command("run1", "cap", value=str(2 * PRICE), sender="me@here"), ACCEPTED)
    intend(journal, request_of(take=2), "run1", max_cost=PRICE)
    with pytest.raises(BudgetError):
        intend(journal, request_of(take=3), "run1", max_cost=9 * PRICE)
    assert intend(journal, request_of(take=4), "run1", reserve=Decimal(0))  # a search for what is paid for


def test_a_cap_that_was_refused_changes_nothing(journal: Journal, other: Journal) -> None:
    start(journal, "run1")
    journal.record_outcome(other.add_command("run1", "cap", value="0", sender="me@here"), "refused")
    assert intend(journal, request_of(), "run1", max_cost=PRICE)


def test_the_cap_of_a_run_is_not_that_of_the_next_one(journal: Journal, other: Journal) -> None:
    """The job's own holds again."""
    start(journal, "run1")
    journal.record_outcome(other.add_command("run1", "cap", value="0", sender="me@here"), ACCEPTED)
    journal.end_run("run1", verdict="failed")
    start(journal, "run2")
    assert intend(journal, request_of(), "run2", max_cost=PRICE)


def test_a_run_is_seen_until_its_lease_is_older_than_it_lasts(journal: Journal, other: Journal, clock: Clock) -> None:
    """Or until it has ended."""
    for run_id in ("abc1", "abd2"):
        start(journal, run_id, job_id="film")
        clock.pass_s(1)
    assert (other.is_seen("abc1"), other.is_seen("nobody")) == (True, False)
    assert [run.id for run in other.find_runs_by_prefix("ab")] == ["abd2", "abc1"]
    assert [run.id for run in other.find_runs_by_prefix("abc")] == ["abc1"]
    assert other.find_runs_by_prefix("a_c") == []
    last = other.find_last_run("film", is_seen=True)
    assert last
    assert last.id == "abd2"
    journal.end_run("abd2", verdict="complete")
    last = other.find_last_run("film", is_seen=True)
    assert last
    assert last.id == "abc1"
    clock.pass_s(LEASE_S)
    assert not other.is_seen("abc1")
    assert other.find_last_run("film", is_seen=True) is None
    last = other.find_last_run("film")
    assert last
    assert last.id == "abd2"
