"""Read a shot list, a table in a CSV file, and write it as a job file."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError as PydanticError

from videogen.errors import Problem, ValidationError
from videogen.job.graph import find_graph_problems
from videogen.job.model import MAX_SCENES, Scene
from videogen.source_files.messages import describe_errors
from videogen.source_files.table import read_table, simplify_column_name
from videogen.source_files.toml_text import write_comment, write_line

OTHER_NAMES: Mapping[str, str] = {
    **dict.fromkeys(("scene", "shot", "sceneid", "shotid", "name", "number", "no"), "id"),
    **dict.fromkeys(("description", "text", "action"), "prompt"),
    **dict.fromkeys(("duration", "seconds", "length", "durations"), "target_duration"),
    **dict.fromkeys(("negative", "avoid"), "negative_prompt"),
    **dict.fromkeys(("background",), "scene_reference_url"),
    **dict.fromkeys(("references", "characters"), "character_reference_urls"),
    **dict.fromkeys(("firstframe", "startframe"), "start_image"),
    **dict.fromkeys(("lastframe", "endframe"), "end_image"),
    **dict.fromkeys(("after", "continue"), "continues"),
    **dict.fromkeys(("ratio", "aspect"), "aspect_ratio"),
    **dict.fromkeys(("quality",), "tier"),
    **dict.fromkeys(("sound",), "audio"),
    **dict.fromkeys(("note", "comment", "comments"), "notes"),
}
"""Fields of a scene by other names of their column, in small letters without spaces and signs."""
_LISTS = {"cast", "character_reference_urls"}
_NUMBERS = {"target_duration", "original_target_duration", "seed", "take", "timeout_seconds", "attempts", "clip_index"}
_SWITCHES = {"required", "audio"}
_WORDS = {
    "yes": True,
    "y": True,
    "true": True,
    "x": True,
    "1": True,
    "no": False,
    "n": False,
    "false": False,
    "0": False,
}
_UNREADABLE = {"inputs", "metadata"}
"""Fields that a cell of a table cannot hold."""


@dataclass(frozen=True)
class ShotList:
    """The scenes of a shot list."""

    scenes: tuple[Mapping[str, Any], ...]
    """The fields of each scene, as a job file has them."""
    unused: tuple[str, ...]
    """Names of columns that are no field of a scene."""


def read_shot_list(path: Path) -> ShotList:
    """Return the scenes of a table with a line of names at the top.

    Columns are separated by commas, semicolons or tabs, and matched with the fields of a scene by their names.

    Raises:
        ValidationError: with every row that is no scene, each with its line.
    """
    rows = list(read_table(path))
    if not rows:
        raise ValidationError([Problem("is empty: the first line names the columns", position=path.name)])
    (number, header), *body = rows
    fields, unused = _find_fields(header)
    if missing := {"prompt", "target_duration"} - set(fields.values()):
        known = ", ".join(repr(name) for name in header)
        wanted = " and ".join(sorted(missing))
        raise ValidationError([Problem(f"no column for {wanted}; there are {known}", position=f"{path.name}:{number}")])
    scenes: list[dict[str, Any]] = []
    positions: list[str] = []
    problems: list[Problem] = []
    names = {field: header[column] for column, field in fields.items()}
    for line, cells in body:
        if any(cells[len(header) :]):
            message = (
                f"has {len(cells)} cells, more than the {len(header)} columns: put quotes around a text with commas"
            )
            problems.append(Problem(message, position=f"{path.name}:{line}"))
        scene = _read_scene(cells, fields, len(scenes) + 1)
        scenes.append(scene)
        positions.append(f"{path.name}:{line}")
        problems += _find_problems(scene, names, positions[-1])
    problems = problems or list(_find_problems_of_all(scenes, positions))
    if problems:
        raise ValidationError(problems)
    return ShotList(tuple(scenes), unused)


def write_job(shots: ShotList, *, model: str | None = None, source: str) -> str:
    """Return the text of a job file with these scenes.

    Args:
        shots: the scenes.
        model: the job's model; None leaves the default.
        source: the name of the table, for the first line.
    """
    lines = [*write_comment(f"The scenes of {source}.")]
    if model is not None:
        lines.append(write_line("model", model))
    for scene in shots.scenes:
        lines += ["", "[[scenes]]", *(write_line(name, value) for name, value in scene.items())]
    return "\n".join(lines) + "\n"


def _find_fields(header: Sequence[str]) -> tuple[dict[int, str], tuple[str, ...]]:
    """Return the field of each column, and the names of the columns that have none."""
    known = {simplify_column_name(name): name for name in Scene.model_fields if name not in _UNREADABLE}
    fields: dict[int, str] = {}
    unused = []
    for column, name in enumerate(header):
        simple = simplify_column_name(name)
        field = known.get(simple) or OTHER_NAMES.get(simple)
        if field and field not in fields.values():
            fields[column] = field
        elif name:
            unused.append(name)
    return fields, tuple(unused)


def _read_scene(cells: Sequence[str], fields: Mapping[int, str], number: int) -> dict[str, Any]:
    """Return the fields of a scene. A cell whose text is no value of its field stays a text, which is then told."""
    scene: dict[str, Any] = {"id": f"shot-{number:03d}"}
    for column, field in fields.items():
        cell = cells[column] if column < len(cells) else ""
        if cell:
            scene[field] = _read_cell(field, cell)
    return scene


def _read_cell(field: str, cell: str) -> Any:
    if field in _LISTS:
        return [
            each.strip() for each in re.split(r"[;\n]" if ";" in cell or "\n" in cell else ",", cell) if each.strip()
        ]
    if field in _SWITCHES:
        return _WORDS.get(cell.lower(), cell)
    if field in _NUMBERS:
        return _read_number(cell)
    return (
        re.sub(r"[^A-Za-z0-9._-]+", "-", cell).strip("-._") or cell if field in ("id", "continues", "ends_on") else cell
    )


def _read_number(cell: str) -> int | float | str:
    """Return the number in a cell such as `5`, `2.5 s`, `2,5` or `0:05`; else its text."""
    clock = re.fullmatch(r"(\d{1,2}):([0-5]\d(?:[.,]\d+)?)", cell, re.ASCII)
    plain = re.fullmatch(r"(\d+(?:[.,]\d+)?)\s*(?:s|sec|secs|seconds?)?", cell, re.ASCII | re.IGNORECASE)
    if clock:
        number = int(clock[1]) * 60 + float(clock[2].replace(",", "."))
    elif plain:
        number = float(plain[1].replace(",", "."))
    else:
        return cell
    return int(number) if number == int(number) else number


def _find_problems(scene: Mapping[str, Any], names: Mapping[str, str], position: str) -> Iterator[Problem]:
    """Yield the problems of a row, each with the name of its column."""
    try:
        Scene.model_validate(scene)
    except PydanticError as exc:
        for loc, message in describe_errors(exc, Scene, scene, names):
            column = names.get(str(loc[0]), str(loc[0])) if loc else ""
            yield Problem(message, where=column, position=position)


def _find_problems_of_all(scenes: Sequence[Mapping[str, Any]], positions: Sequence[str]) -> Iterator[Problem]:
    """Yield the problems that show only when the rows are compared."""
    if len(scenes) > MAX_SCENES:
        yield Problem(f"has {len(scenes):,} rows, more than the {MAX_SCENES:,} scenes of a job")
    seen: dict[str, int] = {}
    for index, scene in enumerate(scenes):
        first = seen.setdefault(scene["id"].lower(), index)
        if first != index:
            line = positions[first].rpartition(":")[2]
            yield Problem(f"{scene['id']!r} is the id of line {line}, too", where="id", position=positions[index])
    for loc, message in find_graph_problems([Scene.model_validate(scene) for scene in scenes]).items():
        yield Problem(message, where=str(loc[1]), position=positions[int(loc[0])])
