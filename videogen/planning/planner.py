"""Make the plan of a job: one request for each scene and model, with its fallbacks."""

import re
from collections.abc import Container, Mapping
from datetime import date
from typing import Any

from videogen.job.model import Job, Scene, count_required_clips
from videogen.planning.plan import Plan, find_reused
from videogen.planning.requests import ClipRequest, ImageInput, PredictionRequest, ReferenceUse
from videogen.planning.rules import (
    as_list,
    find_job_warnings,
    find_warnings,
    get_image_names,
    get_price,
    get_tolerance,
    shorten_address,
    validate_job,
)
from videogen.registry import durations
from videogen.registry.model_spec import ModelSpec, Registry


def build_plan(
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
        reused=find_reused(requests, frozenset()),
        warnings=(*find_job_warnings(job), *find_warnings(registry, requests, today)),
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
    price = get_price(spec, job.audio)
    impact = durations.calculate_cost_impact(scene.target_duration, requested) if price.follows_length else 0.0
    prediction = PredictionRequest(
        endpoint=spec.replicate,
        version=spec.version,
        inputs=inputs | {name: get_image_names(value) for name, value in images.items()},
        images={image.name: image for value in images.values() for image in as_list(value)},
        timeout_s=job.timeout_seconds or spec.timeout_seconds or registry.defaults.timeout_seconds,
        cost=price.calculate_cost(requested, spec.typical_run_seconds),
        cost_is_exact=price.basis == "exact",
        gpu_cost_per_s=price.per_gpu_second,
    )
    return ClipRequest(
        scene=scene,
        clip_index=index if scene.clip_index is None else scene.clip_index,
        model=job.model,
        prediction=prediction,
        references=uses,
        aspect_ratio=job.aspect_ratio,
        ratio_inputs=spec.aspect_ratios[job.aspect_ratio],
        buffered_duration=buffered,
        requested_duration=requested,
        tolerance_s=get_tolerance(job, registry),
        typical_run_s=spec.typical_run_seconds,
        attempts=job.attempts or registry.defaults.attempts,
        buffer_cost_impact=impact,
        audio=job.audio,
        strict_quality=job.strict_quality,
        deliver_fps=spec.delivery.fps,
        deliver_size=spec.delivery.sizes.get(job.aspect_ratio),
    )


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
