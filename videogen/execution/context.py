"""The shared state and services of one run."""

import asyncio
import os
import threading
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from functools import cached_property
from typing import TypeVar

from videogen.execution.base import EventSink, ImageSender
from videogen.execution.billing import UnexpectedBill
from videogen.execution.cost_note import CostNoteWriter
from videogen.execution.judging import Judge
from videogen.execution.marking import ClipMarker
from videogen.execution.options import UnrecordedRun
from videogen.execution.patience import Patience
from videogen.execution.poll_schedule import PollSchedule
from videogen.execution.poller import Poller
from videogen.execution.rate_limit_gate import ProviderGate
from videogen.journal.async_store import AsyncJournal
from videogen.journal.attempts import Attempt
from videogen.posix import lower_thread_priority
from videogen.providers.base import VideoProvider
from videogen.results.clip import Clip
from videogen.storage.base import OpenFolder, Store

T = TypeVar("T")


def _make_decoders() -> Executor:
    """Return a pool of threads with low priority: decoding may wait, but not the calls that keep the slots busy."""
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="decoder", initializer=lower_thread_priority)


@dataclass
class RunContext:
    """State and services of one run, shared by its clips."""

    id: str
    folder: str
    """The URL or path of the job's folder, as the journal stores it."""
    provider: VideoProvider
    store: Store
    open_folder: OpenFolder
    """Opens job folders, also those of other jobs whose clips are reused."""
    journal: AsyncJournal
    images: ImageSender
    events: EventSink
    gate: ProviderGate
    job_id: str = ""
    max_cost: Decimal | None = None
    """USD that all runs of the job together may spend; None means no cap."""
    budgets: tuple[str, ...] = ()
    """Names of the budgets that this run counts for, and other runs, too."""
    patience: Patience = field(default_factory=Patience)
    lookalikes: frozenset[str] = frozenset()
    """Keys of clips that differ from another clip of the job only in their images."""
    in_progress: set[str] = field(default_factory=set)
    """Keys of clips with a reservation that this process will settle."""
    force_keys: set[str] = field(default_factory=set)
    """Keys of clips that are made again although they were delivered before."""
    remakes_stale: bool = False
    """Whether clips are made again if one that they were made from has been made again."""
    leaves_running: bool = False
    """Whether an interrupted run leaves its predictions running for the next run to continue."""
    recovering: bool = False
    """Whether the journal of earlier runs is lost. Predictions that they paid for are then searched for in the
    account before a new one is created."""
    unrecorded: UnrecordedRun | None = None
    """The last run of the job if the journal does not know it."""
    cost_note: CostNoteWriter | None = None
    """Notes costs in the job's folder; None if predictions cost nothing."""
    judge: Judge | None = None
    """Judges each clip before it is delivered; None means that nobody does."""
    retake_below: float | None = None
    """A clip that the judge rejects, or gives a lower score, is made again while attempts and budget allow it; None
    means that it is delivered as it is."""
    marker: ClipMarker = field(default_factory=ClipMarker)
    """Writes into each delivered clip how it was made."""
    upstreams: dict[str, Clip] = field(default_factory=dict)
    """By scene id: the delivered clips of this run that others are made from."""
    unexpected_bills: dict[str, UnexpectedBill] = field(default_factory=dict)
    """By id: predictions of this run that were billed otherwise than planned."""
    poll_schedules: defaultdict[str, PollSchedule] = field(default_factory=lambda: defaultdict(PollSchedule))
    """By model. Each learns how long the model's predictions take."""
    decoders: Executor = field(default_factory=_make_decoders)
    """Threads that decode clips, one per core: more would only slow each other down."""
    free_decoders: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(os.cpu_count() or 1))
    key_locks: defaultdict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))
    """By clip key. A clip that a job asks for twice is made once."""

    cancelled: set[str] = field(default_factory=set)
    """Ids of the scenes whose clips a command has cancelled."""
    delivering: set[str] = field(default_factory=set)
    """Ids of the scenes whose clips are put into their place now. They can no longer be cancelled."""
    attempts_before: Counter[str] = field(default_factory=Counter)
    """By clip key: attempts of this run that were made before a command had the clip tried again."""

    settled: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the next reservation of this run is settled: the budget may have room then."""

    def notify_settled(self) -> None:
        """Wake the clips that wait for room in the budget."""
        self.settled.set()
        self.settled = asyncio.Event()

    async def note_cost(self, attempt: Attempt | None = None) -> None:
        """Note in the job's folder what the job costs now that this attempt was begun, or that a cost was settled."""
        if self.cost_note:
            await self.cost_note.write(attempt)

    def age_s(self, at: datetime) -> float:
        """Return the seconds since a time of the provider's clock."""
        return (self.provider.now() - at).total_seconds()

    def has_outlived_outputs(self, at: datetime) -> bool:
        """Return whether the provider would no longer have an output that it made at this time."""
        return self.provider.now() - at >= self.provider.capabilities.outputs_kept

    @cached_property
    def poller(self) -> Poller:
        """The one poller for all predictions of the run."""
        return Poller(self.provider, self.gate)

    async def run_in_decoder(self, work: Callable[[threading.Event], T], *, timer: asyncio.Timeout | None = None) -> T:
        """Run `work` in a decoder thread and return its result. Waiting for a free thread does not count for the timer.

        `work` receives an event that is set when its result is no longer needed. It must end then.
        """
        await self._acquire_decoder(timer)
        stop = threading.Event()
        working = asyncio.get_running_loop().run_in_executor(self.decoders, work, stop)
        working.add_done_callback(lambda _: self.free_decoders.release())
        try:
            return await asyncio.shield(working)
        except asyncio.CancelledError:
            stop.set()
            working.add_done_callback(lambda done: done.cancelled() or done.exception())  # else asyncio reports it
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
