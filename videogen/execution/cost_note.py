"""The note in a job's folder of what the job has cost, for a journal that is lost or replaced by an older copy."""

import asyncio
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

from videogen.errors import StorageError
from videogen.storage.base import Folder, Store
from videogen.text import make_loggable

if TYPE_CHECKING:
    from videogen.journal.async_store import AsyncJournal
    from videogen.journal.attempts import Attempt

logger = logging.getLogger(__name__)

NAME = ".costs.json"


@dataclass(frozen=True)
class CostNote:
    """The costs of a job at one origin when the note was written."""

    run_id: str
    """The run that wrote it."""
    last_attempt: str | None
    """Token of the latest attempt that is included; None if the run has made none. A journal that knows it knows all
    of `cost`."""
    cost: Decimal
    """USD that the job had spent and reserved."""


def read_cost_note(folder: Folder, origin: str) -> CostNote | None:
    """Return the note about the costs at this origin, or None if there is none that can be read."""
    entry = _read_notes(folder).get(origin)
    if not isinstance(entry, dict):
        return None
    try:
        cost = Decimal(entry["cost"])
        last = entry["last_attempt"]
        return CostNote(str(entry["run_id"]), None if last is None else str(last), cost) if cost.is_finite() else None
    except (KeyError, TypeError, ValueError, InvalidOperation):
        return None


class CostNoteWriter:
    """Keeps the note of one run up to date. Notes about other origins stay as they are."""

    def __init__(self, store: Store, journal: "AsyncJournal", *, run_id: str, job_id: str, origin: str) -> None:
        self._store, self._journal = store, journal
        self._run_id, self._job_id, self._origin = run_id, job_id, origin
        self._last: Attempt | None = None
        self._notes: dict[str, Any] | None = None
        """The content of the file; None until it was read."""
        self._writing = asyncio.Lock()
        self._requested = self._written = 0
        """How many writes were asked for, and how many of them the file includes."""

    async def write(self, attempt: "Attempt | None" = None) -> None:
        """Write the job's cost as the journal has it. `attempt` is one that was just begun; None means a settled cost.

        Calls that wait for a write in progress are answered by one write together. A folder that cannot be written
        does not end the run here. The run ends when it cannot store a clip.
        """
        if attempt and (self._last is None or attempt.id > self._last.id):
            self._last = attempt
        self._requested += 1
        own = self._requested
        async with self._writing:
            if self._written >= own:
                return
            included, last = self._requested, self._last
            spent, reserved = await self._journal.get_job_spending(self._job_id, self._origin)
            entry = {
                "run_id": self._run_id,
                "last_attempt": last.token if last else None,
                "cost": str(spent + reserved),
            }
            try:
                await asyncio.to_thread(self._put, entry)
            except StorageError as exc:
                logger.warning("the note of the job's cost was not written: %s", make_loggable(exc))
            else:
                self._written = included

    def _put(self, entry: Mapping[str, Any]) -> None:
        if self._notes is None:
            self._notes = _read_notes(self._store)
        self._notes[self._origin] = entry
        self._store.put_text(json.dumps(self._notes, indent=2) + "\n", NAME)


def _read_notes(folder: Folder) -> dict[str, Any]:
    try:
        notes = json.loads(folder.text(NAME) or "{}")
    except ValueError:
        return {}
    return notes if isinstance(notes, dict) else {}
