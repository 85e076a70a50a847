"""Read job files, also the lists that scene planners write."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from videogen.errors import ValidationError
from videogen.job.model import Job, is_url
from videogen.source_files.document import SourceFile, read_source_file


def read_job(path: Path) -> tuple[Job, SourceFile]:
    """Return the job in a TOML or JSON file, and the file. It may also be the upstream module's list of clip prompts.

    Raises:
        ValidationError: with every problem of the file, each with its line and column.
    """
    document = load_job_file(path)
    return document.parse(Job), document


def load_job_file(path: Path) -> SourceFile:
    """Read a job file without validating its data. Raise `ValidationError` if it is not well-formed."""
    return interpret_as_job(read_source_file(path))


def interpret_as_job(document: SourceFile) -> SourceFile:
    """Return the file with a job as its data, named after the file unless the job has a name."""
    if isinstance(document.data, list):
        document = replace(document, data=_convert_upstream(document), names=_UPSTREAM_NAMES)
    if isinstance(document.data, dict):
        document = _include(replace(document, data={"id": _make_slug(document.path.stem), **document.data}))
    return document


def _include(document: SourceFile) -> SourceFile:
    """Return the job file with the fields of the file that it includes, where it has none of its own.

    Raises:
        ValidationError: the file cannot be read, or has fields that jobs cannot share.
    """
    name = document.data.get("include")
    if not isinstance(name, str):
        return document
    try:
        shared = read_source_file(document.path.parent / name)
    except ValidationError as exc:
        raise document.errors_at([(("include",), "; ".join(map(str, exc.problems)))]) from None
    if not isinstance(shared.data, dict):
        raise shared.errors_at([((), "is no table of fields of a job")])
    if alone := _OF_ONE_JOB & shared.data.keys():
        raise shared.errors_at([((field,), "belongs to one job: leave it out here") for field in sorted(alone)])
    data = {**shared.data, **document.data}
    for field in _MERGED & shared.data.keys() & document.data.keys():
        if isinstance(shared.data[field], dict) and isinstance(document.data[field], dict):
            data[field] = {**shared.data[field], **document.data[field]}
    _move_images(data.get("cast"), shared.data.get("cast"), Path(name).parent)
    del data["include"]
    return replace(document, data=data, base=shared)


def _move_images(cast: Any, shared: Any, folder: Path) -> None:
    """Make the paths of pictures in the shared cast relative to the job file, in place."""
    for name, member in shared.items() if isinstance(shared, dict) and isinstance(cast, dict) else ():
        if not isinstance(member, dict) or cast.get(name) is not member or not isinstance(member.get("images"), list):
            continue
        moved = [
            str(folder / each) if isinstance(each, str) and not is_url(each) else each for each in member["images"]
        ]
        cast[name] = {**member, "images": moved}


_OF_ONE_JOB = {"id", "scenes", "include"}
_MERGED = {"cast", "style", "variables"}
"""Tables that are merged: what the job says of a name counts."""


_UPSTREAM_NAMES = {"target_duration": "duration", "id": "clip_index"}


def _convert_upstream(document: SourceFile) -> dict[str, Any]:
    """Convert the scene planner's JSON to a job.

    `duration` becomes the target duration, `clip_index` names the clip, and `metadata` is dropped.
    """
    return {"scenes": [_convert_upstream_scene(clip, index) for index, clip in enumerate(document.data)]}


def _convert_upstream_scene(clip: Any, index: int) -> Any:
    if not isinstance(clip, dict):
        return clip
    renamed = {
        ("target_duration" if key == "duration" else key): value for key, value in clip.items() if value is not None
    }
    renamed.pop("metadata", None)
    number = renamed.get("clip_index", index)
    return {"id": f"clip-{number:03d}" if isinstance(number, int) else f"clip-{index:03d}", **renamed}


def _make_slug(stem: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-._")[:80] or "job"
