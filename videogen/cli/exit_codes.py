"""The exit codes of the commands."""

from typing import TYPE_CHECKING

from videogen.errors import AccountError, InvalidError

if TYPE_CHECKING:
    from videogen.results.run_result import RunResult

OK = 0
"""The run was accepted: complete or partial. Other commands: done."""
FAILED = 1
"""The verdict is failed, or the command could not be finished."""
INVALID = 2
"""The job, the registry, a flag or a variable is wrong. Nothing was sent."""
NO_ACCOUNT = 3
"""The provider refused the token, or the account has no credit."""
INTERRUPTED, TERMINATED = 130, 143
"""Ctrl-C and SIGTERM."""

ACCOUNT_ERRORS = {"authentication", "billing"}
"""Codes of errors of clips that concern the whole account."""


def get_exit_code(result: "RunResult") -> int:
    """Return the exit code of a run."""
    if any(clip.error and clip.error.code in ACCOUNT_ERRORS for clip in result.clips):
        return NO_ACCOUNT
    return FAILED if result.verdict.status == "failed" else OK


def get_error_exit_code(error: Exception) -> int:
    """Return the exit code of a command that ended with this error."""
    if isinstance(error, InvalidError):
        return INVALID
    return NO_ACCOUNT if isinstance(error, AccountError) else FAILED
