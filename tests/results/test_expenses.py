"""Expenses are summed up by day, job and whatever else, and told as CSV."""

import csv
import io
from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from videogen.errors import InvalidError
from videogen.results.expenses import (
    COLUMNS,
    EXPENSE_COLUMNS,
    Expense,
    Grouping,
    SpendPeriod,
    choose_origins,
    group_expenses,
    make_expenses_csv,
    sum_expenses,
)

LATE = datetime(2026, 11, 1, 23, 30, tzinfo=UTC)
ZONE = ZoneInfo("UTC")
NOW = datetime(2026, 11, 30, 23, 30, tzinfo=UTC)


def expense_of(prediction_id: str | None = "p1", **changes: Any) -> Expense:
    """Return a delivered prediction of $0.35 that was billed $0.40, but for what is given."""
    usual: dict[str, Any] = {
        "at": LATE,
        "origin": "api.example.com",
        "job_id": "film",
        "run_id": "run1",
        "scene_id": "a",
        "model": "kling",
        "outcome": "delivered",
        "error_code": None,
        "planned": Decimal("0.35"),
        "billed": Decimal("0.40"),
        "cost_basis": "known",
        "reserved": Decimal(0),
        "token": None,
    }
    return Expense(prediction_id=prediction_id, **usual | changes)


LOST = expense_of(None, outcome="unrecorded", scene_id=None, model=None, planned=None, billed=Decimal("2"))
RUNNING = expense_of("p2", outcome="running", billed=None, cost_basis=None, reserved=Decimal("0.50"), scene_id="b")
OTHER = expense_of("p3", at=datetime(2026, 11, 2, tzinfo=UTC), job_id="spot", run_id="run2", billed=Decimal("0.10"))


def sums_of(expenses: Sequence[Expense], by: Grouping) -> list[tuple[tuple[str, ...], str]]:
    return [(group.key, str(group.billed)) for group in group_expenses(expenses, by, ZONE)]


def test_the_sums_are_of_the_groups_and_together_of_all() -> None:
    total = sum_expenses([expense_of(), LOST, RUNNING, OTHER])
    assert (total.planned, total.billed, total.reserved) == (Decimal("1.05"), Decimal("2.50"), Decimal("0.50"))
    assert (total.predictions, dict(total.outcomes)) == (3, {"delivered": 2, "running": 1, "unrecorded": 1})
    for by in COLUMNS:
        groups = group_expenses([expense_of(), LOST, RUNNING, OTHER], by, ZONE)
        assert sum(group.billed for group in groups) == total.billed


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ("day", [(("2026-11-01",), "2.40"), (("2026-11-02",), "0.10")]),
        ("job", [(("film",), "2.40"), (("spot",), "0.10")]),
        ("model", [(("unknown",), "2"), (("kling",), "0.50")]),
        ("scene", [(("film", "unknown"), "2"), (("film", "a"), "0.40"), (("spot", "a"), "0.10"), (("film", "b"), "0")]),
        ("run", [(("film", "run1"), "2.40"), (("spot", "run2"), "0.10")]),
        ("outcome", [(("unrecorded",), "2"), (("delivered",), "0.50"), (("running",), "0")]),
        ("origin", [(("api.example.com",), "2.50")]),
    ],
)
def test_expenses_are_grouped(by: Grouping, expected: object) -> None:
    """Days in their order, all else with the most expensive first."""
    assert sums_of([OTHER, expense_of(), LOST, RUNNING], by) == expected


def test_a_day_is_that_of_the_time_zone() -> None:
    (group,) = group_expenses([expense_of()], "day", ZoneInfo("Europe/Berlin"))
    assert group.key == ("2026-11-02",)


def test_the_table_of_predictions_has_a_line_for_each() -> None:
    table = make_expenses_csv([expense_of(), RUNNING], None, ZONE)
    assert table.splitlines()[0] == ",".join(EXPENSE_COLUMNS)
    first, second = csv.DictReader(io.StringIO(table))
    assert (first["prediction_id"], first["at"], first["billed"]) == ("p1", "2026-11-01T23:30:00.000Z", "0.40")
    assert (second["billed"], second["reserved"], second["error_code"]) == ("", "0.50", "")


def test_the_table_of_groups_has_their_columns() -> None:
    table = make_expenses_csv([expense_of(), RUNNING], "scene", ZONE)
    assert table.splitlines() == [
        "job_id,scene_id,predictions,delivered,planned,billed,reserved",
        "film,a,1,1,0.35,0.40,0",
        "film,b,1,0,0.35,0,0.50",
    ]


@pytest.mark.parametrize(
    ("since", "until", "zone", "first", "last"),
    [
        (None, None, None, None, None),
        ("2026-11-01", "2026-11-30", None, date(2026, 11, 1), date(2026, 11, 30)),
        ("1d", "1d", None, date(2026, 11, 30), date(2026, 11, 30)),
        ("7d", None, None, date(2026, 11, 24), None),
        ("1d", None, "Asia/Tokyo", date(2026, 12, 1), None),
    ],
)
def test_a_period_is_read(
    since: str | None, until: str | None, zone: str | None, first: date | None, last: date | None
) -> None:
    """Both days are in it; a number of days ends with today, by the time zone."""
    period = SpendPeriod.parse(since, until, zone, now=NOW)
    assert (period.first_day, period.last_day) == (first, last)


def test_the_last_day_is_as_long_as_its_clock_says() -> None:
    """On the day of the change to winter time, it has 25 hours."""
    period = SpendPeriod.parse("2026-10-25", "2026-10-25", "Europe/Berlin", now=NOW)
    assert period.since
    assert period.until
    assert (period.until.astimezone(UTC) - period.since.astimezone(UTC)).total_seconds() == 25 * 3600


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (("yesterday", None, None), "--since: 'yesterday' is no day"),
        ((None, "2026-02-30", None), "--until: '2026-02-30' is no day"),
        (("9999-12-31", None, None), "--since: '9999-12-31' is no day"),
        (("2026-11-02", "2026-11-01", None), "--since: 2026-11-02 is after --until 2026-11-01"),
        ((None, None, "Mars/Base"), "--time-zone: 'Mars/Base' is no time zone"),
        ((None, None, "../etc/passwd"), "--time-zone: '../etc/passwd' is no time zone"),
    ],
)
def test_a_wrong_period_is_refused(given: tuple[str | None, str | None, str | None], says: str) -> None:
    with pytest.raises(InvalidError, match=says.replace(".", r"\.")):
        SpendPeriod.parse(*given, now=NOW)


def test_the_accounts_that_cost_money_are_shown() -> None:
    """The free one only if it is asked for, or if there is no other."""
    assert choose_origins(["a", "local", "b"], free="local", with_free=False) == ["a", "b"]
    assert choose_origins(["a", "local"], free="local", with_free=True) == ["a", "local"]
    assert choose_origins(["local"], free="local", with_free=False) == ["local"]
    assert choose_origins([], free="local", with_free=True) == []
