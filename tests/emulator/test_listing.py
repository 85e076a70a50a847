"""The list of predictions."""

import functools
import operator
import time
from typing import Any

SEEDANCE = "bytedance/seedance-1-pro"


def test_pages_hold_a_hundred_newest_first(launch: Any) -> None:
    """Following `next` shows each prediction once, `previous` leads back, and new creates shift nothing."""
    client = launch(queue_s=(999, 999))
    ids = [client.create(SEEDANCE, {"prompt": str(index)})["id"] for index in range(230)]
    first = client.http.get("/v1/predictions").json()
    assert first["previous"] is None
    client.create(SEEDANCE, {"prompt": "newer"})
    second = client.http.get(first["next"]).json()
    third = client.http.get(second["next"]).json()
    assert third["next"] is None
    pages = [[row["id"] for row in page["results"]] for page in (first, second, third)]
    assert [len(page) for page in pages] == [100, 100, 30]
    assert functools.reduce(operator.iadd, pages, []) == ids[::-1]
    back = client.http.get(third["previous"]).json()
    assert [row["id"] for row in back["results"]] == pages[1]
    assert client.ledger()["lists"] == 4


def test_the_list_can_be_cut_by_time(launch: Any) -> None:
    """`created_after` includes its moment, `created_before` does not."""
    client = launch(queue_s=(999, 999))
    made = []
    for index in range(3):
        made.append(client.create(SEEDANCE, {"prompt": str(index)}))
        time.sleep(0.01)
    moment = made[1]["created_at"]

    def list_ids(**query: str) -> list[str]:
        return [row["input"]["prompt"] for row in client.http.get("/v1/predictions", params=query).json()["results"]]

    assert list_ids(created_after=moment) == ["2", "1"]
    assert list_ids(created_before=moment) == ["0"]
    assert list_ids(created_after=moment, created_before=made[2]["created_at"]) == ["1"]
    assert list_ids(created_after=moment.replace("Z", "+00:00")) == ["2", "1"]
    assert client.http.get("/v1/predictions", params={"created_after": "yesterday"}).status_code == 422


def test_a_listed_prediction_is_whole(launch: Any) -> None:
    """A row has the fields that intents are matched by (model, input as sent, created_at), and no logs."""
    client = launch()
    done = client.run(SEEDANCE, {"prompt": "x", "unknown": 1, "resolution": "480p", "duration": 2})
    (row,) = client.http.get("/v1/predictions").json()["results"]
    assert "logs" not in row
    assert row == {name: value for name, value in done.items() if name != "logs"}
    assert row["input"]["unknown"] == 1


def test_a_broken_cursor_is_refused(client: Any) -> None:
    """404, no traceback."""
    for cursor in ("nonsense", "WzFd", "WyJvbGRlciIsICJ4Il0="):
        answer = client.http.get("/v1/predictions", params={"cursor": cursor})
        assert (answer.status_code, answer.json()["detail"]) == (404, "Invalid cursor")
