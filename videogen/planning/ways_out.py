"""Find changes of a job that is refused because of its cap, with which it can run."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal

from videogen.errors import ValidationError
from videogen.job.model import Job, Scene
from videogen.planning.own_inputs import find_input_problems
from videogen.planning.plan import Plan
from videogen.planning.rules import find_problems
from videogen.planning.terms import find_clip_terms
from videogen.registry.model_spec import Registry

MAX_MODELS = 2
"""How many other models are named at most."""
MAX_SCENES = 20
"""How many scenes `--only` names at most."""
MAX_PLANNED_CLIPS = 3_000
"""How many clips are planned at most to find other models, so that a large job is refused soon, too."""


@dataclass(frozen=True)
class WayOut:
    """A flag of the command line with which a job keeps its cap."""

    flag: str
    job: Job
    """The job with the change, unless the flag selects scenes."""
    only: tuple[str, ...]
    """Ids of the scenes to make; empty means those that the job makes anyway."""
    plan: Plan

    def describe(self) -> str:
        """Return the flag with the price of its plan."""
        return f"{self.flag} {self.plan.describe_cost()}"


def find_ways_out(planned: Plan, job: Job, registry: Registry, *, make_plan: Callable[[Job], Plan]) -> Iterator[WayOut]:
    """Yield the changes with which the clips to make cost no more than the cap has left for them.

    These are the other tiers of the model, up to `MAX_MODELS` other models whose price is closest below the cap, and
    the first scenes that the cap covers. A change after which the plan has another kind of warning is none of them.

    Args:
        planned: the plan of the job, which costs more than its cap.
        job: the job as it was planned, with its prompts composed.
        make_plan: plans another job like this one, with the clips that can be reused. It raises `ValidationError` if
            the job cannot be run.
    """
    doubts = _find_doubts(planned)

    def try_change(name: str, value: str) -> Iterator[WayOut]:
        changed = job.model_copy(update={name: value})
        if any(find_input_problems(changed, registry)):
            return
        try:
            plan = make_plan(changed)
        except ValidationError:
            return
        if fits_cap(plan) and _find_doubts(plan) <= doubts:
            yield WayOut(f"--{name} {value}", changed, (), plan)

    for tier in _list_tiers(job, registry):
        yield from try_change("tier", tier)
    models: list[WayOut] = []
    for name in _list_models(planned, job, registry):
        models += try_change("model", name)
        if len(models) == MAX_MODELS:
            break
    yield from sorted(models, key=lambda way: way.plan.total_cost, reverse=True)
    yield from _find_first_scenes(planned, job)


def fits_cap(plan: Plan) -> bool:
    """Return whether the rest of the cap covers all clips of the plan."""
    remaining = plan.remaining_budget
    return remaining is None or plan.total_cost <= remaining


def _find_doubts(plan: Plan) -> set[str]:
    """Return the beginnings of the plan's warnings, without the names of models, scenes and numbers."""
    models = sorted({each.model for request in plan.requests for each in request.alternatives}, key=len, reverse=True)
    names = re.compile("|".join(map(re.escape, models)))
    return {re.split(r"[\d(]", names.sub("", warning), maxsplit=1)[0] for warning in plan.warnings}


def _list_tiers(job: Job, registry: Registry) -> list[str]:
    tiers = {tier: None for name in job.models_to_run for tier in registry.get_model(name).tiers}
    return [tier for tier in tiers if tier != job.tier]


def _list_models(planned: Plan, job: Job, registry: Registry) -> list[str]:
    """Return other models to try, as many as can be planned soon.

    Those come first with which the plan probably costs as much as the cap allows, by the price of the dearest clip.
    """
    costs = [(request.parts[0].cost, request.scene) for request in planned.to_create if request.scene.model is None]
    dearest, scene = max(costs, key=lambda pair: pair[0], default=(Decimal(0), None))
    if job.models or not dearest or scene is None:
        return []
    room, found = planned.remaining_budget or Decimal(0), []
    for number, (name, spec) in enumerate(registry.models.items()):
        cost = _find_price(job.model_copy(update={"model": name}), scene, registry)
        if name != job.model and cost is not None:
            expected = planned.total_cost * cost / dearest
            is_estimate = spec.get_price(audio=job.audio).basis != "exact"
            found.append((expected > room, abs(room - expected), is_estimate, number, name))
    return [name for *_, name in sorted(found)][: MAX_PLANNED_CLIPS // len(planned.requests)]


def _find_price(job: Job, scene: Scene, registry: Registry) -> Decimal | None:
    """Return what the job's model asks for one clip of the scene; None if it cannot make it."""
    if any(find_problems(job.model_copy(update={"scenes": (scene,), "fallback_models": ()}), registry)):
        return None
    asked, spec = job.of_scene(scene), registry.get_model(job.model)
    terms = find_clip_terms(asked, scene, spec, registry.defaults.duration_buffer)
    price = spec.get_price(audio=asked.audio)
    return price.calculate_cost(terms.requested_s, spec.typical_run_seconds, terms.inputs)


def _find_first_scenes(planned: Plan, job: Job) -> Iterator[WayOut]:
    """Yield the longest beginning of the film that the cap covers, with the clips that are paid for already."""
    wanted = {request.scene.id for request in planned.to_make if request.scene.id in planned.resumed}
    found: WayOut | None = None
    for request in planned.to_create[: MAX_SCENES + 1]:
        wanted.add(request.scene.id)
        selected = planned.select(wanted)
        if not fits_cap(selected):
            break
        ids = tuple(each.scene.id for each in planned.to_make if each.scene.id in wanted)
        found = WayOut(f"--only {','.join(ids)}", job, ids, selected)
    if found and len(found.only) <= MAX_SCENES:
        yield found
