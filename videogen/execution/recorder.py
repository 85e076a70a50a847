"""Record the events of a run in its journal, and report them to listeners."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import anyio

from videogen.errors import (
    JournalError,
)
from videogen.events import ClipEnded, ClipRetrying, RunEvent
from videogen.text import make_loggable

if TYPE_CHECKING:
    from videogen.journal.async_store import AsyncJournal
logger = logging.getLogger(__name__)

FLUSH_S = 8.0
"""Time that an interrupted run has to record its last events."""

Listener = Callable[[RunEvent, Mapping[str, Any]], None]
"""Called with each event and its payload, after the event was recorded in the journal."""


class EventRecorder:
    """An `EventSink` that numbers and records each event in the journal, then reports it to the listeners.

    Recording runs in the background, one event after the other, so that no clip waits for the journal. An event that
    cannot be recorded is reported all the same.
    """

    def __init__(self, journal: "AsyncJournal", run_id: str, total: int, listeners: Sequence[Listener]) -> None:
        self._journal, self._run_id, self._listeners = journal, run_id, listeners
        self._total = total
        self._emitted: asyncio.Queue[tuple[RunEvent, dict[str, Any]]] = asyncio.Queue()
        self._recording = asyncio.create_task(self._record())
        self.done: set[str] = set()
        """Ids of the scenes whose clip is delivered or failed. A clip that fails and is delivered later counts once."""
        self.failed: set[str] = set()
        """Those of them whose clip failed."""

    def emit(self, event: RunEvent) -> None:
        if isinstance(event, ClipEnded):
            self.done.add(event.clip.scene_id)
            if event.clip.error:
                self.failed.add(event.clip.scene_id)
            else:
                self.failed.discard(event.clip.scene_id)
        elif isinstance(event, ClipRetrying):  # a command may have a failed clip tried again
            self.done.discard(event.scene_id)
            self.failed.discard(event.scene_id)
        done = {"completed": len(self.done), "failed": len(self.failed), "total": self._total}
        counts = {"run_id": self._run_id, **done}
        self._emitted.put_nowait((event, {**event.payload(), **counts}))

    async def flush(self) -> None:
        """Wait until every event is recorded and reported."""
        await self._emitted.join()

    async def aclose(self) -> None:
        """Record the remaining events, for `FLUSH_S` at most, and stop."""
        with anyio.move_on_after(FLUSH_S, shield=True):
            await self.flush()
        self._recording.cancel()

    async def _record(self) -> None:
        while True:
            event, payload = await self._emitted.get()
            try:
                await self._journal.add_event(self._run_id, event.type, payload)
            except JournalError as exc:
                logger.warning("the event %s is not recorded: %s", event.type, make_loggable(exc))
            for listener in self._listeners:
                _call_listener(listener, event, payload)
            self._emitted.task_done()


def _call_listener(listener: Listener, event: RunEvent, payload: Mapping[str, Any]) -> None:
    try:
        listener(event, payload)
    except Exception:  # it is the caller's own, and the clips are paid for
        logger.exception("a listener failed on the event %s", event.type)
