"""The ledger counts every create, poll, cancel, byte and dollar where it occurs, whatever the answers say."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any


@dataclass(slots=True)
class LedgerEntry:
    """An accepted create and the state of its prediction."""

    id: str
    model: str
    input: Mapping[str, Any]
    """As received, unknown keys included."""
    effective_input: Mapping[str, Any]
    """As the model sees it, without unknown keys and with defaults."""
    nth: int
    """Number of this create among the accepted ones, from 1."""
    created_at: str
    price_known: bool
    """Whether the emulator knows the price. If not, `billed` is 0."""
    status: str = "starting"
    started_at: str | None = None
    completed_at: str | None = None
    polls: int = 0
    billed: Decimal = Decimal(0)
    downloads: int = 0
    bytes_served: int = 0


@dataclass(slots=True)
class Ledger:
    """The counters of one server. Only the event loop may write them."""

    creates: int = 0
    cancels: int = 0
    polls: int = 0
    lists: int = 0
    uploads: int = 0
    bytes_served: int = 0
    running: int = 0
    peak: int = 0
    entries: dict[str, LedgerEntry] = field(default_factory=dict)

    def record_create(self, entry: LedgerEntry) -> None:
        """Count an accepted create."""
        self.creates += 1
        self.running += 1
        self.peak = max(self.peak, self.running)
        self.entries[entry.id] = entry

    def record_end(self) -> None:
        """Count a prediction that has reached its terminal state."""
        self.running -= 1

    def record_poll(self, prediction_id: str) -> None:
        """Count a poll of a prediction."""
        self.polls += 1
        if entry := self.entries.get(prediction_id):
            entry.polls += 1

    def record_download(self, prediction_id: str) -> None:
        """Count a requested download, whatever the answer."""
        if entry := self.entries.get(prediction_id):
            entry.downloads += 1

    def record_served_bytes(self, prediction_id: str, size_bytes: int) -> None:
        """Count bytes of an output that were sent."""
        self.bytes_served += size_bytes
        if entry := self.entries.get(prediction_id):
            entry.bytes_served += size_bytes

    def reset(self) -> None:
        """Clear everything except the number of running predictions."""
        running = self.running
        self.__init__()  # type: ignore[misc]
        self.running = self.peak = running

    def make_report(self) -> dict[str, Any]:
        """Return the body of GET /_emulator/ledger; `billed` is a decimal string in USD."""
        return {
            "creates": self.creates,
            "cancels": self.cancels,
            "polls": self.polls,
            "lists": self.lists,
            "uploads": self.uploads,
            "bytes_served": self.bytes_served,
            "peak": self.peak,
            "running": self.running,
            "billed": str(sum((entry.billed for entry in self.entries.values()), Decimal(0))),
            "predictions": [_make_row(entry) for entry in self.entries.values()],
        }


def _make_row(entry: LedgerEntry) -> dict[str, Any]:
    return {
        "id": entry.id,
        "model": entry.model,
        "input": entry.input,
        "effective_input": entry.effective_input,
        "status": entry.status,
        "created_at": entry.created_at,
        "started_at": entry.started_at,
        "completed_at": entry.completed_at,
        "polls": entry.polls,
        "downloads": entry.downloads,
        "billed": str(entry.billed),
        "price_known": entry.price_known,
        "bytes_served": entry.bytes_served,
        "nth": entry.nth,
    }
