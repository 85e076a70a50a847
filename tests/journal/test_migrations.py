"""A journal of an earlier version, in use: what it says counts on."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from tests.journal.conftest import intend, start
from tests.support.builders import request_of
from videogen.errors import BudgetError
from videogen.journal import migrations
from videogen.journal.migrations import HEAD, read_version
from videogen.journal.store import Journal
from videogen.planning.budgets import Budget

PRICE = request_of().cost
AT = "2026-01-01 12:00:00.000000"
RUNS = [("old1", "job"), ("old2", "another"), ("old3", "fallback"), ("old4", "compare"), ("old5", "silent")]
ATTEMPTS = [
    # run, take, state, prediction, cost, basis
    ("old1", 1, "delivered", "p1", "0.350", "known"),
    ("old1", 2, "ended", "p2", "0", "estimated"),
    ("old1", 3, "ended", "p3", None, "undeterminable"),
    ("old1", 4, "created", "p4", None, None),
    ("old2", 5, "created", "p5", None, None),
    ("old3", 6, "ended", "p6", "0.350", "known"),
    ("old4", 7, "ended", "p7", "0.350", "known"),
    ("old5", 8, "ended", "p8", "0.350", "known"),
]
"""As version 0002 leaves them: of a run that was killed, and of others of other jobs."""
MODELS_OF_RUNS = [("old3", "kling"), ("old3", "hailuo"), ("old4", "kling, veo")]
"""A fallback, and a comparison of two models."""


def build(url: str, *, version: str = "0002") -> None:
    """A journal as version 0002 makes and fills it, and as a later version upgrades it."""
    engine = sa.create_engine(url)
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    with engine.begin() as db:
        config.attributes["connection"] = db
        command.upgrade(config, "0002")
        for run_id, job_id in RUNS:
            insert(db, "runs", id=run_id, job_id=job_id, origin="fake", folder=run_id, started_at=AT, seen_at=AT)
        for number, (run_id, take, state, prediction_id, cost, basis) in enumerate(ATTEMPTS, 1):
            insert(
                db,
                "attempts",
                id=number,
                run_id=run_id,
                origin="fake",
                clip_key=request_of(take=take).key,
                scene_id="a",
                input_digest="0" * 64,
                state=state,
                prediction_id=prediction_id,
                intended_at=AT,
                created_at=AT,
                price=str(PRICE),
                cost=cost,
                cost_basis=basis,
            )
        insert(db, "events", run_id="old1", type="run.started", payload='{"model": "kling"}', at=AT)
        for run_id, name in MODELS_OF_RUNS:
            insert(db, "events", run_id=run_id, type="clip.retrying", payload=f'{{"model": "{name}"}}', at=AT)
        key = request_of(take=5).key
        for origin, name in (("fake", "veo"), ("another", "wan")):
            clip = f'{{"model": "{name}"}}'
            insert(db, "deliveries", origin=origin, clip_key=key, folder="f", clip=clip, delivered_at=AT)
        if engine.dialect.name == "postgresql":
            db.exec_driver_sql("SELECT setval('attempts_id_seq', 8)")
        command.upgrade(config, version)
    engine.dispose()


def insert(db: sa.Connection, table: str, **values: object) -> None:
    recovering = {"recovering": False} if table == "runs" else {}
    names = [*values, *recovering]
    marks = ", ".join(f":{name}" for name in names)
    db.execute(sa.text(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({marks})"), values | recovering)


@pytest.fixture
def upgraded(journal_url: str) -> Iterator[Journal]:
    build(journal_url)
    with closing(Journal(journal_url)) as journal:
        yield journal


def test_a_journal_in_use_is_upgraded_where_it_is(upgraded: Journal, journal_url: str) -> None:
    engine = sa.create_engine(journal_url)
    with engine.begin() as db:
        assert read_version(db) == HEAD
    engine.dispose()
    assert upgraded.quarantined is None
    assert [payload for _, _, payload in upgraded.read_events("old1")] == [{"model": "kling"}]
    number = upgraded.add_event("old1", "clip.progress", {})
    assert [each for each, _, _ in upgraded.read_events("old1")][-1] == number


def test_what_was_spent_before_counts_for_the_cap_of_its_job(upgraded: Journal) -> None:
    """One clip, one failure that may have been billed, one whose cost nobody knows, and one that is running."""
    assert upgraded.get_job_spending("job", "fake") == (PRICE, 3 * PRICE)
    assert upgraded.get_job_spending("another", "fake") == (Decimal(0), PRICE)
    start(upgraded, "new", job_id="job")
    with pytest.raises(BudgetError, match=r"\$1.40 of \$1.50"):
        intend(upgraded, request_of(take=6), "new", max_cost=Decimal("1.50"))
    assert intend(upgraded, request_of(take=6), "new", max_cost=5 * PRICE)


def test_the_version_before_budgets_is_upgraded_with_all_that_was_spent(journal_url: str) -> None:
    """Attempts of the same version, too: what they cost counts for the cap of their job, and for no budget yet."""
    build(journal_url, version="0006")
    engine = sa.create_engine(journal_url)
    with engine.begin() as db:
        row: dict[str, object] = {
            "run_id": "old1",
            "origin": "fake",
            "scene_id": "a",
            "input_digest": "0" * 64,
            "intended_at": AT,
        }
        row |= {"price": str(PRICE), "job_id": "job"}
        if engine.dialect.name == "sqlite":
            row["id"] = 9
        insert(db, "attempts", clip_key=request_of(take=6).key, state="intended", reserved="0.70", token="t6", **row)
    engine.dispose()
    with closing(Journal(journal_url)) as journal:
        assert journal.quarantined is None
        assert journal.get_job_spending("job", "fake") == (PRICE, 3 * PRICE + Decimal("0.70"))
        budget = Budget(name="team", amount=2 * PRICE, period="total")
        journal.set_budget(budget)
        start(journal, "new", job_id="job")
        cap = 6 * PRICE
        with pytest.raises(BudgetError, match=r"\$2.10 of \$2.10"):
            intend(journal, request_of(take=7), "new", max_cost=cap, budgets=("team",))
        old = journal.find_open_attempt("fake", request_of(take=6).key)
        assert old
        journal.take_over_attempt(old, run_id="new", scene_id="a")
        assert journal.get_budget_use(budget, "fake").taken == 0
        assert intend(journal, request_of(take=7), "new", max_cost=cap + PRICE, budgets=("team",))
        assert journal.get_budget_use(budget, "fake").taken == PRICE


def test_the_models_of_attempts_of_before_are_recorded_as_far_as_they_are_certain(upgraded: Journal) -> None:
    """By the clip that was delivered, else by the events of a run that had one model."""
    models = {each.prediction_id: each.model for each in upgraded.find_expenses(["fake"])}
    assert models == {
        **dict.fromkeys(("p1", "p2", "p3", "p4"), "kling"),
        "p5": "veo",
        **dict.fromkeys(("p6", "p7", "p8"), None),
    }


def test_spending_of_before_is_listed(upgraded: Journal) -> None:
    """With its jobs and outcomes, and as the cap counts it."""
    told = {each.prediction_id: (each.job_id, each.outcome) for each in upgraded.find_expenses(["fake"])}
    assert [told[name] for name in ("p1", "p2", "p3", "p4", "p5")] == [
        ("job", "delivered"),
        ("job", "failed"),
        ("job", "undeterminable"),
        ("job", "running"),
        ("another", "running"),
    ]
    of_job = upgraded.find_expenses(["fake"], job_id="job")
    assert sum(each.billed for each in of_job if each.billed) == PRICE
    assert sum(each.reserved for each in of_job) == 3 * PRICE


def test_an_attempt_of_before_goes_on(upgraded: Journal) -> None:
    """It is adopted, counts for the job that began it, and is ended."""
    start(upgraded, "new", job_id="third")
    attempt = upgraded.find_open_attempt("fake", request_of(take=5).key)
    assert attempt
    adopted = upgraded.take_over_attempt(attempt, run_id="new", scene_id="a")
    assert upgraded.get_job_spending("another", "fake") == (Decimal(0), PRICE)
    assert upgraded.get_job_spending("third", "fake") == (Decimal(0), Decimal(0))
    assert upgraded.record_end(adopted, error="timeout", message="too late").state == "ended"


def test_a_run_of_an_older_version_may_still_write_to_it(tmp_path: Path) -> None:
    """One that was going on when another one upgraded the journal: what it inserts counts, too."""
    file = tmp_path / "journal.db"
    build(f"sqlite:///{file}")
    with closing(Journal(f"sqlite:///{file}")) as journal:
        with closing(sqlite3.connect(file, isolation_level=None)) as old:
            columns = "run_id, origin, clip_key, scene_id, input_digest, state, intended_at, price"
            old.execute(
                f"INSERT INTO attempts ({columns}) VALUES ('old1', 'fake', 'k', 'a', '', 'intended', ?, '0.10')", (AT,)
            )
        assert journal.get_job_spending("job", "fake") == (PRICE, 3 * PRICE + Decimal("0.10"))
