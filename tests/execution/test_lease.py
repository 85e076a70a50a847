import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from videogen.execution import lease
from videogen.journal import database
from videogen.journal.async_store import AsyncJournal
from videogen.journal.store import Journal


async def test_the_end_of_a_run_does_not_wait_for_a_journal_that_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program holds it all the time. The lease expires by itself."""
    monkeypatch.setattr(lease, "FLUSH_S", 0.05)
    monkeypatch.setattr(database, "LOCKED_S", 10_000.0)
    file = tmp_path / "journal.db"
    journal = AsyncJournal(Journal(f"sqlite:///{file}"))
    await journal.start_run("run1", job_id="job", origin="fake", folder="here")
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        async with asyncio.timeout(250):  # far less than a transaction waits
            await lease.release_lease(journal, "run1")
            await lease.end_interrupted(journal, "run1")
        other.execute("ROLLBACK")
    await journal.aclose()
