"""How cassettes are made and played: from whom, what is left out, and where the video of a download is kept."""

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from vcr.serializers import yamlserializer

from videogen.emulator import EmulatorSettings, run_emulator
from videogen.providers.replicate import DEFAULT_BASE_URL

CASSETTES = Path(__file__).parents[2] / "cassettes"
CLIP_BYTES = 64 * 1024
"""So much of a recorded clip is kept: cassettes prove the wire, not the picture."""

EMULATED = EmulatorSettings(time_scale=0.01, output_ttl_s=400, creates_per_minute=6, burst=1)
"""An account with little credit, a hundred times as fast; outputs are there for 4 s."""

_OF_REQUESTS = {"authorization", "cancel-after", "content-type", "prefer", "range"}
_OF_RESPONSES = {
    "accept-ranges",
    "content-length",
    "content-range",
    "content-type",
    "date",
    "ratelimit-remaining",
    "ratelimit-reset",
    "retry-after",
    "server",
}
_SECRETS = re.compile(r"\b(?:r8|whsec)_[\w+/=-]+")


@dataclass(frozen=True, slots=True)
class Wire:
    """Who answers the requests of a test, and with what token and how often they are asked."""

    base_url: str
    token: str
    poll_every_s: float = 0
    output_kept_s: float = 0

    def vcr_config(self) -> dict[str, Any]:
        """For `VCR.use_cassette`. Headers are matched as far as they are kept, so also that no token goes astray."""
        return {
            "match_on": ("method", "scheme", "host", "port", "path", "query", "headers", "body"),
            "filter_query_parameters": ["created_after"],
            "before_record_request": self._request,
            "before_record_response": self._response,
            "before_save_interaction": [_put_clip_aside, _keep_own_predictions],
            "after_load_interaction": _put_clip_back,
        }

    def _request(self, request: Any) -> Any:
        """As it is recorded, and as a later one is compared with it."""
        request.uri = self._text(request.uri)
        request.headers = {
            name.lower(): value for name, value in request.headers.items() if name.lower() in _OF_REQUESTS
        }
        if "authorization" in request.headers:
            request.headers["authorization"] = "[token]"
        request.body = self._body(request.body)
        return request

    def _response(self, response: Any) -> Any:
        """Only the headers that are listed above: what a server may add one day (cookies, addresses) stays out."""
        headers = {name.lower(): values for name, values in response["headers"].items()}
        response["headers"] = {name: headers[name] for name in sorted(headers.keys() & _OF_RESPONSES)}
        body = response["body"]["string"]
        response["body"]["string"] = body = body[:CLIP_BYTES] if _is_clip(response) else self._body(body)
        if "content-length" in headers:
            response["headers"]["content-length"] = [str(len(body))]
        return response

    def _body(self, body: Any) -> Any:
        return self._text(body.decode()).encode() if isinstance(body, bytes) else body

    def _text(self, text: str) -> str:
        """Without secrets, and with Replicate's addresses in place of the emulator's."""
        if self.base_url != DEFAULT_BASE_URL:
            text = text.replace(f"{self.base_url}/files/", "https://replicate.delivery/xezq/")
            text = text.replace(f"{self.base_url}/p/", "https://replicate.com/p/")
            text = text.replace(f"{self.base_url}/stream/", "https://stream.replicate.com/v1/files/")
            text = text.replace(self.base_url, DEFAULT_BASE_URL)
        if len(self.token) > len("local"):
            text = text.replace(self.token, "[token]")
        return _SECRETS.sub("[secret]", text)


@contextmanager
def wired(*, recording: bool) -> Iterator[Wire]:
    """The wire of one test: a cassette, or while recording Replicate where there is a token, else an emulator."""
    token = os.environ.get("REPLICATE_API_TOKEN", "").strip()
    if not recording:
        yield Wire(DEFAULT_BASE_URL, "r8_not_a_real_one")
    elif token:
        yield Wire(DEFAULT_BASE_URL, token, poll_every_s=5)
    else:
        with run_emulator(EMULATED) as emulator:
            kept_s = EMULATED.output_ttl_s * EMULATED.time_scale
            yield Wire(emulator.url, "local", poll_every_s=0.5, output_kept_s=kept_s)


class ReadableYaml:
    """vcrpy's YAML, with characters in place of their codes."""

    deserialize = staticmethod(yamlserializer.deserialize)

    @staticmethod
    def serialize(cassette: dict[str, Any]) -> str:
        text: str = yaml.safe_dump(cassette, allow_unicode=True, width=120)
        return text


def unplayed(cassette: Any) -> list[str]:
    """The recorded requests that were not made."""
    requests = enumerate(cassette.requests)
    return [f"{request.method} {request.uri}" for index, request in requests if cassette.play_counts[index] != 1]


def _is_clip(response: Any) -> bool:
    return any(value.startswith("video/") for value in response["headers"].get("content-type", []))


def _put_clip_aside(request: Any, response: Any, cassette: Any) -> tuple[Any, Any]:
    """Video goes into a file of its own beside the cassette."""
    if _is_clip(response):
        path = Path(cassette.path)
        file = path.parent / "media" / f"{path.stem}.mp4"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(response["body"]["string"])
        response["body"] = {"file": f"media/{file.name}"}
    return request, response


def _keep_own_predictions(request: Any, response: Any, cassette: Any) -> tuple[Any, Any]:
    """Of a page of the account's list only the predictions that this cassette is about: others are nobody's business.

    These are the ones that a recorded call created, looked at by its id, or canceled.
    """
    if is_list(request):
        page = _read_json(response)
        if isinstance(page, dict) and isinstance(page.get("results"), list):
            own = find_own_ids(cassette)
            page["results"] = [row for row in page["results"] if isinstance(row, dict) and row.get("id") in own]
            body = json.dumps(page, ensure_ascii=False, separators=(",", ":")).encode()
            headers = {**response["headers"]}
            if "content-length" in headers:
                headers["content-length"] = [str(len(body))]
            response = {**response, "headers": headers, "body": {"string": body}}
    return request, response


def find_own_ids(cassette: Any) -> set[str]:
    """Return the ids of the predictions that a cassette's calls are about, its lists aside."""
    recorded = zip(cassette.requests, cassette.responses, strict=True)
    bodies = [_read_json(response) for request, response in recorded if not is_list(request)]
    return {str(body["id"]) for body in bodies if isinstance(body, dict) and {"id", "status"} <= body.keys()}


def is_list(request: Any) -> bool:
    """Return whether a request asks for a page of the account's predictions."""
    path: str = urlsplit(request.uri).path
    return bool(request.method == "GET") and path.endswith("/predictions")


def _read_json(response: Any) -> Any:
    """Return what an answer says, None where that is no JSON."""
    try:
        return json.loads(response["body"].get("string") or b"")
    except ValueError:
        return None


def _put_clip_back(request: Any, response: Any, cassette: Any) -> tuple[Any, Any]:
    if "file" in response["body"]:
        response["body"] = {"string": (Path(cassette.path).parent / response["body"]["file"]).read_bytes()}
    return request, response
