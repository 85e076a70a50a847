"""Make the plan of a job: one request for each scene and model, with its fallbacks."""

import re
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from datetime import date
from graphlib import TopologicalSorter
from typing import Any

from videogen.job.model import Job, Scene, count_required_clips
from videogen.planning.own_inputs import find_input_warnings
from videogen.planning.plan import Plan, find_reused
from videogen.planning.requests import (
    ClipRequest,
    ExpectedBill,
    ImageInput,
    OutputPrice,
    PredictionRequest,
    ReferenceUse,
)
from videogen.planning.rules import (
    as_list,
    find_job_warnings,
    find_tier_warnings,
    find_warnings,
    get_image_names,
    get_tolerance,
    shorten_address,
    validate_job,
)
from videogen.planning.segments import split_scene
from videogen.planning.terms import ClipTerms, find_clip_terms, find_inputs_with_other_sound
from videogen.registry import durations
from videogen.registry.conditions import Asked
from videogen.registry.model_spec import FRAME_SIZES, ModelSpec, Registry
from videogen.registry.prices import Amount, Price
from videogen.registry.tables import FREE_RATIOS


def build_plan(
    job: Job,
    registry: Registry,
    *,
    digests: Mapping[str, str] | None = None,
    cut_outs: Container[str] = (),
    buffer: float | None = None,
    today: date | None = None,
    chosen: Mapping[str, str] | None = None,
) -> Plan:
    """Return the plan of a job: one request for every clip.

    Args:
        job: the job.
        registry: the models and defaults.
        digests: SHA-256 (hex) of the bytes of each reference, by its address in the job.
        cut_outs: the digests of opaque images with a plain background that can be removed.
        buffer: multiplier for models of continuous duration, at least 1; None means the registry's.
        today: date by which models have retired and prices are old; None disables both.
        chosen: by the id of a clip, the id of the take that others continue in its place.

    Raises:
        ValidationError: with every reason why the job cannot be run.
    """
    validate_job(job, registry, today)
    planner = _Planner(registry, buffer or registry.defaults.duration_buffer, digests or {}, cut_outs, chosen or {})
    requests = planner.make_requests(job)
    return Plan(
        job_id=job.id,
        model=", ".join(job.models_used),
        variants_per_scene=job.variants_per_scene,
        aspect_ratio=job.aspect_ratio,
        min_clips=count_required_clips(job.min_clips or registry.defaults.min_clips, job.clips_per_model),
        concurrency=job.concurrency or registry.defaults.concurrency,
        max_cost=job.max_cost,
        requests=requests,
        reused=find_reused(requests, frozenset()),
        warnings=(
            *find_job_warnings(job),
            *find_tier_warnings(job, registry),
            *find_input_warnings(job, registry),
            *find_warnings(registry, requests, today),
        ),
    )


@dataclass
class _Planner:
    """Makes the requests of a job, those first from whose clips others are made."""

    registry: Registry
    buffer: float
    digests: Mapping[str, str]
    cut_outs: Container[str]
    chosen: Mapping[str, str]
    made: dict[str, ClipRequest] = field(default_factory=dict)
    """The requests so far, by the ids of their scenes."""

    def make_requests(self, job: Job) -> tuple[ClipRequest, ...]:
        """Return the request of each variant of each scene, in the order of the job."""
        variants = {scene.id: (index, scene, model) for index, (scene, model) in enumerate(job.variants())}
        upstreams = {
            scene.id: [each for id_ in scene.upstream_ids for each in (id_, self.chosen.get(id_, id_))]
            for _, scene, _ in variants.values()
        }
        for scene_id in TopologicalSorter(upstreams).static_order():
            index, scene, model = variants[scene_id]
            asked = job.of_scene(scene).model_copy(update={"model": model})
            self.made[scene_id] = self._make_request_with_fallbacks(asked, scene, index)
        return tuple(self.made[scene_id] for scene_id in variants)

    def _make_request_with_fallbacks(self, job: Job, scene: Scene, index: int) -> ClipRequest:
        later: tuple[ClipRequest, ...] = ()
        fallbacks = [name for name in job.fallback_models if name != job.model]
        for name in (*reversed(fallbacks), job.model):
            request = self._make_clip_request(job.model_copy(update={"model": name}), scene, index)
            segments = tuple(segment.model_copy(update={"fallbacks": later}) for segment in request.segments)
            later = (request.model_copy(update={"fallbacks": later, "segments": segments}), *later)
        return later[0]

    def _make_clip_request(self, job: Job, scene: Scene, index: int) -> ClipRequest:
        spec = self.registry.get_model(job.model)
        parts = split_scene(job, scene, spec, buffer=self.buffer)
        if len(parts) == 1:
            return self._make_request(job, scene, index)
        segments: list[ClipRequest] = []
        for number, part in enumerate(parts, 1):
            place = {"segment": number, "is_cut": number < len(parts)}
            segment = self._make_request(job, part, index).model_copy(update=place)
            self.made[segment.part_id] = segment
            segments.append(segment)
        requested_s = sum(segment.requested_duration for segment in segments)
        has_buffer = any(segment.buffer_cost_impact for segment in segments)
        whole: dict[str, Any] = {
            "scene": scene,
            "segment": None,
            "is_cut": False,
            "segments": tuple(segments),
            "buffered_duration": sum(segment.buffered_duration for segment in segments),
            "requested_duration": requested_s,
            "typical_run_s": sum(segment.typical_run_s for segment in segments),
            "buffer_cost_impact": durations.calculate_cost_impact(scene.target_duration, requested_s)
            if has_buffer
            else 0.0,
        }
        return segments[0].model_copy(update=whole)

    def _make_request(self, job: Job, scene: Scene, index: int) -> ClipRequest:
        spec = self.registry.get_model(job.model)
        found = find_clip_terms(job, scene, spec, self.buffer)
        requested = found.requested_s
        inputs: dict[str, Any] = {**found.inputs, **_make_scene_inputs(scene, spec)}
        images, uses = self._make_image_inputs(scene, spec, found.asked, inputs)
        price = spec.get_price(audio=job.audio)
        has_buffer = price.follows_length(inputs) and not found.length_is_automatic
        impact = durations.calculate_cost_impact(scene.target_duration, requested) if has_buffer else 0.0
        prediction = PredictionRequest(
            endpoint=spec.replicate,
            version=spec.version,
            inputs=inputs | {name: get_image_names(value) for name, value in images.items()},
            images={image.name: image for value in images.values() for image in as_list(value)},
            timeout_s=job.timeout_seconds or spec.timeout_seconds or self.registry.defaults.timeout_seconds,
            cost=price.calculate_cost(requested, spec.typical_run_seconds, inputs),
            cost_is_exact=price.basis == "exact" and not found.length_is_automatic,
            gpu_cost_per_s=price.per_gpu_second,
            expected_bill=None
            if price.per_gpu_second is not None
            else _make_expected_bill(job, scene, spec, found, inputs),
        )
        return ClipRequest(
            scene=scene,
            clip_index=index if scene.clip_index is None else scene.clip_index,
            model=job.model,
            prediction=prediction,
            references=uses,
            aspect_ratio=job.aspect_ratio,
            ratio_inputs=spec.aspect_ratios[job.aspect_ratio],
            buffered_duration=found.buffered_s,
            requested_duration=requested,
            length_is_automatic=found.length_is_automatic,
            tolerance_s=get_tolerance(job, self.registry),
            typical_run_s=spec.typical_run_seconds,
            attempts=job.attempts or self.registry.defaults.attempts,
            changed_inputs=tuple(each for each in found.terms.changed if each.sent not in FREE_RATIOS),
            buffer_cost_impact=impact,
            audio=job.audio,
            strict_quality=job.strict_quality,
            deliver_fps=spec.delivery.fps,
            deliver_size=spec.delivery.sizes.get(job.aspect_ratio),
        )

    def _make_image_inputs(
        self, scene: Scene, spec: ModelSpec, asked: Asked, inputs: Mapping[str, Any]
    ) -> tuple[dict[str, ImageInput | list[ImageInput]], ReferenceUse]:
        """Return the images to send, by input name, and how the references are used.

        The scene's own start and end frames are sent as such. The references are sent as a list where the model accepts
        one, else composed into one start frame, unless the scene has its own.
        """
        names, sources, digests = spec.parameters, scene.reference_urls, self.digests
        shown = tuple(shorten_address(source) for source in sources)
        size = spec.get_frame_size(asked.aspect_ratio)
        pixels = _find_finer_size(size, inputs) if size else None
        images: dict[str, ImageInput | list[ImageInput]] = {}
        for name, source in ((names.image, scene.start_image), (names.end_image, scene.end_image)):
            if name and source:
                images[name] = ImageInput(size=size, background=digests[source], pixels=pixels)
        if names.image and scene.continues:
            images[names.image] = self._make_frame_of(scene.continues, at_the_cut=True)
        if names.end_image and scene.ends_on:
            images[names.end_image] = self._make_frame_of(scene.ends_on, at_the_cut=False)
        if not sources:
            return images, ReferenceUse()
        if asked.references and spec.references:
            images[spec.references.input] = [ImageInput(background=digests[source]) for source in sources]
            return images, ReferenceUse(used=shown)
        if names.image is None or names.image in images:
            return images, ReferenceUse(dropped=shown)
        characters = tuple(digests[source] for source in scene.character_reference_urls)
        covers_the_frame = scene.scene_reference_url is None and len(characters) == 1
        images[names.image] = ImageInput(
            size=size or (FRAME_SIZES["16:9"] if characters else None),
            background=digests[scene.scene_reference_url] if scene.scene_reference_url else None,
            characters=characters,
            cut_outs=() if covers_the_frame else tuple(sorted({each for each in characters if each in self.cut_outs})),
            pixels=pixels,
        )
        return images, ReferenceUse(composed=shown)

    def _make_frame_of(self, scene_id: str, *, at_the_cut: bool) -> ImageInput:
        """Return the frame at which the clip of another scene, or its chosen take, is cut, or its first one.

        The frame is named by the scene's own clip, so that the choice of a take changes no key.
        """
        upstream, source_id = self.made[scene_id], self.chosen.get(scene_id, scene_id)
        cut_s = upstream.scene.target_duration if at_the_cut else None
        is_seam = upstream.segment is not None
        return ImageInput(scene_id=source_id, clip_key=upstream.key, cut_s=cut_s, is_seam=is_seam)


def _make_expected_bill(
    job: Job, scene: Scene, spec: ModelSpec, found: ClipTerms, inputs: Mapping[str, Any]
) -> ExpectedBill:
    can_choose = spec.audio is not None and not spec.audio.always
    other_inputs = find_inputs_with_other_sound(job, scene, spec, found) if can_choose else {}
    resolution = None if "resolution" in spec.ignored else inputs.get("resolution", inputs.get("quality"))
    price = spec.get_price(audio=job.audio)
    variants = {row.when.get("mode") for row in price.rows} - {None}
    return ExpectedBill(
        seconds=found.requested_s,
        can_be_shorter=found.length_is_automatic,
        sound=None if (spec.audio and spec.audio.always) or (job.audio and not can_choose) else job.audio,
        resolution=resolution if isinstance(resolution, str) else None,
        variant=inputs.get("mode") if variants else None,
        price=_make_output_price(price.find_rows(dict(inputs))[0]),
        other_prices=_find_other_prices(price, inputs),
        price_with_other_sound=_find_output_price(spec.get_price(audio=not job.audio), other_inputs)
        if can_choose
        else None,
        source=spec.source,
    )


def _find_other_prices(price: Price, inputs: Mapping[str, Any]) -> dict[str, OutputPrice]:
    """Return the prices of the same clip in other resolutions and variants, by the names that a bill has for them."""
    found = {}
    for row in price.rows:
        for name in ("resolution", "quality", "mode"):
            value = row.when.get(name)
            if value in (None, inputs.get(name)):
                continue
            if other := _find_output_price(price, {**inputs, name: value}):
                found[str(value).lower()] = other
    return found


def _find_output_price(price: Price, inputs: Mapping[str, Any]) -> OutputPrice | None:
    rows = price.find_rows(dict(inputs))
    return _make_output_price(rows[0]) if len(rows) == 1 else None


def _make_output_price(amount: Amount) -> OutputPrice:
    return OutputPrice(per_second=amount.per_second, per_clip=amount.per_clip)


def _make_scene_inputs(scene: Scene, spec: ModelSpec) -> dict[str, Any]:
    names = spec.parameters
    pairs = ((names.prompt, scene.prompt), (names.negative_prompt, scene.negative_prompt), (names.seed, scene.seed))
    return {name: value for name, value in pairs if name is not None and value is not None}


def _find_finer_size(size: tuple[int, int], inputs: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return the size of a start frame in the requested resolution ("1080p"), or None if that is not finer."""
    named = re.fullmatch(r"(\d{3,4})p", str(inputs.get("resolution")), re.ASCII)
    lines = int(named[1]) if named else 0
    edge = min(size)
    if lines <= edge:
        return None
    return round(size[0] * lines / edge / 2) * 2, round(size[1] * lines / edge / 2) * 2
