"""Replicate over HTTP: one call per method, and every outcome as one of our errors.

The official client provides address, token and headers. Its reading of answers is not used: it loses the headers and
fields of an error, cannot read the status `aborted`, and repeats GETs for as long as a `Retry-After` says. Therefore
our transport sits under it and raises an error for every unsuccessful answer before the client sees it.

There are gateways, proxies and portals between the provider and us. An answer whose body is in the provider's own
format is final. A status code alone may come from a gateway, and is retried.

Source: replicate-python 1.0.7, https://replicate.com/docs/reference/http
"""

import asyncio
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
from pydantic import ValidationError as PydanticError
from replicate.client import Client

from videogen.addresses import Resolver, resolve_host
from videogen.errors import (
    AuthenticationError,
    BillingError,
    GoneError,
    InputRejectedError,
    ModerationError,
    NotSentError,
    OutcomeUnknownError,
    RateLimitedError,
    TransientError,
    VideogenError,
)
from videogen.providers.base import Capabilities, Prediction
from videogen.providers.downloads import Downloads, get_tls_context
from videogen.providers.moderation import classify_failure
from videogen.providers.provider_clock import ProviderClock, read_date
from videogen.providers.proxies import describe_proxy, find_proxy, make_transport
from videogen.providers.replicate_predictions import ALIAS, name_id, read_id, read_prediction
from videogen.providers.sanitize import make_text_safe, read_json, read_number
from videogen.registry.endpoint_schema import Endpoint, ListedModel
from videogen.text import mask_credentials

DEFAULT_BASE_URL = "https://api.replicate.com"
TOKENS_PAGE = "https://replicate.com/account/api-tokens"
DEFAULT_RETRY_AFTER_S = 5.0
MAX_RETRY_AFTER_S = 600.0
MAX_PAGES = 100
MOST_ID = 1_000
"""Greatest length of a path with an id, in characters."""
OUTPUTS_KEPT = timedelta(hours=1)
"""Source: https://replicate.com/docs/topics/predictions/data-retention"""
SHORTEST_DEADLINE_S = 5.0
"""Source: https://replicate.com/docs/topics/predictions/lifecycle"""

_CLOCKS = defaultdict[bytes, ProviderClock](ProviderClock)
"""By host, for all providers of this process: a run's first create needs the time, and another provider may have
checked the account before."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits on the duration and the size of answers."""

    stalled_s: float = 30.0
    """Time without a byte after which a call or a download is given up."""
    call_s: float = 60.0
    """Time for a whole call, even if its bytes keep coming. Downloads have no such limit."""
    answer_bytes: int = 64 * 1024**2
    """Size of one answer, which may contain an output as a `data:` URL."""
    download_bytes: int = 2 * 1024**3


DEFAULT_LIMITS = Limits()


class ReplicateProvider:
    """`videogen.providers.base.VideoProvider` on Replicate, or on a server with the same API.

    Usable in one event loop. `origin` identifies the account in the journal, by default by host and port.
    `outputs_kept` is as in `Capabilities`. It is zero for a server that forgets everything when it ends.
    """

    def __init__(
        self,
        token: str,
        *,
        base_url: str = DEFAULT_BASE_URL,
        origin: str | None = None,
        limits: Limits = DEFAULT_LIMITS,
        outputs_kept: timedelta = OUTPUTS_KEPT,
        clock: ProviderClock | None = None,
        resolve: Resolver = resolve_host,
    ) -> None:
        home = httpx.URL(base_url)
        self.capabilities = Capabilities(
            outputs_kept, bills_failed=False, bills_canceled=True, shortest_deadline_s=SHORTEST_DEADLINE_S
        )
        self.origin = origin or home.netloc.decode()
        self._limits, self._token = limits, token
        self._clock = clock or _CLOCKS[home.netloc]
        self._their_ids: dict[str, str] = {}
        """The provider's ids of the predictions that have another name here."""
        self._client = Client(
            api_token=token,
            base_url=base_url,
            timeout=httpx.Timeout(limits.stalled_s, connect=10.0),
            transport=_Transport(limits, self._clock, find_proxy(home), token),
            headers={"Accept-Encoding": "identity"},  # an answer is no larger than what was read
        )
        self._downloads = Downloads(home, stalled_s=limits.stalled_s, most_bytes=limits.download_bytes, resolve=resolve)

    async def aclose(self) -> None:
        await self._downloads.aclose()
        await self._client._async_client.aclose()

    def now(self) -> datetime:
        return self._clock.now()

    async def check_account(self) -> None:
        await self._call("GET", "/v1/account")

    async def describe(self, replicate: str, versions: Collection[str] = ()) -> Endpoint:
        """Return a model's latest version and those of `versions` that exist.

        Raises:
            GoneError: the model does not exist.
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
            raise _make_lost_error("GET", path, "the answer describes no model") from None

    async def list_collection(self, slug: str) -> list[ListedModel]:
        """Return the models in one of Replicate's collections, such as `text-to-video`.

        Raises:
            GoneError: the collection does not exist.
        """
        path = f"/v1/collections/{slug}"
        models = (await self._call("GET", path)).get("models")
        if not isinstance(models, list):
            raise _make_lost_error("GET", path, "the answer lists no models")
        listed = (_read_listed_model(each) for each in models if isinstance(each, dict))
        return [each for each in listed if each]

    async def create(
        self, replicate: str, version: str | None, inputs: Mapping[str, Any], *, cancel_after_s: float
    ) -> Prediction:
        path, body = "/v1/predictions", {"version": version, "input": dict(inputs)}
        if version is None:
            path, body = f"/v1/models/{replicate}/predictions", {"input": dict(inputs)}
        headers = {"Cancel-After": f"{min(max(round(cancel_after_s), 5), 86_400)}s"}
        return self._read("POST", path, await self._call("POST", path, json=body, headers=headers))

    async def get(self, prediction_id: str) -> Prediction:
        return await self._ask_about(prediction_id, "GET")

    async def cancel(self, prediction_id: str) -> Prediction:
        return await self._ask_about(prediction_id, "POST", "/cancel")

    async def list_since(self, created_after: datetime) -> AsyncIterator[Prediction]:
        query = str(
            httpx.QueryParams({"created_after": created_after.astimezone(UTC).isoformat().replace("+00:00", "Z")})
        )
        for _ in range(MAX_PAGES):
            path = f"/v1/predictions?{query}"
            page = await self._call("GET", path)
            for result in _find_results(page):
                yield self._read("GET", path, result)
            if not (next_page := page.get("next")):
                return
            query = _find_query(next_page)  # whatever host it names, the token goes to ours
            if not query:
                raise _make_lost_error("GET", path, "the address of the next page is none")
        raise _make_lost_error("GET", "/v1/predictions", f"the list has more than {MAX_PAGES} pages")

    async def upload(self, data: bytes, *, name: str, media_type: str) -> str:
        answer = await self._call("POST", "/v1/files", files={"content": (name, data, media_type)})
        urls = answer.get("urls")
        url = urls.get("get") if isinstance(urls, dict) else None
        if not isinstance(url, str) or not re.fullmatch(r"https?://[!-~]{1,2000}", url):
            raise TransientError("the answer to an upload names no URL")
        return url

    async def download(self, url: str, part: Path) -> None:
        await self._downloads.fetch(url, part)

    async def _ask_about(self, prediction_id: str, method: str, action: str = "") -> Prediction:
        """Return the prediction. An answer about another prediction is a gateway's mistake."""
        their_id = await self._find_their_id(prediction_id)
        path = f"/v1/predictions/{quote(their_id.encode('utf-8', 'surrogatepass'), safe='')}{action}"
        if len(path) > MOST_ID:
            raise GoneError(f"prediction {prediction_id} cannot be asked for: its id has {len(their_id):,} characters")
        prediction = self._read(method, path, await self._call(method, path))
        if prediction.id != prediction_id:
            raise _make_lost_error(method, path, f"the answer is about another prediction, {prediction.id}")
        return prediction

    async def _find_their_id(self, prediction_id: str) -> str:
        """Return the provider's own id. If only its digest is known, from an earlier run, search the list."""
        if not prediction_id.startswith(ALIAS):
            return prediction_id
        if prediction_id not in self._their_ids:
            async for _ in self.list_since(self.now() - self.capabilities.outputs_kept):
                pass
        if prediction_id not in self._their_ids:
            raise GoneError(f"prediction {prediction_id} is not in the account's list (any more)")
        return self._their_ids[prediction_id]

    def _read(self, method: str, path: str, data: Mapping[str, Any]) -> Prediction:
        their_id = read_id(data)
        if their_id is None:
            raise _make_lost_error(method, path, "the answer names no prediction")
        if (name := name_id(their_id)) != their_id:
            self._their_ids[name] = their_id
        return read_prediction(their_id, data, token=self._token)

    async def _call(self, method: str, path: str, **content: Any) -> dict[str, Any]:
        try:
            async with asyncio.timeout(self._limits.call_s):
                answer = await self._client._async_request(method, path, **content)
        except TimeoutError as exc:
            raise _make_lost_error(method, path, f"no whole answer within {self._limits.call_s:g} s") from exc
        try:
            data = read_json(answer.content)
        except ValueError:
            raise _make_lost_error(method, path, "the answer is not JSON") from None
        if not isinstance(data, dict):
            raise _make_lost_error(method, path, "the answer is not a JSON object")
        self._clock.observe(answer.headers)
        return data


_NOT_CONNECTED = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,  # it refused to make the connection
    httpx.UnsupportedProtocol,
)


class _Transport(httpx.AsyncBaseTransport):
    """Raises one of our errors for every unsuccessful answer, with details from its headers and body."""

    def __init__(self, limits: Limits, clock: ProviderClock, proxy: httpx.URL | None, token: str) -> None:
        self._limits, self._clock, self._token = limits, clock, token
        self._by_way_of = f" by way of the proxy {describe_proxy(proxy)}" if proxy else ""
        self._wire = make_transport(proxy, verify=get_tls_context(), limits=httpx.Limits(max_connections=200))

    async def aclose(self) -> None:
        await self._wire.aclose()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        try:
            response = await self._wire.handle_async_request(request)
            body = await _read_capped(response, self._limits.answer_bytes)
        except _NOT_CONNECTED as exc:
            reason = f"cannot connect to {request.url.host}{self._by_way_of}: {_describe(exc)}"
            raise NotSentError(f"{reason}. {self._advise_on_network(exc)}") from exc
        except httpx.HTTPError as exc:
            raise _make_lost_error(request.method, path, _describe(exc)) from exc
        if not response.is_success:
            problem = _read_object(body)
            if _is_from_provider(problem):
                self._clock.observe(response.headers)
            raise _make_error(request.method, path, response, problem, self._clock, self._token)
        if response.headers.get("content-encoding", "identity") != "identity":
            raise _make_lost_error(request.method, path, "the answer is compressed, which was not asked for")
        return httpx.Response(response.status_code, headers=response.headers, content=body, request=request)

    def _advise_on_network(self, exc: Exception) -> str:
        if "CERTIFICATE_VERIFY_FAILED" in str(exc):
            return "If your network has a certificate authority of its own, name its file in SSL_CERT_FILE"
        if self._by_way_of:
            return "Check the network and the proxy, which HTTPS_PROXY or ALL_PROXY names"
        return "Check the network and REPLICATE_BASE_URL; if the network needs a proxy, name it in HTTPS_PROXY"


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


def _has_id(path: str) -> bool:
    """Return whether a 404 can be about the object that the path names: a prediction, a model or a version."""
    return bool(re.fullmatch(r"/v1/(?:predictions|models)/.+", path)) and not path.endswith("/predictions")


def _make_lost_error(method: str, path: str, reason: str) -> VideogenError:
    """Return the error for an answer that did not arrive or cannot be read. A create may have been accepted all the
    same."""
    message = f"{method} {make_text_safe(path, most=200)}: {reason}"
    return OutcomeUnknownError(message) if _is_create(method, path) else TransientError(message)


def _make_error(
    method: str, path: str, response: httpx.Response, problem: Mapping[str, Any], clock: ProviderClock, token: str
) -> VideogenError:
    """Return the error for an answer with a status above 299. `problem` is its body, if that is a JSON object. The
    message has no secrets, also not `token`."""
    status, is_told, is_create = response.status_code, _is_from_provider(problem), _is_create(method, path)
    told = _find_detail(problem) or make_text_safe(response.reason_phrase, most=100)
    detail = mask_credentials(told, token=token)
    if status == 429:  # whoever says it: what is limited is not handed on
        return RateLimitedError(detail, retry_after_s=_retry_after_s(response.headers, problem, told, clock))
    if status >= 500 or status == 408:
        return _make_lost_error(method, path, f"answered {status}")
    if status in (401, 403) and (is_told or (status == 401 and not is_create)):
        reason = f"Replicate refused the token ({status}): {detail.rstrip('.')}"
        return AuthenticationError(
            f"{reason}. Check REPLICATE_API_TOKEN, or the block of VIDEOGEN_TOKEN_BLOCK: your tokens are at "
            f"{TOKENS_PAGE}"
        )
    if status == 402 and is_told:
        return BillingError(f"the account has no credit (402): {detail}")
    if is_create or path == "/v1/files":
        if not is_told or status < 400:
            return _make_lost_error(method, path, f"answered {status}, but not in words of the provider's")
        reason = f"refused ({status}): {mask_credentials(_describe_fields(problem), token=token) or detail}"
        return ModerationError(reason) if classify_failure(told) == "moderation" else InputRejectedError(reason)
    if status in (404, 410) and _has_id(path):
        return GoneError(f"{method} {path}: not found ({status})")
    return _make_lost_error(method, path, f"answered {status}: {detail}")


def _read_object(body: bytes) -> dict[str, Any]:
    try:
        data = read_json(body)
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}


def _is_from_provider(problem: Mapping[str, Any]) -> bool:
    """Return whether a refusal is in the provider's own format, and not a page or an object of a gateway."""
    return bool(_find_detail(problem)) or isinstance(problem.get("invalid_fields"), list)


def _find_detail(problem: Mapping[str, Any]) -> str:
    texts = (problem.get("detail"), problem.get("title"))
    return next((make_text_safe(text.strip()) for text in texts if isinstance(text, str) and text.strip()), "")


def _describe_fields(problem: Mapping[str, Any]) -> str:
    """Return the answer's messages about refused input fields."""
    fields = problem.get("invalid_fields")
    if not isinstance(fields, list):
        return ""
    told = (f"{f.get('field') or 'body'}: {f.get('description')}" for f in fields[:20] if isinstance(f, dict))
    return make_text_safe("; ".join(make_text_safe(each, most=500) for each in told))


def _retry_after_s(headers: httpx.Headers, problem: Mapping[str, Any], detail: str, clock: ProviderClock) -> float:
    """Return the seconds to wait: the longest that the header (seconds or a date), the body's field or its text ask
    for."""
    asked = [_read_header_s(headers, clock), _read_seconds(problem.get("retry_after"))]
    if found := re.search(r"resets in ~?(\d+(?:\.\d+)?)\s*s", detail):
        asked.append(float(found.group(1)))
    return min(max(asked) or DEFAULT_RETRY_AFTER_S, MAX_RETRY_AFTER_S)


def _read_header_s(headers: httpx.Headers, clock: ProviderClock) -> float:
    """Return the seconds to wait by the header. A date is compared with the date of the same answer, because our
    clock may be wrong."""
    value = headers.get("retry-after", "")
    if seconds := _read_seconds(value):
        return seconds
    until, said_at = read_date(value), read_date(headers.get("date", "")) or clock.now()
    return max(0.0, (until - said_at).total_seconds()) if until else 0.0


def _read_seconds(value: Any) -> float:
    return read_number(value, most=float("inf")) or 0.0


def _find_query(address: Any) -> str:
    try:
        return httpx.URL(address).query.decode()
    except (httpx.InvalidURL, TypeError, UnicodeError):
        return ""


def _read_listed_model(model: Mapping[str, Any]) -> ListedModel | None:
    """Return a model of a collection, or None if it has no name that could be one."""
    name = f"{model.get('owner')}/{model.get('name')}"
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,99}/[a-z0-9][a-z0-9._-]{0,99}", name, re.ASCII):
        return None
    description = make_text_safe(str(model.get("description") or ""), most=200)
    return ListedModel(name, description, model.get("is_official") is True)


def _find_results(page: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the predictions of one page of the list."""
    results = page.get("results")
    return [item for item in results if isinstance(item, dict) and read_id(item)] if isinstance(results, list) else []


def _describe(exc: Exception) -> str:
    return make_text_safe(str(exc) or type(exc).__name__, most=200)
