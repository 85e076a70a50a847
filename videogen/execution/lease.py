"""The lease of a run: take it, renew it regularly, and release it."""

import asyncio
import logging
from contextlib import suppress

import anyio

from videogen.errors import JournalError, LeaseLostError
from videogen.execution.context import RunContext
from videogen.execution.options import PreparedJob
from videogen.execution.recorder import FLUSH_S
from videogen.journal.async_store import AsyncJournal
from videogen.text import make_loggable

logger = logging.getLogger(__name__)

HEARTBEAT_S = 5.0
HOLDER_POLL_S = 0.5


async def start_run(journal: AsyncJournal, run_id: str, prepared: PreparedJob, *, exclusive: bool) -> None:
    """Start the run in the journal. With `exclusive`, the journal is what keeps other runs out of the folder, because
    the folder is remote or has no locks.

    If a run there may be dead, wait until its lease has expired. Do not wait for a live one.
    """
    folder = prepared.folder
    seen = await journal.get_holder_last_seen(folder) if exclusive else None
    if seen:
        logger.info("waiting until the run that was last in %s ends or its lease expires", make_loggable(folder))
    while seen and await journal.get_holder_last_seen(folder) == seen:
        await asyncio.sleep(HOLDER_POLL_S)
    await journal.start_run(
        run_id,
        job_id=prepared.job.id,
        origin=prepared.origin,
        folder=folder,
        recovering=prepared.recovering,
        unrecorded_cost=prepared.unrecorded.cost if prepared.unrecorded else None,
        exclusive=exclusive,
    )


async def send_heartbeats(run: RunContext) -> None:
    """Renew the run's lease regularly. A journal that is busy for long does not end the run.

    If another run took over meanwhile, because the lease had expired, this run creates nothing any more.
    """
    while True:
        await asyncio.sleep(HEARTBEAT_S)
        try:
            await run.journal.heartbeat(run.id)
        except LeaseLostError as exc:
            run.gate.stop_creates(exc)
        except JournalError as exc:
            logger.warning("the lease is not renewed: %s", make_loggable(exc))


async def end_interrupted(journal: AsyncJournal, run_id: str) -> None:
    with anyio.move_on_after(FLUSH_S, shield=True), suppress(JournalError):
        await journal.end_run(run_id, verdict="interrupted")


async def release_lease(journal: AsyncJournal, run_id: str) -> None:
    """Release the lease of a run that ends. A journal that does not answer is left: the lease expires by itself."""
    with anyio.move_on_after(FLUSH_S, shield=True), suppress(JournalError):
        await journal.release_lease(run_id)
