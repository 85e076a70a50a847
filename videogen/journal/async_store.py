"""The journal for an event loop."""

import asyncio
import contextvars
import functools
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Concatenate, ParamSpec, TypeVar

from videogen.journal.store import Journal

P = ParamSpec("P")


T = TypeVar("T")


CLOSING_S = 2.0
"""Time that calls in progress have when the journal is closed."""


def _make_awaitable(
    method: Callable[Concatenate[Journal, P], T],
) -> "Callable[Concatenate[AsyncJournal, P], Coroutine[Any, Any, T]]":
    name = method.__name__

    async def call(self: "AsyncJournal", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._call(functools.partial(getattr(self.journal, name), *args, **kwargs))

    call.__name__, call.__doc__ = name, method.__doc__
    return call


class AsyncJournal:
    """A journal for an event loop, which goes on while the database is slow, locked or unreachable.

    Calls run in a thread of their own, in the order in which they begin. A call that has begun is completed even if its
    caller is cancelled, and a cancelled caller may make further calls.
    """

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")

    start_run = _make_awaitable(Journal.start_run)
    get_holder_last_seen = _make_awaitable(Journal.get_holder_last_seen)
    heartbeat = _make_awaitable(Journal.heartbeat)
    release_lease = _make_awaitable(Journal.release_lease)
    end_run = _make_awaitable(Journal.end_run)
    find_delivery = _make_awaitable(Journal.find_delivery)
    find_deliveries = _make_awaitable(Journal.find_deliveries)
    forget_delivery = _make_awaitable(Journal.forget_delivery)
    find_open_attempt = _make_awaitable(Journal.find_open_attempt)
    is_claimed = _make_awaitable(Journal.is_claimed)
    has_prediction = _make_awaitable(Journal.has_prediction)
    has_unknown_lookalike = _make_awaitable(Journal.has_unknown_lookalike)
    record_intent = _make_awaitable(Journal.record_intent)
    confirm_intent = _make_awaitable(Journal.confirm_intent)
    take_over_attempt = _make_awaitable(Journal.take_over_attempt)
    record_prediction = _make_awaitable(Journal.record_prediction)
    record_cost = _make_awaitable(Journal.record_cost)
    record_success = _make_awaitable(Journal.record_success)
    record_end = _make_awaitable(Journal.record_end)
    record_delivery = _make_awaitable(Journal.record_delivery)
    find_running_attempts = _make_awaitable(Journal.find_running_attempts)
    find_attempts = _make_awaitable(Journal.find_attempts)
    import_delivery = _make_awaitable(Journal.import_delivery)
    get_spending = _make_awaitable(Journal.get_spending)
    get_job_spending = _make_awaitable(Journal.get_job_spending)
    get_rest_of_budgets = _make_awaitable(Journal.get_rest_of_budgets)
    add_event = _make_awaitable(Journal.add_event)
    read_events = _make_awaitable(Journal.read_events)

    async def aclose(self, *, within_s: float = CLOSING_S) -> None:
        """Close the journal after the calls in progress. They are given up after `within_s`."""
        closing = asyncio.ensure_future(self._call(self.journal.close))
        await asyncio.wait([closing], timeout=within_s)
        if not closing.done():
            self.journal.give_up()
        await closing
        self._thread.shutdown(wait=False)

    async def _call(self, call: Callable[[], T]) -> T:
        calling = asyncio.get_running_loop().run_in_executor(self._thread, contextvars.copy_context().run, call)
        calling.add_done_callback(_ignore_error)
        return await asyncio.shield(calling)


def _ignore_error(calling: "asyncio.Future[Any]") -> None:
    """Retrieve the exception of a call that is no longer awaited, so that asyncio does not report it."""
    if not calling.cancelled():
        calling.exception()
