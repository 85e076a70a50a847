"""Hand a prepared job over to the flow of this process, beside Prefect's parameters, which must be serializable."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from videogen.errors import VideogenError
from videogen.execution.options import PreparedJob, RunOptions
from videogen.execution.recorder import Listener
from videogen.job.model import Job


@dataclass(frozen=True)
class Handover:
    """A job that was prepared before its flow was called, and how its run is watched and stopped."""

    prepared: PreparedJob
    listeners: tuple[Listener, ...]
    """They receive the events of the run."""
    file: str
    """The job's file. It stands for a job that is too large for a parameter."""
    stop: asyncio.Event
    """Set when the run has to stop making clips."""


_handover: ContextVar[Handover | None] = ContextVar("handover", default=None)


@contextmanager
def hand_over(prepared: PreparedJob, *listeners: Listener, file: str, stop: asyncio.Event) -> Iterator[None]:
    """Hand the prepared job to the flow that is called inside the block."""
    token = _handover.set(Handover(prepared, listeners, file, stop))
    try:
        yield
    finally:
        _handover.reset(token)


def get_handover() -> Handover | None:
    """Return the handover to this flow run. None if it runs from a deployment or from somebody's code."""
    return _handover.get()


def get_prepared_job(job: Job | str, options: RunOptions) -> PreparedJob | None:
    """Return the job that was handed over, or None if none was.

    Raises:
        VideogenError: the flow was called with another job, or with other options.
    """
    handed = _handover.get()
    if handed is None:
        return None
    if handed.prepared.options != options or job not in (handed.prepared.job, handed.file):
        raise VideogenError("the flow was called with another job than the one that was prepared for it")
    return handed.prepared
