"""The list of predictions: newest first, 100 a page, by a cursor that new creates do not shift."""

import base64
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal, NamedTuple
from urllib.parse import urlencode

from starlette.datastructures import QueryParams

from videogen.emulator.predictions import Prediction
from videogen.emulator.problems import ApiError

PAGE = 100
Side = Literal["older", "newer"]


class Page(NamedTuple):
    """One page and the queries of its neighbours, None where there is none."""

    predictions: Sequence[Prediction]
    next: str | None
    previous: str | None


def page(newest_first: Sequence[Prediction], query: QueryParams) -> Page:
    """The page that the query asks for.

    Raises:
        ApiError: a cursor or a date that is none.
    """
    matching = _within(newest_first, query)
    begin = _begin(matching, query.get("cursor"))
    shown = matching[begin : begin + PAGE]
    following = _query(query, "older", shown[-1].id) if begin + PAGE < len(matching) else None
    preceding = _query(query, "newer", shown[0].id) if begin > 0 and shown else None
    return Page(shown, following, preceding)


def _within(predictions: Sequence[Prediction], query: QueryParams) -> list[Prediction]:
    """Created at or after `created_after` and before `created_before`, at the milliseconds the API shows."""
    after_ms, before_ms = (_milliseconds(query, name) for name in ("created_after", "created_before"))
    return [
        prediction
        for prediction in predictions
        if (after_ms is None or prediction.created_ns // 1_000_000 >= after_ms)
        and (before_ms is None or prediction.created_ns // 1_000_000 < before_ms)
    ]


def _milliseconds(query: QueryParams, name: str) -> float | None:
    text = query.get(name)
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ApiError(422, f"{name} must be an ISO 8601 date-time", title="Invalid query") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000


def _begin(matching: Sequence[Prediction], cursor: str | None) -> int:
    """Index of the first prediction to show."""
    if not cursor:
        return 0
    side, prediction_id = _read(cursor)
    at = next((index for index, found in enumerate(matching) if found.id == prediction_id), None)
    if at is None:
        raise _invalid_cursor()
    return at + 1 if side == "older" else max(0, at - PAGE)


def _query(query: QueryParams, side: Side, prediction_id: str) -> str:
    cursor = base64.urlsafe_b64encode(json.dumps([side, prediction_id]).encode()).decode()
    kept = {name: value for name, value in query.items() if name != "cursor"}
    return urlencode({**kept, "cursor": cursor})


def _read(cursor: str) -> tuple[Side, str]:
    try:
        side, prediction_id = json.loads(base64.urlsafe_b64decode(cursor))
    except (ValueError, TypeError):
        raise _invalid_cursor() from None
    if side not in ("older", "newer") or not isinstance(prediction_id, str):
        raise _invalid_cursor()
    return side, prediction_id


def _invalid_cursor() -> ApiError:
    return ApiError(404, "Invalid cursor")
