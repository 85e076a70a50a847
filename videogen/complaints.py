"""What pydantic has against data, in the words of who wrote the file."""

import re
from collections.abc import Container, Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError
    from pydantic_core import ErrorDetails

Loc = tuple[str | int, ...]
Schema = dict[str, Any]

_NUMBER, _WHOLE, _TABLE = "input should be a number", "input should be a whole number", "input should be a table"
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
"""More unknown fields than this are no mistake of a person's, and comparing names takes time."""


def make_nested_value_error(problems: Mapping[Loc, str]) -> "ValidationError":
    """What a validator raises where the value that is wrong is one further down."""
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
    """`; did you mean 'x'?`, where one of the known words is close; else nothing."""
    by_lower = {each.lower(): each for each in known}
    close = get_close_matches(word.lower(), by_lower, n=1)
    return f"; did you mean {by_lower[close[0]]!r}?" if close else ""


def describe_errors(
    error: "ValidationError", type_: "type[BaseModel]", data: Any, names: Mapping[str, str]
) -> list[tuple[Loc, str]]:
    """Where in `data` each problem is, and what is wrong there and what is allowed.

    Args:
        type_: what the data should be.
        names: what the file calls a field that the type knows by another name.
    """
    found: dict[Loc, list[str]] = {}
    listed: set[Loc] = set()
    schema = type_.model_json_schema()
    entries = error.errors(include_url=False)
    for entry in entries:
        if entry["type"] == "too_short" and any(_is_below(other["loc"], entry["loc"]) for other in entries):
            continue  # pydantic counts only what is right
        loc, text = _find_location(entry, data), _describe_error(entry)
        if entry["type"] == "extra_forbidden" and len(entries) <= _SUGGESTIONS:
            fields = [names.get(name, name) for name in _find_fields(schema, entry["loc"][:-1])]
            text += did_you_mean(str(loc[-1]), fields) or ("" if loc[:-1] in listed else f"; {_list_fields(fields)}")
            listed.add(loc[:-1])  # what there is is said once for a table
        found.setdefault(loc, []).append(text)
    return [(loc, _join_alternatives(texts)) for loc, texts in found.items()]


def _is_below(loc: Loc, parent: Loc) -> bool:
    return len(loc) > len(parent) and loc[: len(parent)] == parent


def _find_location(entry: "ErrorDetails", data: Any) -> Loc:
    """Where the value stands: the error's own place without what pydantic puts between, such as names of types."""
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
    if kind in ("too_short", "too_long"):
        return f"should have {_describe_bound(context)}, not {context['actual_length']}"
    text = _WORDS.get(kind) or entry["msg"][:1].lower() + entry["msg"][1:]
    return text + _got_suffix(value)


def _got_suffix(value: object) -> str:
    """`, not …` of a value that fits on the line."""
    if not isinstance(value, str | int | float | bool):
        return ""
    shown = repr(value)
    return f", not {shown if len(shown) <= _SHOWN_CHARS else shown[: _SHOWN_CHARS - 3] + '...'}"


def _describe_choice(expected: str, value: object) -> str:
    """Of pydantic's list of what is allowed, such as `'exact' or 'estimated'`."""
    allowed = re.findall(r"'([^']*)'", expected)
    meant = did_you_mean(value, allowed) if isinstance(value, str) else ""
    return f"input should be {' or '.join(map(repr, allowed))}{_got_suffix(value)}{meant}"


def _describe_bound(context: Mapping[str, Any]) -> str:
    word, count = ("at most", context["max_length"]) if "max_length" in context else ("at least", context["min_length"])
    return f"{word} {count} {'entry' if count == 1 else 'entries'}"


def _list_fields(fields: Iterable[str]) -> str:
    return f"there are: {', '.join(dict.fromkeys(fields))}"


def _join_alternatives(texts: list[str]) -> str:
    """What each alternative of a type expects, as one sentence."""
    if len(texts) == 1:
        return texts[0]
    start = "input should be "
    shown = texts[0].partition(", not ")[2]
    wanted = dict.fromkeys(text.partition(", not ")[0].removeprefix(start) for text in texts)
    if "a number" in wanted:
        wanted.pop("a whole number", None)
    return start + " or ".join(wanted) + (f", not {shown}" if shown else "")


# -- what the type's schema says of a place ---------------------------------------------------------------------------


def _find_fields(schema: Schema, loc: Loc) -> list[str]:
    """Names of the fields of the table at `loc`, which pydantic gives with the names of union members in it."""
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
        nodes = below or nodes  # the name of a union's member leads nowhere
    return nodes


def _iterate_members(node: Schema, root: Schema) -> Iterator[Schema]:
    """The schemas that a value at this node may follow."""
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
