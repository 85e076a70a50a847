"""A clip as the manifest describes it."""

from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

from videogen.errors import BlockedError, VideogenError
from videogen.job.model import display_name
from videogen.planning.requests import ClipRequest, FrozenModel
from videogen.registry import durations


class ClipFailure(FrozenModel):
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


class Segment(FrozenModel):
    """A part of a long clip, from a prediction of its own. Lengths are in seconds."""

    target_duration: float
    """Its part of the clip."""
    requested_duration: float
    actual_duration: float | None
    cost: Decimal
    """USD for all of its predictions of this run; 0 if the segment was reused."""
    attempts: int
    prediction_ids: tuple[str, ...]
    """Those of this run."""
    inputs: dict[str, Any] | None
    video_path: str | None
    """Path of the whole output, before it was cut."""

    @classmethod
    def of(cls, clip: "Clip") -> "Segment":
        """Return the segment that was delivered as this clip."""
        return cls.model_validate({name: getattr(clip, name) for name in cls.model_fields})


class Clip(FrozenModel):
    """The result of one request, as in the manifest.

    Durations and times are in seconds, costs in USD, paths relative to the job's folder. Measured values are None if
    nothing was delivered.
    """

    clip_index: int
    scene_id: str
    model: str
    """The model that made the clip, or failed last."""
    status: Literal["success", "failed", "blocked"]
    """`blocked` means that it was not tried, because a clip that it is made from was not delivered."""
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
    """Cost of all predictions of this run for this clip, including failed ones and those that it continued; 0 if it was
    reused."""
    paid: Decimal | None = None
    """Cost of the clip in the run that made it, also if this run reused it; None in manifests of versions that did not
    keep it."""
    paid_before: Decimal = Decimal(0)
    """The part of `cost` that earlier runs paid, for predictions that this run continued."""
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
    take_of: str | None = None
    """Id of the scene in the job that this is one of several takes of; None if it is the only one."""
    chosen: bool | None = None
    """Whether the film uses this take of its scene; None in manifests of versions that did not choose."""
    rating: int | None = None
    """Your rating, from 1 to 5."""
    note: str | None = None
    """Your note on this take."""
    accepted: bool | None = None
    """Whether the job's judge accepts the clip; None if nobody judged it."""
    score: float | None = None
    """Score that the judge gives it, from 0 to 1."""
    judge_reason: str | None = None
    """Reason, in the judge's words."""
    references: tuple[str, ...] | None = None
    """The reference images as in the job, without the parts of an address that may be secret."""
    made_from: dict[str, str] | None = None
    """SHA-256 (hex) of the clip that each frame of another scene was taken from, by the frame's name in `inputs`."""
    segments: tuple[Segment, ...] = ()
    """The parts of a clip that is longer than the model makes; empty if one prediction made it."""
    created_at: datetime | None = None
    """Time when the prediction was created, by the provider's clock."""
    delivered_at: datetime | None = None
    warnings: tuple[str, ...] = ()
    """`black` or `frozen` from start to end. `short`: shorter than its target. `codec`: some players cannot play it.
    `transcoded`: the original codec cannot be played by browsers. `hdr`: the original was HDR. `sound`: its codec is
    unknown. `billed`: it was billed otherwise than planned. `unsigned`: it could not be signed."""
    error: ClipFailure | None = None
    blocked_by: tuple[str, ...] = ()
    """Ids of the scenes whose failed clips are the reason why a blocked one was not tried."""

    @property
    def cost_when_made(self) -> Decimal:
        """Cost in the run that made the clip; 0 if a run of an earlier version reused it."""
        return self.cost if self.paid is None else self.paid

    @property
    def outcome(self) -> Literal["delivered", "reused", "failed", "blocked"]:
        if self.status != "success":
            return self.status
        return "reused" if self.reused else "delivered"

    def satisfies(self, request: ClipRequest) -> bool:
        """Return whether a clip delivered for the same key is good enough. An earlier job may have been less strict."""
        actual_s = self.actual_duration or 0.0
        if request.is_cut and not durations.reaches_cut(request.scene.target_duration, actual_s):
            return False
        return not (request.strict_quality and {"black", "frozen"} & set(self.warnings))

    @classmethod
    def make_failed(cls, request: ClipRequest, error: BaseException, **facts: Any) -> "Clip":
        """Return the failed clip of a request; `facts` are further fields, such as its cost."""
        status = "blocked" if isinstance(error, BlockedError) else "failed"
        return cls(status=status, error=ClipFailure.from_error(error), **get_planned_fields(request), **facts)


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
        "inputs": request.prediction.inputs,
        "seed": request.scene.seed,
        "take": request.scene.take,
        "take_of": request.scene.take_of,
        "references": tuple(display_name(url) for url in request.scene.reference_urls),
    }
