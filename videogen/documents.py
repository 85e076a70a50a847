"""TOML and JSON files, read once; on an error, where in the file each value stands."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel
from pydantic import ValidationError as PydanticError

from videogen.errors import Problem, ValidationError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails
    from tree_sitter import Node

MAX_SIZE_BYTES = 8 * 1024 * 1024
MAX_PROBLEMS = 50

Loc = tuple[str | int, ...]
Places = dict[Loc, tuple[int, int]]
"""Line and column, from 1, of what is written down."""
M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Document:
    """A file's text and the data in it."""

    path: Path
    text: str
    data: Any

    def parse(self, type_: type[M], data: Any = None) -> M:
        """`data` (by default the whole document) as `type_`. Raises `ValidationError` with every problem found."""
        try:
            return type_.model_validate(self.data if data is None else data)
        except PydanticError as exc:
            details = exc.errors(include_url=False, include_context=True)
            raise self.error([(entry["loc"], message(entry)) for entry in details]) from None

    def error(self, problems: list[tuple[Loc, str]]) -> ValidationError:
        """The problems, each with `file:line:column` (from 1) of its value or of the nearest parent written down."""
        places = _places(self)
        by_place = sorted(problems, key=lambda problem: places.get(_written(places, problem[0])[0], (1, 1)))
        shown = [self._problem(places, loc, text) for loc, text in by_place[:MAX_PROBLEMS]]
        if len(problems) > MAX_PROBLEMS:
            shown.append(Problem(f"and {len(problems) - MAX_PROBLEMS} problems more", position=self.path.name))
        return ValidationError(shown)

    def located(self, error: ValidationError) -> ValidationError:
        """The error with the position of each problem that names a place in this document."""
        places = _places(self)
        return ValidationError(
            [
                problem
                if problem.position or not problem.where
                else self._problem(places, _undotted(problem.where), problem.message)
                for problem in error.problems
            ]
        )

    def _problem(self, places: Places, loc: Loc, message: str) -> Problem:
        if (0,) in places and loc[:1] == ("scenes",):  # the upstream list of clip prompts has no name for itself
            loc = loc[1:]
        found, loc = _written(places, loc)
        line, column = places.get(found, (1, 1))
        return Problem(message, where=dotted(loc), position=f"{self.path.name}:{line}:{column}")


def read_document(path: Path) -> Document:
    """The TOML or (by its suffix) JSON file at `path`.

    Raises:
        ValidationError: it cannot be read, is larger than 8 MiB, not UTF-8, or not well-formed.
    """
    text = _read_text(path)
    load = _load_json if path.suffix.lower() == ".json" else _load_toml
    try:
        data = load(path.name, text)
    except RecursionError:
        raise ValidationError([Problem("nested too deeply", position=path.name)]) from None
    return Document(path, text, data)


def dotted(loc: Loc) -> str:
    """`("models", "veo-3.1", 0)` as `models.veo-3.1.0`."""
    return ".".join(str(part) for part in loc)


def _undotted(where: str) -> Loc:
    return tuple(int(part) if part.isdigit() else part for part in where.split("."))


def _read_text(path: Path) -> str:
    def refuse(message: str) -> ValidationError:
        return ValidationError([Problem(message, position=str(path))])

    try:
        if not path.is_file():
            raise refuse("no such file" if not path.exists() else "not a regular file")
        if path.stat().st_size > MAX_SIZE_BYTES:
            raise refuse(f"larger than {MAX_SIZE_BYTES // 1024**2} MiB")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as exc:
        raise refuse(f"not UTF-8 (byte {exc.start})") from None
    except (OSError, ValueError) as exc:
        raise refuse(f"cannot be read: {exc}") from None


def _load_toml(name: str, text: str) -> Any:
    import tomli

    try:
        return tomli.loads(text)
    except tomli.TOMLDecodeError as exc:
        position = f"{name}:{exc.lineno}:{exc.colno}"
        raise ValidationError([Problem(f"not valid TOML: {exc.msg}", position=position)]) from None


def _load_json(name: str, text: str) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise ValidationError([Problem(f"key {twice!r} is there twice", position=name)])
        return found

    try:
        return json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as exc:
        position = f"{name}:{exc.lineno}:{exc.colno}"
        raise ValidationError([Problem(f"not valid JSON: {exc.msg}", position=position)]) from None


def message(entry: "ErrorDetails") -> str:
    """Pydantic's message, with the offending value where it helps."""
    if entry["type"] == "missing":
        return "is required"
    if entry["type"] == "extra_forbidden":
        return "unknown field"
    text = entry["msg"].removeprefix("Value error, ")
    text = text[:1].lower() + text[1:]
    value = entry["input"]
    if entry["type"] == "value_error" or not isinstance(value, str | int | float | bool):
        return text
    shown = repr(value)
    return f"{text}, not {shown if len(shown) <= 60 else shown[:57] + '...'}"


def _written(places: Places, loc: Loc) -> tuple[Loc, Loc]:
    """The deepest place on the way to `loc` that is written down, and `loc` without the names of union members that
    pydantic puts between."""
    found: Loc = ()
    missing: Loc = ()
    for part in loc:
        if (*found, part) in places:
            found, missing = (*found, part), ()
        else:
            missing = (*missing, part)
    return found, (*found, *missing)


def _places(document: Document) -> Places:
    """Line and column of every key and array element of the document."""
    from tree_sitter import Language, Parser

    if document.path.suffix.lower() == ".json":
        import tree_sitter_json as grammar
    else:
        import tree_sitter_toml as grammar  # type: ignore[no-redef]
    root = Parser(Language(grammar.language())).parse(document.text.encode()).root_node
    walk = _walk_json if document.path.suffix.lower() == ".json" else _walk_toml
    lines = document.text.split("\n")

    def characters(node: "Node") -> tuple[int, int]:
        row, column_bytes = node.start_point
        return row + 1, len(lines[row].encode()[:column_bytes].decode(errors="replace")) + 1

    return {loc: characters(node) for loc, node in reversed(list(walk(root)))}


def _walk_toml(root: "Node") -> Iterator[tuple[Loc, "Node"]]:
    counts: dict[Loc, int] = {}
    for child in root.named_children:
        if child.type == "pair":
            yield from _toml_pair(child, ())
        elif child.type in ("table", "table_array_element"):
            key, *pairs = child.named_children
            loc = _through_arrays(_toml_key(key), counts, opens=child.type == "table_array_element")
            yield from ((loc[: depth + 1], key) for depth in range(len(loc)))
            for pair in pairs:
                yield from _toml_pair(pair, loc)


def _through_arrays(key: Loc, counts: dict[Loc, int], *, opens: bool) -> Loc:
    """The key with the index of the current element behind each array of tables it goes through."""
    loc: Loc = ()
    for depth, part in enumerate(key):
        loc = (*loc, part)
        if opens and depth == len(key) - 1:
            counts[loc] = counts.get(loc, -1) + 1
        if loc in counts:
            loc = (*loc, counts[loc])
    return loc


def _toml_pair(pair: "Node", base: Loc) -> Iterator[tuple[Loc, "Node"]]:
    if pair.type != "pair":
        return
    key, value = pair.named_children[0], pair.named_children[-1]
    loc = base + _toml_key(key)
    yield loc, key
    yield from _toml_value(value, loc)


def _toml_value(value: "Node", loc: Loc) -> Iterator[tuple[Loc, "Node"]]:
    if value.type == "array":
        for index, element in enumerate(value.named_children):
            yield (*loc, index), element
            yield from _toml_value(element, (*loc, index))
    elif value.type == "inline_table":
        for pair in value.named_children:
            yield from _toml_pair(pair, loc)


def _toml_key(key: "Node") -> Loc:
    if key.type == "dotted_key":
        return tuple(part for child in key.named_children for part in _toml_key(child))
    text = (key.text or b"").decode()
    return (text[1:-1] if key.type == "quoted_key" else text,)


def _walk_json(root: "Node") -> Iterator[tuple[Loc, "Node"]]:
    for child in root.named_children:
        yield from _json_value(child, ())


def _json_value(value: "Node", loc: Loc) -> Iterator[tuple[Loc, "Node"]]:
    if value.type == "array":
        for index, element in enumerate(value.named_children):
            yield (*loc, index), element
            yield from _json_value(element, (*loc, index))
    elif value.type == "object":
        for pair in value.named_children:
            key, element = pair.named_children[0], pair.named_children[-1]
            inner: Loc = (*loc, (key.text or b"").decode()[1:-1])
            yield inner, key
            yield from _json_value(element, inner)
