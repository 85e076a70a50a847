"""Protocols for the services that the core uses. `videogen.adapters` has the implementations."""

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal, Protocol

from videogen.clip import ImageInput
from videogen.events import RunEvent

Status = Literal["starting", "processing", "succeeded", "failed", "canceled", "aborted"]
TERMINAL_STATUSES: frozenset[Status] = frozenset({"succeeded", "failed", "canceled", "aborted"})
FailureKind = Literal["moderation", "input", "passing"]
"""Why a prediction failed: its content was flagged, its inputs are not valid, or a temporary problem."""


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
    video_seconds: float | None = None
    """Billed length of the output in seconds; None if the provider does not report it."""
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


class VideoProvider(Protocol):
    """A service that makes predictions.

    Each method makes one call without retries, and raises `CallError` or `AccountError` if it fails.
    """

    @property
    def origin(self) -> str:
        """Identifies the provider and account. Work of one origin is not reused for another."""

    @property
    def outputs_kept(self) -> timedelta:
        """Time for which the provider keeps the output of a prediction. Until then, an unknown id may be temporary."""

    def now(self) -> datetime:
        """Return the current time by the provider's clock, in UTC.

        Times of the provider are compared with this one, not with the local clock.
        """

    async def check_account(self) -> None:
        """Raise `AuthenticationError` if the token is rejected."""

    async def create(
        self, replicate: str, version: str | None, inputs: Mapping[str, Any], *, cancel_after_s: float
    ) -> Prediction:
        """Create a prediction that the provider itself cancels after `cancel_after_s`.

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


class Folder(Protocol):
    """The finished files of a job, on this disk or elsewhere. Names are relative to the folder.

    The methods may take seconds, so call them in a thread. They raise `StorageError` if the folder cannot be reached,
    which does not mean that a file does not exist.
    """

    @property
    def address(self) -> str:
        """Address as recorded in the journal: an absolute path, or for example `s3://bucket/prefix/job`."""

    def exists(self) -> bool:
        """Return whether a run has used the folder before."""

    def sha256(self, name: str) -> str | None:
        """Return the SHA-256 (hex) of a file's bytes; None if there is no such file."""

    def text(self, name: str) -> str | None:
        """Return the content of a text file; None if there is no such file. Raise `ValueError` if it is not UTF-8."""

    def fetch(self, name: str, to: Path) -> bool:
        """Copy a file to a local path. Return False if there is no such file."""

    def free_bytes(self) -> int | None:
        """Return the free space in bytes; None if it is not known."""


def is_remote(address: str) -> bool:
    """Return whether the address of a folder is something else than a local path."""
    return "://" in address


OpenFolder = Callable[[str], Folder]
"""Return the folder at an address. Raise `SettingsError` if this installation does not support such addresses."""


class Store(Folder, Protocol):
    """The folder that a run writes a job's files to."""

    def check_writable(self) -> None:
        """Write, replace and remove a test file. Raise `StorageError` if that fails, as it would for clips."""

    def scratch(self, name: str) -> Path:
        """Return a local path for an unfinished file. Its folder exists and is accessible to this user only.

        The name may be any text: the path is always below that folder, and has the name's suffix. A file that already
        exists there is an unfinished one, never a link.
        """

    def path(self, name: str) -> Path:
        """Return the local path of a finished file. It is downloaded first if the folder is not local."""

    def put(self, scratch: Path, name: str) -> None:
        """Move a scratch file to the finished files, atomically even if the process crashes. Raise `StorageError`."""

    def put_text(self, text: str, name: str) -> None:
        """Write a finished text file, atomically as `put` does."""

    def take_over(self, source: Folder, name: str, new_name: str) -> None:
        """Copy a finished file of another folder to this one. Do nothing if there is no such file."""


class EventSink(Protocol):
    """A receiver of the events of a run."""

    def emit(self, event: RunEvent) -> None:
        """Take an event without blocking."""


class ImageSender(Protocol):
    """Makes images available to the provider's models."""

    async def url(self, image: ImageInput) -> str:
        """Return an address from which the model can read the image: a `data:` URL, or that of an upload, made once.

        Raises `UnusableReferenceError`.
        """

    def name_at(self, address: str) -> str | None:
        """Return the `ImageInput.name` of the image that a run of this job sent as this address, or None."""
