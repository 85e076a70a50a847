"""A limit over the runs of all processes and machines that share a journal."""

import asyncio
import logging
import random
from collections import deque
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress

from videogen.errors import JournalError, SettingsError
from videogen.journal.limits import Limit
from videogen.journal.store import Journal
from videogen.text import make_loggable

logger = logging.getLogger(__name__)

DEFAULT_SLOTS = 5
CLOSING_S = 2.0
"""Time that the journal has at the end to record the released slots."""
POLL_RANGE_S = (0.05, 0.15)
"""Range of the random delay between two polls for a free slot. It is random so that runs do not poll in step."""


def require_limit(journal: Journal, name: str) -> Limit:
    """Return the limit of this name. Raise `SettingsError` if it does not exist: a missing limit never means
    unlimited."""
    if limit := journal.find_limit(name):
        return limit
    raise SettingsError(
        f"VIDEOGEN_LIMIT: the journal has no limit {name!r} yet; create it: videogen limit {name} {DEFAULT_SLOTS}"
    )


class SharedLimit:
    """One run's part in a limit: the slots that it waits for, holds and releases.

    One task talks to the journal for all clips of the run, in a thread of its own, and only while a clip waits or
    something has changed. If the journal cannot be reached, the task tries again, and slots that are held stay held.
    """

    def __init__(self, journal: Journal, name: str, run_id: str) -> None:
        self._journal, self._name, self._run_id = journal, name, run_id
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="limit")
        self._held: set[int] = set()
        self._waiting: deque[asyncio.Future[int]] = deque()
        self._changed = asyncio.Event()
        self._is_unsynced = False
        """Whether the last change is not in the journal yet."""
        self._closing = False
        self._was_granted = True
        """Whether all clips that waited had a slot after the last answer of the journal."""

    async def acquire(self) -> int:
        """Wait for a slot, in turn with all other runs. Return its ticket."""
        granted: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.append(granted)
        self._changed.set()
        try:
            return await granted
        except asyncio.CancelledError:
            if not granted.cancelled():  # it was granted at the moment of the cancellation
                self.release(granted.result())
            self._changed.set()  # so that a slot that was granted meanwhile is taken back
            raise

    def release(self, ticket: int) -> None:
        self._held.discard(ticket)
        self._changed.set()

    def close(self) -> None:
        """Let `run` record the released slots in the journal, and return."""
        self._closing = True
        self._changed.set()

    async def run(self) -> None:
        """Hand out the slots that the journal grants, until `close`."""
        with self._thread:
            while not self._closing or self._changed.is_set():
                await self._wait_for_change()
                self._changed.clear()
                await self._sync()

    async def _wait_for_change(self) -> None:
        pause_s = random.uniform(*POLL_RANGE_S) if self._waiting or self._is_unsynced else None
        with suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self._changed.wait()

    async def _sync(self) -> None:
        self._drop_cancelled()
        held, waiting = frozenset(self._held), len(self._waiting)
        try:
            granted = await asyncio.get_running_loop().run_in_executor(
                self._thread, lambda: self._journal.sync_tickets(self._name, self._run_id, held=held, waiting=waiting)
            )
        except JournalError as exc:
            if not self._is_unsynced:
                logger.warning("no slots of the limit %s for now: %s", self._name, make_loggable(exc))
            self._is_unsynced = True
            return
        self._is_unsynced = False
        self._drop_cancelled()
        for ticket in granted[: len(self._waiting)]:
            self._held.add(ticket)
            self._waiting.popleft().set_result(ticket)
        if self._waiting and self._was_granted:
            logger.info("waiting for %d slots of the limit %s, which all runs share", len(self._waiting), self._name)
        self._was_granted = not self._waiting

    def _drop_cancelled(self) -> None:
        self._waiting = deque(granted for granted in self._waiting if not granted.done())


@asynccontextmanager
async def join_limit(journal: Journal, name: str, run_id: str) -> AsyncIterator[SharedLimit]:
    """Take part in this limit while the block runs."""
    limit = SharedLimit(journal, name, run_id)
    keeping = asyncio.create_task(limit.run())
    try:
        yield limit
    finally:
        limit.close()
        await asyncio.wait([keeping], timeout=CLOSING_S)
        if not keeping.done():  # the database is silent
            journal.give_up()
        await keeping
