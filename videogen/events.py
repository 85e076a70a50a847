"""The events of a run. Payload fields have the same names as in the manifest."""

from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from videogen.planning.requests import ClipRequest
from videogen.results.clip import Clip, ClipFailure
from videogen.results.run_result import RunResult

SHOWN_PROMPT_CHARS = 200
SEARCHING = "searching"
"""`ClipProgress.status` while a prediction is searched for in the account. All other values are the provider's."""


class _Event(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    type: str

    def payload(self) -> dict[str, Any]:
        """Return the event's fields as JSON values."""
        return self.model_dump(mode="json", exclude={"type"})


class SceneOutline(BaseModel):
    """A scene as shown before its clip is made, with the beginning of its prompt. Durations are seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    clip_index: int
    scene_id: str
    prompt: str
    target_duration: float
    take: int | None = None
    take_of: str | None = None
    """Id of the scene in the job that this is one of several takes of; None if it is the only one."""

    @classmethod
    def from_request(cls, request: ClipRequest) -> "SceneOutline":
        """Return the outline of a planned clip's scene, with at most `SHOWN_PROMPT_CHARS` of the prompt."""
        scene, prompt = request.scene, request.scene.prompt
        shown = prompt if len(prompt) <= SHOWN_PROMPT_CHARS else f"{prompt[: SHOWN_PROMPT_CHARS - 1]}…"
        return cls(
            clip_index=request.clip_index,
            scene_id=scene.id,
            prompt=shown,
            target_duration=scene.target_duration,
            take=scene.take,
            take_of=scene.take_of,
        )


class RunStarted(_Event):
    """The run has started. Costs are in USD.

    `max_cost` is None if the job has no budget. `spent_before` is the cost of the job's earlier runs.
    """

    type: Literal["run.started"] = "run.started"
    job_id: str
    model: str
    aspect_ratio: str
    provider: str
    planned_cost: Decimal
    max_cost: Decimal | None
    spent_before: Decimal = Decimal(0)
    fresh: bool = False
    """Whether clips that were delivered before are generated again."""
    scenes: tuple[SceneOutline, ...]


class _CommandEvent(_Event):
    sender: str
    """The person and the machine that sent the command, as `user@host`."""


class RunPaused(_CommandEvent):
    """A command has paused the run. Running predictions finish and are delivered, and no other one is created."""

    type: Literal["run.paused"] = "run.paused"
    paused: Literal[True] = True


class RunResumed(_CommandEvent):
    """A command has ended the pause of the run."""

    type: Literal["run.resumed"] = "run.resumed"
    paused: Literal[False] = False


class RunCapChanged(_CommandEvent):
    """A command has changed what the job may cost, in USD, as long as this run goes on."""

    type: Literal["run.cap_changed"] = "run.cap_changed"
    max_cost: Decimal


class BudgetAlert(_Event):
    """A part of a budget that runs share is spent or reserved, for the first time in its period. Money is in USD."""

    type: Literal["budget.alert"] = "budget.alert"
    budget: str
    percent: int
    """The part of the amount that is reached: 50, 80 or 100."""
    amount: Decimal
    taken: Decimal
    """USD that are spent or reserved now."""
    period: str
    """The period as people read it, such as `in November (UTC)`."""
    ends_at: datetime | None
    """When the next period begins; None if there is none."""


class _ClipEvent(_Event):
    clip_index: int
    scene_id: str


class ClipStarted(_ClipEvent):
    """A prediction is running for this clip. It was created now, or resumed after a crash."""

    type: Literal["clip.started"] = "clip.started"
    attempt: int
    prediction_id: str
    resumed: bool


class ClipProgress(_ClipEvent):
    """The estimated progress of a prediction.

    `elapsed` is the time in seconds since the prediction was created. `remaining` is an estimate in seconds, and 0 if
    the prediction takes longer than expected. `fraction` is from 0 to 1 and never decreases.

    If the answer to a create was lost, its prediction is searched for in the account. Meanwhile `status` is
    `searching`, `prediction_id` is empty, and the times are those of the search.
    """

    type: Literal["clip.progress"] = "clip.progress"
    prediction_id: str
    status: str
    elapsed: float
    remaining: float
    fraction: float


class ClipRetrying(_ClipEvent):
    """An attempt ended without a clip, and another one follows, also after `ClipFailed` if a command asked for it."""

    type: Literal["clip.retrying"] = "clip.retrying"
    attempt: int
    error: ClipFailure
    model: str
    """Model of the next attempt: the same again, or a fallback."""


class ClipEnded(_Event):
    """Base of the two events that end a clip. The payload is the clip as the manifest shows it."""

    clip: Clip

    def payload(self) -> dict[str, Any]:
        return self.clip.model_dump(mode="json")


class ClipCompleted(ClipEnded):
    """The clip was delivered, or reused from an earlier run."""

    type: Literal["clip.completed"] = "clip.completed"


class ClipFailed(ClipEnded):
    """The clip failed for good; `clip.error` says why."""

    type: Literal["clip.failed"] = "clip.failed"


class RunCompleted(_Event):
    """The run has ended. The payload is the manifest without its clips and scenes, with the warnings."""

    type: Literal["run.completed"] = "run.completed"
    result: RunResult
    warnings: tuple[str, ...] = ()
    """Problems that do not affect the verdict, such as a contact sheet that could not be written."""

    def payload(self) -> dict[str, Any]:
        return {**self.result.model_dump(mode="json", exclude={"clips", "scenes"}), "warnings": list(self.warnings)}


RunEvent = (
    RunStarted
    | RunPaused
    | RunResumed
    | RunCapChanged
    | BudgetAlert
    | ClipStarted
    | ClipProgress
    | ClipRetrying
    | ClipCompleted
    | ClipFailed
    | RunCompleted
)
