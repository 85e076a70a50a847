"""Cancel one clip of a run, and let all others go on."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from videogen.errors import ClipCancelledError

T = TypeVar("T")


class CancelSwitch:
    """Cancels the work on one clip when a command says so.

    The task that does the work is cancelled as on an interruption, so it cancels its prediction. The caller's task is
    not: it gets an error, as from any other failure of the clip.
    """

    def __init__(self) -> None:
        self._requested = asyncio.Event()

    def request(self) -> None:
        """Cancel the current work, and let no other work on this clip begin."""
        self._requested.set()

    async def guard(self, work: Coroutine[Any, Any, T]) -> T:
        """Do the work and return its result.

        Raises:
            ClipCancelledError: the clip is cancelled. The work has ended, or was not begun.
        """
        if self._requested.is_set():
            work.close()
            raise ClipCancelledError(make_cancel_message())
        working, requested = asyncio.create_task(work), asyncio.create_task(self._requested.wait())
        try:
            await asyncio.wait([working, requested], return_when=asyncio.FIRST_COMPLETED)
        finally:
            requested.cancel()
            await _cancel_and_wait(working)  # because of the command, or because the caller itself is cancelled
        if working.cancelled() and self._requested.is_set():
            raise ClipCancelledError(make_cancel_message())
        return working.result()


async def _cancel_and_wait(working: "asyncio.Task[Any]") -> None:
    if not working.done():
        if not working.cancelling():  # a second cancel would interrupt the cancelling of its prediction
            working.cancel()
        await asyncio.wait([working])


def make_cancel_message() -> str:
    """Return what a cancelled clip and its attempt say."""
    return "cancelled by a command to the run; the next run of the job makes it"
