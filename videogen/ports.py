"""What the life of a clip needs from outside, as protocols; `videogen.adapters` has the real ones."""

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
"""Why a prediction failed: its content was refused, its inputs do not go together, or something that passes."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """A prediction as the provider tells it. A status that nobody knows yet counts as `processing`."""

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
    """False while it is known not to have started: nothing is billed then."""
    data_removed: bool = False
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """The whole answer, made safe to keep: long texts are cut."""
    failure: FailureKind | None = None
    """Of a prediction that failed, as its provider's adapter understands the error."""
    video_seconds: float | None = None
    """Length of the output that is billed, where the provider tells it."""
    holds_no_video: bool = False
    """True when there is an output, but no address in it could be a video's: asking again would not change that."""

    @property
    def ended(self) -> bool:
        return self.status in TERMINAL_STATUSES

    @property
    def has_known_status(self) -> bool:
        """Whether the provider's word for its status is one that we know."""
        return self.ended or self.raw.get("status", self.status) == self.status

    @property
    def run_s(self) -> float | None:
        """Seconds from its creation to its end, by the provider's clock. None where that is no length of time."""
        if self.created_at is None or self.completed_at is None or self.completed_at < self.created_at:
            return None
        return (self.completed_at - self.created_at).total_seconds()


class VideoProvider(Protocol):
    """Where predictions are made. Each method is one call; raises `CallError` or `AccountError`, repeats nothing."""

    @property
    def origin(self) -> str:
        """Whose predictions these are; what was paid for at one origin is not reused for another."""

    @property
    def outputs_kept(self) -> timedelta:
        """How long the output of a finished prediction is there, and how long an id may be unknown for a while only."""

    def now(self) -> datetime:
        """The time by the provider's clock, in UTC: its times are compared with this one, not with the local clock."""

    async def check_account(self) -> None:
        """Raises `AuthenticationError` when the token is refused."""

    async def create(
        self, replicate: str, version: str | None, inputs: Mapping[str, Any], *, cancel_after_s: float
    ) -> Prediction:
        """Starts a prediction that the provider itself ends after `cancel_after_s`.

        Raises `InputRejectedError` or `ModerationError` when the same call would be refused again,
        `OutcomeUnknownError` when it may have been accepted.
        """

    async def get(self, prediction_id: str) -> Prediction: ...

    async def cancel(self, prediction_id: str) -> Prediction: ...

    def list_since(self, created_after: datetime) -> AsyncIterator[Prediction]:
        """The account's predictions, newest first."""

    async def upload(self, data: bytes, *, name: str, media_type: str) -> str:
        """The URL under which the provider's models can read these bytes."""

    async def download(self, url: str, part: Path) -> None:
        """Writes what is at `url`, which may be a `data:` address, to `part`, continuing what is there. Raises
        `GoneError`, `NotSentError`, `TransientError`, `BadOutputError` (more than the byte cap, or an address that is
        not fetched from), `StorageError`."""


class Folder(Protocol):
    """The finished files of a job, on this disk or elsewhere. Names are relative to it.

    The methods may take seconds: call them in a thread. They raise `StorageError` where the place cannot be asked,
    which is not to be taken for "not there".
    """

    @property
    def address(self) -> str:
        """As the journal keeps it: an absolute path, or such as `s3://bucket/prefix/job`."""

    def exists(self) -> bool:
        """Whether a run has used it before."""

    def sha256(self, name: str) -> str | None:
        """Of a file's bytes; None where there is no such file."""

    def text(self, name: str) -> str | None:
        """A text file's content; None where there is no such file. Raises `ValueError` when it is not UTF-8."""

    def fetch(self, name: str, to: Path) -> bool:
        """Writes a file's bytes to a local path. False where there is no such file."""

    def free_bytes(self) -> int | None:
        """How much room there is for more files; None where that is not known."""


def is_remote(address: str) -> bool:
    """Whether a folder's address is not a path on this disk."""
    return "://" in address


OpenFolder = Callable[[str], Folder]
"""The folder at an address. Raises `SettingsError` where this installation cannot read such addresses."""


class Store(Folder, Protocol):
    """Where a job's files are made and kept."""

    def check_writable(self) -> None:
        """Writes, replaces and removes a file. Raises `StorageError` where that fails: finished clips would, too."""

    def scratch(self, name: str) -> Path:
        """A local path for what is not finished yet; its folder exists, and belongs to this user alone.

        The name may be anything: the path is below that folder, and has the name's ending. What is there already is an
        unfinished file, never a link.
        """

    def path(self, name: str) -> Path:
        """The local path of a finished file, which is fetched for that when it is elsewhere."""

    def put(self, scratch: Path, name: str) -> None:
        """Makes a scratch file a finished one: whole or not at all, also through a crash. Raises `StorageError`."""

    def put_text(self, text: str, name: str) -> None: ...

    def take_over(self, source: Folder, name: str, new_name: str) -> None:
        """Makes a finished file of another folder one of this one. Does nothing where it is not there."""


class EventSink(Protocol):
    def emit(self, event: RunEvent) -> None: ...


class ImageSender(Protocol):
    async def url(self, image: ImageInput) -> str:
        """An address the model can read the picture at: `data:`, or uploaded once and reused.

        Raises `UnusableReferenceError`.
        """

    def name_at(self, address: str) -> str | None:
        """The `ImageInput.name` of the picture that this run, or an earlier one of its job, sent under an address."""
