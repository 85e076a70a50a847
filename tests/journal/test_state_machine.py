"""Runs that start, sleep, die, adopt and retry in any order, against a provider's own ledger.

A process sees the attempts as it last read them, and may sleep or die between any two of its steps. What it knows may
so be out of date; the journal must not believe it.
"""

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.journal.conftest import Clock
from tests.support.builders import request_of
from videogen.errors import (
    BudgetError,
    ClaimedError,
    DeliveredError,
    JobLockedError,
    LeaseLostError,
)
from videogen.journal.attempts import Attempt
from videogen.journal.base import LEASE_S
from videogen.journal.schema import OPEN_STATES
from videogen.journal.store import Journal
from videogen.planning.requests import ClipRequest
from videogen.results.clip import Clip, get_planned_fields

CAP = Decimal("1.50")
MOST = (Decimal("0.40"), Decimal("0.70"))
"""What a prediction can cost at most, by the key's parity."""
SHARES = st.sampled_from([Decimal(0), Decimal("0.5"), Decimal(1)])
"""Of what it can cost at most, what a prediction is billed in truth."""
KEYS = st.integers(1, 2)
IN_MEMORY = "/dev/shm"  # where nobody waits for a disk
STORIES = st.sampled_from(
    [
        (),
        ("create",),
        ("create unheard",),
        ("create", "bill too little", "end"),
        ("create", "bill", "end"),
        ("create", "succeed", "deliver"),
        ("create unheard", "find again", "bill too little"),
        ("find again", "succeed", "deliver"),
        ("find again", "end"),
        ("succeed", "deliver"),
        ("end", "create"),
    ]
)
"""What a process does with an attempt before something else happens; it may be interrupted after each of them."""
PLAYS = st.tuples(st.integers(0, 2), KEYS, st.sampled_from(["", "looks", "intends", "adopts late"]), STORIES, SHARES)
FOLDERS = ("here", "here", "there")
"""Of the three processes: two are in each other's way. All run the same job, the third one another one, too."""


@cache
def request(take: int) -> ClipRequest:
    return request_of(take=take)


@dataclass
class Process:
    """A run as its own process sees it."""

    number: int
    journal: Journal
    job_id: str
    run_id: str | None = None
    attempts: dict[int, Attempt] = field(default_factory=dict)
    """By take: what it last read of its attempt."""


@dataclass
class Made:
    """A prediction in the provider's ledger."""

    attempt_id: int
    job_id: str
    at_most: Decimal
    billed: Decimal
    is_billed: bool = False
    """Whether the journal knows what it is billed."""


class Machine(RuleBasedStateMachine):
    processes = st.integers(0, 2)

    @initialize(jobs=st.lists(st.sampled_from(["film", "other"]), min_size=3, max_size=3))
    def open(self, jobs: list[str]) -> None:
        self.folder = TemporaryDirectory(dir=IN_MEMORY if Path(IN_MEMORY).is_dir() else None)
        url = f"sqlite:///{Path(self.folder.name) / 'journal.db'}"
        self.clock = Clock()
        self.all = [Process(number, Journal(url, clock=self.clock), jobs[number]) for number in range(3)]
        self.started = 0
        self.ledger: dict[str, Made] = {}
        self.final: dict[int, sa.Row[tuple[object, ...]]] = {}
        self.engine = sa.create_engine(url)
        for number in range(3):
            self.start(number)

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            for process in self.all:
                process.journal.close()
            self.engine.dispose()
            self.folder.cleanup()

    # -- processes ----------------------------------------------------------------------------------------------------

    def start(self, number: int) -> None:
        """In a folder of which only the journal keeps others out."""
        process = self.all[number]
        if process.run_id:
            return
        self.started += 1
        run_id, folder = f"run{self.started}", FOLDERS[number]
        try:
            process.journal.start_run(run_id, job_id=process.job_id, origin="fake", folder=folder, exclusive=True)
        except JobLockedError:
            return
        process.run_id = run_id
        self.clock.pass_s(0.001)

    @rule(number=processes, lets_go=st.booleans())
    def die(self, number: int, lets_go: bool) -> None:
        process = self.all[number]
        if process.run_id and lets_go:
            process.journal.release_lease(process.run_id)
        process.run_id = None
        process.attempts.clear()

    @rule(awake=st.sets(processes), pieces=st.sampled_from([1, 5, 20]))
    def let_time_pass(self, awake: set[int], pieces: int) -> None:
        """Some runs are awake and say so, the others sleep."""
        for _ in range(pieces):
            self.clock.pass_s(LEASE_S / 4)
            for number in sorted(awake):
                self._try(self.all[number], self.all[number].journal.heartbeat)

    # -- clips --------------------------------------------------------------------------------------------------------

    @rule(plays=st.lists(PLAYS, min_size=2, max_size=8))
    def play_some(self, plays: list[tuple[int, int, str, tuple[str, ...], Decimal]]) -> None:
        for number, take, begins, story, share in plays:
            self.play(number, take, begins, story, share)
            self.what_has_ended_does_not_change()

    @rule(sleeper=processes, heir=processes, take=KEYS, stories=st.tuples(STORIES, STORIES), share=SHARES)
    def sleep_too_long(
        self, sleeper: int, heir: int, take: int, stories: tuple[tuple[str, ...], tuple[str, ...]], share: Decimal
    ) -> None:
        """Another run goes on with what a run has begun, and then that one wakes up."""
        self.play(sleeper, take, "looks", stories[0][:1], share)
        self.let_time_pass({heir}, 20)
        self.play(heir, take, "looks", (), share)
        self.play(sleeper, take, "", stories[1], share)

    def play(self, number: int, take: int, begins: str, story: tuple[str, ...], share: Decimal) -> None:
        """An attempt is begun, as this process sees it, or gone on with."""
        process = self.all[number]
        self.start(number)
        if begins:
            process.attempts.pop(take, None)
            self._try(process, lambda run_id: self.begin(process, run_id, take, begins))
        for step in story:
            if take in process.attempts:
                self._try(process, lambda _: self.do(process, take, step, share))  # noqa: B023

    def begin(self, process: Process, run_id: str, take: int, begins: str) -> None:
        """What is open is adopted, else a new attempt is intended; what was seen open may have ended meanwhile."""
        found = process.journal.find_open_attempt("fake", request(take).key) if begins == "looks" else None
        if begins == "adopts late":
            found = next((each.attempts[take] for each in self.all if take in each.attempts), None)
        if found:
            process.attempts[take] = process.journal.take_over_attempt(found, run_id=run_id, scene_id="a")
        else:
            process.attempts[take] = self._intend(process, run_id, take)

    def do(self, process: Process, take: int, step: str, share: Decimal = Decimal(1)) -> None:
        journal, attempt = process.journal, process.attempts[take]
        owner, made = self._of(attempt, "run_id"), self._made_for(attempt)
        if step.startswith("create"):  # right after the journal has confirmed it; its answer may be lost
            if attempt.state != "intended" or made:
                return
            attempt = journal.confirm_intent(attempt)
            most, made = MOST[take % 2], f"p{len(self.ledger)}"
            self.ledger[made] = Made(attempt.id, self._of(attempt, "job_id"), most, share * most)
            if step == "create":
                attempt = journal.record_prediction(attempt, made, None) or attempt
        elif step == "end":
            attempt = journal.record_end(attempt, error="timeout", message="too late")
        elif step == "deliver":
            clip = Clip(status="success", video_path="clips/a.mp4", **get_planned_fields(request(take)))
            journal.record_delivery(attempt, request(take), origin="fake", folder=FOLDERS[process.number], clip=clip)
        elif made is None:
            return
        elif step == "find again":  # in the provider's list
            attempt = journal.record_prediction(attempt, made, None) or attempt
        elif step == "bill too little":
            attempt = journal.record_cost(attempt, Decimal(0), "estimated")
            self.ledger[made].is_billed = False
        else:
            record = journal.record_success if step == "succeed" else journal.record_cost
            attempt = record(attempt, self.ledger[made].billed, "known")
            self.ledger[made].is_billed = True
        assert owner == process.run_id  # else this should have been refused
        process.attempts[take] = attempt

    # -- what always holds --------------------------------------------------------------------------------------------

    @precondition(lambda self: hasattr(self, "engine"))
    @invariant()
    def no_clip_is_begun_twice(self) -> None:
        states = sa.text("SELECT clip_key, state FROM attempts")
        with self.engine.connect() as db:
            begun = Counter(row.clip_key for row in db.execute(states) if row.state in OPEN_STATES)
        assert all(number == 1 for number in begun.values())

    @precondition(lambda self: hasattr(self, "engine"))
    @invariant()
    def what_has_ended_does_not_change(self) -> None:
        with self.engine.connect() as db:
            rows = {row.id: row for row in db.execute(sa.text("SELECT * FROM attempts"))}
        for number, row in self.final.items():
            assert rows[number] == row
        self.final = {number: row for number, row in rows.items() if row.state in ("ended", "delivered")}

    @precondition(lambda self: hasattr(self, "engine"))
    @invariant()
    def the_cap_holds_by_what_the_provider_could_bill(self) -> None:
        for job_id in ("film", "other"):
            made = [each for each in self.ledger.values() if each.job_id == job_id]
            assert sum(each.billed if each.is_billed else each.at_most for each in made) <= CAP
            spent, reserved = self.all[0].journal.get_job_spending(job_id, "fake")
            assert sum(each.billed for each in made) <= spent + reserved <= CAP

    @precondition(lambda self: hasattr(self, "engine"))
    @invariant()
    def of_each_attempt_one_prediction_is_made(self) -> None:
        assert all(number == 1 for number in Counter(each.attempt_id for each in self.ledger.values()).values())

    # -- help ---------------------------------------------------------------------------------------------------------

    def _try(self, process: Process, act: Callable[[str], None]) -> None:
        """What is refused is not done; the process does not learn from it, and may try again."""
        if process.run_id is not None:
            with suppress(LeaseLostError, BudgetError, ClaimedError, DeliveredError):
                act(process.run_id)

    def _intend(self, process: Process, run_id: str, take: int) -> Attempt:
        was_delivered = process.journal.find_delivery("fake", request(take).key) is not None
        attempt = process.journal.record_intent(
            request(take),
            run_id=run_id,
            origin="fake",
            folder=FOLDERS[process.number],
            max_cost=CAP,
            reserve=MOST[take % 2],
        )
        assert not was_delivered
        return attempt

    def _made_for(self, attempt: Attempt) -> str | None:
        """The id of its prediction at the provider."""
        found = [prediction_id for prediction_id, made in self.ledger.items() if made.attempt_id == attempt.id]
        return found[0] if found else None

    def _of(self, attempt: Attempt, column: str) -> str:
        """What the journal says of the attempt now: the run that has it, or the job whose run began it."""
        with self.engine.connect() as db:
            return str(db.execute(sa.text(f"SELECT {column} FROM attempts WHERE id = {attempt.id}")).scalar_one())


@pytest.mark.parametrize("examples", [3, pytest.param(40, marks=pytest.mark.long)])
def test_the_journal_believes_no_run_that_is_out_of_date(examples: int) -> None:
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )


def test_the_machine_gets_as_far_as_a_delivery_and_a_take_over() -> None:
    """So that its rules are known to lead somewhere: one way through it, by hand."""
    machine = Machine()
    machine.open(["film", "film", "film"])
    first, second, third = machine.all
    assert second.run_id is None
    machine.play(0, 1, "looks", ("create unheard",), Decimal(1))
    machine.let_time_pass({2}, 5)
    machine.play(2, 1, "looks", ("find again", "succeed", "deliver"), Decimal(1))
    machine.play(0, 1, "", ("find again", "end"), Decimal(1))
    assert first.attempts[1].state == "intended"
    assert third.journal.find_delivery("fake", request(1).key)
    machine.play(2, 1, "intends", ("create",), Decimal(1))
    machine.no_clip_is_begun_twice()
    machine.what_has_ended_does_not_change()
    machine.the_cap_holds_by_what_the_provider_could_bill()
    assert len(machine.ledger) == 1
    machine.teardown()
