"""The errors of the API, whose bodies are `application/problem+json` with a trailing newline."""

import json
from collections.abc import Mapping, Sequence
from typing import TypedDict

from starlette.requests import Request
from starlette.responses import Response


class InvalidField(TypedDict):
    """An entry of `invalid_fields`."""

    type: str
    field: str
    description: str


class ApiError(Exception):
    """An HTTP error that is answered as problem+json."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        title: str | None = None,
        headers: Mapping[str, str] | None = None,
        retry_after: int | None = None,
        invalid_fields: Sequence[InvalidField] | None = None,
    ) -> None:
        self.status = status
        self.headers = headers
        members = {
            "title": title,
            "detail": detail,
            "status": status,
            "retry_after": retry_after,
            "invalid_fields": invalid_fields,
        }
        self.body = {name: value for name, value in members.items() if value is not None}
        super().__init__(detail)

    def make_response(self) -> Response:
        """Return the HTTP response for this error."""
        content = json.dumps(self.body, ensure_ascii=False) + "\n"
        return Response(content, self.status, self.headers, "application/problem+json")


async def handle_api_error(_request: Request, exc: Exception) -> Response:
    """Return the response for an `ApiError`; this is an exception handler."""
    assert isinstance(exc, ApiError)
    return exc.make_response()


def make_unauthenticated_error() -> ApiError:
    """Return a 401: the token is missing or wrong."""
    return ApiError(401, "You did not pass a valid authentication token", title="Unauthenticated")


def make_not_found_error(hint: str = "") -> ApiError:
    """Return a 404 for a resource that does not exist or was removed; `hint` follows the live API's text."""
    return ApiError(404, " ".join(filter(None, ("The requested resource could not be found.", hint))))


def make_unknown_version_error() -> ApiError:
    """Return a 422: the version does not exist or this account may not run it."""
    detail = (
        "The specified version does not exist (or perhaps you don't have permission to use it?) "
        "GET /v1/models lists the versions that the emulator has."
    )
    return ApiError(422, detail, title="Invalid version or not permitted")


def make_invalid_input_error(fields: Sequence[InvalidField]) -> ApiError:
    """Return a 422 with one line for each field of the body or the input that violates its schema."""
    lines = (f"- {entry['field'] or '(root)'}: {entry['description']}\n" for entry in fields)
    return ApiError(422, "".join(lines), title="Input validation failed", invalid_fields=fields)


def make_throttled_error(per_minute: int, burst: int, wait_s: int) -> ApiError:
    """Return the 429 of accounts with little credit; `wait_s` is the time to wait in seconds."""
    detail = (
        f"Request was throttled. Your rate limit for creating predictions is reduced to {per_minute} requests "
        f"per minute with a burst of {burst} requests while you have less than $5.0 in credit. "
        f"Your rate limit resets in ~{wait_s}s."
    )
    headers = {"Retry-After": str(wait_s), "ratelimit-remaining": "0", "ratelimit-reset": str(wait_s)}
    return ApiError(429, detail, headers=headers, retry_after=wait_s)
