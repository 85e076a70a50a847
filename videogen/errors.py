"""The tree of all errors that videogen raises on purpose.

::

    VideogenError
    ├── InvalidError                 exit 2: nothing was sent, correct the input
    │   ├── ValidationError          job, registry or plan: every problem at once
    │   └── SettingsError            an environment variable or a flag
    ├── AccountError                 exit 3: stops the whole job
    │   ├── AuthenticationError      401; 403 in the provider's own words
    │   └── BillingError             402 in the provider's own words
    ├── JobLockedError               another run holds this job's folder
    ├── RunInterruptedError          the run was cancelled or interrupted by a person
    ├── CommandRefusedError          a run in progress refused a command
    ├── LeaseLostError               another run took over this run's work
    ├── JournalError                 the journal cannot be read or written
    │   └── UnreadableJournalError   it is damaged, or of another version
    ├── CallError                    one HTTP call failed; it is retried without using an attempt
    │   ├── NotSentError             certain: the request did not reach the server
    │   ├── OutcomeUnknownError      a create that may have been accepted
    │   ├── TransientError           an idempotent call failed and may be repeated
    │   ├── RateLimitedError         429: wait `retry_after_s`
    │   └── GoneError                404: the prediction or file does not exist, or not yet
    └── ClipError                    the end of one attempt (an attempt is a prediction)
        ├── InputRejectedError       422, 404 on create: permanent
        ├── ModerationError          flagged by the provider: permanent
        ├── PredictionFailedError    the model failed: temporary
        ├── PredictionCanceledError  canceled by another client, or by its deadline
        ├── PredictionAbortedError   its deadline passed before it started
        ├── ClipTimeoutError         it took longer than the clip's timeout; canceled remotely
        ├── OutputExpiredError       finished, but the provider deleted the output
        ├── BadOutputError           finished, but the output is not a complete video: permanent
        │   └── SoundError           the picture is complete, but the requested sound is damaged: permanent
        ├── DurationError            complete, but too far from the requested length
        ├── QualityError             complete, but black or frozen from start to end, and the job is strict
        ├── UnusableReferenceError   a reference image cannot be used: permanent
        ├── StorageError             disk full, no permission: permanent, a re-run only downloads
        ├── ClaimedError             another job's run is making this clip: wait for it
        ├── DeliveredError           another run has delivered this clip meanwhile: reuse it
        ├── PausedError              the run is paused: wait until it is resumed
        ├── ClipCancelledError       a command to the run cancelled this clip: permanent
        ├── BlockedError             a clip that it is made from was not delivered: not tried
        ├── BudgetError              it would cost more than `max_cost`, or a shared budget, allows: permanent
        └── UnreachableError         the provider could not be reached for too long
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from videogen.text import escape_unprintable


class VideogenError(Exception):
    """Base of all errors that videogen raises on purpose.

    `code` is stable and meant for programs (manifest, events). The message is meant for people: it says what happened,
    where, and what to do.
    """

    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False


class InvalidError(VideogenError):
    """The input is not valid. Nothing was sent."""

    code = "invalid"


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem of a job or a registry, with its location and advice."""

    message: str
    where: str = ""
    """Dotted path in the file, such as `scenes.2.prompt`; empty for the file as a whole."""
    position: str = ""
    """`file:line:column` if known, else `file`; empty if there is no file."""

    def __str__(self) -> str:
        parts = (self.position, self.where, self.message)
        return ": ".join(escape_unprintable(part) for part in parts if part)

    def summary(self) -> dict[str, str | int | None]:
        """Return the problem as JSON value. `line` and `column` are from 1, or None if only the file is known."""
        file, *at = self.position.rsplit(":", 2)
        line, column = map(int, at) if len(at) == 2 and all(map(str.isdigit, at)) else (None, None)
        file = self.position if line is None else file
        return {"file": file, "line": line, "column": column, "field": self.where, "message": self.message}


DISTRIBUTION = "videogen-batch"
"""The name of the package on PyPI, where `videogen` belongs to another company."""


def get_install_hint(extra: str) -> str:
    """Return the command that installs an optional extra of videogen, such as `s3`."""
    return f"pip install '{DISTRIBUTION}[{extra}]', or in a checkout: uv sync --extra {extra}"


class ValidationError(InvalidError):
    """A job, registry or plan is not valid. The error carries every problem found."""

    code = "validation"

    def __init__(self, problems: Sequence[Problem] | str) -> None:
        self.problems: tuple[Problem, ...] = (Problem(problems),) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class SettingsError(InvalidError):
    """An environment variable or a flag has a value that cannot be used."""

    code = "settings"


class AccountError(VideogenError):
    """The account cannot be used; no clip of this job can succeed until a person acts."""

    code = "account"


class AuthenticationError(AccountError):
    """The provider refused the token (401, 403)."""

    code = "authentication"


class BillingError(AccountError):
    """The account has no credit left (402)."""

    code = "billing"


class JobLockedError(VideogenError):
    """Another run of this job is in progress."""

    code = "locked"


class RunInterruptedError(VideogenError):
    """The run was cancelled or interrupted by a person. Nothing new is started."""

    code = "interrupted"


class CommandRefusedError(VideogenError):
    """A run in progress cannot carry out a command. The message says why, and what to do."""

    code = "command-refused"


class LeaseLostError(VideogenError):
    """This run's lease expired and another run took over its work. This run creates and records nothing more."""

    code = "lease-lost"


class JournalError(VideogenError):
    """The journal cannot be read or written."""

    code = "journal"


class UnreadableJournalError(JournalError):
    """The journal exists, but is damaged or of another version."""

    code = "journal-unreadable"


class CallError(VideogenError):
    """One call to the provider failed."""

    code = "call"


class NotSentError(CallError):
    """The request certainly did not reach the server (connection refused, name not found)."""

    code = "not-sent"
    retryable = True


class OutcomeUnknownError(CallError):
    """The answer to a create was lost, or not from the provider. The prediction may exist and may cost money."""

    code = "outcome-unknown"


class TransientError(CallError):
    """An idempotent call failed temporarily: timeout, reset, 5xx, broken JSON, or a status code of an intermediary."""

    code = "transient"
    retryable = True


class RateLimitedError(CallError):
    """The provider answered 429. This uses no attempt and does not count against the clip's timeout."""

    code = "rate-limited"
    retryable = True

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message)


class GoneError(CallError):
    """The answer was 404 or 410: the prediction or file does not exist, not yet or not any more.

    An intermediary may have answered so, too.
    """

    code = "gone"


class ClipError(VideogenError):
    """One attempt at a clip ended without a clip."""

    code = "clip"


class InputRejectedError(ClipError):
    """The endpoint rejected the input (422) or does not exist (404). The same call would be rejected again."""

    code = "input"


class ModerationError(ClipError):
    """Input or output was flagged as sensitive. The same prompt would be flagged again."""

    code = "moderation"


class PredictionFailedError(ClipError):
    """The model failed temporarily (out of memory, interrupted, overloaded, internal error)."""

    code = "model-error"
    retryable = True


class PredictionCanceledError(ClipError):
    """The prediction was canceled by another client, or by its remote deadline while it ran."""

    code = "canceled"
    retryable = True


class PredictionAbortedError(ClipError):
    """The prediction's remote deadline passed before it started. Nothing was billed."""

    code = "aborted"
    retryable = True


class ClipTimeoutError(ClipError):
    """The clip did not finish within its timeout. The prediction was canceled remotely."""

    code = "timeout"
    retryable = True


class OutputExpiredError(ClipError):
    """The prediction succeeded, but the provider no longer has its output."""

    code = "expired"
    retryable = True


class BadOutputError(ClipError):
    """The output is not a complete video. The raw bytes are kept beside the clips."""

    code = "bad-output"


class SoundError(BadOutputError):
    """The picture is complete, but the requested sound is damaged. The raw bytes are kept beside the clips."""

    code = "bad-sound"


class DurationError(ClipError):
    """The clip is complete, but its length is outside the tolerance."""

    code = "duration"
    retryable = True


class QualityError(ClipError):
    """The clip is complete, but black or frozen from start to end, and the job sets `strict_quality`."""

    code = "quality"
    retryable = True


class RejectedError(ClipError):
    """The clip is complete, but the job's judge rejects it, and the job sets `retake_below`."""

    code = "rejected"
    retryable = True


class UnusableReferenceError(ClipError):
    """A reference image cannot be fetched, decoded or sent."""

    code = "reference"


class StorageError(ClipError):
    """The clip could not be written (disk full, no permission). The next run downloads it without a new prediction."""

    code = "storage"


class ClaimedError(ClipError):
    """Another job's run is making the same clip now. This run waits for it, so that it is not paid for twice."""

    code = "claimed"


class DeliveredError(ClipError):
    """Another run delivered the same clip while this one was about to create it. It is reused, not paid for again."""

    code = "delivered"


class PausedError(ClipError):
    """The run is paused, so no prediction is created now. The clip waits until the run is resumed."""

    code = "paused"


class ClipCancelledError(ClipError):
    """A command to the run cancelled this clip. It is not tried again unless another command says so."""

    code = "cancelled"


class BlockedError(ClipError):
    """A clip that this one is made from was not delivered, so this one was not tried."""

    code = "blocked"


class BudgetError(ClipError):
    """Creating this prediction could take the job above its `max_cost`, or the runs that share a budget above that.

    `may_free` is true if predictions of the same run are still open. They may cost less than the amount reserved for
    them, so there may be room for this one later.
    """

    code = "budget"

    def __init__(self, message: str, *, may_free: bool = False) -> None:
        self.may_free = may_free
        super().__init__(message)


class UnreachableError(ClipError):
    """The provider could not be reached until the clip's deadline. The next run resumes the prediction, if any."""

    code = "unreachable"


def is_fallback_allowed(error: BaseException) -> bool:
    """Return whether a fallback model may be tried after this error.

    It may if the clip failed for good, with no output left to download, and none of our own limits was the reason.
    """
    return isinstance(error, FAILED_FOR_GOOD)


FAILED_FOR_GOOD = (
    InputRejectedError,
    ModerationError,
    PredictionFailedError,
    PredictionCanceledError,
    PredictionAbortedError,
    ClipTimeoutError,
    OutputExpiredError,
    BadOutputError,
    DurationError,
    QualityError,
)


def is_retryable(error: BaseException) -> bool:
    """Return whether a new attempt may succeed after this error. No other code decides this."""
    return isinstance(error, VideogenError) and error.retryable
