"""Read job files, also the lists that scene planners write."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from videogen.job.model import Job
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
        document = replace(document, data={"id": _make_slug(document.path.stem), **document.data})
    return document


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
