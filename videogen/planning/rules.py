"""Find the problems and doubts of a job with its models."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from math import ceil, log

from videogen.errors import Problem, ValidationError
from videogen.job.model import Job, Scene
from videogen.planning.plan import MAX_PRICE_AGE, Plan
from videogen.planning.requests import ClipRequest, ImageInput
from videogen.planning.segments import find_segment_problem, is_too_long, split_scene
from videogen.planning.terms import ClipTerms, find_clip_terms
from videogen.registry.model_spec import ModelSpec, Registry
from videogen.registry.tables import parse_ratio
from videogen.source_files.messages import did_you_mean
from videogen.text import format_money, list_first

_VARIABLE = re.compile(r"\$?\{\{? ?[A-Za-z_][\w.-]{0,40} ?\}?\}", re.ASCII)
MAX_RATIO_DISTANCE = 0.15
"""Largest difference of two ratios' natural logarithms at which one is suggested for the other."""
RETIREMENT_NOTICE = timedelta(days=60)
"""A plan warns about a model that retires within this time."""


def validate_job(job: Job, registry: Registry, today: date | None = None) -> None:
    """Raise `ValidationError` with every reason why the job cannot be run, on that day if one is given."""
    problems = list(find_problems(job, registry))
    if today:
        problems += find_retired(job, registry, today)
    if problems:
        raise ValidationError(problems)


def find_problems(job: Job, registry: Registry) -> Iterator[Problem]:
    """Yield every reason why the job cannot be run."""
    for index, name in enumerate(job.models_to_run):
        where = f"models.{index}" if job.models else "model"
        if name in registry.models:
            scenes = [(number, scene) for number, scene in enumerate(job.scenes) if scene.model is None]
            yield from _find_model_problems(job, name, scenes, registry)
        else:
            yield Problem(registry.describe_unknown_model(name), where=where)
    if registry.models.keys().isdisjoint(job.models_to_run):
        yield from _find_ratio_problem(job, registry)
    for number, scene in enumerate(job.scenes):
        if scene.model is None:
            continue
        if scene.model in registry.models:
            yield from _find_model_problems(job, scene.model, [(number, scene)], registry)
        else:
            yield Problem(registry.describe_unknown_model(scene.model), where=f"scenes.{number}.model")
    for index in range(len(job.fallback_models)):
        yield from _find_fallback_problems(job, index, registry)


def find_retired(job: Job, registry: Registry, today: date) -> Iterator[Problem]:
    """Yield a problem for each model of the job that cannot be run any more."""
    places = {scene.model: f"scenes.{index}.model" for index, scene in enumerate(job.scenes) if scene.model}
    places |= {name: "model" if name == job.model else "models" for name in job.models_to_run}
    places |= {name: f"fallback_models.{index}" for index, name in enumerate(job.fallback_models)}
    for name, where in places.items():
        spec = registry.models.get(name)
        if spec and spec.retires and spec.retires <= today:
            yield Problem(f"{name} retired on {spec.retires}{_suggest_successor(spec)}", where=where)


def _suggest_successor(spec: ModelSpec) -> str:
    return f": use {spec.successor}" if spec.successor else f": look for its successor at {spec.source}"


def _find_ratio_problem(job: Job, registry: Registry) -> Iterator[Problem]:
    """Yield the problem of a ratio that no model supports, where the job's own models are unknown."""
    known = {ratio for spec in registry.models.values() for ratio in spec.aspect_ratios}
    if job.aspect_ratio not in known:
        meant = _suggest_ratio(job.aspect_ratio, sorted(known))
        yield Problem(f"no model supports {job.aspect_ratio!r}{meant}", where="aspect_ratio")


def validate_budget(planned: Plan, *, fresh: bool = False, ways_out: Sequence[str] = ()) -> None:
    """Raise `ValidationError` if the plan costs more than the job allows.

    With `fresh`, what is left must cover at least one clip. Otherwise the run would replace the results of the last
    one with failures, and make nothing. `ways_out` are as in `find_budget_problems`.
    """
    if problems := list(find_budget_problems(planned, fresh=fresh, ways_out=ways_out)):
        raise ValidationError(problems)


def find_budget_problems(planned: Plan, *, fresh: bool = False, ways_out: Sequence[str] = ()) -> Iterator[Problem]:
    """Yield the problem for which `validate_budget` refuses the plan, if there is one.

    `ways_out` are flags with which the plan keeps its cap, each with the price, see `videogen.planning.ways_out`.
    """
    remaining = planned.remaining_budget
    if planned.max_cost is None or remaining is None or not planned.to_create:
        return
    if planned.is_above_cap:
        above = format_money(planned.spent_before + planned.total_cost - planned.max_cost)
        ways = ", ".join((*ways_out, f"--max-cost {planned.sufficient_budget}"))
        costs = planned.describe_spending() if planned.spent_before else f"the plan costs {planned.describe_cost()}"
        yield Problem(f"{costs}, {above} above the cap of {format_money(planned.max_cost)}: {ways}", where="max_cost")
        return
    is_all_new = len(planned.to_create) == len(planned.requests)
    if fresh and is_all_new and remaining < min(request.cost for request in planned.to_create):
        yield Problem(
            f"{planned.describe_spending()}: the remaining {format_money(remaining)} does not cover any clip, so that "
            f"--fresh would make nothing. --max-cost {planned.sufficient_budget} covers every clip",
            where="max_cost",
        )


def _find_fallback_problems(job: Job, index: int, registry: Registry) -> Iterator[Problem]:
    """Yield every reason why this fallback cannot replace the job's own model."""
    name = job.fallback_models[index]
    where = f"fallback_models.{index}"
    if name not in registry.models:
        yield Problem(registry.describe_unknown_model(name), where=where)
    elif name in (job.model, *job.fallback_models[:index]):
        yield Problem(f"{name} is tried before already", where=where)
    else:
        for problem in _find_model_problems(job, name, list(enumerate(job.scenes)), registry):
            yield replace(problem, where=where)


def _find_model_problems(
    job: Job, model: str, scenes: Sequence[tuple[int, Scene]], registry: Registry
) -> Iterator[Problem]:
    """Yield every reason why the model cannot make these scenes, which are given with their places in the job."""
    spec, told = registry.get_model(model), set[Problem]()
    for index, scene in scenes:
        asked = job.of_scene(scene).model_copy(update={"model": model})
        found = list(_find_scene_problems(asked, scene, f"scenes.{index}", spec, registry))
        yield from (problem for problem in found if problem not in told)  # one of the job is told once
        told.update(found)


def find_tier_warnings(job: Job, registry: Registry) -> Iterator[str]:
    """Yield a warning for each model of single scenes that does not have the tier of the job."""
    scenes: dict[str, list[str]] = {}
    for scene in job.scenes:
        if scene.model and job.tier and not scene.tier and job.tier not in registry.get_model(scene.model).tiers:
            scenes.setdefault(scene.model, []).append(scene.id)
    for model, ids in scenes.items():
        default = registry.get_model(model).default_tier
        effect = f"its default, {default}" if default else "the quality that it has"
        yield f"{model} has no tier {job.tier!r}: {list_first(ids)} will have {effect}"


def _find_scene_problems(job: Job, scene: Scene, where: str, spec: ModelSpec, registry: Registry) -> Iterator[Problem]:
    if job.aspect_ratio not in spec.aspect_ratios:
        meant = _suggest_ratio(job.aspect_ratio, spec.aspect_ratios)
        supported = ", ".join(spec.aspect_ratios)
        yield Problem(
            f"{job.model} does not support {job.aspect_ratio!r}; it supports {supported}{meant}",
            where=f"{where}.aspect_ratio" if scene.aspect_ratio else "aspect_ratio",
        )
    tier = scene.tier or (None if scene.model else job.tier)  # the job's is for the models that have it
    if tier is not None and tier not in spec.tiers:
        known = f"it has {', '.join(spec.tiers)}" if spec.tiers else "it has none"
        yield Problem(
            f"{job.model} has no tier {tier!r}; {known}{did_you_mean(tier, spec.tiers)}",
            where=f"{where}.tier" if scene.tier else "tier",
        )
        return
    yield from _find_picture_problems(job, scene, where, spec, registry)
    yield from _find_terms_problems(job, scene, where, spec, get_tolerance(job, registry))


def _find_picture_problems(
    job: Job, scene: Scene, where: str, spec: ModelSpec, registry: Registry
) -> Iterator[Problem]:
    names, references = spec.parameters, spec.references
    if names.image_required and not scene.reference_urls and not scene.has_start_frame:
        yield Problem(
            f"{job.model} needs a start image: give scene {scene.id!r} a start_image or a scene_reference_url",
            where=f"{where}.scene_reference_url",
        )
    if scene.has_start_frame and names.image is None:
        able = [name for name, each in registry.models.items() if each.parameters.image]
        field = "start_image" if scene.start_image else "continues"
        yield Problem(f"{job.model} takes no start image: {_list_able(able)}", where=f"{where}.{field}")
    if scene.has_end_frame and names.end_image is None:
        able = [name for name, each in registry.models.items() if each.parameters.end_image]
        field = "end_image" if scene.end_image else "ends_on"
        yield Problem(f"{job.model} takes no end image: {_list_able(able)}", where=f"{where}.{field}")
    if references and references.required and not scene.reference_urls:
        yield Problem(
            f"{job.model} needs references: give scene {scene.id!r} a scene_reference_url or character_reference_urls",
            where=f"{where}.scene_reference_url",
        )


def _list_able(models: list[str]) -> str:
    return f"these models do: {list_first(models, most=8)}" if models else "no model of the registry does"


def _find_terms_problems(job: Job, scene: Scene, where: str, spec: ModelSpec, tolerance_s: float) -> Iterator[Problem]:
    """Yield the reasons why the model does not make the clip under its conditions."""
    segments = split_scene(job, scene, spec, buffer=1.0)
    if len(segments) > 1:
        for segment in segments:
            yield from _find_terms_problems(job, segment, where, spec, tolerance_s)
        return
    found = find_clip_terms(job, scene, spec, 1.0)
    if found.terms.refused:
        yield Problem(f"{job.model} cannot make scene {scene.id!r}: {found.terms.refused}", where=where)
        return
    if found.asked.end_image and spec.parameters.end_image_needs_start and not found.asked.start_image:
        yield Problem(
            f"{job.model} takes an end image only with a start image: give scene {scene.id!r} a start_image",
            where=f"{where}.{'end_image' if scene.end_image else 'ends_on'}",
        )
    longest_prompt = found.terms.longest_prompt
    if longest_prompt is not None and len(scene.prompt) > longest_prompt:
        yield Problem(
            f"{job.model} takes at most {longest_prompt:,} characters, and the prompt has {len(scene.prompt):,}",
            where=f"{where}.prompt",
        )
    if is_too_long(scene, found, tolerance_s=tolerance_s):
        yield Problem(_describe_long_scene(job, scene, spec, found, tolerance_s), where=f"{where}.target_duration")
    if problem := spec.find_price_problem(found.asked, found.inputs):
        yield Problem(f"{job.model} has no price: {problem}", where=where)


def _suggest_ratio(asked: str, known: Iterable[str]) -> str:
    """Return a suggestion for a ratio that the model does not support, or an empty text.

    `16x9` gets a ratio that is spelt alike, `16:10` one of nearly the same shape.
    """
    if not re.fullmatch(r"[1-9]\d{0,3}:[1-9]\d{0,3}", asked, re.ASCII):
        return did_you_mean(asked, known)
    width, height = parse_ratio(asked) or (1, 1)
    shapes = {ratio: parsed[0] / parsed[1] for ratio in known if (parsed := parse_ratio(ratio))}
    alike = [ratio for ratio, shape in shapes.items() if abs(log(shape / (width / height))) < MAX_RATIO_DISTANCE]
    return did_you_mean(alike[0], alike) if alike else ""


def _describe_long_scene(job: Job, scene: Scene, spec: ModelSpec, found: ClipTerms, tolerance_s: float) -> str:
    """Return the message for a scene that is longer than any clip of its model, with the ways out."""
    longest, target_s = found.requested_s, scene.target_duration
    which = "" if found.terms.lengths is None else " of a clip with this tier and pictures"
    parts = ceil(target_s / longest)
    obstacle = find_segment_problem(spec, found)
    split = f"split the scene into {parts} of {target_s / parts:.4g} s"
    if obstacle is None:
        ways_out = f'{split}, or let it continue from clip to clip: long_scenes = "continue"'
    elif job.long_scenes == "continue":
        ways_out = f"it cannot continue a clip, because {obstacle}: {split}"
    else:
        ways_out = split
    problem = f"makes at most {longest:g} s{which}, more than {tolerance_s:g} s short of {target_s:g} s"
    return f"{job.model} {problem}: {ways_out}"


def find_job_warnings(job: Job) -> Iterator[str]:
    if isinstance(job.min_clips, int) and job.min_clips > job.clips_per_model:
        made = job.clips_per_model
        clips = f"{made} clip{'s' * (made > 1)}"
        yield f"min_clips: {job.min_clips} is more than the {clips} of this job: all of them are needed"
    left_in = [
        f"scenes.{index}.{field}: {found.group()} is sent as it is: variables are not filled in"
        for index, scene in enumerate(job.scenes)
        for field, text in (("prompt", scene.prompt), ("negative_prompt", scene.negative_prompt or ""))
        if (found := _VARIABLE.search(text))
    ]
    yield from left_in[:5]
    if len(left_in) > 5:
        more = len(left_in) - 5
        yield f"and {more} more {'prompt has' if more == 1 else 'prompts have'} variables in braces"


def find_warnings(registry: Registry, requests: tuple[ClipRequest, ...], today: date | None) -> Iterator[str]:
    by_model: dict[str, list[ClipRequest]] = {}
    for request in requests:
        for each in request.alternatives:
            by_model.setdefault(each.model, []).append(each)
    for name, of_one_model in by_model.items():
        spec = registry.get_model(name)
        yield from _find_model_warnings(spec, of_one_model)
        price = spec.get_price(audio=of_one_model[0].audio)
        if today and spec.retires and today < spec.retires <= today + RETIREMENT_NOTICE:
            yield f"{name} retires on {spec.retires}{_suggest_successor(spec)}"
        if price.basis == "unknown":
            yield _describe_unknown_price(name, spec, of_one_model)
        elif today and (age := today - price.as_of) > MAX_PRICE_AGE:
            asked = f"{name}: its price of {price.as_of} is {age.days} days old"
            yield f"{asked}, look it up at {spec.source}"


def _describe_unknown_price(name: str, spec: ModelSpec, requests: Sequence[ClipRequest]) -> str:
    cost = format_money(sum((request.cost for request in requests), Decimal(0)))
    return (
        f"THE PRICE OF {name} IS NOT KNOWN: the {cost} of its clips are a guess on the high side. Look the price up at "
        f'{spec.source} and write it into the registry, with basis = "exact"'
    )


def _find_model_warnings(spec: ModelSpec, requests: Sequence[ClipRequest]) -> Iterator[str]:
    model = requests[0].model
    timeout_s = requests[0].prediction.timeout_s
    if timeout_s < spec.typical_run_seconds:
        typical = f"{spec.typical_run_seconds:g} s that {model} typically needs"
        yield f"the timeout of {timeout_s:g} s is below the {typical}"
    unmet: tuple[tuple[str, Callable[[ClipRequest], object]], ...] = (
        (
            "references are dropped, the model takes no images",
            lambda r: r.references.dropped and not spec.parameters.image,
        ),
        (
            "references are dropped, the start image takes their place",
            lambda r: r.references.dropped and spec.parameters.image,
        ),
        ("the negative prompt is not sent", lambda r: r.scene.negative_prompt and not spec.parameters.negative_prompt),
        ("the seed is not sent", lambda r: r.scene.seed is not None and not spec.parameters.seed),
        ("the prompt is not sent, the model takes only an image", lambda _: not spec.parameters.prompt),
        ("sound is wanted, but the model cannot be asked for it", lambda r: r.audio and not spec.audio),
        ("the length is left to the model; the price is that of its longest clip", lambda r: r.length_is_automatic),
        ("shorter than the target within the tolerance", lambda r: r.requested_duration < r.scene.target_duration),
    )
    for what, applies in unmet:
        if scenes := [request.scene.id for request in requests if applies(request)]:
            yield f"{model}: {what} ({list_first(scenes)})"
    if spec.refused_pictures and (scenes := [each.scene.id for each in requests if each.prediction.images]):
        yield f"{model}: it may refuse pictures with {spec.refused_pictures} ({list_first(scenes)})"
    changed: dict[str, list[str]] = {}
    for request in requests:
        for each in request.changed_inputs:
            changed.setdefault(f"{each.name} {each.asked} is not to be had: {each.sent}", []).append(request.scene.id)
    for what, scenes in changed.items():
        yield f"{model}: {what} ({list_first(scenes)})"


def get_tolerance(job: Job, registry: Registry) -> float:
    return registry.defaults.duration_tolerance if job.duration_tolerance is None else job.duration_tolerance


def as_list(value: ImageInput | list[ImageInput]) -> list[ImageInput]:
    return value if isinstance(value, list) else [value]


def get_image_names(value: ImageInput | list[ImageInput]) -> str | list[str]:
    return [image.name for image in value] if isinstance(value, list) else value.name


def shorten_address(source: str) -> str:
    """Return the address of a reference, shortened to 61 characters if it has more than 100."""
    return source if len(source) <= 100 else f"{source[:60]}…"
