"""Replicate over HTTP: one call per method, every outcome as one of our errors.

The official client carries address, token and headers. What it makes of an answer is not used: it loses the headers
and fields of an error, cannot read the status `aborted`, and repeats GETs for as long as a `Retry-After` says. So our
transport sits under it and turns every answer that is not a success into an error before the client sees it.

Source: replicate-python 1.0.7, https://replicate.com/docs/reference/http
"""

import asyncio
import email.utils
import json
import re
import ssl
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, cast

import httpx
from pydantic import ValidationError as PydanticError
from replicate.client import Client

from videogen.crashpoints import reached
from videogen.endpoints import Endpoint
from videogen.errors import (
    AuthenticationError,
    BadOutputError,
    BillingError,
    GoneError,
    InputRejectedError,
    NotSentError,
    OutcomeUnknownError,
    RateLimitedError,
    StorageError,
    TransientError,
    VideogenError,
)
from videogen.ports import TERMINAL, Prediction, Status

DEFAULT_BASE_URL = "https://api.replicate.com"
DEFAULT_RETRY_AFTER_S = 5.0
MAX_RETRY_AFTER_S = 600.0
MAX_PAGES = 10


@dataclass(frozen=True, slots=True)
class Limits:
    """How slow and how large what comes back may be."""

    stalled_s: float = 30.0
    """Without a byte, before a call or a download is given up."""
    call_s: float = 60.0
    """For a whole call, however its bytes trickle in; a download has no such limit."""
    answer_bytes: int = 16 * 1024**2
    download_bytes: int = 2 * 1024**3


DEFAULT_LIMITS = Limits()


class ReplicateProvider:
    """`videogen.ports.VideoProvider` on Replicate, or on a server that speaks as it does.

    Usable in one event loop. `origin` is the account's home as the journal keeps it: by default the host and port.
    """

    def __init__(
        self,
        token: str,
        *,
        base_url: str = DEFAULT_BASE_URL,
        origin: str | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self.origin = origin or httpx.URL(base_url).netloc.decode()
        self._limits = limits
        self._client = Client(
            api_token=token,
            base_url=base_url,
            timeout=httpx.Timeout(limits.stalled_s, connect=10.0),
            transport=_Transport(limits),
            headers={"Accept-Encoding": "identity"},  # an answer is no larger than what was read
        )
        self._downloads = httpx.AsyncClient(
            timeout=httpx.Timeout(limits.stalled_s, connect=10.0),
            transport=httpx.AsyncHTTPTransport(verify=_tls(), limits=httpx.Limits(max_connections=100)),
            follow_redirects=True,
            max_redirects=3,
            headers={"Accept-Encoding": "identity"},
            trust_env=False,
        )

    async def aclose(self) -> None:
        await self._downloads.aclose()
        await self._client._async_client.aclose()

    async def check_account(self) -> None:
        await self._call("GET", "/v1/account")

    async def describe(self, replicate: str, versions: Collection[str] = ()) -> Endpoint:
        """What Replicate says of a model: its latest version and those of `versions` that are there.

        Raises `GoneError` when there is no such model.
        """
        path = f"/v1/models/{replicate}"
        model = await self._call("GET", path)
        latest = model.get("latest_version")
        found = [latest] if isinstance(latest, dict) else []
        for version in versions:
            with suppress(GoneError):
                found.append(await self._call("GET", f"{path}/versions/{version}"))
        try:
            return Endpoint(
                name=replicate,
                is_official=model.get("is_official"),
                latest_version=found[0]["id"] if isinstance(latest, dict) else None,
                openapi_schemas={each["id"]: each["openapi_schema"] for each in found},
            )
        except (KeyError, TypeError, PydanticError):
            raise _lost("GET", path, "the answer describes no model") from None

    async def create(
        self, replicate: str, version: str | None, inputs: Mapping[str, Any], *, cancel_after_s: float
    ) -> Prediction:
        path, body = "/v1/predictions", {"version": version, "input": dict(inputs)}
        if version is None:
            path, body = f"/v1/models/{replicate}/predictions", {"input": dict(inputs)}
        headers = {"Cancel-After": f"{min(max(round(cancel_after_s), 5), 86_400)}s"}
        return await self._predicted("POST", path, json=body, headers=headers)

    async def get(self, prediction_id: str) -> Prediction:
        return await self._predicted("GET", f"/v1/predictions/{prediction_id}")

    async def cancel(self, prediction_id: str) -> Prediction:
        return await self._predicted("POST", f"/v1/predictions/{prediction_id}/cancel")

    async def list_since(self, created_after: datetime) -> AsyncIterator[Prediction]:
        query = {"created_after": created_after.astimezone(UTC).isoformat().replace("+00:00", "Z")}
        path = f"/v1/predictions?{httpx.QueryParams(query)}"
        for _ in range(MAX_PAGES):
            page = await self._call("GET", path)
            for result in _results(page):
                yield _prediction(result)
            if not page.get("next"):
                return
            path = httpx.URL(str(page["next"])).raw_path.decode()  # whatever host it names, the token goes to ours

    async def upload(self, data: bytes, *, name: str, media_type: str) -> str:
        answer = await self._call("POST", "/v1/files", files={"content": (name, data, media_type)})
        try:
            return str(answer["urls"]["get"])
        except (KeyError, TypeError):
            raise TransientError("the answer to an upload names no URL") from None

    async def download(self, url: str, part: Path) -> None:
        try:
            had_bytes = part.stat().st_size if part.exists() else 0
            headers = {"Range": f"bytes={had_bytes}-"} if had_bytes else {}
            async with self._downloads.stream("GET", url, headers=headers) as answer:
                if answer.status_code == 416:
                    part.unlink()
                    raise TransientError("what is already here does not fit what is there: from the start again")
                _raise_for_download(answer, self._limits)
                await _write(answer, part, self._limits, keep=answer.status_code == 206)
        except (httpx.ConnectError, httpx.ConnectTimeout) as exc:
            raise NotSentError(f"cannot connect: {_reason(exc)}") from exc
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as exc:
            raise BadOutputError(f"the output is at no address: {exc}") from exc
        except httpx.HTTPError as exc:
            raise TransientError(f"the download broke off: {_reason(exc)}") from exc
        except OSError as exc:
            with suppress(OSError):
                part.unlink()
            raise StorageError(f"cannot write {part.name}: {exc.strerror or exc}") from exc

    async def _predicted(self, method: str, path: str, **content: Any) -> Prediction:
        data = await self._call(method, path, **content)
        if not data.get("id"):
            raise _lost(method, path, "the answer names no prediction")
        return _prediction(data)

    async def _call(self, method: str, path: str, **content: Any) -> dict[str, Any]:
        try:
            async with asyncio.timeout(self._limits.call_s):
                answer = await self._client._async_request(method, path, **content)
        except TimeoutError as exc:
            raise _lost(method, path, f"no whole answer within {self._limits.call_s:g} s") from exc
        try:
            data = answer.json()
        except ValueError as exc:
            raise _lost(method, path, "the answer is not JSON") from exc
        if not isinstance(data, dict):
            raise _lost(method, path, "the answer is not a JSON object")
        return data


class _Transport(httpx.AsyncBaseTransport):
    """Turns what is not a success into one of our errors, with what the answer's headers and body say."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._wire = httpx.AsyncHTTPTransport(verify=_tls(), limits=httpx.Limits(max_connections=200))

    async def aclose(self) -> None:
        await self._wire.aclose()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        try:
            response = await self._wire.handle_async_request(request)
            body = await _read_capped(response, self._limits.answer_bytes)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol) as exc:
            raise NotSentError(f"cannot connect to {request.url.host}: {_reason(exc)}") from exc
        except httpx.HTTPError as exc:
            raise _lost(request.method, path, _reason(exc)) from exc
        if not response.is_success:
            raise _refusal(request.method, path, response, body)
        if response.headers.get("content-encoding", "identity") != "identity":
            raise _lost(request.method, path, "the answer is compressed, which was not asked for")
        return httpx.Response(response.status_code, headers=response.headers, content=body, request=request)


@cache
def _tls() -> ssl.SSLContext:
    """One for all connections: reading the certificates takes 20 ms."""
    return httpx.create_ssl_context()


async def _read_capped(response: httpx.Response, most_bytes: int) -> bytes:
    chunks, size = [], 0
    try:
        async for chunk in response.aiter_raw():
            size += len(chunk)
            if size > most_bytes:
                raise httpx.ReadError(f"the answer is larger than {most_bytes:,} bytes")
            chunks.append(chunk)
    finally:
        await response.aclose()
    return b"".join(chunks)


def _is_create(method: str, path: str) -> bool:
    return method == "POST" and path.endswith("/predictions")


def _lost(method: str, path: str, reason: str) -> VideogenError:
    """An answer that did not arrive or cannot be read: a create may have been accepted all the same."""
    message = f"{method} {path}: {reason}"
    return OutcomeUnknownError(message) if _is_create(method, path) else TransientError(message)


def _refusal(method: str, path: str, response: httpx.Response, body: bytes) -> VideogenError:
    """The error that an answer above 299 stands for."""
    status, problem = response.status_code, _problem(body)
    detail = str(problem.get("detail") or problem.get("title") or response.reason_phrase).strip()
    if status in (401, 403):
        return AuthenticationError(f"Replicate refused the token ({status}): {detail}")
    if status == 402:
        return BillingError(f"the account has no credit (402): {detail}")
    if status == 429:
        return RateLimitedError(detail, retry_after_s=_retry_after_s(response.headers, problem, detail))
    if status >= 500 or status == 408:
        return _lost(method, path, f"answered {status}")
    if _is_create(method, path):
        return InputRejectedError(f"refused ({status}): {_fields(problem) or detail}")
    if status == 404:
        return GoneError(f"{method} {path}: not found")
    return InputRejectedError(f"{method} {path}: refused ({status}): {detail}")


def _problem(body: bytes) -> dict[str, Any]:
    try:
        data = json.loads(body)
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}


def _fields(problem: Mapping[str, Any]) -> str:
    """What the answer says of each refused input field."""
    fields = problem.get("invalid_fields")
    if not isinstance(fields, list):
        return ""
    return "; ".join(f"{f.get('field') or 'body'}: {f.get('description')}" for f in fields if isinstance(f, dict))


def _retry_after_s(headers: httpx.Headers, problem: Mapping[str, Any], detail: str) -> float:
    """Seconds to wait: the longest of what the header (seconds or a date), the body's field and its text ask for."""
    asked = [_header_s(headers.get("retry-after", "")), _number(problem.get("retry_after"))]
    if found := re.search(r"resets in ~?(\d+(?:\.\d+)?)\s*s", detail):
        asked.append(float(found.group(1)))
    return min(max(asked) or DEFAULT_RETRY_AFTER_S, MAX_RETRY_AFTER_S)


def _header_s(value: str) -> float:
    if seconds := _number(value):
        return seconds
    try:
        return max(0.0, (email.utils.parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return 0.0


def _number(value: Any) -> float:
    try:
        return max(0.0, float(value))
    except (ValueError, TypeError):
        return 0.0


def _raise_for_download(answer: httpx.Response, limits: Limits) -> None:
    if answer.status_code in (401, 403, 404, 410):
        raise GoneError(f"the output's address answers {answer.status_code}")
    if not answer.is_success:
        raise TransientError(f"the output's address answers {answer.status_code}")
    if _number(answer.headers.get("content-length")) > limits.download_bytes:
        raise BadOutputError(f"the output is larger than {limits.download_bytes:,} bytes")


async def _write(answer: httpx.Response, part: Path, limits: Limits, *, keep: bool) -> None:
    with part.open("ab" if keep else "wb") as file:
        async for chunk in answer.aiter_raw():  # as they come: what was received before a cut is kept
            file.write(chunk)
            reached("mid-download")
            if file.tell() > limits.download_bytes:
                part.unlink()  # else a next try would go on from here
                raise BadOutputError(f"the output is larger than {limits.download_bytes:,} bytes")


def _results(page: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The predictions of one page of the list."""
    results = page.get("results")
    return [item for item in results if isinstance(item, dict) and item.get("id")] if isinstance(results, list) else []


def _prediction(data: Mapping[str, Any]) -> Prediction:
    """A prediction from its JSON, whatever its model made of it: fields may be missing, null or of another type."""
    status = data.get("status")
    known = status in ("starting", "processing", *TERMINAL)
    metrics = data.get("metrics") if isinstance(data.get("metrics"), dict) else {}
    predict_time = _number(metrics.get("predict_time")) if metrics else 0.0
    inputs = data.get("input")
    return Prediction(
        id=str(data.get("id") or ""),
        status=cast(Status, status) if known else "processing",
        output_url=_output_url(data.get("output")),
        error=None if data.get("error") is None else str(data["error"]).strip(),
        model=str(data.get("model") or ""),
        version=data.get("version") if isinstance(data.get("version"), str) else None,
        input=inputs if isinstance(inputs, dict) else {},
        created_at=_time(data.get("created_at")),
        completed_at=_time(data.get("completed_at")),
        predict_time_s=predict_time or None,
        started=bool(data.get("started_at")) or status in ("processing", "succeeded", "failed"),
        data_removed=bool(data.get("data_removed")),
        raw=data,
    )


def _output_url(output: Any) -> str | None:
    """Video models answer one URI; older ones a list of them, some an object with it under some name."""
    if isinstance(output, str):
        return output or None
    if isinstance(output, dict):
        output = list(output.values())
    if isinstance(output, list):
        return next((item for item in output if isinstance(item, str) and "://" in item), None)
    return None


def _time(value: Any) -> datetime | None:
    """An RFC 3339 time, in UTC if it has no zone; Replicate gives nanoseconds, of which microseconds are kept."""
    if not isinstance(value, str):
        return None
    try:
        time = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", value.replace("Z", "+00:00")))
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _reason(exc: Exception) -> str:
    return str(exc) or type(exc).__name__
