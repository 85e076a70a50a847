"""Obey the commands that other processes send to a run through its journal."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from decimal import Decimal
from functools import partial
from typing import TypeVar

import anyio

from videogen.errors import CommandRefusedError, JournalError, VideogenError
from videogen.execution.runner import JobRunner
from videogen.journal.commands import ACCEPTED, Command
from videogen.journal.store import Journal
from videogen.text import is_plain_number, make_loggable

logger = logging.getLogger(__name__)

POLL_S = 0.25
"""Pause between two looks into the journal. Each is one query with an index."""
CLOSING_S = 2.0
"""Time that the journal has at the end to answer commands that came too late."""

T = TypeVar("T")
Obey = Callable[[Command], Awaitable[str]]
"""Carries out a command and returns its outcome."""


class CommandReader:
    """Reads the commands to one run, in order, and records what became of each.

    The journal is asked in a thread of its own, and each call is tried once. A journal that does not answer neither
    ends the run nor delays its other calls: the reader looks again later. A command whose outcome could not be recorded
    is not carried out twice.
    """

    def __init__(self, journal: Journal, run_id: str, obey: Obey, on_recorded: Callable[[], None]) -> None:
        """Create a reader. `on_recorded` is called when an outcome is in the journal, and an accepted cap with it."""
        self._journal, self._run_id, self._obey = journal, run_id, obey
        self._on_recorded = on_recorded
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="commands")
        self._unrecorded: list[tuple[Command, str]] = []
        """Commands and their outcomes that are not in the journal yet, in order."""
        self._is_away = False

    async def read_until_cancelled(self) -> None:
        while True:
            await self.read_once()
            await asyncio.sleep(POLL_S)

    async def read_once(self) -> None:
        """Carry out the commands that are pending now."""
        find = partial(self._journal.find_pending_commands, self._run_id, is_repeated=False)
        try:
            await self._record_outcomes()
            for command in await self._call(find):
                self._unrecorded.append((command, await self._obey(command)))
                await self._record_outcomes()
        except VideogenError as exc:
            if not self._is_away:
                logger.info("no commands can be read for now: %s", make_loggable(exc))
            self._is_away = True
        else:
            self._is_away = False

    async def _record_outcomes(self) -> None:
        while self._unrecorded:
            command, outcome = self._unrecorded[0]
            await self._call(partial(self._journal.record_outcome, command, outcome))
            self._unrecorded.pop(0)
            self._on_recorded()
            what = " ".join(filter(None, (command.action, command.scene_id, command.value)))
            logger.info("command %s by %s: %s", make_loggable(what), command.sender, make_loggable(outcome))

    async def _call(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    async def close(self) -> None:
        """Refuse the commands that came too late, if the journal answers."""
        self._obey = _refuse_at_the_end
        with anyio.move_on_after(CLOSING_S, shield=True):
            await self.read_once()
        self._thread.shutdown(wait=False)


@asynccontextmanager
async def obey_commands(journal: Journal, runner: JobRunner) -> AsyncIterator[JobRunner]:
    """Obey the commands to a run while the block runs, and provide the run."""
    reader = CommandReader(journal, runner.run.id, partial(obey_command, runner), runner.run.notify_settled)
    reading = asyncio.create_task(reader.read_until_cancelled())
    try:
        yield runner
    finally:
        reading.cancel()
        await asyncio.wait([reading])
        await reader.close()


async def obey_command(runner: JobRunner, command: Command) -> str:
    """Carry out a command, and return its outcome. Raise `JournalError` if the journal is needed and unreachable."""
    try:
        await _carry_out(runner, command)
    except CommandRefusedError as exc:
        return str(exc)
    except JournalError:
        raise
    except Exception as exc:  # a defect: the run, and later commands, go on
        logger.exception("the command %s failed", command.action)
        return f"it failed: {type(exc).__name__}"
    return ACCEPTED


async def _carry_out(runner: JobRunner, command: Command) -> None:
    match command.action:
        case "pause":
            runner.pause(command.sender)
        case "resume":
            runner.resume(command.sender)
        case "cap":
            runner.change_cap(_parse_cap(command.value), command.sender)
        case "cancel":
            runner.cancel_clip(command.scene_id or "")
        case "retry":
            await runner.retry_clip(command.scene_id or "")
        case _:
            raise CommandRefusedError(f"this version of videogen has no command {command.action!r}")


def _parse_cap(value: str | None) -> Decimal:
    if value is None or not is_plain_number(value) or Decimal(value) < 0:
        raise CommandRefusedError(f"{value!r} is no amount in USD, such as 20 or 7.50")
    return Decimal(value)


async def _refuse_at_the_end(_command: Command) -> str:
    return "the run has ended: run `videogen run JOB` again"
