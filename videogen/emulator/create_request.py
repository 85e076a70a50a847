"""Parsing of create requests: validates body and headers as the API does."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import Headers

from videogen.emulator.api_errors import (
    ApiError,
    InvalidField,
    make_invalid_input_error,
    make_not_found_error,
    make_unknown_version_error,
)
from videogen.emulator.catalogue import Catalogue
from videogen.emulator.models import EmulatedModel
from videogen.emulator.timing import parse_cancel_after

_OPTIONAL = {"input", "webhook", "webhook_events_filter", "stream"}
_WAIT = re.compile(r"wait(?:=([0-9]{1,4}))?")
_DEFAULT_WAIT_S = MAX_WAIT_S = 60


@dataclass(frozen=True, slots=True)
class CreateRequest:
    """A valid create request."""

    model: EmulatedModel
    input: Mapping[str, Any]
    cancel_after_s: int | None
    wait_s: int | None
    """Seconds to hold the answer until the prediction has ended. None means an immediate answer."""


def parse_official_request(catalogue: Catalogue, owner: str, name: str, raw: bytes, headers: Headers) -> CreateRequest:
    """Parse a create by model name, which works for official models only.

    Raises:
        ApiError: 400, 404 or 422, the request is invalid or the model is unknown.
    """
    model = catalogue.find_model(f"{owner}/{name}")
    if not model.official:
        raise make_not_found_error()
    body = _parse_body(raw, required=("input",))
    return _check_request(model, body, headers)


def parse_version_request(catalogue: Catalogue, raw: bytes, headers: Headers) -> CreateRequest:
    """Parse a create by version: 64 hex digits, `owner/name:` and 64 hex digits, or an official model's `owner/name`.

    An official model's published version is accepted like a community model's.

    Raises:
        ApiError: 400 or 422, the request is invalid or the version is unknown.
    """
    body = _parse_body(raw, required=("version", "input"))
    return _check_request(_find_runnable_model(catalogue, body["version"]), body, headers)


def _find_runnable_model(catalogue: Catalogue, version: Any) -> EmulatedModel:
    if not isinstance(version, str):
        raise make_invalid_input_error(
            [_make_invalid_field("invalid_type", "version", "Invalid type. Expected: string, given: other")]
        )
    name, _, digits = version.rpartition(":")
    model = catalogue.find_model_by_version(digits)
    if model is not None and name in ("", model.full_name):
        return model
    official = catalogue.find_official_model(version)
    if official is None:
        raise make_unknown_version_error()
    return official


def _parse_body(raw: bytes, *, required: tuple[str, ...]) -> dict[str, Any]:
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        raise ApiError(400, "The request body is not valid JSON.", title="Bad request") from None
    if not isinstance(body, dict):
        raise make_invalid_input_error(
            [_make_invalid_field("invalid_type", "", "Invalid type. Expected: object, given: other")]
        )
    fields = [_make_invalid_field("required", "", f"{name} is required") for name in required if name not in body]
    unknown = sorted(body.keys() - _OPTIONAL - set(required))
    fields += [
        _make_invalid_field("additional_property_not_allowed", "", f"Additional property {name} is not allowed")
        for name in unknown
    ]
    if "input" in body and not isinstance(body["input"], dict):
        fields.append(_make_invalid_field("invalid_type", "input", "Invalid type. Expected: object, given: other"))
    if fields:
        raise make_invalid_input_error(fields)
    return body


def _check_request(model: EmulatedModel, body: Mapping[str, Any], headers: Headers) -> CreateRequest:
    if fields := model.find_invalid_fields(body["input"]):
        raise make_invalid_input_error(fields)
    return CreateRequest(model, body["input"], _read_cancel_after_s(headers), _read_wait_s(headers))


def _read_cancel_after_s(headers: Headers) -> int | None:
    text = headers.get("cancel-after")
    if text is None:
        return None
    seconds = parse_cancel_after(text)
    if seconds is None:
        description = "Cancel-After must be a duration between 5s and 24h, such as 90s, 5m or 1h30m"
        raise make_invalid_input_error([_make_invalid_field("format", "Cancel-After", description)])
    return seconds


def _read_wait_s(headers: Headers) -> int | None:
    found = _WAIT.fullmatch(headers.get("prefer", "").strip())
    if found is None or found[1] == "0":
        return None
    return min(MAX_WAIT_S, int(found[1])) if found[1] else _DEFAULT_WAIT_S


def _make_invalid_field(kind: str, field: str, description: str) -> InvalidField:
    return {"type": kind, "field": field, "description": description}
