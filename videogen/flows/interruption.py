"""End the work of a flow run that is cancelled in Prefect, told to end by a signal, or interrupted at its terminal."""

import asyncio
import os
import signal
import threading
from collections.abc import Coroutine, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from types import FrameType
from typing import Any, TypeVar
from uuid import UUID

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import State, StateType
from prefect.context import FlowRunContext
from prefect.exceptions import TerminationSignal
from prefect.runtime import flow_run

from videogen.errors import RunInterruptedError
from videogen.execution.runner import JobRunner
from videogen.flows.handover import get_handover

T = TypeVar("T")

CANCEL_POLL_S = 3.0
ANSWER_TIMEOUT_S = 3.0
"""How long the end of a run waits for each answer of Prefect."""
TOLD_TO_END = "its process was told to end (SIGTERM)"
CANCELLED_STATES = [StateType.CANCELLING, StateType.CANCELLED]


async def run_unless_interrupted(work: Coroutine[Any, Any, T], session: JobRunner, is_told: asyncio.Event) -> T:
    """Run the work on a session and return its result. `is_told` is the event of `catch_sigterm`.

    Raises:
        RunInterruptedError: the flow run, or one that it is a subflow of, was cancelled in Prefect; its process was
            told to end with SIGTERM; or the command line was interrupted. The work has been cancelled and has ended,
            and no more predictions are created.
    """
    working = asyncio.create_task(_start_unless_stopped(work, is_told))
    watching = [
        asyncio.create_task(watch) for watch in (_watch_prefect(), _watch(is_told, TOLD_TO_END), _watch_terminal())
    ]
    try:
        await asyncio.wait([working, *watching], return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        (reason, *_) = (watcher.result() for watcher in watching if watcher.done())
        asking = asyncio.create_task(_find_reason(reason))
        watching.append(asking)
        await _cancel_and_wait(working, session)
        if working.cancelled() or working.exception():
            raise RunInterruptedError(await asking)
        return working.result()  # the work ended before it was cancelled
    finally:
        for watcher in watching:
            watcher.cancel()
        if not working.done():
            await _cancel_and_wait(working, session)


async def end_calling_flow(state: State[Any]) -> None:
    """If SIGTERM has come, and another flow has called this one, report this state, and have that flow end, too.

    Raises:
        TerminationSignal: as Prefect raises it when SIGTERM comes.
    """
    context = FlowRunContext.get()
    if not (_sigterm.is_told and _is_called_by_flow() and context and context.flow_run):
        return
    with suppress(Exception):  # Prefect does not answer: its engine tries, too
        async with asyncio.timeout(ANSWER_TIMEOUT_S), get_client() as client:
            await client.set_flow_run_state(context.flow_run.id, state, force=True)
        context.flow_run.state = state  # Prefect reports nothing else then
    raise TerminationSignal(signal.SIGTERM)


async def _cancel_and_wait(working: "asyncio.Task[T]", session: JobRunner) -> None:
    """Cancel the work and wait until it has ended. Each clip takes its time to cancel its prediction."""
    session.run.gate.stop_creates()
    if not working.cancelling():
        working.cancel()
    await asyncio.wait([working])


# -- what ends a run --------------------------------------------------------------------------------------------------


class _Sigterm:
    """Sets events when SIGTERM comes, instead of the error that Prefect then raises at any place of the code, such as
    between a create and its record. Workers send the signal to a run that they cancel."""

    def __init__(self) -> None:
        self.is_told = False
        """Whether the signal has come."""
        self._events: set[asyncio.Event] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._former_handler: Any = None

    @contextmanager
    def caught(self) -> Iterator[asyncio.Event]:
        """Provide an event that is set when the signal comes inside the block, or has come before.

        The command line has a handler of its own, other threads than the first one get no signals, and Prefect needs
        the signal for itself if it is to execute the run again afterwards.
        """
        event = asyncio.Event()
        is_repeated = os.environ.get("PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR", "") in ("reschedule", "relinquish")
        if get_handover() or is_repeated or threading.current_thread() is not threading.main_thread():
            yield event
            return
        if self.is_told:
            event.set()
        self._loop = asyncio.get_running_loop()
        former_handler = signal.getsignal(signal.SIGTERM)
        if former_handler != self._handle:  # Prefect's engine sets its own again for each flow that begins
            self._former_handler = former_handler
            signal.signal(signal.SIGTERM, self._handle)
        self._events.add(event)
        try:
            yield event
        finally:
            self._events.remove(event)
            if not self._events and self._former_handler and signal.getsignal(signal.SIGTERM) == self._handle:
                signal.signal(signal.SIGTERM, self._former_handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        """Tell all blocks. Pass the signal on if there is none: Prefect's engine may set this handler again later."""
        if self._events and self._loop:
            self._loop.call_soon_threadsafe(self._tell)
        elif callable(self._former_handler):
            self._former_handler(number, frame)
        elif self._former_handler == signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def _tell(self) -> None:
        self.is_told = True
        for event in self._events:
            event.set()


_sigterm = _Sigterm()


def catch_sigterm() -> AbstractContextManager[asyncio.Event]:
    """Have SIGTERM set an event inside the block, which is provided, instead of raising an error there."""
    return _sigterm.caught()


async def _watch_terminal() -> str:
    """Return once the command line asks the run to stop. Without a command line, wait for ever."""
    handed = get_handover()
    return await _watch(handed.stop if handed else asyncio.Event(), "interrupted at the terminal")


async def _watch(event: asyncio.Event, reason: str) -> str:
    await event.wait()
    return reason


async def _watch_prefect() -> str:
    """Return once the flow run or one above it is cancelled in Prefect. Poll on while Prefect does not answer."""
    while True:
        await asyncio.sleep(CANCEL_POLL_S)
        with suppress(Exception):
            async with get_client() as client:
                run_ids = await _find_ancestors(client)
                while True:
                    if reason := await _find_cancelled(client, run_ids):
                        return reason
                    await asyncio.sleep(CANCEL_POLL_S)


async def _find_reason(told: str) -> str:
    """Return why a run ends that was told so: a worker ends the process of one that is cancelled in Prefect."""
    if told == TOLD_TO_END:
        with suppress(Exception):  # Prefect does not answer
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                return await _ask_prefect() or told
    return told


async def _start_unless_stopped(work: Coroutine[Any, Any, T], is_told: asyncio.Event) -> T:
    """Do the work, unless SIGTERM has come, or a flow above this one is cancelled already: it may have gone on after
    another subflow."""
    try:
        reason = TOLD_TO_END if is_told.is_set() else None
        if reason is None and _is_called_by_flow():
            with suppress(Exception):  # Prefect does not answer: the flow run is watched anyway
                reason = await _ask_prefect()
        if reason:
            raise RunInterruptedError(reason)
        return await work
    finally:
        work.close()


async def _ask_prefect() -> str | None:
    """Return which of the flow run and those above it is cancelled now, for people; None if none is."""
    async with get_client() as client:
        return await _find_cancelled(client, await _find_ancestors(client))


async def _find_ancestors(client: PrefectClient) -> list[UUID]:
    """Return the ids of the flow run, of the flow run that has called it, and so on."""
    ids = [UUID(flow_run.id)]
    while task_run_id := (await client.read_flow_run(ids[-1])).parent_task_run_id:
        parent = (await client.read_task_run(task_run_id)).flow_run_id
        if parent is None:
            break
        ids.append(parent)
    return ids


async def _find_cancelled(client: PrefectClient, run_ids: list[UUID]) -> str | None:
    """Return which of the flow run and its ancestors is cancelled, for people; None if none is."""
    chosen = {"id": {"any_": run_ids}, "state": {"type": {"any_": CANCELLED_STATES}}}
    cancelled = await client.read_flow_runs(flow_run_filter=FlowRunFilter.model_validate(chosen))
    if not cancelled:
        return None
    if any(run.id == run_ids[0] for run in cancelled):
        return "cancelled in Prefect"
    return f"the flow run {cancelled[0].name} above it was cancelled in Prefect"


def _is_called_by_flow() -> bool:
    """Return whether another flow of this process has called this one."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None or context.flow_run.parent_task_run_id is None:
        return False
    return os.environ.get("PREFECT__FLOW_RUN_ID") != str(context.flow_run.id)  # whose process Prefect has started
