"""The requests for one clip and for its prediction, and the key that identifies the clip."""

import hashlib
import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from pydantic import BaseModel, ConfigDict

from videogen.job.model import Scene
from videogen.registry.conditions import ChangedInput

COMPOSITION = 1
"""Version of the composition of start frames. It is part of the key, so it is raised when the same references give
another frame, and only then."""


MAX_LENGTH_DIFFERENCE_S = 0.5
"""A billed length that differs by no more than this from one in a table of prices is that one."""


class FrozenModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


def digest(value: Any) -> str:
    """Return the SHA-256 (hex) of a JSON value. It does not depend on the order of keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def make_segment_id(scene_id: str, number: int) -> str:
    """Return the id by which a segment of a scene is told. No scene has such an id."""
    return f"{scene_id}#{number}"


class ImageInput(FrozenModel):
    """One image to send: a single reference, or a start frame composed of several."""

    size: tuple[int, int] | None = None
    """Width and height in pixels of the composed frame; None sends the single reference unchanged."""
    background: str | None = None
    """SHA-256 (hex) of the bytes of the background; None means that there is none."""
    characters: tuple[str, ...] = ()
    """SHA-256 (hex) of the bytes of each character reference."""
    cut_outs: tuple[str, ...] = ()
    """Those of `characters` whose plain background is removed."""
    pixels: tuple[int, int] | None = None
    """Width and height in pixels of the sent frame, if finer than `size`; None means `size`. It is not part of `name`:
    clips that were made from the coarser frame are still reused."""
    scene_id: str | None = None
    """Id of the scene whose clip the image is a frame of; None means that it is made from references."""
    clip_key: str | None = None
    """Key of that scene's request. It stays the same if a fallback makes the clip."""
    cut_s: float | None = None
    """Length in seconds at which that clip is cut: its last frame before that is sent. None sends its first frame."""
    is_seam: bool = False
    """Whether that clip is a segment of the same scene: the frame at the cut is sent, so that none is there twice."""

    @property
    def name(self) -> str:
        """Name of the image in a request's inputs: `sha256:` of its bytes, `frame:` and the digest of its recipe, or
        `clip:` with the key of the clip and the frame."""
        if self.clip_key is not None:
            frame = "first" if self.cut_s is None else f"{'at-' if self.is_seam else ''}{self.cut_s:g}s"
            return f"clip:{self.clip_key}:{frame}"
        if self.size is None:
            return f"sha256:{self.background}"
        recipe: list[Any] = [COMPOSITION, self.size, self.background, self.characters]
        if self.cut_outs:  # added only if present, so that the names of all other frames do not change
            recipe.append(["cut out", *self.cut_outs])
        return f"frame:{digest(recipe)}"


class ReferenceUse(FrozenModel):
    """The use of a scene's references, by their addresses in the job."""

    used: tuple[str, ...] = ()
    """References that are sent one by one."""
    composed: tuple[str, ...] = ()
    """References that are composed into one start frame."""
    dropped: tuple[str, ...] = ()
    """References that are not sent, because the model accepts no images."""


class OutputPrice(FrozenModel):
    """The price in USD of a prediction's output: per second of video, or per clip."""

    per_second: Decimal | None = None
    """USD for a second of video."""
    per_clip: Decimal | dict[float, Decimal] | None = None
    """USD for a clip, or a table of prices by seconds."""

    def calculate_cost(self, seconds: float, count: int = 1) -> Decimal | None:
        """Return the price in USD of `count` clips that are `seconds` long together; None if it has no such price.

        A length in a table of prices is found even if the provider bills a few frames less or more.
        """
        if self.per_second is not None:
            return self.per_second * Decimal(str(seconds))
        if not isinstance(self.per_clip, dict):
            return None if self.per_clip is None else self.per_clip * count
        length = min(self.per_clip, key=lambda each: abs(each - seconds / count))
        return self.per_clip[length] * count if abs(length - seconds / count) <= MAX_LENGTH_DIFFERENCE_S else None


class ExpectedBill(FrozenModel):
    """The bill that the plan expects for the output of a prediction. The real one is compared with it."""

    seconds: float
    """The most that is expected if the length is left to the model."""
    can_be_shorter: bool = False
    """Whether the length is left to the model."""
    sound: bool | None = None
    """Whether sound is requested; None if it is wanted, but the model cannot be asked for it."""
    resolution: str | None = None
    """The resolution that is requested; None if there is no input for it."""
    variant: str | None = None
    """The variant of the model that is requested, such as `pro`; None if the price does not depend on it."""
    price: OutputPrice
    other_prices: dict[str, OutputPrice] = {}
    """The prices of the same clip in the other resolutions and variants of the registry, by their names."""
    price_with_other_sound: OutputPrice | None = None
    """The price without sound if sound is requested, and the other way round; None if it is not known."""
    source: str
    """Address of the page that documents the price."""


class PredictionRequest(FrozenModel):
    """A prediction to create, and its price. Times are in seconds, costs in USD."""

    endpoint: str
    """The provider's name of the model: `owner/name` on Replicate."""
    version: str | None
    inputs: dict[str, Any]
    """Images are given by name; `images` describes them."""
    images: dict[str, ImageInput] = {}
    """The images in `inputs`, by name."""
    timeout_s: float
    cost: Decimal
    """Price of a prediction that succeeds."""
    cost_is_exact: bool
    """Whether the provider publishes that price; otherwise it is inferred."""
    gpu_cost_per_s: Decimal | None = None
    """USD per second of GPU time, in which case `cost` is an estimate; None if the model is not billed that way."""
    expected_bill: ExpectedBill | None = None
    """What `cost` pays for; None if the model is billed by GPU time."""

    @property
    def inputs_without_images(self) -> dict[str, Any]:
        """The inputs that contain no image."""
        return {name: value for name, value in self.inputs.items() if not self._is_image(value)}

    @property
    def frames_of_clips(self) -> tuple[ImageInput, ...]:
        """The images that are frames of other scenes' clips."""
        return tuple(image for image in self.images.values() if image.scene_id is not None)

    @property
    def digest_without_images(self) -> str:
        """SHA-256 (hex) of everything in the request but its images. It is the same for requests that only differ in
        their images."""
        return digest([self.endpoint, self.version, self.inputs_without_images])

    def _is_image(self, value: Any) -> bool:
        values = value if isinstance(value, list) else [value]
        return any(isinstance(each, str) and each in self.images for each in values)


class ClipRequest(FrozenModel):
    """One planned clip, or a segment of one. Durations and times are in seconds, costs in USD."""

    scene: Scene
    """The scene. That of a segment has the segment's target duration, and the frames between which it lies."""
    clip_index: int
    model: str
    prediction: PredictionRequest
    """The prediction that makes the clip, or its first segment."""
    segment: int | None = None
    """Number of the segment, from 1; None means that this is a whole clip."""
    is_cut: bool = False
    """Whether another segment continues this one, so that it must be as long as its target."""
    segments: tuple["ClipRequest", ...] = ()
    """The requests whose clips are joined to this one, because it is longer than any clip of the model."""
    references: ReferenceUse = ReferenceUse()
    aspect_ratio: str
    ratio_inputs: dict[str, Any] = {}
    """Those of the prediction's inputs that request the aspect ratio."""
    changed_inputs: tuple[ChangedInput, ...] = ()
    """The inputs that a condition of the model sends with another value than the one that was asked for."""
    buffered_duration: float
    requested_duration: float
    """The longest that can come if the length is left to the model."""
    length_is_automatic: bool = False
    """Whether the length is left to the model."""
    tolerance_s: float
    typical_run_s: float
    attempts: int
    """Maximum number of attempts, each of which is one prediction."""
    buffer_cost_impact: float
    """Percent."""
    audio: bool = False
    """Whether sound is kept. If the model has an option for sound, the inputs request it."""
    strict_quality: bool = False
    """Whether a clip that is black or frozen from start to end fails the attempt."""
    deliver_fps: float | None = None
    deliver_size: tuple[int, int] | None = None
    fallbacks: tuple["ClipRequest", ...] = ()
    """Requests for the same scene to other models, in the order in which they are tried if this one fails for good."""

    @property
    def part_id(self) -> str:
        """Id of the scene, with the number of the segment."""
        return self.scene.id if self.segment is None else make_segment_id(self.scene.id, self.segment)

    @property
    def parts(self) -> tuple["ClipRequest", ...]:
        """The requests that are one prediction each: the segments, or this one."""
        return self.segments or (self,)

    @property
    def upstream_ids(self) -> tuple[str, ...]:
        """Ids of the scenes, and of the segment, whose clips this one is made from, each once."""
        frames = (frame for part in self.parts for frame in part.prediction.frames_of_clips)
        return tuple(dict.fromkeys(str(frame.scene_id) for frame in frames if not (self.segments and frame.is_seam)))

    @property
    def frames_of_clips(self) -> tuple[ImageInput, ...]:
        """The images that are frames of other scenes' clips."""
        frames = (frame for part in self.parts for frame in part.prediction.frames_of_clips)
        return tuple(frame for frame in frames if not frame.is_seam)

    @property
    def alternatives(self) -> tuple["ClipRequest", ...]:
        """This request, then its fallbacks."""
        return (self, *self.fallbacks)

    def iterate_all(self) -> Iterator["ClipRequest"]:
        """Yield this request, its fallbacks, and the segments of each."""
        for request in self.alternatives:
            yield request
            yield from request.segments

    @property
    def cost(self) -> Decimal:
        """Price of the clip if each first attempt succeeds."""
        return sum((part.prediction.cost for part in self.parts), Decimal(0))

    @property
    def cost_is_exact(self) -> bool:
        """Whether the provider publishes that price; otherwise it is inferred."""
        return all(part.prediction.cost_is_exact for part in self.parts)

    @property
    def worst_case_cost(self) -> Decimal:
        """Cost if every attempt, including those of the fallbacks, is needed and billed."""
        return sum((each.cost * each.attempts for each in self.alternatives), Decimal(0))

    @property
    def key(self) -> str:
        """Digest (32 hex) of everything that determines the content of the clip. Clips of one key are reused."""
        if self.segments:
            return digest([[segment.key, segment.scene.target_duration] for segment in self.segments])[:32]
        asked = self.prediction
        content = [asked.endpoint, asked.version, asked.inputs, self.aspect_ratio, self.scene.take]
        return digest(content)[:32]

    @property
    def name(self) -> str:
        """Stem of the clip's files: the scene's id and the beginning of the key."""
        return f"{self.scene.id}-{self.key[:8]}"

    @property
    def video_path(self) -> str:
        """Path of the clip in the job's folder."""
        return f"{'clips' if self.segment is None else 'segments'}/{self.name}.mp4"

    @property
    def poster_path(self) -> str:
        """Path of the poster in the job's folder."""
        return f"{'posters' if self.segment is None else 'segments'}/{self.name}.jpg"

    @property
    def original_target_duration(self) -> float:
        return self.scene.original_target_duration or self.scene.target_duration
