"""What all clips of one run share."""

import asyncio
import os
from collections import defaultdict
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Self

from videogen.calls import Calls
from videogen.journal import Journal
from videogen.pace import Pace
from videogen.ports import EventSink, ImageSender, Store, VideoProvider


class Slot:
    """The right of one clip to a prediction, among a limited number.

    It is held from before the create until the prediction has ended. Downloading and checking need none, so that the
    next clip can begin meanwhile.
    """

    def __init__(self, slots: asyncio.Semaphore) -> None:
        self._slots = slots
        self._held = False

    async def take(self) -> None:
        """Waits for a free slot, unless this one is held already."""
        if not self._held:
            await self._slots.acquire()
            self._held = True

    def give_back(self) -> None:
        if self._held:
            self._held = False
            self._slots.release()

    async def __aenter__(self) -> Self:
        await self.take()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.give_back()


@dataclass(frozen=True)
class Run:
    """The outside of all clips of one run, and what they learn from each other."""

    id: str
    folder: str
    """The job's folder, as the journal keeps it."""
    provider: VideoProvider
    store: Store
    journal: Journal
    images: ImageSender
    events: EventSink
    calls: Calls
    max_cost: Decimal | None = None
    """USD that may be spent in this run; None means no cap."""
    paces: defaultdict[str, Pace] = field(default_factory=lambda: defaultdict(Pace))
    """By model: how long its predictions take."""
    cores: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(os.cpu_count() or 1))
    """How many clips are decoded at once: more would only slow each other and the calls of the others."""
    keys: defaultdict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))
    """By clip key: the same clip twice in one job is made once."""
