"""End the work of a flow run that is cancelled in Prefect or interrupted at its terminal."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import StateType
from prefect.runtime import deployment, flow_run

from videogen.errors import RunInterruptedError
from videogen.execution.runner import JobRunner
from videogen.flows.handover import get_handover

T = TypeVar("T")

CANCEL_POLL_S = 3.0
WORKER_KILL_S = 12.0
"""A worker ends its cancelled runs with a signal within this time. Only afterwards a run ends by itself, so that
the clips are not cancelled twice: a second cancellation would interrupt the cancelling of their predictions."""
CANCELLED_STATES = {StateType.CANCELLING, StateType.CANCELLED}


async def run_unless_interrupted(work: Coroutine[Any, Any, T], session: JobRunner) -> T:
    """Run the work on a session and return its result.

    Raises:
        RunInterruptedError: the flow run was cancelled in Prefect, or the command line was interrupted. The work has
            been cancelled and has ended, and no more predictions are created.
    """
    working = asyncio.create_task(work)
    watching = [asyncio.create_task(_watch_prefect()), asyncio.create_task(_watch_terminal())]
    try:
        await asyncio.wait([working, *watching], return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        (reason, *_) = (watcher.result() for watcher in watching if watcher.done())
        await _cancel_and_wait(working, session)
        if working.cancelled() or working.exception():
            raise RunInterruptedError(reason)
        return working.result()  # the work ended before it was cancelled
    finally:
        for watcher in watching:
            watcher.cancel()
        if not working.done():
            await _cancel_and_wait(working, session)


async def _cancel_and_wait(working: "asyncio.Task[T]", session: JobRunner) -> None:
    """Cancel the work and wait until it has ended. Each clip takes its time to cancel its prediction."""
    session.run.gate.stop_creates()
    if not working.cancelling():
        working.cancel()
    await asyncio.wait([working])


async def _watch_terminal() -> str:
    """Return once the command line asks the run to stop. Without a command line, wait for ever."""
    handed = get_handover()
    await (handed.stop if handed else asyncio.Event()).wait()
    return "interrupted at the terminal"


async def _watch_prefect() -> str:
    """Return once the flow run is cancelled in Prefect. Poll on while Prefect does not answer."""
    is_cancelled = False
    while not is_cancelled:
        await asyncio.sleep(CANCEL_POLL_S)
        with suppress(Exception):
            async with get_client() as client:
                while not (is_cancelled := await _is_cancelled(client)):
                    await asyncio.sleep(CANCEL_POLL_S)
    if deployment.id:
        await asyncio.sleep(WORKER_KILL_S)
    return "cancelled in Prefect"


async def _is_cancelled(client: PrefectClient) -> bool:
    state = (await client.read_flow_run(flow_run.id)).state
    return state is not None and state.type in CANCELLED_STATES
