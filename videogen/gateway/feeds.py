"""Events as they happen: each run's are read from the journal once, for all who listen to it."""

import asyncio
import json
import logging
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import takewhile
from typing import NamedTuple

from videogen.errors import JournalError
from videogen.gateway.runs import mend
from videogen.journal import Event, Journal

logger = logging.getLogger(__name__)

POLL_S = 0.2
TAIL = 1000
"""So many events are kept for those who listen; who is further behind reads the journal."""
PART = 100
"""So many events are given to a listener at once: who does not take them holds no more than that."""
KEEP_ALIVE_S = 15.0
LAST_EVENT = "run.completed"


class Entry(NamedTuple):
    """An event, and how it is sent. What is not in the journal has no number."""

    number: int | None
    type: str
    wire: bytes


def server_sent(type_: str, data: str, *, number: int | None = None, retry_ms: int | None = None) -> bytes:
    """A server-sent event; `data` is JSON on one line.

    Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
    """
    id_ = "" if number is None else f"id: {number}\n"
    retry = "" if retry_ms is None else f"retry: {retry_ms}\n"
    return f"event: {type_}\n{id_}{retry}data: {data}\n\n".encode()


ALIVE = Entry(None, "", b": still here\n\n")
"""A comment, so that no proxy thinks a quiet stream dead."""


class Feed:
    """The events of one run from a number on. Nobody waits for anybody: each listener takes them at their own speed."""

    def __init__(self, journal: Journal, run_id: str, after: int) -> None:
        self._journal, self._run_id = journal, run_id
        self._tail: deque[Entry] = deque(maxlen=TAIL)
        self._before_tail = self._latest = after
        self._spending: Entry | None = None
        self._news = asyncio.Event()
        self._closed = False
        self.listeners = 0
        self._reading = asyncio.create_task(self._read_on())

    async def after(self, number: int) -> AsyncIterator[list[Entry]]:
        """What happens after the event of that number, some entries at a time, until the run or the feed is over."""
        told: Entry | None = None
        while not self._closed:
            news = self._news
            entries = await self._entries_after(number)
            number = entries[-1].number or number if entries else number
            if self._spending and self._spending != told:
                entries = [told := self._spending, *entries]
            if entries:
                yield entries
                if any(entry.type == LAST_EVENT for entry in entries):
                    return
            elif not await _within(KEEP_ALIVE_S, news):
                yield [ALIVE]

    def stop(self) -> None:
        """Nobody listens any more."""
        self._reading.cancel()

    def close(self) -> None:
        """Lets its listeners go."""
        self._closed = True
        self._tell()

    async def _read_on(self) -> None:
        while True:
            try:
                entries = await asyncio.to_thread(self._read, self._latest, TAIL)
                if entries:
                    self._spending = await asyncio.to_thread(_spending, self._journal, self._run_id)
                    self._add(entries)
            except JournalError as exc:  # busy, or away for a moment
                logger.warning("%s", exc)
            await asyncio.sleep(POLL_S)

    def _add(self, entries: list[Entry]) -> None:
        for entry in entries:
            if len(self._tail) == TAIL:
                self._before_tail = self._tail[0].number or 0
            self._tail.append(entry)
        self._latest = entries[-1].number or self._latest
        self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def _entries_after(self, number: int) -> list[Entry]:
        if number < self._before_tail:
            return await asyncio.to_thread(self._read, number, PART)
        newer = takewhile(lambda entry: (entry.number or 0) > number, reversed(self._tail))
        return list(newer)[::-1][:PART]

    def _read(self, number: int, most: int) -> list[Entry]:
        return [_entry(event) for event in self._journal.read_events(self._run_id, after=number, limit=most)]


class Feeds:
    """A feed for each run that somebody listens to."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._feeds: dict[str, Feed] = {}

    @asynccontextmanager
    async def listening(self, run_id: str, after: int) -> AsyncIterator[Feed]:
        """The run's feed, which is read as long as there is somebody in here."""
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
        """Lets everybody go."""
        for feed in self._feeds.values():
            feed.close()


async def _within(seconds: float, news: asyncio.Event) -> bool:
    """Whether there is news before that time is over."""
    try:
        async with asyncio.timeout(seconds):
            return await news.wait()
    except TimeoutError:
        return False


def _entry(event: Event) -> Entry:
    number, type_, payload = event
    return Entry(number, type_, server_sent(type_, _json(mend(payload)), number=number))


def _spending(journal: Journal, run_id: str) -> Entry:
    """What a run has spent by now."""
    spent, reserved = journal.get_spending(run_id)
    told = _json({"spent": str(spent), "reserved": str(reserved)})
    return Entry(None, "spending", server_sent("spending", told))


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
