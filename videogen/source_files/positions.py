"""Find where each value of a TOML or JSON text is written."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from videogen.source_files.messages import Loc

if TYPE_CHECKING:
    from tree_sitter import Node

Places = dict[Loc, tuple[int, int]]
"""Row and column of each key and array element that the file contains, in bytes and from 0."""


def is_json_file(path: Path, text: str) -> bool:
    """Return whether a file is read as JSON: by its suffix, or else by how it begins."""
    suffix = path.suffix.lower()
    return suffix == ".json" or (suffix != ".toml" and _BEGINS_AS_JSON.match(text) is not None)


_BEGINS_AS_JSON = re.compile(r"\s*(?:\{|\[\s*[{\]])")


def find_places(path: Path, text: str) -> Iterator[tuple[Loc, "Node"]]:
    """Return the path of each value in the text, and the node where it is written."""
    from tree_sitter import Language, Parser

    is_json = is_json_file(path, text)
    if is_json:
        import tree_sitter_json as grammar
    else:
        import tree_sitter_toml as grammar  # type: ignore[no-redef]
    root = Parser(Language(grammar.language())).parse(text.encode()).root_node
    return (_walk_json if is_json else _walk_toml)(root)


def _walk_toml(root: "Node") -> Iterator[tuple[Loc, "Node"]]:
    counts: dict[Loc, int] = {}
    for child in root.named_children:
        if child.type == "pair":
            yield from _toml_pair(child, ())
        elif child.type in ("table", "table_array_element"):
            key, *pairs = child.named_children
            loc = _insert_array_indexes(_toml_key(key), counts, opens=child.type == "table_array_element")
            yield from ((loc[: depth + 1], key) for depth in range(len(loc)))
            for pair in pairs:
                yield from _toml_pair(pair, loc)


def _insert_array_indexes(key: Loc, counts: dict[Loc, int], *, opens: bool) -> Loc:
    """Return the key with the index of the current element inserted after each array of tables in it."""
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
    key, value = _children_without_comments(pair)[:2]
    loc = base + _toml_key(key)
    yield loc, key
    yield from _toml_value(value, loc)


def _toml_value(value: "Node", loc: Loc) -> Iterator[tuple[Loc, "Node"]]:
    if value.type == "array":
        for index, element in enumerate(_children_without_comments(value)):
            yield (*loc, index), element
            yield from _toml_value(element, (*loc, index))
    elif value.type == "inline_table":
        for pair in _children_without_comments(value):
            yield from _toml_pair(pair, loc)


def _children_without_comments(node: "Node") -> list["Node"]:
    """Return the children of a node without comments, which may follow a value or an array element."""
    return [child for child in node.named_children if child.type != "comment"]


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
