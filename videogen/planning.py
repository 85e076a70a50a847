"""Plan the requests of a job. Pure: nothing is read, fetched or spent here."""

import heapq
import re
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from math import ceil, log
from typing import Any

from pydantic import BaseModel, ConfigDict

from videogen import durations
from videogen.clip import ClipRequest, ImageInput, ReferenceUse
from videogen.complaints import did_you_mean
from videogen.errors import Problem, ValidationError
from videogen.registry import ModelSpec, Price, Registry
from videogen.scene import Job, Scene, count_required_clips

_VARIABLE = re.compile(r"\$?\{\{? ?[A-Za-z_][\w.-]{0,40} ?\}?\}", re.ASCII)
MAX_PRICE_AGE = timedelta(days=90)
"""A plan warns about prices that were looked up longer ago than this."""
MAX_RATIO_DISTANCE = 0.15
"""Largest difference of two ratios' natural logarithms at which one is suggested for the other."""


class Plan(BaseModel):
    """All requests of a run, and their cost. Money is in USD, times are in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    job_id: str
    model: str
    """Name of the model; the names of several models are separated by commas."""
    variants_per_scene: int
    """Number of clips of each scene. They follow each other in `requests`."""
    aspect_ratio: str
    min_clips: int
    """Minimum number of delivered clips, of each model."""
    concurrency: int
    max_cost: Decimal | None
    requests: tuple[ClipRequest, ...]
    reused: frozenset[str]
    """Ids of the scenes that cost nothing: delivered before, or the same clip as an earlier scene of the job."""
    warnings: tuple[str, ...]
    spent_before: Decimal = Decimal(0)
    """Cost of earlier runs of the job, including the amount still reserved for their predictions."""

    @property
    def to_create(self) -> tuple[ClipRequest, ...]:
        """The requests that need a paid prediction."""
        return tuple(request for request in self.requests if request.scene.id not in self.reused)

    @property
    def total_cost(self) -> Decimal:
        """Price if every first prediction succeeds."""
        return sum((request.cost for request in self.to_create), Decimal(0))

    @property
    def worst_case_cost(self) -> Decimal:
        """Price if every clip needs all attempts, including those of its fallback models, and all are billed."""
        return sum((request.worst_case_cost for request in self.to_create), Decimal(0))

    @property
    def cost_is_exact(self) -> bool:
        """Whether the provider publishes all prices in `total_cost`."""
        return all(request.cost_is_exact for request in self.to_create)

    @property
    def start_order(self) -> tuple[ClipRequest, ...]:
        """The requests in the order in which they start: longest first, so that all slots end at about one time."""
        return tuple(sorted(self.requests, key=lambda r: -r.typical_run_s * r.requested_duration))

    @property
    def expected_s(self) -> float:
        """Duration of the run if every prediction takes its typical time and succeeds."""
        slots = [0.0] * self.concurrency
        for request in self.start_order:
            if request.scene.id not in self.reused:
                heapq.heapreplace(slots, slots[0] + request.typical_run_s)
        return max(slots)

    @property
    def buffer_cost_impact(self) -> float:
        """Percentage that the buffer adds to a clip, on average."""
        return round(sum(request.buffer_cost_impact for request in self.requests) / len(self.requests), 1)

    def with_reuse(self, delivered: Container[str], *, paid: Container[str] = (), kept: Container[str] = ()) -> "Plan":
        """Return the plan with the work of earlier runs reused.

        Args:
            delivered: keys of delivered clips, which are reused. A scene that a fallback model made stays with it.
            paid: keys of clips that an earlier run started, which are continued.
            kept: ids of scenes whose clip is kept even if the job has changed.
        """
        requests = tuple(_prefer_alternative_in_progress(request, delivered, paid) for request in self.requests)
        kept_ids = frozenset(request.scene.id for request in requests if request.scene.id in kept)
        return self.model_copy(update={"requests": requests, "reused": _find_reused(requests, delivered) | kept_ids})

    def with_kept_requests(self, before: "Plan", *, made: Container[str]) -> "Plan":
        """Return the plan with requests of `before`, which an earlier version would plan, where their clips exist.

        Both plans have the same scenes. `made` are the keys of the existing clips.
        """
        pairs = zip(self.requests, before.requests, strict=True)
        return self.model_copy(update={"requests": tuple(old if old.key in made else new for new, old in pairs)})

    def with_warnings(self, *warnings: str) -> "Plan":
        """Return the plan with warnings added."""
        return self.model_copy(update={"warnings": (*self.warnings, *warnings)})

    def with_prior_cost(self, spent: Decimal) -> "Plan":
        """Return the plan with the cost of earlier runs, and a warning if the rest of `max_cost` does not cover it."""
        planned = self.model_copy(update={"spent_before": spent})
        if self.max_cost is None or spent + self.total_cost <= self.max_cost:
            return planned
        left = max(Decimal(0), self.max_cost - spent)
        return planned.with_warnings(
            f"${spent} of ${self.max_cost} are spent on this job, and this run costs ${self.total_cost}: what the "
            f"${left} left do not cover ends as `budget`; --max-cost {spent + self.total_cost} covers all of it"
        )

    def summary(self) -> dict[str, Any]:
        """Return the plan as JSON value, as `--dry-run --json` prints it."""
        return {
            "job_id": self.job_id,
            "model": self.model,
            "aspect_ratio": self.aspect_ratio,
            "total_cost": str(self.total_cost),
            "spent_before": str(self.spent_before),
            "cost_is_exact": self.cost_is_exact,
            "worst_case_cost": str(self.worst_case_cost),
            "expected_seconds": self.expected_s,
            "buffer_cost_impact": self.buffer_cost_impact,
            "warnings": list(self.warnings),
            "scenes": [self._scene_summary(request) for request in self.requests],
        }

    def _scene_summary(self, request: ClipRequest) -> dict[str, Any]:
        reused = request.scene.id in self.reused
        return {
            "scene_id": request.scene.id,
            "target_duration": request.scene.target_duration,
            "original_target_duration": request.original_target_duration,
            "buffered_duration": request.buffered_duration,
            "requested_duration": request.requested_duration,
            "inputs": request.inputs,
            "references": request.references.model_dump(mode="json"),
            "cost": "0" if reused else str(request.cost),
            "cost_is_exact": request.cost_is_exact,
            "buffer_cost_impact": request.buffer_cost_impact,
            "reused": reused,
            "fallbacks": [
                {"model": each.model, "requested_duration": each.requested_duration, "cost": str(each.cost)}
                for each in request.fallbacks
            ],
        }


def plan_job(
    job: Job,
    registry: Registry,
    *,
    digests: Mapping[str, str] | None = None,
    cut_outs: Container[str] = (),
    buffer: float | None = None,
    today: date | None = None,
) -> Plan:
    """Return the plan of a job: one request for every clip.

    Args:
        job: the job.
        registry: the models and defaults.
        digests: SHA-256 (hex) of the bytes of each reference, by its address in the job.
        cut_outs: the digests of opaque images with a plain background that can be removed.
        buffer: multiplier for models of continuous duration, at least 1; None means the registry's.
        today: date used to warn about old prices; None disables the warning.

    Raises:
        ValidationError: with every reason why the job cannot be run.
    """
    validate_job(job, registry)
    buffer = buffer or registry.defaults.duration_buffer
    digests = digests or {}
    requests = tuple(
        _make_request_with_fallbacks(
            job.model_copy(update={"model": model}), scene, index, registry, buffer, digests, cut_outs
        )
        for index, (scene, model) in enumerate(job.variants())
    )
    return Plan(
        job_id=job.id,
        model=", ".join(job.models_to_run),
        variants_per_scene=job.variants_per_scene,
        aspect_ratio=job.aspect_ratio,
        min_clips=count_required_clips(job.min_clips or registry.defaults.min_clips, len(job.scenes) * job.takes),
        concurrency=job.concurrency or registry.defaults.concurrency,
        max_cost=job.max_cost,
        requests=requests,
        reused=_find_reused(requests, frozenset()),
        warnings=(*_find_job_warnings(job), *_find_warnings(registry, requests, today)),
    )


def validate_job(job: Job, registry: Registry) -> None:
    """Raise `ValidationError` with every reason why the job cannot be run."""
    if problems := list(find_problems(job, registry)):
        raise ValidationError(problems)


def find_problems(job: Job, registry: Registry) -> Iterator[Problem]:
    """Yield every reason why the job cannot be run."""
    for index, name in enumerate(job.models_to_run):
        yield from _find_problems_of_name(job, name, registry, where=f"models.{index}" if job.models else "model")
    for index in range(len(job.fallback_models)):
        yield from _find_fallback_problems(job, index, registry)


def _find_problems_of_name(job: Job, name: str, registry: Registry, *, where: str) -> Iterator[Problem]:
    if name in registry.models:
        yield from _find_model_problems(job.model_copy(update={"model": name}), registry.get_model(name), registry)
    else:
        yield Problem(registry.describe_unknown_model(name), where=where)


def validate_budget(planned: Plan) -> None:
    """Raise `ValidationError` if the plan costs more than the job allows."""
    if planned.max_cost is not None and planned.total_cost > planned.max_cost:
        message = f"the plan costs ${planned.total_cost}, more than the ${planned.max_cost} allowed"
        raise ValidationError([Problem(message, where="max_cost")])


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
        yield from _find_duration_problem(job, index, scene, spec, _get_tolerance(job, registry))


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


def _make_request_with_fallbacks(
    job: Job,
    scene: Scene,
    index: int,
    registry: Registry,
    buffer: float,
    digests: Mapping[str, str],
    cut_outs: Container[str],
) -> ClipRequest:
    later: tuple[ClipRequest, ...] = ()
    for name in (*reversed(job.fallback_models), job.model):
        request = _make_request(
            job.model_copy(update={"model": name}), scene, index, registry, buffer, digests, cut_outs
        )
        later = (request.model_copy(update={"fallbacks": later}), *later)
    return later[0]


def _prefer_alternative_in_progress(
    request: ClipRequest, delivered: Container[str], paid: Container[str]
) -> ClipRequest:
    """Return the alternative that an earlier run delivered or at least paid for, else the request itself."""
    there = (each for keys in (delivered, paid) for each in request.alternatives if each.key in keys)
    return next(there, request)


def _make_request(
    job: Job,
    scene: Scene,
    index: int,
    registry: Registry,
    buffer: float,
    digests: Mapping[str, str],
    cut_outs: Container[str],
) -> ClipRequest:
    spec = registry.get_model(job.model)
    buffered = spec.duration.apply_buffer(scene.target_duration, buffer)
    requested = spec.duration.choose_length(buffered)
    inputs: dict[str, Any] = {
        **spec.fixed,
        **spec.aspect_ratios[job.aspect_ratio],
        **spec.duration.make_inputs(requested),
        **(spec.audio.inputs if job.audio and spec.audio else {}),
        **_make_scene_inputs(scene, spec),
    }
    images, uses = _make_image_inputs(scene, spec, job.aspect_ratio, inputs, digests, cut_outs)
    price = _get_price(spec, job.audio)
    impact = durations.calculate_cost_impact(scene.target_duration, requested) if price.follows_length else 0.0
    return ClipRequest(
        scene=scene,
        clip_index=index if scene.clip_index is None else scene.clip_index,
        model=job.model,
        replicate=spec.replicate,
        version=spec.version,
        inputs=inputs | {name: _get_image_names(value) for name, value in images.items()},
        images={image.name: image for value in images.values() for image in _as_list(value)},
        references=uses,
        aspect_ratio=job.aspect_ratio,
        ratio_inputs=spec.aspect_ratios[job.aspect_ratio],
        buffered_duration=buffered,
        requested_duration=requested,
        tolerance_s=_get_tolerance(job, registry),
        timeout_s=job.timeout_seconds or spec.timeout_seconds or registry.defaults.timeout_seconds,
        typical_run_s=spec.typical_run_seconds,
        attempts=job.attempts or registry.defaults.attempts,
        cost=price.calculate_cost(requested, spec.typical_run_seconds),
        cost_is_exact=price.basis == "exact",
        gpu_cost_per_s=price.per_gpu_second,
        buffer_cost_impact=impact,
        audio=job.audio,
        strict_quality=job.strict_quality,
        deliver_fps=spec.delivery.fps,
        deliver_size=spec.delivery.sizes.get(job.aspect_ratio),
    )


def _get_price(spec: ModelSpec, audio: bool) -> Price:
    return spec.audio.price if audio and spec.audio else spec.price


def _make_scene_inputs(scene: Scene, spec: ModelSpec) -> dict[str, Any]:
    names = spec.parameters
    pairs = ((names.prompt, scene.prompt), (names.negative_prompt, scene.negative_prompt), (names.seed, scene.seed))
    return {name: value for name, value in pairs if name is not None and value is not None}


def _make_image_inputs(
    scene: Scene,
    spec: ModelSpec,
    aspect_ratio: str,
    inputs: Mapping[str, Any],
    digests: Mapping[str, str],
    cut_outs: Container[str],
) -> tuple[dict[str, ImageInput | list[ImageInput]], ReferenceUse]:
    """Return the images to send, by input name, and how the references are used.

    They are sent as a list where the model accepts one, else composed into one start frame.
    """
    sources = scene.reference_urls
    shown = tuple(shorten_address(source) for source in sources)
    native = spec.references
    if not sources:
        return {}, ReferenceUse()
    if native and len(sources) <= native.max and native.requires.items() <= inputs.items():
        listed = [ImageInput(background=digests[source]) for source in sources]
        return {native.input: listed}, ReferenceUse(used=shown)
    if spec.parameters.image is None:
        return {}, ReferenceUse(dropped=shown)
    size = spec.get_frame_size(aspect_ratio)
    characters = tuple(digests[source] for source in scene.character_reference_urls)
    covers_the_frame = scene.scene_reference_url is None and len(characters) == 1
    frame = ImageInput(
        size=size,
        background=digests[scene.scene_reference_url] if scene.scene_reference_url else None,
        characters=characters,
        cut_outs=() if covers_the_frame else tuple(sorted({each for each in characters if each in cut_outs})),
        pixels=_find_finer_size(size, inputs),
    )
    return {spec.parameters.image: frame}, ReferenceUse(composed=shown)


def _find_finer_size(size: tuple[int, int], inputs: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return the size of a start frame in the requested resolution ("1080p"), or None if that is not finer."""
    named = re.fullmatch(r"(\d{3,4})p", str(inputs.get("resolution")), re.ASCII)
    lines = int(named[1]) if named else 0
    edge = min(size)
    if lines <= edge:
        return None
    return round(size[0] * lines / edge / 2) * 2, round(size[1] * lines / edge / 2) * 2


def _find_reused(requests: tuple[ClipRequest, ...], delivered: Container[str]) -> frozenset[str]:
    seen: set[str] = set()
    reused = set()
    for request in requests:
        if request.key in seen or request.key in delivered:
            reused.add(request.scene.id)
        seen.add(request.key)
    return frozenset(reused)


def _find_job_warnings(job: Job) -> Iterator[str]:
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
        yield f"and {len(left_in) - 5} prompts more have variables in braces"


def _find_warnings(registry: Registry, requests: tuple[ClipRequest, ...], today: date | None) -> Iterator[str]:
    by_model: dict[str, list[ClipRequest]] = {}
    for request in requests:
        for each in request.alternatives:
            by_model.setdefault(each.model, []).append(each)
    for name, of_one_model in by_model.items():
        spec = registry.get_model(name)
        yield from _find_model_warnings(spec, of_one_model)
        price = _get_price(spec, of_one_model[0].audio)
        if today and (age := today - price.as_of) > MAX_PRICE_AGE:
            asked = f"{name}: its price of {price.as_of} is {age.days} days old"
            yield f"{asked}, look it up at {spec.source}"


def _find_model_warnings(spec: ModelSpec, requests: Sequence[ClipRequest]) -> Iterator[str]:
    model = requests[0].model
    timeout_s = requests[0].timeout_s
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
            shown = ", ".join(scenes[:5]) + (f" and {len(scenes) - 5} more" if len(scenes) > 5 else "")
            yield f"{model}: {what} ({shown})"


def _get_tolerance(job: Job, registry: Registry) -> float:
    return registry.defaults.duration_tolerance if job.duration_tolerance is None else job.duration_tolerance


def _as_list(value: ImageInput | list[ImageInput]) -> list[ImageInput]:
    return value if isinstance(value, list) else [value]


def _get_image_names(value: ImageInput | list[ImageInput]) -> str | list[str]:
    return [image.name for image in value] if isinstance(value, list) else value.name


def shorten_address(source: str) -> str:
    """Return the address of a reference, shortened to 61 characters if it has more than 100."""
    return source if len(source) <= 100 else f"{source[:60]}…"
