"""Find the problems and doubts of a job with its models."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import date
from math import ceil, log

from videogen.errors import Problem, ValidationError
from videogen.job.model import Job, Scene
from videogen.planning.plan import MAX_PRICE_AGE, Plan
from videogen.planning.requests import ClipRequest, ImageInput
from videogen.registry import durations
from videogen.registry.model_spec import ModelSpec, Price, Registry
from videogen.source_files.messages import did_you_mean
from videogen.text import format_money, list_first

_VARIABLE = re.compile(r"\$?\{\{? ?[A-Za-z_][\w.-]{0,40} ?\}?\}", re.ASCII)
MAX_RATIO_DISTANCE = 0.15
"""Largest difference of two ratios' natural logarithms at which one is suggested for the other."""


def validate_job(job: Job, registry: Registry) -> None:
    """Raise `ValidationError` with every reason why the job cannot be run."""
    if problems := list(find_problems(job, registry)):
        raise ValidationError(problems)


def find_problems(job: Job, registry: Registry) -> Iterator[Problem]:
    """Yield every reason why the job cannot be run."""
    for index, name in enumerate(job.models_to_run):
        yield from _find_problems_of_name(job, name, registry, where=f"models.{index}" if job.models else "model")
    if registry.models.keys().isdisjoint(job.models_to_run):
        yield from _find_ratio_problem(job, registry)
    for index in range(len(job.fallback_models)):
        yield from _find_fallback_problems(job, index, registry)


def _find_ratio_problem(job: Job, registry: Registry) -> Iterator[Problem]:
    """Yield the problem of a ratio that no model supports, where the job's own models are unknown."""
    known = {ratio for spec in registry.models.values() for ratio in spec.aspect_ratios}
    if job.aspect_ratio not in known:
        meant = _suggest_ratio(job.aspect_ratio, sorted(known))
        yield Problem(f"no model supports {job.aspect_ratio!r}{meant}", where="aspect_ratio")


def _find_problems_of_name(job: Job, name: str, registry: Registry, *, where: str) -> Iterator[Problem]:
    if name in registry.models:
        yield from _find_model_problems(job.model_copy(update={"model": name}), registry.get_model(name), registry)
    else:
        yield Problem(registry.describe_unknown_model(name), where=where)


def validate_budget(planned: Plan, *, fresh: bool = False) -> None:
    """Raise `ValidationError` if the plan costs more than the job allows.

    With `fresh`, what is left must cover at least one clip. Otherwise the run would replace the results of the last
    one with failures, and make nothing.
    """
    if problems := list(find_budget_problems(planned, fresh=fresh)):
        raise ValidationError(problems)


def find_budget_problems(planned: Plan, *, fresh: bool = False) -> Iterator[Problem]:
    """Yield the problem for which `validate_budget` refuses the plan, if there is one."""
    remaining = planned.remaining_budget
    if planned.max_cost is None or remaining is None or not planned.to_create:
        return
    if planned.total_cost > planned.max_cost:
        cost, allowed = format_money(planned.total_cost), format_money(planned.max_cost)
        advice = "allow more, or plan fewer or cheaper clips"
        yield Problem(f"the plan costs {cost}, more than the {allowed} allowed: {advice}", where="max_cost")
        return
    is_all_new = len(planned.to_create) == len(planned.requests)
    if fresh and is_all_new and remaining < min(request.cost for request in planned.to_create):
        yield Problem(
            f"{planned.describe_prior_cost()}, and the remaining {format_money(remaining)} does not cover any clip: "
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
        asked = job.model_copy(update={"model": name})
        for problem in _find_model_problems(asked, registry.get_model(name), registry):
            yield replace(problem, where=where)


def _find_model_problems(job: Job, spec: ModelSpec, registry: Registry) -> Iterator[Problem]:
    if job.aspect_ratio not in spec.aspect_ratios:
        meant = _suggest_ratio(job.aspect_ratio, spec.aspect_ratios)
        supported = ", ".join(spec.aspect_ratios)
        yield Problem(
            f"{job.model} does not support {job.aspect_ratio!r}; it supports {supported}{meant}", where="aspect_ratio"
        )
    for index, scene in enumerate(job.scenes):
        if spec.parameters.image_required and not scene.reference_urls:
            yield Problem(
                f"{job.model} needs a start image: give scene {scene.id!r} a scene_reference_url",
                where=f"scenes.{index}.scene_reference_url",
            )
        yield from _find_duration_problem(job, index, scene, spec, get_tolerance(job, registry))


def _suggest_ratio(asked: str, known: Iterable[str]) -> str:
    """Return a suggestion for a ratio that the model does not support, or an empty text.

    `16x9` gets a ratio that is spelt alike, `16:10` one of nearly the same shape.
    """
    if not re.fullmatch(r"[1-9]\d{0,3}:[1-9]\d{0,3}", asked, re.ASCII):
        return did_you_mean(asked, known)
    alike = [
        ratio for ratio in known if abs(log(_calculate_ratio(ratio) / _calculate_ratio(asked))) < MAX_RATIO_DISTANCE
    ]
    return did_you_mean(alike[0], alike) if alike else ""


def _calculate_ratio(ratio: str) -> float:
    width, height = map(int, ratio.split(":"))
    return width / height


def _find_duration_problem(
    job: Job, index: int, scene: Scene, spec: ModelSpec, tolerance_s: float
) -> Iterator[Problem]:
    longest = spec.duration.choose_length(spec.duration.apply_buffer(scene.target_duration, 1.0))
    if durations.calculate_shortfall(scene.target_duration, longest) > tolerance_s:
        parts = ceil(scene.target_duration / longest)
        yield Problem(
            f"{job.model} makes at most {longest:g} s, more than {tolerance_s:g} s short of {scene.target_duration:g} s"
            f": split the scene into {parts} of {scene.target_duration / parts:.4g} s",
            where=f"scenes.{index}.target_duration",
        )


def get_price(spec: ModelSpec, audio: bool) -> Price:
    return spec.audio.price if audio and spec.audio else spec.price


def find_job_warnings(job: Job) -> Iterator[str]:
    if isinstance(job.min_clips, int) and job.min_clips > len(job.scenes) * job.takes:
        made = len(job.scenes) * job.takes
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
        price = get_price(spec, of_one_model[0].audio)
        if today and (age := today - price.as_of) > MAX_PRICE_AGE:
            asked = f"{name}: its price of {price.as_of} is {age.days} days old"
            yield f"{asked}, look it up at {spec.source}"


def _find_model_warnings(spec: ModelSpec, requests: Sequence[ClipRequest]) -> Iterator[str]:
    model = requests[0].model
    timeout_s = requests[0].prediction.timeout_s
    if timeout_s < spec.typical_run_seconds:
        typical = f"{spec.typical_run_seconds:g} s that {model} typically needs"
        yield f"the timeout of {timeout_s:g} s is below the {typical}"
    unmet: tuple[tuple[str, Callable[[ClipRequest], object]], ...] = (
        ("references are dropped, the model takes no images", lambda r: r.references.dropped),
        ("the negative prompt is not sent", lambda r: r.scene.negative_prompt and not spec.parameters.negative_prompt),
        ("the seed is not sent", lambda r: r.scene.seed is not None and not spec.parameters.seed),
        ("the prompt is not sent, the model takes only an image", lambda _: not spec.parameters.prompt),
        ("sound is wanted, but the model cannot be asked for it", lambda r: r.audio and not spec.audio),
        ("shorter than the target within the tolerance", lambda r: r.requested_duration < r.scene.target_duration),
    )
    for what, applies in unmet:
        if scenes := [request.scene.id for request in requests if applies(request)]:
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
