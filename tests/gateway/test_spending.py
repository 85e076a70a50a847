"""The spending that a gateway shows: sums as JSON, a table in CSV, and to whom."""

import csv
import io
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from tests.gateway.conftest import Shown, watching
from tests.support.review_rooms import TOKEN, WATCH_TOKEN
from tests.support.spending import record_prediction

TODAY = datetime.now(UTC)


@pytest.fixture(scope="module")
def spending(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    """A gateway on a journal with a prediction of today, one of a month ago, and one of the emulator."""
    with watching(tmp_path_factory.mktemp("spending") / "out") as shown:
        record_prediction(shown.journal, 1, cost=Decimal("0.40"))
        record_prediction(shown.journal, 2, at=TODAY - timedelta(days=30))
        record_prediction(shown.journal, 3, origin="local")
        yield shown


def test_spending_is_summed_up_by_job_and_by_day(spending: Shown) -> None:
    told = spending.get("/api/spend")
    assert (told["origins"], told["by"], told["columns"]) == (["api.replicate.com"], "job", ["job_id"])
    (group,) = told["groups"]
    assert (group["key"], group["billed"], group["predictions"]) == (["film"], "0.75", 2)
    assert group["outcomes"] == {"delivered": 2}
    assert told["total"] == {**group, "key": []}
    assert told["days"] == [
        {"day": f"{TODAY - timedelta(days=30):%Y-%m-%d}", "by_model": {"kling-v2.5-turbo": "0.35"}},
        {"day": f"{TODAY:%Y-%m-%d}", "by_model": {"kling-v2.5-turbo": "0.40"}},
    ]


def test_the_query_has_the_flags_of_the_command(spending: Shown) -> None:
    """Period, job, account and what to sum up by."""
    assert spending.get("/api/spend?since=7d")["total"]["billed"] == "0.40"
    assert spending.get("/api/spend?until=2020-01-01")["groups"] == []
    assert spending.get("/api/spend?job=other")["total"]["predictions"] == 0
    assert spending.get("/api/spend?local=true")["total"]["predictions"] == 3
    assert spending.get("/api/spend?origin=local")["total"]["predictions"] == 1
    assert spending.get("/api/spend?by=run&time_zone=Asia/Tokyo")["columns"] == ["job_id", "run_id"]


@pytest.mark.parametrize("query", ["since=soon", "time_zone=Mars", "by=colour", "since=2026-11-02&until=2026-11-01"])
def test_a_wrong_query_is_refused(spending: Shown, query: str) -> None:
    assert spending.http.get(f"/api/spend?{query}").status_code == 422
    assert spending.http.get(f"/api/spend.csv?{query}").status_code == 422


def test_the_table_is_a_file_in_csv(spending: Shown) -> None:
    """Each prediction, or the groups."""
    answer = spending.http.get("/api/spend.csv")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == 'attachment; filename="spend.csv"'
    assert [row["prediction_id"] for row in csv.DictReader(io.StringIO(answer.text))] == ["p2", "p1"]
    groups = spending.http.get("/api/spend.csv?by=day&since=7d").text
    assert groups == f"day,predictions,delivered,planned,billed,reserved\n{TODAY:%Y-%m-%d},1,1,0.35,0.40,0\n"


def test_who_may_watch_sees_the_spending_and_nobody_else(tmp_path_factory: pytest.TempPathFactory) -> None:
    with watching(tmp_path_factory.mktemp("guarded") / "out", token=TOKEN, watch_token=WATCH_TOKEN) as guarded:
        for address in ("/spend", "/spend.js", "/spend.css", "/api/spend", "/api/spend.csv"):
            assert guarded.http.get(address).status_code == 401
            for token in (TOKEN, WATCH_TOKEN):
                answer = guarded.http.get(address, headers={"Authorization": f"Bearer {token}"})
                assert answer.status_code == 200
                assert "unsafe" not in answer.headers["content-security-policy"]
