"""The request for a clip, its result, and the result of a run with the verdict on it."""

import hashlib
import json
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, computed_field

from videogen.errors import VideogenError
from videogen.scene import Scene, display_name

COMPOSITION = 1
"""Version of the composition of start frames. It is part of the key, so it is raised when the same references give
another frame, and only then."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def digest(value: Any) -> str:
    """Return the SHA-256 (hex) of a JSON value. It does not depend on the order of keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


class ImageInput(_Frozen):
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

    @property
    def name(self) -> str:
        """Name of the image in a request's inputs: `sha256:` of its bytes, or `frame:` and the digest of its recipe."""
        if self.size is None:
            return f"sha256:{self.background}"
        recipe: list[Any] = [COMPOSITION, self.size, self.background, self.characters]
        if self.cut_outs:  # added only if present, so that the names of all other frames do not change
            recipe.append(["cut out", *self.cut_outs])
        return f"frame:{digest(recipe)}"


class ReferenceUse(_Frozen):
    """How the references of a scene are used, by their addresses in the job."""

    used: tuple[str, ...] = ()
    """References that are sent one by one."""
    composed: tuple[str, ...] = ()
    """References that are composed into one start frame."""
    dropped: tuple[str, ...] = ()
    """References that are not sent, because the model accepts no images."""


class ClipRequest(_Frozen):
    """One planned clip. Durations and times are in seconds, costs in USD."""

    scene: Scene
    clip_index: int
    model: str
    replicate: str
    """`owner/name` on Replicate."""
    version: str | None
    inputs: dict[str, Any]
    """Inputs of the prediction. Images are given by name; `images` describes them."""
    images: dict[str, ImageInput] = {}
    """The images in `inputs`, by name."""
    references: ReferenceUse = ReferenceUse()
    aspect_ratio: str
    ratio_inputs: dict[str, Any] = {}
    """Those of `inputs` that request the aspect ratio."""
    buffered_duration: float
    requested_duration: float
    tolerance_s: float
    timeout_s: float
    typical_run_s: float
    attempts: int
    """Maximum number of predictions."""
    cost: Decimal
    """Price of one prediction."""
    cost_is_exact: bool
    """Whether the provider publishes that price; otherwise it is inferred."""
    gpu_cost_per_s: Decimal | None = None
    """USD per second of GPU time, in which case `cost` is an estimate; None if the model is not billed that way."""
    buffer_cost_impact: float
    """Percent."""
    audio: bool = False
    """Whether sound is kept. If the model has an option for sound, `inputs` request it."""
    strict_quality: bool = False
    """Whether a clip that is black or frozen from start to end fails the attempt."""
    deliver_fps: float | None = None
    deliver_size: tuple[int, int] | None = None
    fallbacks: tuple["ClipRequest", ...] = ()
    """Requests for the same scene to other models, in the order in which they are tried if this one fails for good."""

    @property
    def alternatives(self) -> tuple["ClipRequest", ...]:
        """This request, then its fallbacks."""
        return (self, *self.fallbacks)

    @property
    def worst_case_cost(self) -> Decimal:
        """Cost if every attempt, including those of the fallbacks, is needed and billed."""
        return sum((each.cost * each.attempts for each in self.alternatives), Decimal(0))

    @property
    def key(self) -> str:
        """Digest (32 hex) of everything that determines the content of the clip. Clips of one key are reused."""
        content = [self.replicate, self.version, self.inputs, self.aspect_ratio, self.scene.take]
        return digest(content)[:32]

    @property
    def name(self) -> str:
        """Stem of the clip's files: the scene's id and the beginning of the key."""
        return f"{self.scene.id}-{self.key[:8]}"

    @property
    def video_path(self) -> str:
        """Path of the clip in the job's folder."""
        return f"clips/{self.name}.mp4"

    @property
    def poster_path(self) -> str:
        """Path of the poster in the job's folder."""
        return f"posters/{self.name}.jpg"

    def accepts(self, clip: "Clip") -> bool:
        """Return whether a clip delivered for the same key is good enough. An earlier job may have been less strict."""
        return not (self.strict_quality and {"black", "frozen"} & set(clip.warnings))

    @property
    def original_target_duration(self) -> float:
        return self.scene.original_target_duration or self.scene.target_duration


class ClipFailure(_Frozen):
    """The error of a failed clip."""

    code: str
    message: str
    retryable: bool

    @classmethod
    def from_error(cls, error: BaseException) -> "ClipFailure":
        """Return the failure for an error. An error that is not of videogen has the code `internal`."""
        if isinstance(error, VideogenError):
            return cls(code=error.code, message=str(error), retryable=error.retryable)
        return cls(code="internal", message=f"{type(error).__name__}: {error}", retryable=False)


class Clip(_Frozen):
    """The result of one request, as in the manifest.

    Durations and times are in seconds, costs in USD, paths relative to the job's folder. Measured values are None if
    nothing was delivered.
    """

    clip_index: int
    scene_id: str
    model: str
    """The model that made the clip, or failed last."""
    status: Literal["success", "failed"]
    video_path: str | None = None
    poster_path: str | None = None
    sha256: str | None = None
    target_duration: float
    original_target_duration: float
    buffered_duration: float
    requested_duration: float
    actual_duration: float | None = None
    duration_diff: float | None = None
    """Actual minus target duration."""
    width: int | None = None
    height: int | None = None
    fps: float | None = None
    frames: int | None = None
    codec: str | None = None
    """Video codec by FFmpeg's name, such as `h264`."""
    has_audio: bool | None = None
    size_bytes: int | None = None
    cost: Decimal = Decimal(0)
    """Cost of all predictions of this run for this clip, including failed ones; 0 if it was reused."""
    buffer_cost_impact: float
    """Percent."""
    attempts: int = 0
    retry_count: int = 0
    generation_time: float = 0.0
    prediction_ids: tuple[str, ...] = ()
    reused: bool = False
    prompt: str | None = None
    """This and the fields up to `delivered_at` record how the clip was made, even if the job file has changed since.
    They are None in manifests of versions that did not record them."""
    inputs: dict[str, Any] | None = None
    """Inputs as sent, with images given by name."""
    seed: int | None = None
    take: int | None = None
    references: tuple[str, ...] | None = None
    """The reference images as in the job, without the parts of an address that may be secret."""
    created_at: datetime | None = None
    """Time when the prediction was created, by the provider's clock."""
    delivered_at: datetime | None = None
    warnings: tuple[str, ...] = ()
    """`black` or `frozen` from start to end. `short`: shorter than its target. `codec`: some players cannot play it.
    `transcoded`: the original codec cannot be played by browsers. `hdr`: the original was HDR. `sound`: its codec is
    unknown."""
    error: ClipFailure | None = None

    @classmethod
    def make_failed(cls, request: ClipRequest, error: BaseException, **facts: Any) -> "Clip":
        """Return the failed clip of a request; `facts` are further fields, such as its cost."""
        return cls(status="failed", error=ClipFailure.from_error(error), **get_planned_fields(request), **facts)


def get_planned_fields(request: ClipRequest) -> dict[str, Any]:
    """Return the fields of a `Clip` that are known before its prediction."""
    return {
        "clip_index": request.clip_index,
        "scene_id": request.scene.id,
        "model": request.model,
        "target_duration": request.scene.target_duration,
        "original_target_duration": request.original_target_duration,
        "buffered_duration": request.buffered_duration,
        "requested_duration": request.requested_duration,
        "buffer_cost_impact": request.buffer_cost_impact,
        "prompt": request.scene.prompt,
        "inputs": request.inputs,
        "seed": request.scene.seed,
        "take": request.scene.take,
        "references": tuple(display_name(url) for url in request.scene.reference_urls),
    }


class Verdict(_Frozen):
    """Whether enough clips were delivered: `complete` (all), `partial` (enough), `failed` (too few)."""

    status: Literal["complete", "partial", "failed"]
    min_clips: int
    reason: str


class RunResult(_Frozen):
    """The result of a run, with all clips in scene order: the content of `manifest.json`."""

    run_id: str
    job_id: str
    model: str
    aspect_ratio: str
    provider: str
    verdict: Verdict
    verdicts: dict[str, Verdict] = {}
    """The verdict on each model, if several are compared."""
    cells_per_scene: int = 1
    """Number of variants of each scene (models × takes). They follow each other in `clips`."""
    total_generation_time: float
    """Duration of the run in seconds, from its start to its verdict."""
    job_cost: Decimal | None = None
    """Cost in USD of all runs of the job so far, including this one and the amount still reserved; None in manifests of
    versions that did not count it."""
    clips: tuple[Clip, ...]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def total_clips(self) -> int:
        return len(self.clips)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def successful_clips(self) -> int:
        return sum(clip.status == "success" for clip in self.clips)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def failed_clips(self) -> int:
        return self.total_clips - self.successful_clips

    @computed_field  # type: ignore[prop-decorator]
    @property
    def total_cost(self) -> Decimal:
        return sum((clip.cost for clip in self.clips), Decimal(0))

    def manifest(self) -> str:
        """Return the result as JSON text, with money as decimal strings."""
        return self.model_dump_json(indent=2) + "\n"

    @classmethod
    def from_manifest(cls, text: str) -> "RunResult":
        """Return the result in a manifest. Raise `ValueError` if the text is not a manifest of this version."""
        data = json.loads(text)
        if not isinstance(data, dict):
            raise ValueError("a manifest is a JSON object")
        return cls.model_validate({name: value for name, value in data.items() if name in cls.model_fields})


def judge_by_model(
    clips: tuple[Clip, ...], *, models: tuple[str, ...], min_clips: int, required: frozenset[str]
) -> tuple[Verdict, dict[str, Verdict]]:
    """Return the verdict on all clips and, if several models are compared, the verdict on each by name.

    `min_clips` is the minimum for each model.
    """
    if len(models) == 1:
        return judge(clips, min_clips=min_clips, required=required), {}
    verdicts = {}
    for model in models:
        of_model = tuple(clip for clip in clips if clip.model == model)
        verdicts[model] = judge(of_model, min_clips=min_clips, required=required)
    statuses = {verdict.status for verdict in verdicts.values()}
    reason = "; ".join(f"{model} {verdict.status}, {verdict.reason}" for model, verdict in verdicts.items())
    status = statuses.pop() if len(statuses) == 1 else "partial"
    return Verdict(status=status, min_clips=min_clips, reason=reason), verdicts


def judge(clips: tuple[Clip, ...], *, min_clips: int, required: frozenset[str]) -> Verdict:
    """Return the verdict on the clips of a job.

    `min_clips` is capped at the number of clips. `required` are the ids of scenes without which the job fails.
    """
    wanted = min(min_clips, len(clips))
    good = sum(clip.status == "success" for clip in clips)
    missing = [clip.scene_id for clip in clips if clip.status == "failed" and clip.scene_id in required]
    count = f"all {good} clips delivered" if good == len(clips) else f"{good} of {len(clips)} clips delivered"
    if any(clip.error and clip.error.code == "budget" for clip in clips):
        count += ", the others stopped by the budget"
    if missing:
        reason = f"required scenes failed: {', '.join(missing)}; {count}"
        return Verdict(status="failed", min_clips=wanted, reason=reason)
    if good < wanted:
        return Verdict(status="failed", min_clips=wanted, reason=f"{count}, at least {wanted} needed")
    if good < len(clips):
        return Verdict(status="partial", min_clips=wanted, reason=f"{count}, {wanted} were enough")
    return Verdict(status="complete", min_clips=wanted, reason=count)
