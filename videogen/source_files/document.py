"""Read TOML and JSON files, and report errors with the line and column of each wrong value.

A file is parsed for positions only when there is something to report.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel
from pydantic import ValidationError as PydanticError

from videogen.errors import Problem, ValidationError
from videogen.source_files.messages import Loc, describe_errors, did_you_mean
from videogen.source_files.positions import Places, find_places, is_json_file

MAX_SIZE_BYTES = 8 * 1024 * 1024
MAX_VALUES = 100_000
MAX_DEPTH = 64
MAX_KEY_PARTS = 6
MAX_PROBLEMS = 50
M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class SourceFile:
    """The text of a file and the data in it."""

    path: Path
    text: str
    data: Any
    base: "SourceFile | None" = None
    """The file that this one extends. `data` is merged from both, so a value may come from either."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Name in this file of each field that has another name in the data."""

    def parse(self, type_: type[M]) -> M:
        """Return the data as `type_`. Raise `ValidationError` with every problem found."""
        try:
            return type_.model_validate(self.data)
        except PydanticError as exc:
            raise self.errors_at(describe_errors(exc, type_, self.data, self.names)) from None

    def errors_at(self, problems: Iterable[tuple[Loc, str]]) -> ValidationError:
        """Return an error with the problems in the order of the file.

        Each has `file:line:column` (from 1) of its value, or of the nearest parent that the file contains.
        """
        placed = sorted(((self._find_place(loc), text) for loc, text in problems), key=lambda entry: entry[0].order)
        shown = [place.problem(text) for place, text in placed[:MAX_PROBLEMS]]
        if len(placed) > MAX_PROBLEMS:
            shown.append(Problem(f"and {len(placed) - MAX_PROBLEMS} problems more", position=self.path.name))
        return ValidationError(shown)

    def problems_at(self, problems: Iterable[tuple[Loc, str]]) -> list[Problem]:
        """Return the problems in this order.

        Each has `file:line:column` (from 1) of its value, or of the nearest parent that the file contains.
        """
        return [self._find_place(loc).problem(text) for loc, text in problems]

    def with_positions(self, error: ValidationError) -> ValidationError:
        """Return the error with positions added to the problems that name a field of this file."""
        return ValidationError(
            [
                problem
                if problem.position or not problem.where
                else self._find_place(split_path(problem.where)).problem(problem.message)
                for problem in error.problems
            ]
        )

    def _find_place(self, loc: Loc) -> "_Place":
        """Return the position of a value in this file, or in the base file if more of its path is found there."""
        loc = self._to_file_names(loc)
        depth = _count_written_parts(self.places, loc)
        if self.base and _count_written_parts(self.base.places, loc) > depth:
            return self.base._find_place(loc)
        return _Place(self, loc, *self.places.get(loc[:depth], (0, 0)))

    def _to_file_names(self, loc: Loc) -> Loc:
        """Return the path with the names of the file. The upstream list of clip prompts has no `scenes` key."""
        if self.names and loc[:1] == ("scenes",):
            loc = loc[1:]
        if loc and loc not in self.places:
            loc = (*loc[:-1], self.names.get(str(loc[-1]), loc[-1]))
        return loc

    @cached_property
    def places(self) -> Places:
        """Position of every key and array element of the file. A duplicate key has the position of the first."""
        return {
            loc: (node.start_point[0], node.start_point[1])
            for loc, node in reversed(list(find_places(self.path, self.text)))
        }


@dataclass(frozen=True)
class _Place:
    """The position of a value, or of the nearest parent of a missing one: row and column in bytes, from 0."""

    source: SourceFile
    loc: Loc
    row: int
    column_bytes: int

    @property
    def order(self) -> tuple[bool, int, int]:
        """Sort key: a file comes before the one it extends."""
        return self.source.base is None, self.row, self.column_bytes

    def problem(self, message: str) -> Problem:
        line = self.source.text.split("\n", self.row + 1)[self.row].encode()
        column = len(line[: self.column_bytes].decode(errors="replace")) + 1
        position = f"{self.source.path.name}:{self.row + 1}:{column}"
        return Problem(message, where=join_path(self.loc), position=position)


class RepeatedKeysError(ValidationError):
    """A JSON file has keys more than once. The last value of each is in `document`, for finding further problems."""

    def __init__(self, document: SourceFile) -> None:
        counts = Counter(loc for loc, _ in find_places(document.path, document.text))
        repeated = [(loc, "is there twice") for loc, count in counts.items() if count > 1]
        super().__init__(document.errors_at(repeated).problems)
        self.document = document

    def is_about(self, problem: Problem) -> bool:
        """Return whether the problem is about a value of a repeated key, or about one in it."""
        return any(f"{problem.where}.".startswith(f"{repeated.where}.") for repeated in self.problems)


def read_source_file(path: Path) -> SourceFile:
    """Return the JSON or TOML file at `path`. The suffix decides; for another suffix, the first characters do.

    Raises:
        ValidationError: the file cannot be read, is larger than 8 MiB, is not UTF-8 or not well-formed, has more than
            100,000 values or is nested too deeply.
        RepeatedKeysError: a JSON file has keys more than once.
    """
    text = _read_text(path)
    _check_size(path.name, text)
    has_repeated_keys = False
    try:
        if is_json_file(path, text):
            data, has_repeated_keys = _load_json(path, text)
        else:
            data = _load_toml(path, text)
    except RecursionError:
        raise _too_deep_error(path.name, text) from None
    except ValueError as exc:  # Python reads no integer of more than 4300 digits
        raise _make_error(path.name, text, _LONG_NUMBER.search(text), str(exc).partition(";")[0]) from None
    if _measure_depth(data) > MAX_DEPTH:
        raise _too_deep_error(path.name, text)
    document = SourceFile(path, text, data)
    if has_repeated_keys:
        raise RepeatedKeysError(document)
    return document


def _suggest_format(path: Path, text: str) -> str:
    """Return advice for a file that is not well-formed, if its suffix or content shows what it is; else ``""``."""
    kinds = "job files and registries are TOML or JSON, named .toml or .json"
    if text.lstrip().startswith("```"):
        return "; remove the lines with ``` around the data"
    suffix = path.suffix.lower()
    if suffix in (".jsonl", ".ndjson"):
        return f"; {kinds}: put the lines, separated by commas, between [ and ] in a .json file"
    if suffix in (".jsonc", ".json5"):
        return f"; {kinds}: remove the comments and trailing commas, and name the file .json"
    if suffix in (".yaml", ".yml", ".csv", ".tsv", ".xml", ".md"):
        return f"; {kinds}: write this {suffix} file as one of them"
    if suffix not in (".toml", ".json"):
        return f"; {kinds}"
    if any(quote in text for quote in "\u201c\u201d\u2018\u2019"):
        return "; around values there must be straight quotes, and there are curly ones in this file"
    return ""


def join_path(loc: Loc) -> str:
    """Return `("models", "veo-3.1", 0)` as `models.veo-3.1.0`."""
    return ".".join(str(part) for part in loc)


def split_path(where: str) -> Loc:
    """Return `scenes.0.id` as `("scenes", 0, "id")`. The names must not contain dots."""
    return tuple(int(part) if part.isdigit() else part for part in where.split("."))


def _read_text(path: Path) -> str:
    def refuse(message: str) -> ValidationError:
        return ValidationError([Problem(message, position=str(path))])

    try:
        if not path.is_file():
            raise refuse(_describe_obstacle(path))
        if path.stat().st_size > MAX_SIZE_BYTES:
            raise refuse(f"larger than {MAX_SIZE_BYTES // 1024**2} MiB")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as exc:
        kind = ", but UTF-16" if exc.object[:2] in (b"\xff\xfe", b"\xfe\xff") else ""
        kind = ", but a ZIP archive or an office document" if exc.object[:4] == b"PK\x03\x04" else kind
        raise refuse(f"not UTF-8{kind} (byte {exc.start}): save it as plain text in UTF-8") from None
    except (OSError, ValueError) as exc:
        raise refuse(f"cannot be read: {exc}") from None


def _describe_obstacle(path: Path) -> str:
    """Return a message about the path, where no file is: the obstacle, with advice."""
    if path.is_dir():
        return "not a regular file, but a folder: name a file in it"
    if path.exists():
        return "not a regular file: name a file on a disk"
    others = [other.name for other in path.parent.glob("*") if other.suffix in (".toml", ".json")]
    return f"no such file{did_you_mean(path.name, others) or ': check its name and folder'}"


_LONG_NUMBER = re.compile(r"(?<!\d)\d{4301}")
_LONE_SURROGATE = re.compile(r"\\u[dD][89abAB]..(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB]..)\\u[dD][c-fC-F]")
_STRING = re.compile(r"""\"{3}(?s:.*?)\"{3}|'{3}(?s:.*?)'{3}|"(?:[^"\\\n]|\\.)*+"?|'[^'\n]*+'?""")
_LONG_KEY = re.compile(rf"(?<![\w-])(?:[\w-]++[ \t]*+\.[ \t]*+){{{MAX_KEY_PARTS}}}")


def _mask_strings(text: str) -> str:
    """Return the text with every quoted string replaced by a word of the same length."""
    return _STRING.sub(lambda found: "x" * len(found.group()), text)


def _check_size(name: str, text: str) -> None:
    """Raise `ValidationError` if parsing the text would take minutes.

    Values are counted by the `,`, `=` or `[` that stands before each but the first.
    """
    masked = _mask_strings(text)
    if sum(map(masked.count, ",=[")) > MAX_VALUES:
        raise _make_error(name, text, None, f"more than {MAX_VALUES:,} values")
    if found := _LONG_KEY.search(masked):
        raise _make_error(name, text, found, "nested too deeply")


def _measure_depth(data: Any) -> int:
    """Return how many tables and arrays enclose the innermost value, up to `MAX_DEPTH` + 1."""
    level = [data]
    for depth in range(MAX_DEPTH + 1):
        level = [
            child
            for value in level
            for child in (value.values() if isinstance(value, dict) else value if isinstance(value, list) else ())
        ]
        if not level:
            return depth
    return MAX_DEPTH + 1


def _too_deep_error(name: str, text: str) -> ValidationError:
    depth = 0
    found = None
    for found in re.finditer(r"[\[\]{}]", _mask_strings(text)):
        depth += 1 if found.group() in "[{" else -1
        if depth > MAX_DEPTH:
            break
    return _make_error(name, text, found, "nested too deeply")


def _make_error(name: str, text: str, where: re.Match[str] | None, message: str) -> ValidationError:
    start = where.start() if where else 0
    line = text.count("\n", 0, start) + 1
    column = start - text.rfind("\n", 0, start)
    return ValidationError([Problem(message, position=f"{name}:{line}:{column}")])


def _load_toml(path: Path, text: str) -> Any:
    import tomli

    try:
        return tomli.loads(text)
    except tomli.TOMLDecodeError as exc:
        position = f"{path.name}:{exc.lineno}:{exc.colno}"
        message = f"not valid TOML: {exc.msg}{_suggest_format(path, text)}"
        raise ValidationError([Problem(message, position=position)]) from None


def _load_json(path: Path, text: str) -> tuple[Any, bool]:
    """Return the data, and whether a key is repeated. JSON allows it, the last one wins, but it is a mistake."""
    has_repeated_keys = False

    def make_table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal has_repeated_keys
        table = dict(pairs)
        has_repeated_keys |= len(table) < len(pairs)
        return table

    try:
        data = json.loads(text, object_pairs_hook=make_table)
        if _LONE_SURROGATE.search(text):
            json.dumps(data, ensure_ascii=False).encode()
        return data, has_repeated_keys
    except UnicodeEncodeError:
        raise _make_error(
            path.name, text, _LONE_SURROGATE.search(text), "half a surrogate pair is no character"
        ) from None
    except json.JSONDecodeError as exc:
        position = f"{path.name}:{exc.lineno}:{exc.colno}"
        message = f"not valid JSON: {exc.msg}{_suggest_format(path, text)}"
        raise ValidationError([Problem(message, position=position)]) from None


def _count_written_parts(places: Places, loc: Loc) -> int:
    """Return how many leading parts of `loc` the file contains."""
    return next((depth for depth in range(len(loc), 0, -1) if loc[:depth] in places), 0)
