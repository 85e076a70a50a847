"""Everything that can go wrong, as one tree.

::

    VideogenError
    ├── InvalidError                 exit 2: nothing was sent, mend the input
    │   ├── ValidationError          job, registry, plan: every problem at once
    │   └── SettingsError            an environment variable or a flag
    ├── AccountError                 exit 3: stops the whole job
    │   ├── AuthenticationError      401; 403 in the provider's own words
    │   └── BillingError             402 in the provider's own words
    ├── JobLockedError               another run holds this job's folder
    ├── RunInterruptedError          the run was cancelled or interrupted by a person
    ├── LeaseLostError               another run took this run's work over
    ├── JournalError                 the journal cannot be read or written
    │   └── UnreadableJournalError   what is there is damaged, or of another version
    ├── CallError                    one HTTP call; carried by transport retries, never an attempt
    │   ├── NotSentError             certain: the request did not reach the server
    │   ├── OutcomeUnknownError      a create that may have been accepted
    │   ├── TransientError           an idempotent call that may be repeated
    │   ├── RateLimitedError         429: wait `retry_after_s`
    │   └── GoneError                404: this prediction or file is not there, or not there yet
    └── ClipError                    the end of one attempt (an attempt is a prediction)
        ├── InputRejectedError       422, 404 on create: permanent
        ├── ModerationError          flagged by the provider: permanent
        ├── PredictionFailedError    the model failed: passing
        ├── PredictionCanceledError  canceled by somebody else, or by its deadline
        ├── PredictionAbortedError   its deadline passed before it started
        ├── ClipTimeoutError         longer than the clip's timeout; canceled remotely
        ├── OutputExpiredError       finished, but the provider deleted the output
        ├── BadOutputError           finished, but what came is not a whole video: permanent
        │   └── SoundError           its picture is whole, but the sound that is wanted is not: permanent
        ├── DurationError            whole, but too far from the length asked for
        ├── QualityError             whole, but black or frozen from start to end, and the job is strict
        ├── UnusableReferenceError   a reference image cannot be used: permanent
        ├── StorageError             disk full, no permission: permanent, a re-run only downloads
        ├── ClaimedError             another job's run is making this very clip: wait for it
        ├── DeliveredError           another run has delivered this very clip meanwhile: look it up
        ├── BudgetError              it would cost more than `max_cost` allows: permanent
        └── UnreachableError         the provider could not be reached for too long
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


class VideogenError(Exception):
    """Base of all errors that videogen raises on purpose.

    `code` is stable and made for programs (manifest, events); the message is for people: what, where, what to do.
    """

    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False


class InvalidError(VideogenError):
    """What was asked is not valid; nothing was sent."""

    code = "invalid"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a job or a registry: where it is and what would be right."""

    message: str
    where: str = ""
    """Where in the document, as dotted path (`scenes.2.prompt`); empty for the document as a whole."""
    position: str = ""
    """`file:line:column` where known, `file` otherwise; empty for what has no file."""

    def __str__(self) -> str:
        parts = (self.position, self.where, self.message)
        return ": ".join(escape_unprintable(part) for part in parts if part)

    def summary(self) -> dict[str, str | int | None]:
        """As JSON value; `line` and `column` are from 1, None where only the file is known."""
        file, *at = self.position.rsplit(":", 2)
        line, column = map(int, at) if len(at) == 2 and all(map(str.isdigit, at)) else (None, None)
        file = self.position if line is None else file
        return {"file": file, "line": line, "column": column, "field": self.where, "message": self.message}


def escape_unprintable(text: str) -> str:
    """The text on one line, with what a terminal would obey instead of show written as an escape."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def escape_json(text: str) -> str:
    """Return JSON text in ASCII: the same value, with nothing in it that a terminal obeys or a console cannot show."""
    return re.sub(r"[^\n -~]", lambda found: _escape_character(found.group()), text)


def _escape_character(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[start : start + 4]}" for start in range(0, len(units), 4))


DISTRIBUTION = "videogen-batch"
"""The name to install by; `videogen` is another company's package."""


def get_install_hint(extra: str) -> str:
    """Return what to type to get an optional part of videogen, such as `s3`."""
    return f"pip install '{DISTRIBUTION}[{extra}]', or in a checkout: uv sync --extra {extra}"


class ValidationError(InvalidError):
    """A job, registry or plan that cannot be run; carries every problem found, not the first."""

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
    """Another run of this job is going on."""

    code = "locked"


class RunInterruptedError(VideogenError):
    """The run was cancelled or interrupted by a person: nothing new is begun."""

    code = "interrupted"


class LeaseLostError(VideogenError):
    """This run was not heard of for too long, and another run took its work over: nothing more is created or recorded
    for it."""

    code = "lease-lost"


class JournalError(VideogenError):
    """The journal cannot be read or written."""

    code = "journal"


class UnreadableJournalError(JournalError):
    """The journal is there, but damaged or of another version."""

    code = "journal-unreadable"


class CallError(VideogenError):
    """One call to the provider did not answer as hoped."""

    code = "call"


class NotSentError(CallError):
    """The request certainly did not reach the server (connection refused, name not found)."""

    code = "not-sent"
    retryable = True


class OutcomeUnknownError(CallError):
    """A create whose answer was lost, or was not the provider's: it may have been accepted and may cost money."""

    code = "outcome-unknown"


class TransientError(CallError):
    """An idempotent call failed in a way that passes: time-out, reset, 5xx, broken JSON, a hop's status code."""

    code = "transient"
    retryable = True


class RateLimitedError(CallError):
    """429. Uses no attempt and does not eat the clip's timeout."""

    code = "rate-limited"
    retryable = True

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message)


class GoneError(CallError):
    """404 or 410: the prediction or file asked for is not there, not yet or not any more; a hop may say so, too."""

    code = "gone"


class ClipError(VideogenError):
    """One attempt at a clip ended without a clip."""

    code = "clip"


class InputRejectedError(ClipError):
    """The endpoint refused the input (422) or does not exist (404); the same call would be refused again."""

    code = "input"


class ModerationError(ClipError):
    """Input or output was flagged as sensitive; the same prompt would be flagged again."""

    code = "moderation"


class PredictionFailedError(ClipError):
    """The model failed in a way that passes (out of memory, interrupted, overloaded, internal error)."""

    code = "model-error"
    retryable = True


class PredictionCanceledError(ClipError):
    """The prediction was canceled by somebody else, or by its remote deadline while it ran."""

    code = "canceled"
    retryable = True


class PredictionAbortedError(ClipError):
    """The prediction's remote deadline passed before it started; nothing was billed."""

    code = "aborted"
    retryable = True


class ClipTimeoutError(ClipError):
    """The clip was not there when its timeout ended; the prediction was canceled remotely."""

    code = "timeout"
    retryable = True


class OutputExpiredError(ClipError):
    """The prediction succeeded, but the provider no longer has its output."""

    code = "expired"
    retryable = True


class BadOutputError(ClipError):
    """What the provider delivered is not a whole video; the raw bytes are kept beside the clips."""

    code = "bad-output"


class SoundError(BadOutputError):
    """The picture is whole, but its sound, which the job wants, is damaged; the raw bytes are kept beside the clips."""

    code = "bad-sound"


class DurationError(ClipError):
    """The clip is whole, but its length is outside the tolerance."""

    code = "duration"
    retryable = True


class QualityError(ClipError):
    """The clip is whole, but black or frozen from start to end, which the job's `strict_quality` does not take."""

    code = "quality"
    retryable = True


class UnusableReferenceError(ClipError):
    """A reference image cannot be fetched, decoded or sent."""

    code = "reference"


class StorageError(ClipError):
    """The clip could not be written (disk full, no permission); its prediction is kept, a re-run only downloads."""

    code = "storage"


class ClaimedError(ClipError):
    """Another job's run, which is alive, is making this very clip: it is waited for, not paid for twice."""

    code = "claimed"


class DeliveredError(ClipError):
    """Another run delivered this very clip while this one was about to create it: it is looked up, not paid for."""

    code = "delivered"


class BudgetError(ClipError):
    """Creating this prediction could take the job above its `max_cost`.

    `may_free` says whether predictions of the same run are still open, which may cost less than what is reserved for
    them: there may be room for this one then.
    """

    code = "budget"

    def __init__(self, message: str, *, may_free: bool = False) -> None:
        self.may_free = may_free
        super().__init__(message)


class UnreachableError(ClipError):
    """The provider could not be reached until the clip's deadline; its prediction, if any, is kept for the next run."""

    code = "unreachable"


def is_fallback_allowed(error: BaseException) -> bool:
    """Whether another model may bring a clip that failed for good: nothing of it is left to fetch, and no limit of ours
    stopped it."""
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
    """Whether a new attempt may succeed where this one ended: the one place where this is decided."""
    return isinstance(error, VideogenError) and error.retryable
