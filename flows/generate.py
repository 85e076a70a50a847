"""The Prefect flow: a retried `generate_clip` for every scene of a job, a few at a time; then the verdict.

`python -m flows.generate JOB` runs a job file from the command line; deployments run `generate` with a job, or the
address of its file.
"""

import sys

if __name__ == "__main__":  # before Prefect is imported: `--help` and `--dry-run` do without it
    from videogen.__main__ import main

    sys.exit(main(["run", *sys.argv[1:]]))

from typing import cast

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.runtime import flow_run
from prefect.states import Cancelled, Completed, Failed
from prefect.tasks import Task, exponential_backoff

from flows.artifacts import publish
from flows.interruption import unless_interrupted
from flows.telling import telling
from videogen.bootstrap import Options, Session, opened, prepare
from videogen.clip import Clip, ClipRequest, RunResult
from videogen.errors import RunInterruptedError, is_retryable
from videogen.run import Slot
from videogen.scene import Job

BACKSTOP_S = 86_400.0
"""Prefect's own time-out is this far above the clip's, which does not count waiting for a slot or a rate limit."""


def run_name() -> str:
    """What a flow run is called: its job and model, or the file that says them."""
    job = flow_run.parameters["job"]
    return f"{job.id} · {', '.join(job.models_to_run)}" if isinstance(job, Job) else str(job)


async def may_retry(_task: Task[..., Clip], _run: TaskRun, state: State[Clip]) -> bool:
    """Whether another attempt may bring the clip that this one did not."""
    error = await state.aresult(raise_on_failure=False)
    return isinstance(error, BaseException) and is_retryable(error)


@task(
    task_run_name="{request.scene.id}",
    retries=2,
    retry_delay_seconds=exponential_backoff(backoff_factor=1),
    retry_jitter_factor=0.5,
    retry_condition_fn=may_retry,
    cache_policy=NO_CACHE,
)
async def generate_clip(request: ClipRequest, session: Session, slot: Slot) -> Clip:
    """One attempt at a clip; the journal makes a second attempt continue what the first one paid for."""
    return await session.generate(request, slot)


@flow(flow_run_name=run_name, validate_parameters=True)
async def generate(job: Job | str, options: Options | None = None) -> State[RunResult]:
    """Makes the clips of a job: Completed, Completed as `PartialSuccess`, Failed with the reason, or Cancelled."""
    prepared = await prepare(job, options or Options())  # the command line's own, where that has prepared the job
    try:
        async with telling(prepared.job) as prefect, opened(prepared, prefect) as session:
            batch = await unless_interrupted(make(session), session)
    except RunInterruptedError as exc:
        return Cancelled(message=str(exc))
    await publish(batch, session)
    return final_state(batch)


async def make(session: Session) -> RunResult:
    """Make all clips of the session, and judge them."""
    return await session.finish(await session.clips(attempted))


async def attempted(request: ClipRequest, session: Session, slot: Slot) -> Clip | BaseException:
    """The clip, or why there is none, after all attempts at this request."""
    task_ = generate_clip.with_options(  # no tags: each one costs a call to the server before the task begins
        retries=request.attempts - 1, timeout_seconds=request.timeout_s + BACKSTOP_S
    )
    state = cast(State[Clip], await task_(request, session, slot, return_state=True))  # type: ignore[misc]
    return await state.aresult(raise_on_failure=False)


def final_state(batch: RunResult) -> State[RunResult]:
    """The verdict as the flow run's state."""
    verdict = batch.verdict
    if verdict.status == "failed":
        return Failed(message=verdict.reason)
    return Completed(name="Completed" if verdict.status == "complete" else "PartialSuccess", message=verdict.reason)
