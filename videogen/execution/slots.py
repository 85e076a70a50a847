"""Slots: how many predictions of a run may be in progress at a time."""

import asyncio
import heapq
from itertools import count
from typing import Self

from videogen.execution.shared_limit import SharedLimit


class PrioritySemaphore:
    """A semaphore that wakes the waiter with the lowest priority number first, and those with equal ones in order."""

    def __init__(self, value: int) -> None:
        self._free = value
        self._waiting: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = count()

    async def acquire(self, priority: float) -> None:
        """Wait until the semaphore is free, and take it."""
        if self._free and not self._waiting:
            self._free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (priority, next(self._order), turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it was given away to this waiter already
                self.release()
            raise

    def release(self) -> None:
        """Give the semaphore to the first waiter, if there is one."""
        while self._waiting:
            _, _, turn = heapq.heappop(self._waiting)
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1


class Slots:
    """The number of predictions that may run at once, and a queue with as many places for the clips that come next.

    With `shared`, each prediction also needs a slot of a limit over all runs. Without it, only this run's number
    counts.
    """

    def __init__(self, number: int, shared: SharedLimit | None = None) -> None:
        self.queue = PrioritySemaphore(number)
        self.predictions = PrioritySemaphore(number)
        self.open_clips = PrioritySemaphore(4 * number + 16)
        """Bounds how far predictions may run ahead of the decoders. Otherwise thousands of quick clips would wait
        for them."""
        self._shared = shared

    async def acquire(self, priority: float) -> int:
        """Wait for a slot. Return its ticket, which `release` needs."""
        await self.predictions.acquire(priority)
        if self._shared is None:
            return 0
        try:
            return await self._shared.acquire()
        except BaseException:
            self.predictions.release()
            raise

    def release(self, ticket: int) -> None:
        self.predictions.release()
        if self._shared:
            self._shared.release(ticket)


class Slot:
    """The right of one clip to a prediction, among a limited number.

    It is held from before the create until the prediction has ended. Downloading and verifying need none, so that the
    next clip can begin meanwhile. As a context manager it queues on entry: a few clips are prepared while all slots are
    taken, so that a free slot is used at once. Of those that wait, for the queue or for a slot, the one with the lowest
    priority number is next.
    """

    def __init__(self, slots: Slots, priority: float = 0.0) -> None:
        self._slots = slots
        self._priority = priority
        self._queued = False
        self._ticket: int | None = None

    async def acquire(self) -> None:
        """Wait for a free slot, unless this one is held already."""
        if self._ticket is None:
            self._ticket = await self._slots.acquire(self._priority)

    def leave_queue(self) -> None:
        """Let the next clip be prepared."""
        if self._queued:
            self._queued = False
            self._slots.queue.release()

    def release(self) -> None:
        self.leave_queue()
        self.give_back()

    def give_back(self) -> None:
        """Let another clip have the slot, but stay in the queue: this clip still waits for its prediction."""
        if self._ticket is not None:
            self._slots.release(self._ticket)
            self._ticket = None

    async def __aenter__(self) -> Self:
        await self._slots.open_clips.acquire(self._priority)
        try:
            await self._slots.queue.acquire(self._priority)
        except BaseException:
            self._slots.open_clips.release()
            raise
        self._queued = True
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.release()
        self._slots.open_clips.release()
