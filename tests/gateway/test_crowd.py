"""Many who watch one run, some of whom come and go, read nothing, or die."""

import asyncio
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.gateway.conftest import gateway, read_complaints
from tests.support.tools import find_tool
from videogen.journal.store import Journal

CLIENTS = 200
WRITER = """
import random, sys, time
from videogen.journal.store import Journal

journal, pace = Journal(sys.argv[1]), random.Random(1)
counts = {"run_id": "r1", "completed": 0, "total": 5}
for number in range(100):
    clip = {"clip_index": number % 5, "scene_id": f"scene-{number % 5}", "prediction_id": "p" * 26, "elapsed": 1.5}
    print(journal.add_event("r1", "clip.progress", clip | counts), time.time(), flush=True)
    time.sleep(pace.choice((0, 0, 0.04, 0.12)))
print(journal.add_event("r1", "run.completed", counts), time.time(), flush=True)
"""
"""Writes as a run with five clips in the making does, only quicker; prints when each event was committed."""


@dataclass
class Listener:
    """Follows run `r1`; leaves now and then, if it is told to, and comes back for what it has missed."""

    url: str
    leaves: random.Random | None = None
    heard: list[int] = field(default_factory=list)
    live: dict[int, float] = field(default_factory=dict)
    """By event: when the connection it came over was made."""

    async def follow(self) -> None:
        while True:
            most = self.leaves.randint(20, 120) if self.leaves else None
            async for number, event in self._events(most):
                self.heard.append(number)
                if event == "run.completed":
                    return
            assert self.leaves, "the stream ended before the run"
            await asyncio.sleep(self.leaves.uniform(0, 0.3))

    async def _events(self, most: int | None) -> AsyncIterator[tuple[int, str]]:
        """The next events after those that were heard; after so many of them the connection is dropped."""
        last = self.heard[-1] if self.heard else 0
        async with connected(self.url, f"Last-Event-ID: {last}") as reader:
            connected_at, told, number, event = time.time(), 0, 0, ""
            async for line in reader:
                name, _, value = line.decode().strip().partition(": ")
                if name == "event":
                    event = value
                elif name == "id":
                    number = int(value)
                elif not name and number:
                    self.live[number] = connected_at
                    yield number, event
                    number, told = 0, told + 1
                    if told == most:
                        return


@asynccontextmanager
async def connected(url: str, *headers: str) -> AsyncIterator[asyncio.StreamReader]:
    """A stream of the run's events. HTTP/1.0 is not chunked."""
    place = urlsplit(url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    try:
        lines = ["GET /runs/r1/events HTTP/1.0", f"Host: {place.netloc}", *headers, "", ""]
        writer.write("\r\n".join(lines).encode())
        head = await reader.readuntil(b"\r\n\r\n")
        assert b" 200 OK\r\n" in head, head
        yield reader
    finally:
        writer.transport.abort()


@pytest.mark.parametrize("journal_url", ["sqlite", pytest.param("postgresql", marks=pytest.mark.long)], indirect=True)
async def test_two_hundred_who_come_and_go_get_every_event_once_and_in_order(
    journal_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run and gateway are processes of their own. Most events are heard as they happen, and not after a reconnect."""
    monkeypatch.setenv("VIDEOGEN_JOURNAL_URL", journal_url)
    with closing(Journal(journal_url)) as journal, gateway(tmp_path) as (process, url):
        journal.start_run("r1", job_id="film", origin="local", folder=str(tmp_path / "film"))
        listeners = [Listener(url, random.Random(seed)) for seed in range(CLIENTS)]
        following = [asyncio.create_task(listener.follow()) for listener in listeners]
        await asyncio.sleep(1)
        writer = await asyncio.create_subprocess_exec(
            sys.executable, "-c", WRITER, journal_url, stdout=asyncio.subprocess.PIPE
        )
        said, _ = await writer.communicate()
        await asyncio.gather(*following)
        numbers = [number for number, _, _ in journal.read_events("r1")]
        assert read_complaints(process) == ""
    committed = {int(number): float(at) for number, at in map(str.split, said.decode().splitlines())}
    assert list(committed) == numbers
    assert all(listener.heard == numbers for listener in listeners)
    heard_live = sum(since < committed[number] for listener in listeners for number, since in listener.live.items())
    assert heard_live > CLIENTS * len(numbers) / 2


@contextmanager
def deaf(url: str, number: int) -> Iterator[list["subprocess.Popen[bytes]"]]:
    """Clients that are stopped before they read anything."""
    command = [
        find_tool("curl", package="curl"),
        "--silent",
        "--no-buffer",
        "--output",
        "/dev/null",
        f"{url}/runs/r1/events?after=0",
    ]
    clients = [subprocess.Popen(command) for _ in range(number)]
    try:
        time.sleep(0.5)
        for client in clients:
            client.send_signal(signal.SIGSTOP)
        yield clients
    finally:
        for client in clients:
            client.kill()
            client.wait()


def write_events(journal: Journal, number: int) -> None:
    """Write so many events of two kilobytes."""
    for _ in range(number):
        journal.add_event("r1", "clip.progress", {"filler": "x" * 2000})


def resident_mb(process: "subprocess.Popen[str]") -> float:
    (line,) = re.findall(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
    return int(line) / 1024


@pytest.mark.long
async def test_who_reads_nothing_or_dies_costs_neither_the_gateway_nor_others(tmp_path: Path) -> None:
    """Twenty clients are stopped, and half of them are killed. A listener still receives every event, and the gateway
    does not keep the megabytes that nobody takes."""
    url_of_journal = f"sqlite:///{tmp_path / 'journal.db'}"
    with closing(Journal(url_of_journal)) as journal, gateway(tmp_path) as (process, url):
        journal.start_run("r1", job_id="film", origin="local", folder=str(tmp_path / "film"))
        with deaf(url, 20) as clients:
            listener = Listener(url)
            following = asyncio.create_task(listener.follow())
            await asyncio.to_thread(write_events, journal, 500)
            before_mb = resident_mb(process)
            for client in clients[::2]:
                client.kill()
            await asyncio.to_thread(write_events, journal, 2500)
            journal.add_event("r1", "run.completed", {})
            await following
            grown_mb = resident_mb(process) - before_mb
        numbers = [number for number, _, _ in journal.read_events("r1")]
        said = read_complaints(process)
    assert listener.heard == numbers
    assert grown_mb < 32
    assert said == ""
