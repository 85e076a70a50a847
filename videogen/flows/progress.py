"""Report a run to Prefect: tags on its flow run, an event at the end of each clip, and a progress artifact."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

from prefect import get_run_logger
from prefect.artifacts import acreate_progress_artifact, aupdate_progress_artifact
from prefect.client.orchestration import get_client
from prefect.events import emit_event
from prefect.runtime import flow_run

from videogen.events import BudgetAlert, ClipEnded, RunCompleted, RunEvent, RunStarted
from videogen.execution.recorder import Listener
from videogen.flows.artifacts import make_artifact_key
from videogen.job.model import Job

PROGRESS_EVERY_S = 5.0
"""Interval of progress updates. Each costs the server 0.15 s, so more of them would slow the clips down."""
FINAL_UPDATE_TIMEOUT_S = 20.0
"""How long the end of a run waits for Prefect to take the final progress. The final state has to follow within the time
that `videogen.flows.command` allows, which is 30 s."""
RUN_LABEL = "videogen.run"
"""Label of a flow run with the id of its run in the journal, where `take_over` looks up whether it is alive."""


def describe_job(job: Job) -> str:
    """Return the name of a flow run of this job: its id and models."""
    return f"{job.id} · {', '.join(job.models_used)}"


@asynccontextmanager
async def report_progress(job: Job, folder: str) -> AsyncIterator[Listener]:
    """Provide a listener that reports the events of a job to Prefect. The run never waits for Prefect meanwhile.

    `folder` is the path or URL of the job's own folder, which automations hand to the deployments that they start.
    """
    progress = _Progress(job)

    def on_event(event: RunEvent, payload: Mapping[str, Any]) -> None:
        progress.percent = max(progress.percent, 100.0 * payload["completed"] / payload["total"])
        if isinstance(event, RunStarted):
            progress.begin(payload["run_id"])
        elif isinstance(event, ClipEnded):
            clip = event.clip
            _emit_prefect_event(event, f"clip.{payload['run_id']}.{clip.scene_id}", clip.scene_id, model=clip.model)
        elif isinstance(event, BudgetAlert):
            labels = {"budget": event.budget, "percent": str(event.percent)}
            _emit_prefect_event(event, f"budget.{event.budget}", event.budget, **labels)
        elif isinstance(event, RunCompleted):
            batch = event.result
            _emit_prefect_event(event, f"run.{batch.run_id}", batch.job_id, verdict=batch.verdict.status, folder=folder)

    try:
        yield on_event
    finally:
        await progress.end()


class _Progress:
    """The share of clips that are delivered or failed, as an artifact of the flow run."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self.percent = 0.0
        self._over = asyncio.Event()
        self._showing: asyncio.Task[None] | None = None

    def begin(self, run_id: str) -> None:
        self._showing = asyncio.create_task(self._show(run_id))

    async def end(self) -> None:
        if self._showing:
            self._over.set()
            await asyncio.wait([self._showing], timeout=FINAL_UPDATE_TIMEOUT_S)
            if self._showing.cancel():  # it was not done
                get_run_logger().warning(
                    "Prefect did not take the progress of this run within %.0f s: tags and progress may be missing",
                    FINAL_UPDATE_TIMEOUT_S,
                )

    async def _show(self, run_id: str) -> None:
        """Keep the artifact up to date until the run is over, and then show the final share."""
        try:
            models = (f"model:{model}" for model in self._job.models_used)
            await _describe_flow_run(run_id, describe_job(self._job), *models, f"ratio:{self._job.aspect_ratio}")
            shown = self.percent
            name = f"Clips of {self._job.id} that are done"
            key = make_artifact_key(self._job.id, "progress")
            artifact = await acreate_progress_artifact(shown, key=key, description=name)
            while not self._over.is_set():
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._over.wait(), PROGRESS_EVERY_S)
                if self.percent != shown:
                    shown = self.percent
                    await aupdate_progress_artifact(artifact, shown)
        except Exception as exc:
            get_run_logger().warning("the progress of this run could not be reported: %s", exc)


async def _describe_flow_run(run_id: str, name: str, *tags: str) -> None:
    """Name the flow run, label it with its run in the journal, and add tags to those that it has.

    Task runs get none: each tag would cost a call before the task begins.
    """
    async with get_client() as client:
        await client.update_flow_run_labels(flow_run.id, {RUN_LABEL: run_id})
        await client.update_flow_run(flow_run.id, name=name, tags={*flow_run.tags, *tags})


def _emit_prefect_event(
    event: ClipEnded | RunCompleted | BudgetAlert, resource_id: str, name: str, **labels: str
) -> None:
    """Emit an event of Prefect. Its resource has labels of ours, by which automations can select it."""
    emit_event(
        f"videogen.{event.type}",
        resource={
            "prefect.resource.id": f"videogen.{resource_id}",
            "prefect.resource.name": name,
            **{f"videogen.{label}": value for label, value in labels.items()},
        },
        payload=event.payload(),
    )
