"""Pagination of predictions: newest first, 100 per page, with a cursor that new creates do not shift."""

import base64
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal, NamedTuple
from urllib.parse import urlencode

from starlette.datastructures import QueryParams

from videogen.emulator.api_errors import ApiError
from videogen.emulator.predictions import EmulatedPrediction

PAGE_SIZE = 100
Side = Literal["older", "newer"]


class PredictionPage(NamedTuple):
    """A page and the query strings of the next and previous pages, None where there is no such page."""

    predictions: Sequence[EmulatedPrediction]
    next: str | None
    previous: str | None


def paginate(newest_first: Sequence[EmulatedPrediction], query: QueryParams) -> PredictionPage:
    """Return the page that the query asks for.

    Raises:
        ApiError: 404 for an invalid cursor, 422 for an invalid date.
    """
    matching = _filter_by_date(newest_first, query)
    begin = _find_first_index(matching, query.get("cursor"))
    shown = matching[begin : begin + PAGE_SIZE]
    following = _make_query(query, "older", shown[-1].id) if begin + PAGE_SIZE < len(matching) else None
    preceding = _make_query(query, "newer", shown[0].id) if begin > 0 and shown else None
    return PredictionPage(shown, following, preceding)


def _filter_by_date(predictions: Sequence[EmulatedPrediction], query: QueryParams) -> list[EmulatedPrediction]:
    """Return predictions created at or after `created_after` and before `created_before`.

    Times are compared in milliseconds, the resolution that the API shows.
    """
    after_ms, before_ms = (_read_milliseconds(query, name) for name in ("created_after", "created_before"))
    return [
        prediction
        for prediction in predictions
        if (after_ms is None or prediction.created_ns // 1_000_000 >= after_ms)
        and (before_ms is None or prediction.created_ns // 1_000_000 < before_ms)
    ]


def _read_milliseconds(query: QueryParams, name: str) -> float | None:
    text = query.get(name)
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ApiError(422, f"{name} must be an ISO 8601 date-time", title="Invalid query") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000


def _find_first_index(matching: Sequence[EmulatedPrediction], cursor: str | None) -> int:
    """Return the index of the first prediction of the page."""
    if not cursor:
        return 0
    side, prediction_id = _decode_cursor(cursor)
    at = next((index for index, found in enumerate(matching) if found.id == prediction_id), None)
    if at is None:
        raise _make_invalid_cursor_error()
    return at + 1 if side == "older" else max(0, at - PAGE_SIZE)


def _make_query(query: QueryParams, side: Side, prediction_id: str) -> str:
    cursor = base64.urlsafe_b64encode(json.dumps([side, prediction_id]).encode()).decode()
    kept = {name: value for name, value in query.items() if name != "cursor"}
    return urlencode({**kept, "cursor": cursor})


def _decode_cursor(cursor: str) -> tuple[Side, str]:
    try:
        side, prediction_id = json.loads(base64.urlsafe_b64decode(cursor))
    except (ValueError, TypeError):
        raise _make_invalid_cursor_error() from None
    if side not in ("older", "newer") or not isinstance(prediction_id, str):
        raise _make_invalid_cursor_error()
    return side, prediction_id


def _make_invalid_cursor_error() -> ApiError:
    return ApiError(404, "Invalid cursor")
