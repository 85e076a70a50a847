"""Describe pydantic's validation errors in words that suit the author of a TOML or JSON file."""

import re
from collections.abc import Container, Iterable, Iterator, Mapping
from difflib import get_close_matches
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError
    from pydantic_core import ErrorDetails

Loc = tuple[str | int, ...]
Schema = dict[str, Any]

_NUMBER = "input should be a number"
_WHOLE = "input should be a whole number"
_TABLE = "input should be a table"
_WORDS = {
    "missing": "is required",
    "union_tag_not_found": "is required",
    "model_type": _TABLE,
    "dict_type": _TABLE,
    "tuple_type": "input should be an array",
    "string_type": "input should be a string",
    "bool_type": "input should be true or false",
    "bool_parsing": "input should be true or false",
    "int_type": _WHOLE,
    "int_parsing": _WHOLE,
    "int_from_float": _WHOLE,
    "float_type": _NUMBER,
    "float_parsing": _NUMBER,
    "decimal_type": _NUMBER,
    "decimal_parsing": _NUMBER,
    "date_type": "input should be a date such as 2026-11-01",
    "date_parsing": "input should be a date such as 2026-11-01",
    "date_from_datetime_parsing": "input should be a date such as 2026-11-01",
}
_SHOWN_CHARS = 60
_SUGGESTIONS = 200
"""Maximum number of errors for which similar names are suggested: comparing names takes time, and more unknown fields
than this are not a typing mistake."""


def make_nested_value_error(problems: Mapping[Loc, str]) -> "ValidationError":
    """Return the error that a validator raises when the wrong values are nested in the value it validates."""
    from pydantic import ValidationError
    from pydantic_core import InitErrorDetails, PydanticCustomError

    return ValidationError.from_exception_data(
        "",
        [
            InitErrorDetails(type=PydanticCustomError("value_error", "{text}", {"text": text}), loc=loc, input=None)
            for loc, text in problems.items()
        ],
    )


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` if one of the known words is similar, else an empty text."""
    by_lower = {each.lower(): each for each in known}
    close = get_close_matches(word.lower(), by_lower, n=1)
    return f"; did you mean {by_lower[close[0]]!r}?" if close else ""


def describe_errors(
    error: "ValidationError", type_: "type[BaseModel]", data: Any, names: Mapping[str, str]
) -> list[tuple[Loc, str]]:
    """Return the location of each problem in `data`, and a message with the error and the allowed values.

    Args:
        error: pydantic's error from validating the data.
        type_: the type that the data was validated against.
        data: the data as read from the file.
        names: the name in the file of each field that has another name in the type.
    """
    found: dict[Loc, list[str]] = {}
    listed: set[Loc] = set()
    schema = _make_schema(type_)
    entries = error.errors(include_url=False)
    for entry in entries:
        if entry["type"] == "too_short" and any(_is_below(other["loc"], entry["loc"]) for other in entries):
            continue  # pydantic counts only the valid entries
        loc = _find_location(entry, data)
        text = _describe_error(entry)
        if entry["type"] == "extra_forbidden" and len(entries) <= _SUGGESTIONS:
            fields = [names.get(name, name) for name in _find_fields(schema, entry["loc"][:-1])]
            suggestion = did_you_mean(str(loc[-1]), fields)
            if not suggestion and loc[:-1] not in listed:
                suggestion = f"; there are: {', '.join(dict.fromkeys(fields))}"
            text += suggestion
            listed.add(loc[:-1])  # list the known fields once for each table
        found.setdefault(loc, []).append(text)
    return [(loc, _join_alternatives(texts)) for loc, texts in found.items()]


@cache
def _make_schema(type_: "type[BaseModel]") -> Schema:
    return type_.model_json_schema()


def _is_below(loc: Loc, parent: Loc) -> bool:
    return len(loc) > len(parent) and loc[: len(parent)] == parent


def _find_location(entry: "ErrorDetails", data: Any) -> Loc:
    """Return the location of the wrong value in the data.

    It is pydantic's location without the parts that the data does not have, such as the names of types.
    """
    blamed: Loc = ()
    for part in entry["loc"]:
        if part in _get_keys(data):
            blamed, data = (*blamed, part), data[part]
    if entry["type"] == "missing":
        return (*blamed, entry["loc"][-1])
    if entry["type"] in ("union_tag_invalid", "union_tag_not_found"):
        return (*blamed, entry["ctx"]["discriminator"].strip("'"))
    return blamed


def _get_keys(data: Any) -> Container[str | int]:
    if isinstance(data, list | tuple):
        return range(len(data))
    return data if isinstance(data, dict) else ()


def _describe_error(entry: "ErrorDetails") -> str:
    kind, context, value = entry["type"], entry.get("ctx", {}), entry["input"]
    if kind == "extra_forbidden":
        return "unknown field"
    if kind == "value_error":
        return entry["msg"].removeprefix("Value error, ")
    if kind == "union_tag_invalid":
        return _describe_choice(context["expected_tags"], context["tag"])
    if kind == "literal_error":
        return _describe_choice(context["expected"], value)
    if kind == "too_short" and value == "":
        return "is empty"
    if kind in ("too_short", "too_long"):
        return f"should have {_describe_bound(context)}, not {context['actual_length']}"
    text = _WORDS.get(kind) or entry["msg"][:1].lower() + entry["msg"][1:]
    return text + _got_suffix(value)


def _got_suffix(value: object) -> str:
    """Return `, not <value>`, shortened to fit on the line, or an empty text for tables and arrays."""
    if not isinstance(value, str | int | float | bool):
        return ""
    shown = repr(value)
    return f", not {shown if len(shown) <= _SHOWN_CHARS else shown[: _SHOWN_CHARS - 3] + '...'}"


def _describe_choice(expected: str, value: object) -> str:
    """Return a message from pydantic's list of allowed values, such as `'exact' or 'estimated'`."""
    allowed = re.findall(r"'([^']*)'", expected)
    meant = did_you_mean(value, allowed) if isinstance(value, str) else ""
    return f"input should be {' or '.join(map(repr, allowed))}{_got_suffix(value)}{meant}"


def _describe_bound(context: Mapping[str, Any]) -> str:
    word, count = ("at most", context["max_length"]) if "max_length" in context else ("at least", context["min_length"])
    return f"{word} {count} {'entry' if count == 1 else 'entries'}"


def _join_alternatives(texts: list[str]) -> str:
    """Join the messages of the alternatives of a union type to one sentence."""
    if len(texts) == 1:
        return texts[0]
    start = "input should be "
    shown = texts[0].partition(", not ")[2]
    wanted = dict.fromkeys(text.partition(", not ")[0].removeprefix(start) for text in texts)
    if "a number" in wanted:
        wanted.pop("a whole number", None)
    return start + " or ".join(wanted) + (f", not {shown}" if shown else "")


# -- looking up a location in the type's schema ------------------------------------------------------------------------


def _find_fields(schema: Schema, loc: Loc) -> list[str]:
    """Return the names of the fields of the table at `loc`, a location as pydantic gives it."""
    return [name for node in _find_nodes(schema, loc) for name in node.get("properties", ())]


def _find_nodes(schema: Schema, loc: Loc) -> list[Schema]:
    nodes = list(_iterate_members(schema, schema))
    for part in loc:
        below = [
            member
            for node in nodes
            for child in _iterate_children(node, part)
            for member in _iterate_members(child, schema)
        ]
        nodes = below or nodes  # the name of a union member is not a step in the schema
    return nodes


def _iterate_members(node: Schema, root: Schema) -> Iterator[Schema]:
    """Yield the schemas that a value at this node may match."""
    if reference := node.get("$ref"):
        node = root["$defs"][reference.rsplit("/", 1)[-1]] | node
    yield node
    if "discriminator" not in node:
        for member in (*node.get("anyOf", ()), *node.get("allOf", ())):
            yield from _iterate_members(member, root)


def _iterate_children(node: Schema, part: str | int) -> Iterator[Schema]:
    if isinstance(part, int):
        yield from (child for child in (node.get("items"),) if isinstance(child, dict))
        return
    if part in node.get("properties", {}):
        yield node["properties"][part]
    elif part in node.get("discriminator", {}).get("mapping", {}):
        yield {"$ref": node["discriminator"]["mapping"][part]}
    elif isinstance(more := node.get("additionalProperties"), dict):
        yield more
