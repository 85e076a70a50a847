"""What happens in a run, told as it happens. Payload fields are named as in the manifest."""

from decimal import Decimal
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from videogen.clip import Batch, Clip, ClipFailure


class _Event(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    type: str

    def payload(self) -> dict[str, Any]:
        """The event's fields as JSON values."""
        return self.model_dump(mode="json", exclude={"type"})


class RunStarted(_Event):
    type: Literal["run.started"] = "run.started"
    job_id: str
    model: str
    aspect_ratio: str
    provider: str
    planned_cost: Decimal


class _ClipEvent(_Event):
    clip_index: int
    scene_id: str


class ClipStarted(_ClipEvent):
    """A prediction is running for this clip: created now, or found again after a crash (`resumed`)."""

    type: Literal["clip.started"] = "clip.started"
    attempt: int
    prediction_id: str
    resumed: bool


class ClipProgress(_ClipEvent):
    """Times are seconds since the prediction was created; `fraction` is 0 to 1 and never falls."""

    type: Literal["clip.progress"] = "clip.progress"
    prediction_id: str
    status: str
    elapsed: float
    fraction: float


class ClipRetrying(_ClipEvent):
    """An attempt ended without a clip; another one follows."""

    type: Literal["clip.retrying"] = "clip.retrying"
    attempt: int
    error: ClipFailure
    model: str
    """Of the next attempt: the same again, or a fallback."""


class ClipCompleted(_Event):
    type: Literal["clip.completed"] = "clip.completed"
    clip: Clip

    def payload(self) -> dict[str, Any]:
        return self.clip.model_dump(mode="json")


class ClipFailed(ClipCompleted):
    type: Literal["clip.failed"] = "clip.failed"  # type: ignore[assignment]


class RunCompleted(_Event):
    type: Literal["run.completed"] = "run.completed"
    batch: Batch
    warnings: tuple[str, ...] = ()
    """What was left undone without harm to the verdict."""

    def payload(self) -> dict[str, Any]:
        return {**self.batch.model_dump(mode="json", exclude={"clips"}), "warnings": list(self.warnings)}


ClipEvent = RunStarted | ClipStarted | ClipProgress | ClipRetrying | ClipCompleted | ClipFailed | RunCompleted
