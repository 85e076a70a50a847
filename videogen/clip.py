"""What is asked for one clip, what came of it, and the verdict on all of them."""

import hashlib
import json
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, computed_field

from videogen.errors import VideogenError
from videogen.scene import Scene, display_name

COMPOSITION = 1
"""Raised when composing makes other pictures of the same references, so that old clips are not taken for new ones."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def digest(value: Any) -> str:
    """SHA-256 (hex) of a JSON value, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


class ImageInput(_Frozen):
    """One picture to send: a reference as it is, or a start frame composed of several."""

    size: tuple[int, int] | None = None
    """Width and height in pixels of the composed frame; None sends the single reference as it is."""
    background: str | None = None
    characters: tuple[str, ...] = ()
    """SHA-256 (hex) of the references' bytes, as is `background`."""
    cut_outs: tuple[str, ...] = ()
    """Those of `characters` whose plain background is cut away."""
    pixels: tuple[int, int] | None = None
    """Width and height in which the frame is sent, where the model takes a finer one than `size`. It shows the same,
    and does not name the picture: what was paid for in the other size stays free."""

    @property
    def name(self) -> str:
        """Stands for the picture in a request's inputs: `sha256:` of its bytes, or `frame:` of what it is made of."""
        if self.size is None:
            return f"sha256:{self.background}"
        recipe: list[Any] = [COMPOSITION, self.size, self.background, self.characters]
        if self.cut_outs:  # named apart only then, so that all other names are as they have always been
            recipe.append(["cut out", *self.cut_outs])
        return f"frame:{digest(recipe)}"


class ReferenceUse(_Frozen):
    """What becomes of a scene's references, by their addresses in the job."""

    used: tuple[str, ...] = ()
    """Sent one by one."""
    composed: tuple[str, ...] = ()
    """Put together in one start frame."""
    dropped: tuple[str, ...] = ()
    """The model takes no pictures."""


class ClipRequest(_Frozen):
    """One planned clip. Durations and times are seconds, costs USD."""

    scene: Scene
    clip_index: int
    model: str
    replicate: str
    """`owner/name` on Replicate."""
    version: str | None
    inputs: dict[str, Any]
    """As they will be sent, but for pictures, which are named by digest and made by `images`."""
    images: dict[str, ImageInput] = {}
    references: ReferenceUse = ReferenceUse()
    aspect_ratio: str
    ratio_inputs: dict[str, Any] = {}
    """Those of `inputs` that ask for the ratio."""
    buffered_duration: float
    requested_duration: float
    tolerance_s: float
    timeout_s: float
    typical_run_s: float
    attempts: int
    """How many predictions may be made at most."""
    cost: Decimal
    """Price of one prediction."""
    cost_is_exact: bool
    """Whether the provider publishes that price; otherwise it is inferred."""
    gpu_cost_per_s: Decimal | None = None
    """USD per second of GPU time where the model is billed so; its `cost` is then an estimate."""
    buffer_cost_impact: float
    """Percent."""
    audio: bool = False
    """Whether sound that the model delivers is kept. Where it can be asked for sound, `inputs` do."""
    strict_quality: bool = False
    """Whether a clip that is black or frozen from start to end fails the attempt."""
    deliver_fps: float | None = None
    deliver_size: tuple[int, int] | None = None
    fallbacks: tuple["ClipRequest", ...] = ()
    """The same scene asked of other models, in the order they are tried when this one fails for good."""

    @property
    def alternatives(self) -> tuple["ClipRequest", ...]:
        """This request, then its fallbacks."""
        return (self, *self.fallbacks)

    @property
    def worst_case_cost(self) -> Decimal:
        """If every attempt is needed and billed, also those of the fallbacks."""
        return sum((each.cost * each.attempts for each in self.alternatives), Decimal(0))

    @property
    def key(self) -> str:
        """Digest (32 hex) of all that decides what the clip shows; what was delivered under a key is free."""
        asked = [self.replicate, self.version, self.inputs, self.aspect_ratio, self.scene.take]
        return digest(asked)[:32]

    @property
    def name(self) -> str:
        """Stem of the clip's files: readable, and another one when another clip is asked for."""
        return f"{self.scene.id}-{self.key[:8]}"

    @property
    def video_path(self) -> str:
        """Where the clip goes in the job's folder, as does its poster at `poster_path`."""
        return f"clips/{self.name}.mp4"

    @property
    def poster_path(self) -> str:
        return f"posters/{self.name}.jpg"

    def accepts(self, clip: "Clip") -> bool:
        """Whether this clip, delivered for the same key, is good enough: an earlier job may have been less strict."""
        return not (self.strict_quality and {"black", "frozen"} & set(clip.warnings))

    @property
    def original_target_duration(self) -> float:
        return self.scene.original_target_duration or self.scene.target_duration


class ClipFailure(_Frozen):
    """Why there is no clip."""

    code: str
    message: str
    retryable: bool

    @classmethod
    def from_error(cls, error: BaseException) -> "ClipFailure":
        if isinstance(error, VideogenError):
            return cls(code=error.code, message=str(error), retryable=error.retryable)
        return cls(code="internal", message=f"{type(error).__name__}: {error}", retryable=False)


class Clip(_Frozen):
    """What came of one request, as the manifest tells it. Durations and times are seconds, costs USD, paths relative to
    the job's folder; measured values are None where nothing was delivered."""

    clip_index: int
    scene_id: str
    model: str
    """The one that made it, or failed last."""
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
    """Actual minus target."""
    width: int | None = None
    height: int | None = None
    fps: float | None = None
    frames: int | None = None
    codec: str | None = None
    """Of the picture, by FFmpeg's name: `h264`."""
    has_audio: bool | None = None
    size_bytes: int | None = None
    cost: Decimal = Decimal(0)
    """All predictions of this run for this clip, failed ones too; 0 where it was reused."""
    buffer_cost_impact: float
    """Percent."""
    attempts: int = 0
    retry_count: int = 0
    generation_time: float = 0.0
    prediction_ids: tuple[str, ...] = ()
    reused: bool = False
    prompt: str | None = None
    """This and the fields up to `delivered_at` say what the clip was made from, whatever the job file says now; None in
    manifests of versions that did not keep it."""
    inputs: dict[str, Any] | None = None
    """As they were sent, with pictures named by their digest."""
    seed: int | None = None
    take: int | None = None
    references: tuple[str, ...] | None = None
    """The reference pictures as the job named them, without what may be secret in an address."""
    created_at: datetime | None = None
    """When the prediction was created, by the provider's clock."""
    delivered_at: datetime | None = None
    warnings: tuple[str, ...] = ()
    """`black` or `frozen`: the clip is so from start to end. `short` of its target. `codec`: not played everywhere.
    `transcoded`: it came in a codec that no browser plays. `hdr`: it came in HDR. `sound`: in an unknown codec."""
    error: ClipFailure | None = None

    @classmethod
    def make_failed(cls, request: ClipRequest, error: BaseException, **facts: Any) -> "Clip":
        return cls(status="failed", error=ClipFailure.from_error(error), **get_planned_fields(request), **facts)


def get_planned_fields(request: ClipRequest) -> dict[str, Any]:
    """The fields of a `Clip` that are known before anything is made."""
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
    """Whether enough clips came of a job: `complete` (all), `partial` (enough), `failed` (too few)."""

    status: Literal["complete", "partial", "failed"]
    min_clips: int
    reason: str


class RunResult(_Frozen):
    """All clips of a run in scene order: the content of `manifest.json`."""

    run_id: str
    job_id: str
    model: str
    aspect_ratio: str
    provider: str
    verdict: Verdict
    verdicts: dict[str, Verdict] = {}
    """By model, where several are compared."""
    cells_per_scene: int = 1
    """How many clips of each scene stand side by side, in `clips` one after the other."""
    total_generation_time: float
    """Seconds from the start of the run to its verdict."""
    job_cost: Decimal | None = None
    """USD that all runs of the job have cost so far, with this one, and what is still reserved; None in manifests of
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
        """The batch as JSON text; money as decimal strings."""
        return self.model_dump_json(indent=2) + "\n"

    @classmethod
    def from_manifest(cls, text: str) -> "RunResult":
        """Raises `ValueError` when the text is no manifest of this version."""
        data = json.loads(text)
        if not isinstance(data, dict):
            raise ValueError("a manifest is a JSON object")
        return cls.model_validate({name: value for name, value in data.items() if name in cls.model_fields})


def judge_by_model(
    clips: tuple[Clip, ...], *, models: tuple[str, ...], min_clips: int, required: frozenset[str]
) -> tuple[Verdict, dict[str, Verdict]]:
    """The verdict on all clips and, where several models are compared, the one on each: `min_clips` are of each."""
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
    """The verdict on the clips of a job. `min_clips` is capped at their number; `required` are ids of scenes."""
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
