"""Server-sent events of a run."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.gateway.conftest import Played, Shown, Streamed, Told
from videogen.gateway import feeds
from videogen.gateway.feeds import FeedEntry, Feeds
from videogen.journal.event_log import Event
from videogen.journal.store import Journal

WRITER = """
import sys
from videogen.journal.store import Journal

journal = Journal(sys.argv[1])
counts = {"run_id": "r1", "completed": 0, "total": 1}
for number in range(10):
    journal.add_event("r1", "clip.progress", counts | {"clip_index": 0, "scene_id": "a"})
    sys.stdin.readline()
journal.add_event("r1", "run.completed", counts)
"""
"""Commits an event when the one before it has been heard, which a line on standard input says."""


@contextmanager
def listening(gateway: Shown, run_id: str, **headers: str) -> Iterator[Iterator[Told]]:
    with gateway.http.stream("GET", f"/runs/{run_id}/events", headers=headers) as response:
        yield iter(Streamed(response))


def test_first_a_snapshot_then_what_happens_then_the_end(live: Shown) -> None:
    """The snapshot has the number of the last event in it, and every later event comes once, in order."""
    live.begin("r1", "a")
    with listening(live, "r1") as events:
        snapshot = next(events)
        assert (snapshot.event, snapshot.data["clips"][0]["state"]) == ("snapshot", "waiting")
        assert snapshot.id == snapshot.data["event"]
        sent = [live.tell("r1", "clip.progress", clip_index=0, scene_id="a", fraction=n / 10) for n in range(10)]
        sent.append(live.tell("r1", "run.completed", completed=1))
        told = [event for event in events if event.id is not None]
    assert [event.id for event in told] == sent
    assert told[-1].event == "run.completed"


def test_an_event_of_another_process_is_heard_before_the_next_one_is_committed(live: Shown) -> None:
    """The stream keeps nothing back until there is more of it."""
    live.begin("r1", "a")
    command = [sys.executable, "-c", WRITER, f"sqlite:///{live.out / 'journal.db'}"]
    with listening(live, "r1") as events:
        assert next(events).event == "snapshot"
        heard = 0
        with subprocess.Popen(command, stdin=subprocess.PIPE, text=True) as writer:
            assert writer.stdin
            for told in events:
                if told.event == "clip.progress":
                    heard += 1
                    print(file=writer.stdin, flush=True)
    assert (heard, writer.returncode) == (10, 0)


def test_what_was_missed_comes_after_a_reconnect(finished: Shown, played: Played) -> None:
    """By the header or by the address; together with what was told before, every event once."""
    run_id = played.batch.run_id
    everything = [event.id for event in finished.events(run_id, after=0) if event.id]
    assert everything == [number for number, _, _ in finished.journal.read_events(run_id)]
    middle = everything[len(everything) // 2]
    later = [number for number in everything if number > middle]
    assert [event.id for event in finished.events(run_id, after=middle) if event.id] == later
    assert [
        event.id for event in finished.events(run_id, after=1, **{"Last-Event-ID": str(middle)}) if event.id
    ] == later


def test_a_run_that_is_over_is_told_and_the_stream_ends(finished: Shown, played: Played) -> None:
    (snapshot,) = finished.events(played.batch.run_id)
    assert (snapshot.event, snapshot.data["verdict"]["status"]) == ("snapshot", "partial")
    assert finished.events(played.batch.run_id, after=snapshot.id) == []


def test_a_number_of_another_journal_is_answered_with_a_snapshot(finished: Shown, played: Played) -> None:
    assert [event.event for event in finished.events(played.batch.run_id, after=10**9)] == ["snapshot"]


def test_the_money_is_told_as_it_is_spent(live: Shown) -> None:
    live.begin("r1", "a")
    with listening(live, "r1") as events:
        assert next(events).event == "snapshot"
        live.tell("r1", "clip.progress", clip_index=0, scene_id="a")
        spending = next(event for event in events if event.event == "spending")
    assert (spending.id, spending.data) == (None, {"spent": "0", "reserved": "0"})


def test_a_quiet_stream_is_kept_alive(live: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    """Comments come while nothing happens, so that no proxy thinks it dead."""
    monkeypatch.setattr(feeds, "KEEP_ALIVE_S", 0.1)
    live.begin("r1", "a")
    with live.http.stream("GET", "/runs/r1/events") as response:
        streamed = Streamed(response)
        events = iter(streamed)
        next(events)
        time.sleep(0.5)
        live.tell("r1", "run.completed", completed=1)
        list(events)
    assert len(streamed.comments) >= 2


def test_who_does_not_read_holds_up_nobody(live: Shown) -> None:
    """One listener never reads; the other gets megabytes of events at once."""
    live.begin("r1", "a")
    with (
        httpx.Client(base_url=live.http.base_url, trust_env=False) as other,
        other.stream("GET", "/runs/r1/events"),
        listening(live, "r1") as events,
    ):
        assert next(events).event == "snapshot"
        for _ in range(100):
            live.tell("r1", "clip.progress", clip_index=0, scene_id="a", filler="x" * 50_000)
        live.tell("r1", "run.completed", completed=1)
        assert sum(event.event == "clip.progress" for event in events) == 100


# -- one reader for all ------------------------------------------------------------------------------------------------


class CountingJournal(Journal):
    """Counts how often it is read."""

    reads = 0

    def read_events(self, run_id: str, *, after: int = 0, limit: int | None = None) -> list[Event]:
        self.reads += 1
        return super().read_events(run_id, after=after, limit=limit)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[CountingJournal]:
    journal = CountingJournal(f"sqlite:///{tmp_path / 'journal.db'}")
    yield journal
    journal.close()


async def listen(feeds: Feeds, number: int) -> list[FeedEntry]:
    async with feeds.subscribe("r1", number) as feed:
        return [entry async for entries in feed.after(number) for entry in entries if entry.number]


async def test_the_journal_is_read_once_for_all_and_not_for_nobody(journal: CountingJournal) -> None:
    """Fifty listeners cost as many reads as one; when they have left there are none."""
    shared = Feeds(journal)
    listeners = [asyncio.create_task(listen(shared, 0)) for _ in range(50)]
    await asyncio.sleep(0.5)
    numbers = [journal.add_event("r1", type_, {}) for type_ in ("clip.started", "clip.completed", "run.completed")]
    heard = await asyncio.gather(*listeners)
    assert all([entry.number for entry in entries] == numbers for entries in heard)
    assert journal.reads < 8
    reads = journal.reads
    await asyncio.sleep(0.5)
    assert journal.reads == reads


async def test_who_comes_late_or_is_slow_misses_nothing(
    journal: CountingJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though only the ten latest events are kept for all."""
    monkeypatch.setattr(feeds, "TAIL_EVENTS", 10)
    shared = Feeds(journal)
    first = asyncio.create_task(listen(shared, 0))
    numbers = [journal.add_event("r1", "clip.progress", {}) for _ in range(35)]
    await asyncio.sleep(0.5)
    late = asyncio.create_task(listen(shared, 3))
    await asyncio.sleep(0.1)
    numbers.append(journal.add_event("r1", "run.completed", {}))
    assert [entry.number for entry in await first] == numbers
    assert [entry.number for entry in await late] == numbers[3:]
