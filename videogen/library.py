"""Plan and run a job from Python, in the caller's event loop and without Prefect."""

import logging
from pathlib import Path

from videogen.app import open_run, prepare_job
from videogen.execution.options import RunOptions
from videogen.execution.recorder import Listener
from videogen.job.model import Job
from videogen.planning.plan import Plan
from videogen.results.run_result import RunResult

DEFAULT_OPTIONS = RunOptions()

logging.getLogger("videogen").addHandler(logging.NullHandler())  # otherwise Python prints warnings of a program that
# has not set up logging


async def plan_job(job: Job | str | Path, options: RunOptions = DEFAULT_OPTIONS) -> Plan:
    """Return the plan of a job: its requests and their cost. Nothing is created, and nothing is paid for.

    Reference pictures are fetched, and the results of earlier runs are taken into account.

    Args:
        job: a job, or the address of its file: a path, `https://…` or `s3://…`.
        options: options of the run that is planned.

    Raises:
        ValidationError: with every problem of the job or the registry.
        InvalidError: an option or an environment variable cannot be used.
        JournalError: the journal cannot be used.
        StorageError: the job's folder cannot be read.
    """
    prepared = await prepare_job(_get_address(job), options, for_run=False)
    return prepared.plan


async def run_job(
    job: Job | str | Path, options: RunOptions = DEFAULT_OPTIONS, *, on_event: Listener | None = None
) -> RunResult:
    """Make the clips of a job, and return them with the verdict. Clips that were delivered before are reused.

    A clip that fails raises nothing: it is in the result, with its error. If the task of this call is cancelled, its
    predictions are cancelled, too, unless `options.on_interrupt` is `leave`.

    Args:
        job: a job, or the address of its file: a path, `https://…` or `s3://…`.
        options: options of the run.
        on_event: called in the event loop with each event of the run, and with the event's payload: its fields as JSON
            values, the `run_id`, and the number of clips that are `completed`, `failed` and planned (`total`). It must
            not block. If it raises, the error is logged, and the run goes on.

    Raises:
        ValidationError: with every problem of the job or the registry. Nothing was sent.
        InvalidError: an option or an environment variable cannot be used. Nothing was sent.
        AccountError: the token is refused, or the account has no credit.
        CallError: the provider cannot be reached.
        JobLockedError: another run of this job is in progress.
        JournalError: the journal cannot be used.
        StorageError: the job's folder cannot be used.
    """
    prepared = await prepare_job(_get_address(job), options)
    listeners = () if on_event is None else (on_event,)
    async with open_run(prepared, *listeners) as runner:
        return await runner.finish(await runner.make_clips())


def _get_address(job: Job | str | Path) -> Job | str:
    if not isinstance(job, Job | str | Path):
        raise TypeError(f"job should be a Job, or the address of its file, not {type(job).__name__}")
    return str(job) if isinstance(job, Path) else job
