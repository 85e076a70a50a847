"""What do watchers cost a run, and how late do they hear? A hundred listeners and twenty that read nothing.

    uv run python -m benchmarks.watchers

Prints the time of a commit with all of them, over the time of a commit with nobody watching, and the median delay of an
event over the pause between two looks of the gateway into the journal.
"""

import asyncio
import statistics
import tempfile
import time
from contextlib import closing
from pathlib import Path

from tests.gateway.conftest import gateway
from tests.gateway.test_crowd import connected, deaf
from videogen.gateway.feeds import POLL_S
from videogen.journal.store import Journal

LISTENERS, DEAF = 100, 20
EVENTS, PAUSE_S = 300, 0.02


def write_events(journal: Journal, run_id: str) -> dict[int, tuple[float, float]]:
    """Write events as a busy run does. Return when each was committed, and how long that took, by its number."""
    written = {}
    for _ in range(EVENTS):
        began = time.perf_counter()
        number = journal.add_event(run_id, "clip.progress", {"filler": "x" * 2000})
        written[number] = time.time(), time.perf_counter() - began
        time.sleep(PAUSE_S)
    return written


async def listen(url: str) -> dict[int, float]:
    """Return when each event was heard, by its number."""
    heard = {}
    async with connected(url) as reader:
        async for line in reader:
            name, _, value = line.decode().strip().partition(": ")
            if name == "id":
                heard[int(value)] = time.time()
    return heard


async def measure(folder: Path) -> None:
    with closing(Journal(f"sqlite:///{folder / 'journal.db'}")) as journal, gateway(folder) as (_, url):
        for run_id in ("r0", "r1"):
            journal.start_run(run_id, job_id="film", origin="local", folder=str(folder / run_id))
        alone = await asyncio.to_thread(write_events, journal, "r0")
        with deaf(url, DEAF):
            listening = [asyncio.create_task(listen(url)) for _ in range(LISTENERS)]
            await asyncio.sleep(2)
            watched = await asyncio.to_thread(write_events, journal, "r1")
            journal.add_event("r1", "run.completed", {})
            heard = await asyncio.gather(*listening)
    ratio = statistics.median(s for _, s in watched.values()) / statistics.median(s for _, s in alone.values())
    delay_s = statistics.median(each[number] - at for each in heard for number, (at, _) in watched.items())
    print(f"a commit with {LISTENERS + DEAF} watchers over one without: {ratio:.2f} ×")
    print(f"median delay of an event over the pause between two looks ({POLL_S} s): {delay_s / POLL_S:.2f} ×")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        asyncio.run(measure(Path(name)))
