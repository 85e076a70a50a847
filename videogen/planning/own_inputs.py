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
    fields, automatic = _list_fields(spec), spec.duration.automatic or {}
    endpoint = Snapshots().read(spec.replicate)
    known = endpoint.read_inputs(spec.version) if endpoint else None
    for where, name, value in given:
        if name in automatic and value == automatic[name]:
            continue
        if name in fields:
            advice = f"{name!r} is set by the field {fields[name]}: give it there"
            if name in automatic:
                advice += f", or {json.dumps(automatic[name])} here for a length that the model chooses"
            yield Problem(advice, where=where)
        elif known and name not in known.schemas:
            meant = did_you_mean(name, known.schemas) or f"; it takes {', '.join(sorted(known.schemas))}"
            yield Problem(f"{model} has no input {name!r}{meant}", where=where)
        elif known and not known.schemas[name].accepts(value):
            shown = json.dumps(value, ensure_ascii=False)
            yield Problem(f"{shown} is refused: {name!r} takes {known.schemas[name]}", where=where)


def _list_fields(spec: ModelSpec) -> dict[str, str]:
    """Return the field of a job or a scene that sets each input of a model, by the name of the input."""
    by_length = {name for length in spec.duration.get_listed_lengths()[1] for name in length.inputs or {}}
    fields = {
        "tier": {name for inputs in spec.tiers.values() for name in inputs},
        "aspect_ratio": {name for inputs in spec.aspect_ratios.values() for name in inputs},
        "audio": spec.audio.inputs.keys() if spec.audio else set(),
        "scene_reference_url": {spec.references.input} if spec.references else set(),
        "target_duration": by_length | ({spec.duration.input} if spec.duration.input else set()),
    }
    return {name: field for field, names in fields.items() for name in names} | spec.parameters.list_names()


def find_input_warnings(job: Job, registry: Registry) -> Iterator[str]:
    """Yield a warning for each input of the job or its scenes that takes the place of one that the model's price is
    for."""
    given = {**job.inputs, **{name: value for scene in job.scenes for name, value in scene.inputs.items()}}
    for model in job.models_used:
        spec = registry.models[model]
        priced = {name for row in spec.get_price(audio=job.audio).rows for name in row.when}
        for name in given.keys() & spec.fixed.keys() - priced:
            if given[name] != spec.fixed[name]:
                yield (
                    f"{model}: {name} = {json.dumps(given[name])} is sent in place of {json.dumps(spec.fixed[name])}, "
                    "for which its price was looked up"
                )
