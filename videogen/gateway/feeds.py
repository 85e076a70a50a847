"""Feed events to listeners as they happen. The events of each run are read from the journal once for all of them."""

import asyncio
import json
import logging
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import takewhile
from typing import NamedTuple

from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event

from videogen.errors import JournalError
from videogen.gateway.run_view import replace_surrogates
from videogen.journal.event_log import Event
from videogen.journal.store import Journal

logger = logging.getLogger(__name__)

POLL_S = 0.2
TAIL_EVENTS = 1000
"""How many events a feed keeps in memory. A listener that is further behind reads from the journal."""
CHUNK_EVENTS = 100
"""How many events a listener gets at once, so that a slow one holds no more than that."""
KEEP_ALIVE_S = 15.0
LAST_EVENT = "run.completed"


class FeedEntry(NamedTuple):
    """An event in its wire format, which is made once for all listeners. `number` is None for one that is not in the
    journal."""

    number: int | None
    type: str
    wire: bytes


KEEP_ALIVE_ENTRY = FeedEntry(None, "", KEEPALIVE_COMMENT)
"""A comment that keeps proxies from closing a quiet stream."""


class Feed:
    """The events of one run from a number on. Each listener takes them at its own speed and delays no other."""

    def __init__(self, journal: Journal, run_id: str, after: int) -> None:
        self._journal = journal
        self._run_id = run_id
        self._tail: deque[FeedEntry] = deque(maxlen=TAIL_EVENTS)
        self._before_tail = self._latest = after
        self._spending: FeedEntry | None = None
        self._news = asyncio.Event()
        self._closed = False
        self.listeners = 0
        self._reading = asyncio.create_task(self._poll_journal())

    async def after(self, number: int) -> AsyncIterator[list[FeedEntry]]:
        """Yield the entries after this event number in chunks, until the run or the feed is over."""
        sent: FeedEntry | None = None
        while not self._closed:
            news = self._news
            entries = await self._find_entries_after(number)
            number = entries[-1].number or number if entries else number
            if self._spending and self._spending != sent:
                entries = [sent := self._spending, *entries]
            if entries:
                yield entries
                if any(entry.type == LAST_EVENT for entry in entries):
                    return
            elif not await _wait_for_news(KEEP_ALIVE_S, news):
                yield [KEEP_ALIVE_ENTRY]

    def stop(self) -> None:
        """Stop reading the journal, once there are no listeners left."""
        self._reading.cancel()

    def close(self) -> None:
        """End the iteration of all listeners."""
        self._closed = True
        self._wake_listeners()

    async def _poll_journal(self) -> None:
        while True:
            try:
                entries = await asyncio.to_thread(self._read, self._latest, TAIL_EVENTS)
                if entries:
                    self._spending = await asyncio.to_thread(_read_spending, self._journal, self._run_id)
                    self._add(entries)
            except JournalError as exc:  # busy, or unreachable for a moment
                logger.warning("%s", exc)
            await asyncio.sleep(POLL_S)

    def _add(self, entries: list[FeedEntry]) -> None:
        for entry in entries:
            if len(self._tail) == TAIL_EVENTS:
                self._before_tail = self._tail[0].number or 0
            self._tail.append(entry)
        self._latest = entries[-1].number or self._latest
        self._wake_listeners()

    def _wake_listeners(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def _find_entries_after(self, number: int) -> list[FeedEntry]:
        if number < self._before_tail:
            return await asyncio.to_thread(self._read, number, CHUNK_EVENTS)
        newer = takewhile(lambda entry: (entry.number or 0) > number, reversed(self._tail))
        return list(newer)[::-1][:CHUNK_EVENTS]

    def _read(self, number: int, most: int) -> list[FeedEntry]:
        return [_make_entry(event) for event in self._journal.read_events(self._run_id, after=number, limit=most)]


class Feeds:
    """One feed for each run that has listeners."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._feeds: dict[str, Feed] = {}

    @asynccontextmanager
    async def subscribe(self, run_id: str, after: int) -> AsyncIterator[Feed]:
        """Provide the run's feed, which reads the journal as long as it has a listener."""
        feed = self._feeds.get(run_id)
        if feed is None:
            feed = self._feeds[run_id] = Feed(self._journal, run_id, after)
        feed.listeners += 1
        try:
            yield feed
        finally:
            feed.listeners -= 1
            if not feed.listeners:
                del self._feeds[run_id]
                feed.stop()

    def close(self) -> None:
        """End the iteration of the listeners of all feeds."""
        for feed in self._feeds.values():
            feed.close()


async def _wait_for_news(seconds: float, news: asyncio.Event) -> bool:
    """Return whether news arrived within this time."""
    try:
        async with asyncio.timeout(seconds):
            return await news.wait()
    except TimeoutError:
        return False


def _make_entry(event: Event) -> FeedEntry:
    number, type_, payload = event
    data = _to_json(replace_surrogates(payload))
    return FeedEntry(number, type_, format_sse_event(event=type_, data_str=data, id=str(number)))


def _read_spending(journal: Journal, run_id: str) -> FeedEntry:
    """Read what a run has spent so far, as an entry without a number."""
    spent, reserved = journal.get_spending(run_id)
    data = _to_json({"spent": str(spent), "reserved": str(reserved)})
    return FeedEntry(None, "spending", format_sse_event(event="spending", data_str=data))


def _to_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
