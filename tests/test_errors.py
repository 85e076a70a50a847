import pytest

from videogen import errors
from videogen.errors import VideogenError, is_retryable

RETRYABLE = {
    "NotSentError",
    "TransientError",
    "RateLimitedError",
    "PredictionFailedError",
    "PredictionCanceledError",
    "PredictionAbortedError",
    "ClipTimeoutError",
    "OutputExpiredError",
    "DurationError",
    "QualityError",
    "RejectedError",
}
"""All others need a person, another input, or only time: a new attempt would cost money and end as the last one."""
ERRORS = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, VideogenError)]


def make(kind: type[VideogenError]) -> VideogenError:
    error = kind.__new__(kind)
    assert isinstance(error, kind)
    return error


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_only_temporary_errors_are_tried_again(kind: type[VideogenError]) -> None:
    assert is_retryable(make(kind)) is (kind.__name__ in RETRYABLE)


@pytest.mark.parametrize("error", [ValueError("no"), TimeoutError(), KeyboardInterrupt()], ids=repr)
def test_an_error_of_somebody_else_is_never_tried_again(error: BaseException) -> None:
    """Also if it calls itself retryable, as errors of client libraries do."""
    error.retryable = True  # type: ignore[attr-defined]
    assert is_retryable(error) is False
