"""Check the inputs that a job names itself against the kept schemas of its models."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from videogen.errors import Problem, ValidationError
from videogen.job.model import Job
from videogen.registry.endpoint_schema import Snapshots
from videogen.registry.model_spec import ModelSpec, Registry
from videogen.source_files.messages import did_you_mean


def validate_inputs(job: Job, registry: Registry) -> None:
    """Raise `ValidationError` with every input of the job or its scenes that a model does not take."""
    if problems := list(find_input_problems(job, registry)):
        raise ValidationError(problems)


def find_input_problems(job: Job, registry: Registry) -> Iterator[Problem]:
    """Yield the problems of the inputs in the job and its scenes, for each of its models that has a kept schema."""
    for model in dict.fromkeys((*job.models_used, *job.fallback_models)):
        places = {"inputs": job.inputs} | {
            f"scenes.{index}.inputs": scene.inputs
            for index, scene in enumerate(job.scenes)
            if scene.model in (None, model) or model in job.fallback_models
        }
        given = [(f"{where}.{name}", name, value) for where, inputs in places.items() for name, value in inputs.items()]
        spec = registry.models.get(model)
        if given and spec:
            yield from _find_problems(given, model, spec)


def _find_problems(given: Iterable[tuple[str, str, Any]], model: str, spec: ModelSpec) -> Iterator[Problem]:
    """Yield the problems of inputs, each given as its place, its name and its value."""
    own = {**spec.parameters.list_names(), **({spec.duration.input: "target_duration"} if spec.duration.input else {})}
    automatic = spec.duration.automatic or {}
    endpoint = Snapshots().read(spec.replicate)
    known = endpoint.read_inputs(spec.version) if endpoint else None
    for where, name, value in given:
        if name in own and name in automatic and value != automatic[name]:
            free = f", or {json.dumps(automatic[name])} here for a length that the model chooses"
            yield Problem(f"{name!r} is set by the field {own[name]}: give it there{free}", where=where)
        elif name in own and name not in automatic:
            yield Problem(f"{name!r} is set by the field {own[name]}: give it there", where=where)
        elif known and name not in known.schemas:
            meant = did_you_mean(name, known.schemas) or f"; it takes {', '.join(sorted(known.schemas))}"
            yield Problem(f"{model} has no input {name!r}{meant}", where=where)
        elif known and not known.schemas[name].accepts(value):
            shown = json.dumps(value, ensure_ascii=False)
            yield Problem(f"{shown} is refused: {name!r} takes {known.schemas[name]}", where=where)
