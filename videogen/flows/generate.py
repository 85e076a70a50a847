"""The Prefect flow that runs a job: a retried task `generate_clip` for every scene, a few at a time, then the verdict.

Deployments run `generate` with a job, or with the address of its file. `videogen.flows.command` calls it for the
command line.
"""

from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Any, cast

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State, TaskRun, TaskRunResult
from prefect.runtime import flow_run
from prefect.states import Cancelled, Completed, Failed, Pending
from prefect.tasks import Task, exponential_backoff
from prefect.utilities.annotations import quote
from pydantic import Field

from videogen.app import open_run, prepare_job
from videogen.errors import RunInterruptedError, VideogenError, is_retryable
from videogen.execution.options import RunOptions
from videogen.execution.runner import JobRunner
from videogen.execution.slots import Slot
from videogen.flows.approval import NotApprovedError, require_approval
from videogen.flows.artifacts import CONTINUE, describe_verdict, publish_artifacts, publish_cancelled
from videogen.flows.handover import get_handover, get_prepared_job
from videogen.flows.interruption import catch_sigterm, end_calling_flow, run_unless_interrupted
from videogen.flows.logs import apply_log_level
from videogen.flows.progress import describe_job, report_progress
from videogen.flows.token_block import add_token
from videogen.job.model import Job
from videogen.planning.requests import ClipRequest
from videogen.results.clip import Clip
from videogen.results.run_result import RunResult
from videogen.text import list_first

TIMEOUT_MARGIN_S = 30 * 86_400.0
"""How far Prefect's time-out is above the clip's, which does not count waiting for a slot, a rate limit or the end of a
pause."""
MAX_APPROVAL_HOURS = 24 * 366
"""How long a person may have to approve a run."""


def make_run_name() -> str:
    """Return the name of a flow run before it begins: its job and models, or the file of the job."""
    job = flow_run.parameters["job"]
    return describe_job(job) if isinstance(job, Job) else str(job)


async def should_retry(_task: Task[..., Clip], _run: TaskRun, state: State[Clip]) -> bool:
    """Return whether another attempt may succeed after this failure."""
    error = await state.aresult(raise_on_failure=False)
    return isinstance(error, BaseException) and is_retryable(error)


@task(
    task_run_name="{request.part_id}",
    retries=2,
    retry_delay_seconds=exponential_backoff(backoff_factor=1),
    retry_jitter_factor=0.5,
    retry_condition_fn=should_retry,
    cache_policy=NO_CACHE,
    persist_result=False,
)
async def generate_clip(request: ClipRequest, session: JobRunner, slot: Slot) -> Clip:
    """Make one attempt at a clip. A second attempt continues the paid work of the first one, by the journal."""
    return await session.attempt_clip(request, slot)


@flow(
    name="videogen",
    flow_run_name=make_run_name,
    validate_parameters=True,
    persist_result=False,  # a stored result would be returned again without a look at the journal and the clips
)
async def generate(
    job: Job | str,
    options: RunOptions | None = None,
    approve_above: Annotated[Decimal, Field(ge=0)] | None = None,
    approve_within_hours: Annotated[float, Field(gt=0, le=MAX_APPROVAL_HOURS)] = 24.0,
) -> RunResult:
    """Make the clips of a job, and return the result.

    The final state is Completed, Completed with the name `PartialSuccess`, Failed with the reason, or Cancelled.

    Args:
        job: a job, or the path or address of its file.
        options: options of the run.
        approve_above: USD. A run whose plan costs more is suspended until a person has approved it; None means that
            none is.
        approve_within_hours: how long the person has for that. Then the run is cancelled.

    Raises:
        JobFailedError: too few clips were delivered. It has the result.
        VideogenError: the run ended without a verdict.
        prefect.exceptions.CancelledRun: the run was cancelled, or its cost was not approved.
        prefect.exceptions.TerminationSignal: the process of the flow that calls this one was told to end.
    """
    apply_log_level()
    options = options or RunOptions()
    handed = get_handover()
    prepared = get_prepared_job(job, options) or await prepare_job(job, options)
    listeners = handed.listeners if handed else ()
    session: JobRunner | None = None
    with catch_sigterm() as is_told:
        try:
            with_token = await add_token(prepared)
            has_checked_account = handed is not None and with_token is prepared
            within = timedelta(hours=approve_within_hours)
            prepared = await require_approval(with_token, above=approve_above, within=within)
            async with (
                report_progress(prepared.job, prepared.folder) as prefect,
                open_run(prepared, prefect, *listeners, check_account=not has_checked_account) as session,
            ):
                batch = await run_unless_interrupted(make_clips_and_judge(session), session, is_told)
        except (RunInterruptedError, NotApprovedError) as exc:
            message = f"{exc}. {CONTINUE}" if isinstance(exc, RunInterruptedError) else str(exc)
            cancelled: State[RunResult] = Cancelled(message=message)
            if session:
                await publish_cancelled(session)
            await end_calling_flow(cancelled)
            return _as_result(cancelled)
    await publish_artifacts(batch, session)
    state = make_final_state(batch)
    await end_calling_flow(state.model_copy(update={"data": None}))
    return _as_result(state)


class JobFailedError(VideogenError):
    """Too few clips of a job were delivered. The error has the result of its run, with all clips."""

    code = "job-failed"

    def __init__(self, result: RunResult) -> None:
        self.result = result
        failed = [f"{clip.scene_id}: {clip.error.message}" for clip in result.clips if clip.error]
        super().__init__(f"{result.job_id}: {result.verdict.reason}. {list_first(failed, most=3, separator='; ')}")

    def __reduce__(self) -> tuple[type["JobFailedError"], tuple[RunResult]]:
        return JobFailedError, (self.result,)  # Prefect pickles the error of a flow that does not handle it


async def make_clips_and_judge(session: JobRunner) -> RunResult:
    """Make all clips of the session and return the batch with its verdict."""
    task_runs = TaskRuns()
    return await session.finish(await session.make_clips(task_runs.run_attempts, tell_blocked=task_runs.show_blocked))


class TaskRuns:
    """The task runs of a flow run. Each depends on those of the clips that its own is made from."""

    def __init__(self) -> None:
        self._states: dict[str, State[Any]] = {}
        """By scene id: the state of the last task run of its clip."""

    async def run_attempts(self, request: ClipRequest, session: JobRunner, slot: Slot) -> Clip | BaseException:
        """Run all attempts at this request. Return the clip, or the error of the last attempt."""
        task_ = generate_clip.with_options(  # without tags, each of which costs a call to the server before it begins
            retries=request.attempts - 1, timeout_seconds=request.prediction.timeout_s + TIMEOUT_MARGIN_S
        )
        upstreams = [self._states[scene_id] for scene_id in request.upstream_ids if scene_id in self._states]
        # quoted, because Prefect would draw an edge from each task run whose result shares a value with these
        running = task_(quote(request), quote(session), quote(slot), return_state=True, wait_for=upstreams)
        state = cast(State[Clip], await running)  # type: ignore[misc]
        # not with the clip, in whose values Prefect would find those of other task runs, and draw edges to them
        self._states[request.scene.id] = self._states[request.part_id] = state.model_copy(update={"data": True})
        return await state.aresult(raise_on_failure=False)

    async def show_blocked(self, request: ClipRequest, reason: str) -> None:
        """Add a task run that never begins for a clip that is not tried. If Prefect does not take it, only log that."""
        try:
            await self._create_blocked(request, reason)
        except Exception as exc:
            get_run_logger().warning("%s could not be shown as blocked: %s", request.scene.id, exc)

    async def _create_blocked(self, request: ClipRequest, reason: str) -> None:
        upstreams = (self._states.get(scene_id) for scene_id in request.upstream_ids)
        ids = [state.state_details.task_run_id for state in upstreams if state]
        state: State[Any] = Pending(name="Blocked", message=reason)
        async with get_client() as client:
            made = await client.create_task_run(
                generate_clip,
                flow_run.id,
                dynamic_key=request.scene.id,
                name=request.scene.id,
                state=state,
                task_inputs={"wait_for": [TaskRunResult(id=id_) for id_ in ids if id_]},
            )
        state.state_details.task_run_id = made.id
        self._states[request.scene.id] = state


def make_final_state(batch: RunResult) -> State[RunResult]:
    """Return the flow run's final state, which follows from the verdict.

    Its data is what the flow returns or raises. It stays in this process: Prefect's server gets the message only.
    """
    status, message = batch.verdict.status, describe_verdict(batch)
    if status == "failed":
        return Failed(message=message, data=JobFailedError(batch))
    return Completed(name="Completed" if status == "complete" else "PartialSuccess", message=message, data=batch)


def _as_result(state: State[RunResult]) -> RunResult:
    """Return the state with the type of what Prefect makes of it for the caller of the flow."""
    return cast(RunResult, state)
