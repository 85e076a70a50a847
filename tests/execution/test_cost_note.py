"""The note of a job's cost, when several clips settle at a time."""

import asyncio
import json
from decimal import Decimal
from pathlib import Path
from threading import Event
from typing import Any

from tests.support.builders import request_of
from tests.support.fakes import FakeProvider, run_of
from videogen.execution.context import RunContext
from videogen.storage.local import FileStore


class SlowStore(FileStore):
    """A store whose first write goes on until `released` is set."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.written: list[dict[str, Any]] = []
        self.began, self.released = Event(), Event()

    def put_text(self, text: str, name: str) -> None:
        self.began.set()
        assert self.released.wait(250)
        self.written.append(json.loads(text))
        super().put_text(text, name)


async def intend(run: RunContext, scene: str) -> Any:
    return await run.journal.record_intent(
        request_of(id=scene, prompt=scene),
        run_id=run.id,
        origin=run.provider.origin,
        folder=run.folder,
        max_cost=None,
        at=run.provider.now(),
    )


async def test_writes_that_wait_for_another_are_done_by_one_and_the_last_one_has_everything(tmp_path: Path) -> None:
    run = run_of(tmp_path, FakeProvider())
    await run.journal.start_run(run.id, job_id="job", origin=run.provider.origin, folder=run.folder)
    store = SlowStore(tmp_path)
    assert run.cost_note
    run.cost_note._store = store
    first, *others = [await intend(run, f"scene{number}") for number in range(6)]
    spent, reserved = await run.journal.get_job_spending("job", run.provider.origin)
    writes = [asyncio.create_task(run.note_cost(first))]
    await asyncio.to_thread(store.began.wait, 10)
    writes += [asyncio.create_task(run.note_cost(attempt)) for attempt in others]
    await asyncio.sleep(0)
    store.released.set()
    await asyncio.gather(*writes)
    assert len(store.written) == 2
    note = store.written[-1][run.provider.origin]
    assert (Decimal(note["cost"]), note["last_attempt"]) == (spent + reserved, others[-1].token)
