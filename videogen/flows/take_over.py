"""Hand the runs of a lost worker to another one. `deployments/prefect.yaml` has a worker do this every minute, and
cancel the runs that nobody has approved in time.

An automation of Prefect cannot do this. Runs that a schedule creates emit no `Scheduled` event, and Prefect's triggers
then hold back all later state events of such a run, including its end: a run that has ended would look lost.
"""

import asyncio
from contextlib import closing
from datetime import UTC, datetime, timedelta

from prefect import flow, get_run_logger
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import FlowFilter, FlowRunFilter, WorkPoolFilter
from prefect.client.schemas.objects import FlowRun, State
from prefect.client.schemas.sorting import FlowRunSort
from prefect.events.filters import EventFilter
from prefect.states import Cancelled, Completed, Crashed, Failed, Scheduled

from videogen.flows.approval import describe_silence, read_question
from videogen.flows.progress import RUN_LABEL
from videogen.journal.base import LEASE_S
from videogen.journal.runs import RunRecord
from videogen.journal.store import Journal
from videogen.settings import read_settings

WORK_POOL = "videogen"
JOB_FLOWS, TAKE_OVER_FLOWS = ["videogen", "generate"], ["videogen-take-over", "take-over"]
"""Names of the flows; the second one of each is what version 0.1.0 called it."""
MAX_SILENCE = timedelta(seconds=90)
"""A run without a heartbeat for this long may be lost. `deployments/prefect.yaml` has runs send one every 30 s."""
MAX_TAKE_OVERS = 3
"""How often a run is handed over at most, so that one that crashes every worker is not handed over indefinitely."""
TAKEN_OVER_STATE = "TakenOver"
FINAL_VERDICTS = {"complete", "partial", "failed"}
"""Verdicts of runs that came to their end. An interrupted run did not."""
RETENTION = timedelta(hours=1)
"""How long Prefect keeps the runs of this flow, of which there are 1,440 a day."""
PAGE_SIZE = 200
"""How many flow runs Prefect's server returns at once."""


@flow(name="videogen-take-over", timeout_seconds=120, persist_result=False)
async def take_over() -> None:
    """Hand over each run of the work pool that its worker has lost, cancel those that nobody has approved in time, and
    delete the earlier runs of this flow."""
    async with get_client() as client:
        for run, state in [*await settle_lost_runs(client), *await cancel_unapproved_runs(client)]:
            get_run_logger().warning("%s (%s) is now %s: %s", run.name, run.id, state.name, state.message)
        await _delete_old_runs(client)


async def settle_lost_runs(client: PrefectClient, *, now: datetime | None = None) -> list[tuple[FlowRun, State]]:
    """Hand over each lost run, at most `MAX_TAKE_OVERS` times, or end it. Return these runs and their new states.

    Only runs in state Running are changed, and only when neither Prefect nor the journal has seen them lately.

    Raises:
        JournalError: the journal cannot be read. Nothing is taken over then.
    """
    now = now or datetime.now(UTC)
    settled = []
    for run in await _find_runs(client, JOB_FLOWS, "RUNNING"):
        record = await asyncio.to_thread(_find_record, run)
        if _has_lease(record, now) or not await _is_silent(client, run, now):
            continue
        state = (
            make_recorded_end_state(record)
            if record and record.verdict in FINAL_VERDICTS
            else await _choose_next_state(client, run)
        )
        if (await client.read_flow_run(run.id)).state_id != run.state_id:
            continue  # its state has changed meanwhile
        await client.set_flow_run_state(run.id, state)
        settled.append((run, state))
    return settled


async def cancel_unapproved_runs(client: PrefectClient, *, now: datetime | None = None) -> list[tuple[FlowRun, State]]:
    """Cancel each run that waits for an approval for longer than it may. Return these runs and their new states."""
    cancelled = []
    for run in await _find_runs(client, JOB_FLOWS, "PAUSED"):
        question = read_question(run.labels)
        if question is None or (now or datetime.now(UTC)) <= question.until:
            continue
        state: State = Cancelled(message=describe_silence(question))
        if (await client.read_flow_run(run.id)).state_id != run.state_id:
            continue  # a person has answered meanwhile
        await client.set_flow_run_state(run.id, state)
        cancelled.append((run, state))
    return cancelled


async def _choose_next_state(client: PrefectClient, run: FlowRun) -> State:
    states = await client.read_flow_run_states(run.id)
    taken_over = sum(state.name == TAKEN_OVER_STATE for state in states)
    lost = f"No heartbeat of this run for {MAX_SILENCE.total_seconds():.0f} s: its worker is lost"
    if taken_over < MAX_TAKE_OVERS:
        return Scheduled(name=TAKEN_OVER_STATE, message=f"{lost}. Another worker continues it.")
    return Crashed(
        message=f"{lost}, for the {taken_over + 1}th time. Look at the logs of the workers, then run the job again: "
        "delivered clips and paid predictions are not paid for again."
    )


def make_recorded_end_state(record: RunRecord) -> State:
    """Return the final state of a run that ended in the journal but could not report that to Prefect."""
    message = f"Run {record.id} ended as {record.verdict}; its worker was lost before it could report that."
    if record.verdict == "failed":
        return Failed(message=message)
    return Completed(name="Completed" if record.verdict == "complete" else "PartialSuccess", message=message)


def _find_record(run: FlowRun) -> RunRecord | None:
    """Return the journal's record of the flow run; None if it has made no clips yet or uses another journal."""
    run_id = run.labels.get(RUN_LABEL)
    if run_id is None:
        return None
    with closing(Journal(read_settings().get_journal_url(), read_only=True)) as journal:
        return journal.find_run(str(run_id))


def _has_lease(record: RunRecord | None, now: datetime) -> bool:
    """Return whether the run's process is alive according to the journal."""
    if record is None or record.ended_at:
        return False
    return now - record.seen_at < timedelta(seconds=LEASE_S)


async def _is_silent(client: PrefectClient, run: FlowRun, now: datetime) -> bool:
    """Return whether the run has been Running for `MAX_SILENCE` without a heartbeat in that time."""
    since = now - MAX_SILENCE
    if run.state is None or run.state.timestamp > since:
        return False
    heartbeat = EventFilter.model_validate(
        {
            "occurred": {"since": since, "until": now},
            "event": {"name": ["prefect.flow-run.heartbeat"]},
            "resource": {"id": [f"prefect.flow-run.{run.id}"]},
        }
    )
    return not (await client.read_events(heartbeat, limit=1)).events


async def _delete_old_runs(client: PrefectClient) -> None:
    """Delete old runs of this flow, including those that were lost with their worker."""
    for run in await _find_runs(client, TAKE_OVER_FLOWS, "RUNNING", "COMPLETED", "CANCELLED"):
        if run.state and run.state.timestamp < datetime.now(UTC) - RETENTION:
            await client.delete_flow_run(run.id)


async def _find_runs(client: PrefectClient, flows: list[str], *states: str) -> list[FlowRun]:
    """Return the runs of these flows in the work pool that are in one of these states, the earliest first."""
    return await client.read_flow_runs(
        flow_filter=FlowFilter.model_validate({"name": {"any_": flows}}),
        flow_run_filter=FlowRunFilter.model_validate({"state": {"type": {"any_": states}}}),
        work_pool_filter=WorkPoolFilter.model_validate({"name": {"any_": [WORK_POOL]}}),
        sort=FlowRunSort.EXPECTED_START_TIME_ASC,
        limit=PAGE_SIZE,
    )
