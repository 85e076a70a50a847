"""Prefect's own server, which a run starts and which ends with it: its start, what it writes down, its end."""

import asyncio
import signal
import sys
from concurrent.futures import Future
from threading import Thread
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, TaskRunFilter
from prefect.client.schemas.objects import TERMINAL_STATES
from prefect.settings import get_current_settings

LOOK_EVERY_S = 0.2


async def start_own_server() -> None:
    """Starts the server that Prefect would start for this process, unless it is told of another; returns when it
    answers.

    Ctrl-C at a terminal goes to every process there. This one does not hear it, for we have to tell it how the run
    ended: what a thread blocks is blocked in the processes that it starts.
    """
    if get_current_settings().api.url:
        return
    from prefect.server.api.server import SubprocessASGIServer

    started: Future[None] = Future()
    started.set_running_or_notify_cancel()

    def start() -> None:
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            SubprocessASGIServer().start()
        except Exception as exc:
            started.set_exception(exc)
        else:
            started.set_result(None)

    Thread(target=start, name="prefect-server", daemon=True).start()
    await asyncio.wrap_future(started)


async def recorded(flow_run_id: UUID | None, task_runs: int, *, within_s: float) -> bool:
    """Whether the server knows the end of that many task runs, waiting for it for at most `within_s` seconds.

    Prefect's server records task runs from a queue in its memory, some 24 a second, and a server of our own ends with
    us: what is still in the queue then is lost.
    """
    wanted = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id] if flow_run_id else []))
    states = TaskRunFilter.model_validate({"state": {"type": {"any_": sorted(TERMINAL_STATES)}}})
    async with get_client() as client:
        for _ in range(max(1, round(within_s / LOOK_EVERY_S))):
            if len(await client.read_task_runs(flow_run_filter=wanted, task_run_filter=states)) >= task_runs:
                return True
            await asyncio.sleep(LOOK_EVERY_S)
    return False


def end_own_server() -> None:
    """Ends the server that Prefect has started for this process, if any, without waiting: for who leaves at once."""
    if module := sys.modules.get("prefect.server.api.server"):
        process = module.SubprocessASGIServer().server_process
        if process:
            process.terminate()
