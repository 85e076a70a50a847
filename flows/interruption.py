"""End the work of a flow run that was cancelled in Prefect, or interrupted at its terminal."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import StateType
from prefect.runtime import deployment, flow_run

from videogen.bootstrap import JobRunner, stop_requested
from videogen.errors import RunInterruptedError

T = TypeVar("T")

LOOK_EVERY_S = 3.0
WORKER_ACTS_WITHIN_S = 12.0
"""A worker ends its cancelled runs with a signal. What it was not quick enough to end ends by itself, so that the two
do not cancel the clips one after the other: a second time would end the cancelling of their predictions."""
CANCELLED = {StateType.CANCELLING, StateType.CANCELLED}


async def unless_interrupted(work: Coroutine[Any, Any, T], session: JobRunner) -> T:
    """Return what the work on a session returns.

    Raises:
        RunInterruptedError: the flow run was cancelled in Prefect, or the command line was interrupted. Nothing is
            created any more, and the work was cancelled and has ended.
    """
    working = asyncio.create_task(work)
    watching = [asyncio.create_task(_watch_prefect()), asyncio.create_task(_watch_terminal())]
    try:
        await asyncio.wait([working, *watching], return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        (reason, *_) = (watcher.result() for watcher in watching if watcher.done())
        await _end(working, session)
        if working.cancelled() or working.exception():
            raise RunInterruptedError(reason)
        return working.result()  # it was quicker
    finally:
        for watcher in watching:
            watcher.cancel()
        if not working.done():
            await _end(working, session)


async def _end(working: "asyncio.Task[T]", session: JobRunner) -> None:
    """Cancel the work and wait for its end: each clip cancels its prediction, and is not to be hurried."""
    session.run.gate.stop_creates()
    if not working.cancelling():
        working.cancel()
    await asyncio.wait([working])


async def _watch_terminal() -> str:
    await stop_requested().wait()
    return "interrupted at the terminal"


async def _watch_prefect() -> str:
    """Return once the flow run is cancelled there. While Prefect does not answer it is asked again."""
    is_cancelled = False
    while not is_cancelled:
        await asyncio.sleep(LOOK_EVERY_S)
        with suppress(Exception):
            async with get_client() as client:
                while not (is_cancelled := await _is_cancelled(client)):
                    await asyncio.sleep(LOOK_EVERY_S)
    if deployment.id:
        await asyncio.sleep(WORKER_ACTS_WITHIN_S)
    return "cancelled in Prefect"


async def _is_cancelled(client: PrefectClient) -> bool:
    state = (await client.read_flow_run(flow_run.id)).state
    return state is not None and state.type in CANCELLED
