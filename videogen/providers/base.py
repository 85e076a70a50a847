"""The interface of a provider of predictions."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal, Protocol

Status = Literal["starting", "processing", "succeeded", "failed", "canceled", "aborted"]
TERMINAL_STATUSES: frozenset[Status] = frozenset({"succeeded", "failed", "canceled", "aborted"})
FailureKind = Literal["moderation", "input", "passing"]
"""Why a prediction failed: its content was flagged, its inputs are not valid, or a temporary problem."""


@dataclass(frozen=True, slots=True)
class BilledOutput:
    """The output of a prediction as the provider bills it. A field is None if the provider does not report it."""

    seconds: float | None = None
    """Length of the video."""
    count: int | None = None
    """Number of videos."""
    resolution: str | None = None
    """Such as `1080p`."""
    with_audio: bool | None = None
    variant: str | None = None
    """Variant of the model, such as `pro`."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """A prediction as the provider describes it. An unknown status counts as `processing`."""

    id: str
    status: Status
    output_url: str | None = None
    error: str | None = None
    model: str = ""
    version: str | None = None
    input: Mapping[str, Any] = field(default_factory=dict)
    created_at: datetime | None = None
    completed_at: datetime | None = None
    predict_time_s: float | None = None
    started: bool = True
    """False if it is known not to have started, in which case nothing is billed."""
    data_removed: bool = False
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """The whole answer, with long texts shortened so that it can be stored."""
    failure: FailureKind | None = None
    """The kind of failure, as the provider's adapter classifies it; None if the prediction did not fail."""
    billed: BilledOutput = BilledOutput()
    """What is billed for the output, if the model is billed by its output."""
    holds_no_video: bool = False
    """Whether there is an output, but no address in it can be that of a video. Polling again would not change that."""

    @property
    def ended(self) -> bool:
        """Whether the status is final."""
        return self.status in TERMINAL_STATUSES

    @property
    def has_known_status(self) -> bool:
        """Whether the provider's status is a known one."""
        return self.ended or self.raw.get("status", self.status) == self.status

    @property
    def run_s(self) -> float | None:
        """Seconds from creation to end by the provider's clock; None if a time is missing or the end is first."""
        if self.created_at is None or self.completed_at is None or self.completed_at < self.created_at:
            return None
        return (self.completed_at - self.created_at).total_seconds()


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The rules by which a provider keeps, bills and ends predictions."""

    outputs_kept: timedelta
    """Time for which the output of a prediction is kept. Until then, an unknown id may be temporary."""
    bills_failed: bool
    """Whether a failed prediction with a price per clip or per second is billed."""
    bills_canceled: bool
    """Whether a canceled prediction with a price per clip or per second is billed once it has started."""
    shortest_deadline_s: float
    """Shortest time after which a prediction can be made to end by itself."""


class VideoProvider(Protocol):
    """A service that makes predictions.

    Each method makes one call without retries, and raises `CallError` or `AccountError` if it fails.
    """

    @property
    def origin(self) -> str:
        """Identifies the provider and account. Work of one origin is not reused for another."""

    @property
    def capabilities(self) -> Capabilities:
        """The rules of this provider."""

    def now(self) -> datetime:
        """Return the current time by the provider's clock, in UTC.

        Times of the provider are compared with this one, not with the local clock.
        """

    async def check_account(self) -> None:
        """Raise `AuthenticationError` if the token is rejected."""

    async def create(
        self, endpoint: str, version: str | None, inputs: Mapping[str, Any], *, cancel_after_s: float
    ) -> Prediction:
        """Create a prediction of the model at this endpoint, which the provider itself cancels after `cancel_after_s`.

        Raises `InputRejectedError` or `ModerationError` if the same call would be rejected again, and
        `OutcomeUnknownError` if the prediction may have been created.
        """

    async def get(self, prediction_id: str) -> Prediction:
        """Return the current state of a prediction."""

    async def cancel(self, prediction_id: str) -> Prediction:
        """Cancel a prediction and return its state."""

    def list_since(self, created_after: datetime) -> AsyncIterator[Prediction]:
        """Yield the account's predictions created after this time, newest first."""

    async def upload(self, data: bytes, *, name: str, media_type: str) -> str:
        """Upload these bytes and return a URL from which the provider's models can read them."""

    async def download(self, url: str, part: Path) -> None:
        """Download `url`, which may be a `data:` address, to `part`. A partial file there is continued.

        Raises `GoneError`, `NotSentError`, `TransientError`, `StorageError`, or `BadOutputError` if the file is larger
        than the maximum or the address is not allowed.
        """
