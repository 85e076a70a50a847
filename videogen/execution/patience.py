"""Waiting times for answers that are not final."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """Times in seconds for which a run keeps asking before it takes an answer as final.

    The body of the provider's answer is final. A status code from an intermediary, a list that may lag behind, and a
    404 for an address are not: the question is repeated with growing pauses for these times.
    """

    unknown_s: float = 30.0
    """Minimum time for which the account's list is searched for a create whose answer was lost."""
    unknown_at_most_s: float = 120.0
    """Maximum time of this search, if the list shows nothing newer than the lost create."""
    output_s: float = 120.0
    """Time for which a download is repeated if the output is refused or missing although the provider announced it."""
    id_s: float = 30.0
    """Time for which a prediction of an earlier run is looked up if its id is answered with 404."""
    longest_pause_s: float = 10.0
    """Longest pause between two tries."""
    first_pause_s: float = 0.5
    """First pause between two tries. Each following one is twice as long."""

    def make_backoff(self) -> "Backoff":
        """Return the pauses for one wait."""
        return Backoff(self.first_pause_s, self.longest_pause_s)


class Backoff:
    """The growing pauses of one wait."""

    def __init__(self, first_s: float, longest_s: float) -> None:
        self._next_s = first_s
        self._longest_s = longest_s

    def next_s(self) -> float:
        """Return the next pause in seconds. Each is twice as long as the one before, up to the longest."""
        pause_s = min(self._next_s, self._longest_s)
        self._next_s *= 2
        return pause_s


NO_PATIENCE = Patience(unknown_s=0.0, unknown_at_most_s=0.0, output_s=0.0, id_s=0.0)
"""For the emulator on this machine. Its answers are always final, because it loses all predictions when it ends."""
