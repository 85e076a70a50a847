"""When to poll a prediction next: rarely while it cannot have finished, often when it should have."""

from collections import deque
from statistics import median

MIN_DELAY_S = 0.2
MAX_DELAY_S = 8.0
MAX_FIRST_DELAY_S = 20.0
"""Longest delay before the first poll. A prediction can fail early, for example in a moderation that comes first."""


class PollSchedule:
    """The poll schedule of one model, learned from how long its predictions took.

    With no experience, the delay grows with the elapsed time (an eighth of it), so that the end of a clip of any length
    is noticed within an eighth of its time. With experience, the first poll comes when the quickest prediction so far
    was done, and further polls come every `0.165 × elapsed^0.6` seconds: 0.25 s apart for clips of 2 s, 1.9 s apart for
    clips of 60 s.
    """

    def __init__(self) -> None:
        self._seen: deque[float] = deque(maxlen=50)

    def observe_run(self, run_s: float) -> None:
        """Learn from a prediction that took this many seconds."""
        self._seen.append(run_s)

    def estimate_duration_s(self, typical_s: float) -> float:
        """Return the expected duration of a prediction: the median so far, or `typical_s` of the registry if there
        is none."""
        return median(self._seen) if self._seen else typical_s

    def next_delay_s(self, elapsed_s: float) -> float:
        """Return the seconds to wait before polling a prediction again that was created `elapsed_s` seconds ago."""
        if not self._seen:
            return _clamp(elapsed_s / 8)
        first_s = 1.01 * min(self._seen)
        if elapsed_s < first_s:
            return max(MIN_DELAY_S, min(first_s - elapsed_s, MAX_FIRST_DELAY_S))
        return _clamp(0.165 * elapsed_s**0.6)


def _clamp(seconds: float) -> float:
    return min(max(seconds, MIN_DELAY_S), MAX_DELAY_S)
