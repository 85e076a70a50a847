"""What all clips of one run share."""

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field

from videogen.calls import Calls
from videogen.journal import Journal
from videogen.pace import Pace
from videogen.ports import EventSink, ImageSender, Store, VideoProvider


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
    paces: defaultdict[str, Pace] = field(default_factory=lambda: defaultdict(Pace))
    """By model: how long its predictions take."""
    keys: defaultdict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))
    """By clip key: the same clip twice in one job is made once."""
