"""Load and validate a job file together with the registry, and report the problems of both at once."""

from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError as PydanticError

from videogen.errors import Problem, ValidationError
from videogen.job.load import interpret_as_job, load_job_file
from videogen.job.model import MAX_NAME_CHARS, Job
from videogen.job.prompts import compose_scenes
from videogen.planning.own_inputs import find_input_problems
from videogen.planning.plan import Plan
from videogen.planning.planner import build_plan
from videogen.planning.rules import find_problems, find_retired
from videogen.registry.load import describe_registry_errors, load_registry_file
from videogen.registry.model_spec import Registry
from videogen.source_files.document import RepeatedKeysError, SourceFile, join_path, split_path
from videogen.source_files.messages import Loc, describe_errors

_MAX_ROUNDS = 4
"""Maximum number of validations of one job. Validators of a whole model run only when all of its fields are valid, so
further problems show once the wrong fields have been replaced."""
_VALID_SCENE_VALUES: Mapping[str, Any] = {
    "prompt": "p",
    "target_duration": 1,
    "scene_reference_url": "x",
    "character_reference_urls": ["x"],
}
"""Values of a scene's fields that every model accepts."""


@dataclass(frozen=True)
class ValidatedJob:
    """A valid job, the registry with its models, and the file that the job came from."""

    job: Job
    registry: Registry
    source: SourceFile
    renamed_from: str | None = None
    """The job's id in the file, if a flag overrides its aspect ratio."""


def load_and_validate(path: Path, registry: Path | None = None, flags: Mapping[str, Any] | None = None) -> ValidatedJob:
    """Return the job in the file at `path`, validated against the registry.

    Args:
        path: the job file.
        registry: a TOML file that extends the shipped registry.
        flags: fields that override those of the job file.

    Raises:
        ValidationError: with every problem of the flags, the job and the registry.
    """
    models, problems = _load_registry(registry)
    try:
        document = load_job_file(path)
    except RepeatedKeysError as exc:
        _, of_job = _validate_job(interpret_as_job(exc.document), flags or {}, models)
        more = [problem for problem in of_job if not exc.is_about(problem)]
        raise ValidationError([*problems, *exc.problems, *more]) from None
    except ValidationError as exc:
        raise ValidationError([*problems, *exc.problems]) from None
    job, of_job = _validate_job(document, flags or {}, models)
    problems += of_job
    if problems or not job or not models.registry:
        raise ValidationError(problems)
    renamed = _rename_for_ratio(job, document)
    return ValidatedJob(renamed, models.registry, document, job.id if renamed.id != job.id else None)


def _rename_for_ratio(job: Job, document: SourceFile) -> Job:
    """Return the job, renamed if a flag overrides the aspect ratio of the file: `film` becomes `film-9x16`.

    That way the clips of each ratio get a folder, page and manifest of their own.
    """
    file = document.data if isinstance(document.data, dict) else {}
    if job.aspect_ratio == file.get("aspect_ratio", Job.model_fields["aspect_ratio"].default):
        return job
    ratio = job.aspect_ratio.replace(":", "x")
    return job.model_copy(update={"id": f"{job.id[: MAX_NAME_CHARS - len(ratio) - 1]}-{ratio}"})


@dataclass(frozen=True)
class _LoadedRegistry:
    """The registry without its invalid models; None if it cannot be used at all."""

    registry: Registry | None
    wrong: frozenset[str] = frozenset()
    """Names of the invalid models, which are left out."""


def plan_offline(checked: ValidatedJob, *, buffer: float | None = None, today: date | None = None) -> Plan:
    """Return the plan without reading reference images and the journal; `buffer` and `today` are as in `build_plan`."""
    job = compose_scenes(checked.job)
    references = {url for scene in job.scenes for url in scene.picture_urls}
    digests = dict.fromkeys(references, "unseen")
    return build_plan(job, checked.registry, digests=digests, buffer=buffer, today=today)


def attribute_to_flags(error: ValidationError, flags: Iterable[str]) -> ValidationError:
    """Return the error with the problems of overridden fields attributed to their flags instead of the file."""
    return ValidationError(
        [
            replace(problem, where=f"--{problem.where.replace('_', '-')}", position="command line")
            if problem.where in flags
            else problem
            for problem in error.problems
        ]
    )


def _load_registry(path: Path | None) -> tuple[_LoadedRegistry, list[Problem]]:
    try:
        document = load_registry_file(path)
    except ValidationError as exc:
        return _LoadedRegistry(None), list(exc.problems)
    try:
        return _LoadedRegistry(Registry.model_validate(document.data)), []
    except PydanticError as exc:
        found = describe_registry_errors(exc, document)
    data = deepcopy(document.data)
    for loc, _ in found:
        _remove_value(data, loc[:2])
    wrong = frozenset(str(loc[1]) for loc, _ in found if loc[:1] == ("models",) and len(loc) > 1)
    problems = list(document.errors_at(found).problems)
    try:
        return _LoadedRegistry(Registry.model_validate(data), wrong), problems
    except PydanticError:
        return _LoadedRegistry(None), problems


def _remove_value(data: Any, loc: Loc) -> None:
    *way, name = loc or ("",)
    for part in way:
        data = data.get(part) if isinstance(data, dict) else None
    if isinstance(data, dict):
        data.pop(name, None)


def _validate_job(
    document: SourceFile, flags: Mapping[str, Any], models: _LoadedRegistry
) -> tuple[Job | None, list[Problem]]:
    """Return the job with its wrong values replaced, and the problems. The job is None if that is impossible."""
    data = {**document.data, **flags} if isinstance(document.data, dict) else document.data
    found = _find_repeated_indexes(data)
    job = _parse_with_substitutes(data, document.names, found)
    told = list(found.items())
    if job and models.registry and models.wrong.isdisjoint((*job.models_used, *job.fallback_models)):
        composed = compose_scenes(job)
        of_models = [
            *find_problems(composed, models.registry),
            *find_input_problems(composed, models.registry),
            *find_retired(composed, models.registry, datetime.now(UTC).date()),
        ]
        more = [(split_path(problem.where), problem.message) for problem in of_models]
        told += [(loc, message) for loc, message in more if _is_independent(loc, found)]
    if job and "min_clips" in flags and isinstance(job.min_clips, int):
        made = job.clips_per_model
        if job.min_clips > made and ("scenes",) not in found:
            told.append(
                (
                    ("min_clips",),
                    f"the job has {made} clip{'s' * (made > 1)}, fewer than {job.min_clips}: ask for {made} at most",
                )
            )
    of_flags = [Problem(message, where=join_path(loc[:1])) for loc, message in told if loc and loc[0] in flags]
    of_file = [(loc, message) for loc, message in told if not loc or loc[0] not in flags]
    return job, [*attribute_to_flags(ValidationError(of_flags), flags).problems, *document.errors_at(of_file).problems]


def _find_repeated_indexes(data: Any) -> dict[Loc, str]:
    """Return a message for each scene whose `clip_index` an earlier scene has, unless it is another take."""
    seen: set[tuple[Any, Any]] = set()
    found: dict[Loc, str] = {}
    scenes = data.get("scenes") if isinstance(data, dict) else None
    for index, scene in enumerate(scenes if isinstance(scenes, list) else ()):
        if not isinstance(scene, dict) or type(place := scene.get("clip_index")) is not int:
            continue
        if (place, take := str(scene.get("take", 1))) in seen:
            found["scenes", index, "clip_index"] = f"{place} is the clip_index of an earlier scene, too"
        seen.add((place, take))
    return found


def _parse_with_substitutes(data: Any, names: Mapping[str, str], found: dict[Loc, str]) -> Job | None:
    """Return the job in the data, or None if it cannot be repaired.

    Each problem is added to `found`, and its value replaced so that the rest can be validated.
    """
    for _ in range(_MAX_ROUNDS):
        try:
            return Job.model_validate(data)
        except PydanticError as exc:
            wrong = describe_errors(exc, Job, data, names)
        for loc, message in wrong:
            if loc and (*loc[:-1], names.get(str(loc[-1]))) in found:
                continue  # in the planner's list a duplicate `clip_index` causes a duplicate `id`
            found.setdefault(loc, message)
        if not isinstance(data, dict):
            return None
        data = deepcopy(data)
        for loc, _ in wrong:
            _substitute_valid_value(data, loc)
    return None


def _substitute_valid_value(data: dict[str, Any], loc: Loc) -> None:
    """Replace the wrong value at `loc` with one that every model accepts."""
    if loc == ("scenes",):
        data["scenes"] = [{"id": "mended", **_VALID_SCENE_VALUES}]
    elif loc[0] != "scenes":
        data.pop(str(loc[0]), None)
    else:
        index = int(loc[1])
        scene = data["scenes"][index]
        valid = {"id": f"mended.{index}", **_VALID_SCENE_VALUES}
        if len(loc) == 2:
            data["scenes"][index] = valid
        elif (name := str(loc[2])) in valid:
            scene[name] = valid[name]
        else:
            scene.pop(name, None)


def _is_independent(loc: Loc, found: Mapping[Loc, str]) -> bool:
    """Return whether the problem is independent of replaced values, so that it exists in the original data, too."""
    if ("scenes",) in found or any(wrong[:1] in (("model",), ("models",)) for wrong in found):
        return False
    needed = {"target_duration": {"duration_tolerance"}, "fallback_models": {"duration_tolerance", "aspect_ratio"}}
    names = needed.get(str(loc[-1])) or needed.get(str(loc[0]), set())
    return loc not in found and not any((name,) in found for name in names)
