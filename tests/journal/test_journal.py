"""The journal over SQLite and PostgreSQL: the same promises."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal
from functools import cache, partial
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from tests.support.builders import request_of
from tests.support.fakes import FakeProvider, run_of
from videogen.errors import (
    BudgetError,
    ClaimedError,
    JobLockedError,
    SettingsError,
    UnreadableJournalError,
)
from videogen.execution.attempt import attempt_clip
from videogen.execution.context import RunContext
from videogen.execution.slots import Slot, Slots
from videogen.journal.async_store import AsyncJournal
from videogen.journal.attempts import Attempt
from videogen.journal.deliveries import DeliveryRecord
from videogen.journal.migrations import HEAD, create_schema, read_version, upgrade_schema
from videogen.journal.schema import metadata
from videogen.journal.store import Journal
from videogen.planning.requests import ClipRequest
from videogen.results.clip import Clip, get_planned_fields

HERE = {"origin": "fake", "folder": "here"}


@pytest.fixture
def journal(journal_url: str) -> Iterator[Journal]:
    journal = Journal(journal_url)
    yield journal
    journal.close()


def intend(journal: Journal, request: ClipRequest, run_id: str = "run1", **given: object) -> Attempt:
    return journal.record_intent(request, run_id=run_id, **(HERE | given))  # type: ignore[arg-type]


def test_the_tables_are_those_of_the_migrations(journal_url: str) -> None:
    """A column added to the tables needs a migration."""
    engine = sa.create_engine(journal_url)
    with engine.begin() as db:
        upgrade_schema(db)
        assert compare_metadata(MigrationContext.configure(db), metadata) == []
    engine.dispose()
    Journal(journal_url).close()


def test_a_new_journal_is_as_one_that_came_through_all_migrations() -> None:
    """To the letter of what SQLite has of it, but for blanks."""
    made = []
    for make in (upgrade_schema, partial(create_schema, tables=metadata)):
        with sa.create_engine("sqlite://").begin() as db:
            make(db)
            assert read_version(db) == HEAD
            rows = db.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'alembic%'").all()
            made.append(
                {name: re.sub(r"\s*([(),\s])\s*", r"\1", str(sql)) for name, sql in rows if "autoindex" not in name}
            )
    assert made[0] == made[1]
    assert "id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT" in made[0]["events"]


def test_an_attempt_is_open_until_its_end(journal: Journal) -> None:
    """The intent, the id, the bill: each is there for the next run."""
    request = request_of()
    attempt = intend(journal, request)
    assert journal.find_open_attempt("fake", request.key) == attempt
    created = journal.record_prediction(attempt, "p1", None)
    assert created
    assert (created.state, created.prediction_id) == ("created", "p1")
    journal.record_success(created, Decimal("0.35"), "known")
    found = journal.find_open_attempt("fake", request.key)
    assert found
    assert (found.state, found.cost) == ("succeeded", Decimal("0.35"))
    journal.record_end(found, error="expired", message="gone")
    assert journal.find_open_attempt("fake", request.key) is None
    assert [each.state for each in journal.find_attempts("run1", "a")] == ["ended"]


@cache
def thousand_requests() -> list[ClipRequest]:
    """Return takes of one scene."""
    return [request_of(take=take) for take in range(1, 1001)]


@pytest.mark.long_variants
def test_many_clips_are_looked_up_in_a_few_queries(journal: Journal) -> None:
    """As a plan of a thousand scenes does: those delivered, those begun; and of this origin only."""
    requests = thousand_requests()
    keys = [request.key for request in requests]
    clip = Clip(status="success", video_path="clips/a.mp4", **get_planned_fields(requests[0]))
    for key in (keys[0], keys[999]):
        journal.import_delivery(key, origin="fake", folder="here", clip=clip)
    journal.import_delivery(keys[1], origin="another", folder="here", clip=clip)
    attempt = intend(journal, requests[500])
    journal.record_end(intend(journal, requests[501]), error="input", message="no")
    assert journal.find_deliveries("fake", keys) == {
        keys[0]: DeliveryRecord("here", clip),
        keys[999]: DeliveryRecord("here", clip),
    }
    assert journal.find_keys_in_flight("fake", keys) == {attempt.clip_key}
    assert (journal.find_deliveries("fake", []), journal.find_keys_in_flight("fake", [])) == ({}, set())


def test_a_prediction_belongs_to_one_attempt(journal: Journal) -> None:
    first, second = intend(journal, request_of()), intend(journal, request_of(id="b", take=2))
    assert journal.record_prediction(first, "p1", None)
    assert journal.record_prediction(second, "p1", None) is None
    assert journal.record_prediction(second, "p2", None)


@pytest.mark.parametrize("workers", [8])
def test_creates_of_two_processes_stay_within_the_budget(journal: Journal, journal_url: str, workers: int) -> None:
    """Of twenty at once as many are made as the cap allows."""
    journal.start_run("run1", job_id="job", origin="fake", folder="here")
    journals = [journal, Journal(journal_url)]
    requests = [request_of(id=f"s{number}", take=number + 1) for number in range(20)]
    cap = 7 * requests[0].cost + Decimal("0.001")

    def is_made(number: int) -> bool:
        try:
            intend(journals[number % 2], requests[number], max_cost=cap)
        except BudgetError:
            return False
        return True

    with ThreadPoolExecutor(workers) as pool:
        assert sum(pool.map(is_made, range(20))) == 7
    journals[1].close()


def test_of_runs_that_start_at_once_one_has_the_folder(journal: Journal, journal_url: str) -> None:
    """Of eight that ask to be alone one is let in; another one when it has ended, or left without an end."""
    journals = [journal, Journal(journal_url)]

    def is_let_in(number: int) -> bool:
        try:
            journals[number % 2].start_run(f"run{number}", job_id="job", origin="fake", folder="here", exclusive=True)
        except JobLockedError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        let_in = list(pool.map(is_let_in, range(8)))
    assert let_in.count(True) == 1
    assert journal.get_holder_last_seen("here")
    assert not journal.get_holder_last_seen("elsewhere")
    journal.release_lease(f"run{let_in.index(True)}")
    assert not journal.get_holder_last_seen("here")
    assert is_let_in(8)
    journal.end_run("run8", verdict="complete")
    assert is_let_in(9)
    journals[1].close()


def test_a_clip_is_claimed_by_one_live_run(journal: Journal, journal_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two jobs at the same clip one is first; when it has not been heard of for long, the other may."""
    for name in ("one", "two"):
        journal.start_run(name, job_id=name, origin="fake", folder=name)
    other, request = Journal(journal_url), request_of()

    def is_first(name: str) -> bool:
        try:
            intend({"one": journal, "two": other}[name], request, name, folder=name)
        except ClaimedError:
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        firsts = list(pool.map(is_first, ("one", "two")))
    assert sorted(firsts) == [False, True]
    loser = "two" if firsts[0] else "one"
    assert other.is_claimed(request.key, origin="fake", folder=loser)
    assert not other.is_claimed(request.key, origin="elsewhere", folder=loser)
    monkeypatch.setattr("videogen.journal.base.LEASE_S", 0.0)
    assert not other.is_claimed(request.key, origin="fake", folder=loser)
    other.close()


def test_events_are_numbered_in_order(journal: Journal) -> None:
    numbers = [journal.add_event("run1", "clip.progress", {"n": n, "text": "é€😀"}) for n in range(3)]
    assert numbers == sorted(numbers)
    assert [payload["n"] for _, _, payload in journal.read_events("run1", after=numbers[0])] == [1, 2]
    assert journal.read_events("run1")[0][2]["text"] == "é€😀"


def test_a_run_without_memory_is_known_once_it_has_ended(journal: Journal) -> None:
    assert not journal.has_complete_history("here")
    journal.start_run("run1", job_id="job", origin="fake", folder="here", recovering=True)
    assert not journal.has_complete_history("here")
    journal.end_run("run1", verdict="complete")
    assert journal.has_complete_history("here")


async def test_a_clip_is_made_once_and_then_reused(journal_url: str, tmp_path: Path) -> None:
    """Its whole life through this journal, by two runs."""
    provider = FakeProvider()

    async def one_run(run_id: str) -> tuple[bool, Decimal]:
        run: RunContext = replace(run_of(tmp_path, provider, run_id=run_id), journal=AsyncJournal(Journal(journal_url)))
        clip = await attempt_clip(request_of(), run, Slot(Slots(1)))
        await run.journal.aclose()
        return clip.reused, clip.cost

    assert await one_run("run1") == (False, Decimal("0.350"))
    assert await one_run("run2") == (True, Decimal(0))
    assert len(provider.created) == 1


def test_a_newer_database_server_is_not_touched(postgresql: str) -> None:
    """There is no file to set aside: a person upgrades videogen."""
    url = postgresql.replace("postgresql://", "postgresql+psycopg://", 1)
    Journal(url).close()
    engine = sa.create_engine(url)
    with engine.begin() as db:
        db.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(UnreadableJournalError, match="newer version of videogen"):
        Journal(url)
    engine.dispose()


@pytest.mark.parametrize("url", ["postgresql://", "nonsense", "mysql+nodriver://x/y"])
def test_an_address_that_is_none_is_a_wrong_setting(url: str) -> None:
    with pytest.raises(SettingsError, match="VIDEOGEN_JOURNAL_URL"):
        Journal(url)


def test_who_watches_sees_runs_newest_first_and_how_far_they_are(journal: Journal) -> None:
    """The model of the first event, the counts of the last one; `before` leads on."""
    for number in range(3):
        journal.start_run(f"r{number}", job_id="film", origin="local", folder="here")
    journal.add_event("r1", "run.started", {"model": "kling", "completed": 0, "total": 2})
    last = journal.add_event("r1", "run.completed", {"completed": 2, "total": 2})
    newest, middle = journal.list_runs(limit=2)
    assert (newest.id, newest.model, newest.last_event, newest.is_over) == ("r2", None, 0, False)
    assert (middle.model, middle.completed, middle.total, middle.last_event) == ("kling", 2, 2, last)
    assert middle.is_over
    assert [run.id for run in journal.list_runs(limit=2, before="r1")] == ["r0"]
    assert journal.find_run("r1") == middle


def test_who_watches_sees_what_is_spent_and_what_is_reserved(journal: Journal) -> None:
    """What an attempt costs in the end is spent, what an open one will cost at most is reserved."""
    ended, open_ = request_of(), request_of(take=2)
    attempt = intend(journal, ended)
    journal.record_cost(attempt, Decimal("0.10"), "known")
    journal.record_end(attempt, error="model-error", message="no")
    intend(journal, open_)
    assert journal.get_spending("run1") == (Decimal("0.10"), open_.cost)


def test_an_attempt_that_is_taken_over_counts_for_the_run_that_began_it(journal: Journal) -> None:
    request = request_of()
    for run_id in ("run1", "run2", "run3"):
        journal.start_run(run_id, job_id="film", origin="fake", folder="here")
        attempt = journal.find_open_attempt("fake", request.key)
        if attempt is None:
            attempt = intend(journal, request)
        else:
            attempt = journal.take_over_attempt(attempt, run_id=run_id, scene_id="a")
        assert (attempt.run_id, attempt.is_taken_over) == (run_id, run_id != "run1")
    assert journal.get_spending("run1") == (Decimal(0), request.cost)
    assert journal.get_spending("run3") == (Decimal(0), Decimal(0))


def test_who_watches_finds_the_clip_that_a_run_delivered(journal: Journal) -> None:
    """The latest one for the scene, reused ones too; none of another run."""
    clip = Clip(status="success", video_path="clips/a.mp4", **get_planned_fields(request_of()))
    journal.start_run("r1", job_id="film", origin="local", folder="here")
    journal.add_event("r1", "clip.completed", {**clip.model_dump(mode="json"), "run_id": "r1", "completed": 1})
    assert journal.find_delivered_clip("r1", "a") == DeliveryRecord(folder="here", clip=clip)
    assert journal.find_delivered_clip("r1", "b") is None
    assert journal.find_delivered_clip("r2", "a") is None
