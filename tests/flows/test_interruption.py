"""SIGTERM in the process of a flow: what is told, and who has the signal afterwards."""

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from prefect.exceptions import TerminationSignal
from prefect.utilities.engine import capture_sigterm

from videogen.flows import interruption
from videogen.flows.interruption import _Sigterm, catch_sigterm


@pytest.fixture(autouse=True)
def _process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As in a new process: no signal has come, and nobody handles it."""
    monkeypatch.setattr(interruption, "_sigterm", _Sigterm())
    former = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGTERM, former)


async def send_sigterm() -> None:
    """Send the signal to this process, and let the event loop tell of it."""
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.sleep(0)
    await asyncio.sleep(0)


async def test_it_sets_an_event_instead_of_raising_an_error() -> None:
    """As often as it comes. Afterwards, it is Prefect's again."""
    with capture_sigterm():
        prefects = signal.getsignal(signal.SIGTERM)
        with catch_sigterm() as is_told:
            await send_sigterm()
            assert is_told.is_set()
            await send_sigterm()
        assert signal.getsignal(signal.SIGTERM) == prefects


async def test_it_reaches_all_flows_that_run_at_the_same_time() -> None:
    """Although Prefect's engine takes the signal again for each of them that begins."""
    with ExitStack() as stack:
        stack.enter_context(capture_sigterm())
        events = []
        for _ in range(2):
            stack.enter_context(capture_sigterm())
            events.append(stack.enter_context(catch_sigterm()))
        await send_sigterm()
        assert [event.is_set() for event in events] == [True, True]


async def test_it_is_not_swallowed_after_flows_that_overlap() -> None:
    """The first one ends before the second one: the flow that has called both gets the signal."""
    with capture_sigterm():
        first, second = ExitStack(), ExitStack()
        for flow in (first, second):
            flow.enter_context(capture_sigterm())
            flow.enter_context(catch_sigterm())
        first.close()
        second.close()
        with pytest.raises(TerminationSignal):
            await send_sigterm()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # what `capture_sigterm` would end this process with


async def test_the_handler_of_a_program_comes_back() -> None:
    """One that its event loop has, too."""
    seen = []
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lambda: seen.append(1))
    with catch_sigterm() as is_told:
        await send_sigterm()
        assert (is_told.is_set(), seen) == (True, [])
    await send_sigterm()
    asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)
    assert seen == [1]
