"""What all clips of one run share."""

import asyncio
import os
import threading
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from functools import cached_property
from typing import Self, TypeVar

from videogen.calls import ProviderGate
from videogen.journal import AsyncJournal
from videogen.limits import SharedLimit
from videogen.pace import PollSchedule
from videogen.patience import Patience
from videogen.polling import Poller
from videogen.ports import EventSink, ImageSender, OpenFolder, Store, VideoProvider
from videogen.posix import lower_thread_priority

T = TypeVar("T")


class Slots:
    """How many predictions may run at once, and as many places in a queue for the clips that come next.

    With `shared` each of them also needs a slot of a limit over all runs; without, there is only this run's number.
    """

    def __init__(self, number: int, shared: SharedLimit | None = None) -> None:
        self.queue = asyncio.Semaphore(number)
        self.predictions = asyncio.Semaphore(number)
        self.open_clips = asyncio.Semaphore(4 * number + 16)
        """How far predictions may run ahead of the decoders: else thousands of quick clips would wait for them."""
        self._shared = shared

    async def acquire(self) -> int:
        """Waits for a slot. Returns its ticket, to be given back with it."""
        await self.predictions.acquire()
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

    It is held from before the create until the prediction has ended. Downloading and checking need none, so that the
    next clip can begin meanwhile. Used as a context manager it is queued for on entry: a few clips are made ready
    while the slots are still taken, so that a slot that becomes free is used at once.
    """

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._queued = False
        self._ticket: int | None = None

    async def acquire(self) -> None:
        """Waits for a free slot, unless this one is held already."""
        if self._ticket is None:
            self._ticket = await self._slots.acquire()

    def leave_queue(self) -> None:
        """The next clip may be made ready."""
        if self._queued:
            self._queued = False
            self._slots.queue.release()

    def release(self) -> None:
        self.leave_queue()
        if self._ticket is not None:
            self._slots.release(self._ticket)
            self._ticket = None

    async def __aenter__(self) -> Self:
        await self._slots.open_clips.acquire()
        try:
            await self._slots.queue.acquire()
        except BaseException:
            self._slots.open_clips.release()
            raise
        self._queued = True
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.release()
        self._slots.open_clips.release()


def _make_decoders() -> Executor:
    """Decoding may wait, the calls that keep the slots busy may not."""
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="decoder", initializer=lower_thread_priority)


@dataclass
class RunContext:
    """The outside of all clips of one run, and what they learn from each other."""

    id: str
    folder: str
    """The address of the job's folder, as the journal keeps it."""
    provider: VideoProvider
    store: Store
    open_folder: OpenFolder
    """Also of other jobs, whose clips are reused."""
    journal: AsyncJournal
    images: ImageSender
    events: EventSink
    gate: ProviderGate
    job_id: str = ""
    max_cost: Decimal | None = None
    """USD that may be spent on the job, by all its runs together; None means no cap."""
    patience: Patience = field(default_factory=Patience)
    lookalikes: frozenset[str] = frozenset()
    """Keys of clips that differ from another clip of the job in nothing but their pictures."""
    in_progress: set[str] = field(default_factory=set)
    """Keys of clips with a reservation that this process will settle."""
    force_keys: set[str] = field(default_factory=set)
    """Keys of clips that are to be made although they were delivered before."""
    leaves_running: bool = False
    """When it is interrupted its predictions go on, for the next run to continue them."""
    recovering: bool = False
    """The journal of earlier runs is lost: what they paid for is looked for in the account before it is paid again."""
    poll_schedules: defaultdict[str, PollSchedule] = field(default_factory=lambda: defaultdict(PollSchedule))
    """By model: how long its predictions take."""
    decoders: Executor = field(default_factory=_make_decoders)
    """Where clips are decoded: as many at once as there are cores, more would only slow each other."""
    free_decoders: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(os.cpu_count() or 1))
    key_locks: defaultdict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))
    """By clip key: the same clip twice in one job is made once."""

    settled: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the next reservation of this run is settled: there may be room in the budget then."""

    def notify_settled(self) -> None:
        self.settled.set()
        self.settled = asyncio.Event()

    def age_s(self, at: datetime) -> float:
        """Seconds since a time of the provider's clock."""
        return (self.provider.now() - at).total_seconds()

    def has_outlived_outputs(self, at: datetime) -> bool:
        """Whether what the provider made at this time would no longer be there."""
        return self.provider.now() - at >= self.provider.outputs_kept

    @cached_property
    def poller(self) -> Poller:
        """Looks for the ends of all its predictions."""
        return Poller(self.provider, self.gate)

    async def run_in_decoder(self, work: Callable[[threading.Event], T], *, timer: asyncio.Timeout | None = None) -> T:
        """What `work` returns, done by a decoder. Waiting until one is free does not count for the timer.

        `work` is given an event that is set when nobody waits for its result any more: it has to end then.
        """
        await self._acquire_decoder(timer)
        stop = threading.Event()
        working = asyncio.get_running_loop().run_in_executor(self.decoders, work, stop)
        working.add_done_callback(lambda _: self.free_decoders.release())
        try:
            return await asyncio.shield(working)
        except asyncio.CancelledError:
            stop.set()
            working.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody is left to hear it
            raise

    async def _acquire_decoder(self, timer: asyncio.Timeout | None) -> None:
        loop, when = asyncio.get_running_loop(), timer and timer.when()
        if timer is None or when is None:
            await self.free_decoders.acquire()
            return
        left_s = when - loop.time()
        timer.reschedule(None)
        await self.free_decoders.acquire()
        timer.reschedule(loop.time() + left_s)
