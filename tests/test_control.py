"""Find the run that a person names, and send it commands."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.journal.conftest import Clock, start
from videogen.control import (
    OUTCOME_POLL_S,
    OUTCOME_TIMEOUT_S,
    find_run_to_control,
    read_run_state,
    send_command,
    wait_for_outcome,
)
from videogen.errors import InvalidError
from videogen.journal.base import LEASE_S
from videogen.journal.commands import ACCEPTED
from videogen.journal.store import Journal

SCENES = [{"scene_id": "harbour"}, {"scene_id": "storm"}]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def journal(tmp_path: Path, clock: Clock) -> Iterator[Journal]:
    with closing(Journal(f"sqlite:///{tmp_path / 'journal.db'}", clock=clock)) as journal:
        yield journal


@pytest.mark.parametrize("name", ["abc1", "abc", "film"])
def test_a_run_has_its_id_the_beginning_of_it_and_its_job(name: str, journal: Journal) -> None:
    start(journal, "abc1", job_id="film")
    start(journal, "abx2", job_id="another")
    assert find_run_to_control(journal, name).id == "abc1"


def test_the_newest_live_run_of_a_job_is_meant(journal: Journal, clock: Clock) -> None:
    for run_id in ("r1", "r2", "r3"):
        start(journal, run_id, job_id="film")
        clock.pass_s(1)
    journal.end_run("r3", verdict="complete")
    assert find_run_to_control(journal, "film").id == "r2"


def test_a_run_that_cannot_be_controlled_says_why(journal: Journal, clock: Clock) -> None:
    def expect(name: str, message: str) -> None:
        with pytest.raises(InvalidError, match=message):
            find_run_to_control(journal, name)

    expect("film", "there is no run or job 'film' in this journal; the journal has no runs yet")
    start(journal, "abc1", job_id="film")
    start(journal, "abd2", job_id="film")
    expect("ab", "both begin with 'ab': write more of the id")
    expect("flim", "there is no run or job 'flim' in this journal; the last run is abd2 of film")
    expect("", "there is no run or job")
    journal.end_run("abc1", verdict="partial")
    expect("abc1", r"run abc1 of film has ended \(partial\): run `videogen run JOB` again")
    clock.pass_s(LEASE_S + 1)
    expect("film", "run abd2 of film was not seen for more than 20 s: it was killed")


def test_a_command_is_checked_before_it_is_sent(journal: Journal) -> None:
    """Nothing is in the journal then."""
    start(journal, "r1", job_id="film")
    journal.add_event("r1", "run.started", {"scenes": SCENES, "max_cost": None})
    run = find_run_to_control(journal, "r1")
    refused: list[tuple[Any, dict[str, str], str]] = [
        ("cancel", {"scene_id": "strom"}, "'strom' is no scene of run r1; did you mean 'storm'?"),
        ("retry", {}, "retry needs the id of a scene"),
        ("pause", {"scene_id": "storm"}, "pause takes no scene"),
        ("cap", {}, "cap needs an amount in USD"),
        ("cap", {"value": "-1"}, "cap: '-1' is no amount in USD"),
        ("cap", {"value": "1e3"}, "cap: '1e3' is no amount in USD"),
        ("resume", {"value": "1"}, "resume takes no amount"),
    ]
    for action, arguments, message in refused:
        with pytest.raises(InvalidError, match=message):
            send_command(journal, run, action, **arguments)
    assert journal.find_pending_commands("r1") == []
    assert send_command(journal, run, "cancel", scene_id="storm").sender.count("@") == 1


def test_the_outcome_is_waited_for_until_it_is_there(journal: Journal) -> None:
    """Or for as long as a run needs at most; the command is kept."""
    start(journal, "r1", job_id="film")
    run = find_run_to_control(journal, "r1")
    command = send_command(journal, run, "pause", sender="me@here")
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            journal.record_outcome(command, ACCEPTED)

    assert wait_for_outcome(journal, command, sleep=sleep) == ACCEPTED
    assert len(slept) == 3
    late = send_command(journal, run, "resume", sender="me@here")
    slept = [0.0] * 3
    assert wait_for_outcome(journal, late, sleep=sleep) is None
    assert sum(slept) == pytest.approx(OUTCOME_TIMEOUT_S)
    assert slept[-1] == OUTCOME_POLL_S
    assert journal.find_pending_commands("r1") == [late]


def test_the_state_of_a_run_is_that_of_its_events(journal: Journal) -> None:
    start(journal, "r1", job_id="film")
    run = find_run_to_control(journal, "r1")
    before = read_run_state(journal, run)
    assert (before.is_paused, before.max_cost, before.scenes) == (False, None, ())
    told: list[tuple[str, dict[str, Any]]] = [
        ("run.started", {"scenes": SCENES, "max_cost": "1.00"}),
        ("clip.started", {"scene_id": "harbour"}),
        ("clip.progress", {"scene_id": "harbour"}),
        ("clip.failed", {"scene_id": "storm"}),
        ("run.paused", {"paused": True}),
        ("run.cap_changed", {"max_cost": "2.50"}),
    ]
    for type_, payload in told:
        journal.add_event("r1", type_, payload)
    command = send_command(journal, run, "resume", sender="me@here")
    state = read_run_state(journal, run)
    assert (state.is_paused, str(state.max_cost)) == (True, "2.50")
    assert (state.in_progress, state.failed, state.pending) == (("harbour",), ("storm",), (command,))
    journal.add_event("r1", "run.resumed", {"paused": False})
    assert not read_run_state(journal, run).is_paused
