"""How long a run waits before it believes what may still change."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """Waiting times in seconds, each of them for an answer that is not final.

    What the provider says in the body of an answer is final. What a status code on the way says, a list that may lag
    behind, and an address that answers 404 are not: they are asked again, with growing pauses, for this long.
    """

    unknown_s: float = 30.0
    """How long the account's list is searched for a create whose answer was lost, at least."""
    unknown_at_most_s: float = 120.0
    """How long it is searched while it shows nothing newer than the lost create."""
    output_s: float = 120.0
    """How long an output that is refused or missing is asked for, although the provider says that it has it."""
    id_s: float = 30.0
    """How long a prediction of an earlier run is asked for whose id is answered with 404."""
    longest_pause_s: float = 10.0
    """Between two looks; the first pause is `first_pause_s`, each next one twice as long."""
    first_pause_s: float = 0.5

    def make_backoff(self) -> "Backoff":
        return Backoff(self.first_pause_s, self.longest_pause_s)


class Backoff:
    """The growing pauses of one wait: `next_s()` returns the next one."""

    def __init__(self, first_s: float, longest_s: float) -> None:
        self._next_s, self._longest_s = first_s, longest_s

    def next_s(self) -> float:
        pause_s = min(self._next_s, self._longest_s)
        self._next_s *= 2
        return pause_s


NO_PATIENCE = Patience(unknown_s=0.0, unknown_at_most_s=0.0, output_s=0.0, id_s=0.0)
"""For a provider that is on this machine and forgets everything when it ends: what it does not show is not there."""
