"""The input schemas of models as the API publishes them, and the validation of inputs against them.

The texts of problems are those of the JSON schema library behind the API.
Source: https://github.com/xeipuuv/gojsonschema/blob/master/locales.go
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from videogen.emulator.api_errors import InvalidField

Inputs = Mapping[str, Any]
Property = dict[str, Any]

_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "array": list,
    "object": dict,
}


def text(description: str, **more: Any) -> Property:
    """Return the schema of a string input."""
    return {"type": "string", "description": description, **more}


def image(description: str, **more: Any) -> Property:
    """Return the schema of an input that takes the URL of an image."""
    return {"type": "string", "format": "uri", "description": description, **more}


def images(description: str, *, most: int) -> Property:
    """Return the schema of an input that takes a list of at most `most` image URLs."""
    items = {"type": "string", "format": "uri"}
    return {"type": "array", "items": items, "default": [], "maxItems": most, "description": description}


def choice(values: Sequence[str | int], default: str | int, description: str) -> Property:
    """Return the schema of an input that takes one of `values`."""
    kind = "integer" if isinstance(default, int) else "string"
    return {"type": kind, "enum": list(values), "default": default, "description": description}


def integer(description: str, **more: Any) -> Property:
    """Return the schema of an integer input; `minimum` and `maximum` are inclusive."""
    return {"type": "integer", "description": description, **more}


def number(description: str, **more: Any) -> Property:
    """Return the schema of a number input; `minimum` and `maximum` are inclusive."""
    return {"type": "number", "description": description, **more}


def boolean(default: bool, description: str) -> Property:
    """Return the schema of a boolean input."""
    return {"type": "boolean", "default": default, "description": description}


def seed(**more: Any) -> Property:
    """Return the schema of the seed that most models take."""
    return integer("Random seed. Omit for random generations", nullable=True, **more)


def make_openapi_schema(properties: Mapping[str, Property], required: Sequence[str]) -> dict[str, Any]:
    """Return the OpenAPI document of a version like cog's: with `x-order`, titles, and enums as separate schemas."""
    schemas: dict[str, Any] = {}
    inputs: dict[str, Any] = {}
    for order, (name, plain) in enumerate(properties.items()):
        title = name.replace("_", " ").title()
        if "enum" in plain:
            schemas[name] = {
                "enum": plain["enum"],
                "type": plain["type"],
                "title": name,
                "description": "An enumeration.",
            }
            rest = {key: value for key, value in plain.items() if key not in ("enum", "type")}
            inputs[name] = {"allOf": [{"$ref": f"#/components/schemas/{name}"}], **rest, "x-order": order}
        else:
            inputs[name] = {**plain, "title": title, "x-order": order}
    schemas["Input"] = {"type": "object", "title": "Input", "required": list(required), "properties": inputs}
    schemas["Output"] = {"type": "string", "title": "Output", "format": "uri"}
    return {
        "openapi": "3.0.2",
        "info": {"title": "Cog", "version": "0.1.0"},
        "paths": {},
        "components": {"schemas": schemas},
    }


def find_invalid_fields(
    given: Inputs, properties: Mapping[str, Property], required: Sequence[str]
) -> list[InvalidField]:
    """Return all problems of an input. Unknown keys are valid because the API drops them."""
    fields = [_make_invalid_field("required", "input", f"{name} is required") for name in required if name not in given]
    for name, value in given.items():
        if name in properties:
            fields += _check_value(value, properties[name], name)
    return fields


def fill_defaults(given: Inputs, properties: Mapping[str, Property]) -> dict[str, Any]:
    """Return the effective input: without unknown keys and null values, with defaults filled in."""
    known = {name: value for name, value in given.items() if name in properties and value is not None}
    defaults = {name: plain["default"] for name, plain in properties.items() if "default" in plain}
    return {**defaults, **known}


def _check_value(value: Any, plain: Property, name: str) -> list[InvalidField]:
    if value is None and plain.get("nullable"):
        return []
    kind = plain.get("type")
    if not _is_of_type(value, kind):
        description = f"Invalid type. Expected: {kind}, given: {_name_type(value)}"
        return [_make_invalid_field("invalid_type", f"input.{name}", description)]
    if kind == "string" and plain.get("format") == "uri":
        return _check_uri(value, f"input.{name}")
    return _check_array(value, plain, name) if kind == "array" else _check_limits(value, plain, name)


def _check_limits(value: Any, plain: Property, name: str) -> list[InvalidField]:
    field, leaf = f"input.{name}", name.rsplit(".", 1)[-1]
    if "enum" in plain and value not in plain["enum"]:
        allowed = ", ".join(json.dumps(entry) for entry in plain["enum"])
        return [_make_invalid_field("enum", field, f"{leaf} must be one of the following: {allowed}")]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return []
    if "minimum" in plain and value < plain["minimum"]:
        return [_make_invalid_field("number_gte", field, f"Must be greater than or equal to {plain['minimum']}")]
    if "maximum" in plain and value > plain["maximum"]:
        return [_make_invalid_field("number_lte", field, f"Must be less than or equal to {plain['maximum']}")]
    return []


def _check_array(value: list[Any], plain: Property, name: str) -> list[InvalidField]:
    if len(value) > plain.get("maxItems", len(value)):
        return [
            _make_invalid_field(
                "array_max_items", f"input.{name}", f"Array must have at most {plain['maxItems']} items"
            )
        ]
    return [
        found
        for index, item in enumerate(value)
        for found in _check_value(item, plain.get("items", {}), f"{name}.{index}")
    ]


def _check_uri(value: str, field: str) -> list[InvalidField]:
    try:
        parts = urlsplit(value)
    except ValueError:
        parts = urlsplit("")
    if not parts.scheme or not (parts.netloc or parts.path):
        return [_make_invalid_field("format", field, "Does not match format 'uri'")]
    return []


def _is_of_type(value: Any, kind: str | None) -> bool:
    """Return whether a value is of a type; a schema without a type, or with one unknown here, takes every value."""
    if kind is None or kind not in _TYPES:
        return True
    if isinstance(value, bool):
        return kind == "boolean"
    if kind == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES[kind])


def _name_type(value: Any) -> str:
    if value is None:
        return "null"
    return next(
        kind for kind in ("boolean", "integer", "number", "string", "array", "object") if _is_of_type(value, kind)
    )


def _make_invalid_field(kind: str, field: str, description: str) -> InvalidField:
    return {"type": kind, "field": field, "description": description}
