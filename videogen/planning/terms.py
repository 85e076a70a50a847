"""Find the terms of a clip: what it asks of its model, the length and the inputs that the model is asked for."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from videogen.job.model import Job, Scene
from videogen.registry.conditions import Asked, Terms
from videogen.registry.model_spec import ModelSpec
from videogen.registry.tables import Inputs


@dataclass(frozen=True, slots=True)
class ClipTerms:
    """The terms of one clip. Durations are in seconds."""

    asked: Asked
    terms: Terms
    buffered_s: float
    requested_s: float
    """The longest that can come where the length is left to the model."""
    length_is_automatic: bool = False
    """Whether the length is left to the model."""

    @property
    def inputs(self) -> Inputs:
        """All inputs but those of the scene: its prompts, its seed and its images."""
        return self.terms.inputs


def find_clip_terms(job: Job, scene: Scene, spec: ModelSpec, buffer: float) -> ClipTerms:
    """Return the terms on which a model makes the clip of a scene.

    The references go into the model's list if it takes them under these terms, else into the start frame.
    """
    for asked in _iterate_uses(job, scene, spec):
        found = _choose_length(job, scene, spec, asked, buffer)
        if not asked.references or (spec.references and spec.references.requires.items() <= found.inputs.items()):
            break
    return found


def _iterate_uses(job: Job, scene: Scene, spec: ModelSpec) -> Iterator[Asked]:
    """Yield the ways in which the pictures of a scene can be sent, the best one first."""
    sources, listing, names = scene.reference_urls, spec.references, spec.parameters
    asked = Asked(
        aspect_ratio=job.aspect_ratio,
        tier=scene.tier or (job.tier if job.tier in spec.tiers else None) or spec.default_tier,
        audio=job.audio,
        start_image=scene.has_start_frame and names.image is not None,
        end_image=scene.has_end_frame and names.end_image is not None,
    )
    frames = {"start_image": asked.start_image, "end_image": asked.end_image}
    if listing and 0 < len(sources) <= listing.max and not any(frames[name] for name in listing.excludes):
        yield replace(asked, references=True)
    composes = bool(sources) and names.image is not None
    yield replace(asked, start_image=asked.start_image or composes)


def find_inputs_with_other_sound(job: Job, scene: Scene, spec: ModelSpec, found: ClipTerms) -> Inputs:
    """Return the inputs of the same clip with sound if it is silent, and the other way round."""
    asked = replace(found.asked, audio=not found.asked.audio)
    return spec.find_terms(asked, _collect_own_inputs(job, scene)).inputs


def _collect_own_inputs(job: Job, scene: Scene) -> Inputs:
    return {**job.inputs, **scene.inputs}


def _choose_length(job: Job, scene: Scene, spec: ModelSpec, asked: Asked, buffer: float) -> ClipTerms:
    own = _collect_own_inputs(job, scene)
    allowed = spec.find_terms(asked, own).lengths or None  # none is left to a clip that is refused
    is_automatic = spec.duration.is_left_to_model(own)
    if is_automatic:
        buffered_s = requested_s = spec.duration.find_longest(allowed)
    else:
        buffered_s = spec.duration.apply_buffer(scene.target_duration, buffer, allowed)
        requested_s = spec.duration.choose_length(buffered_s, allowed)
    asked = replace(asked, seconds=requested_s)
    return ClipTerms(asked, spec.find_terms(asked, own), buffered_s, requested_s, is_automatic)
