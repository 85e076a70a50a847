"""Publish a run's batch as Prefect artifacts: the verdict and posters as Markdown, the clips as a table."""

import asyncio
import base64
import html
import re
from collections.abc import Sequence

from prefect import get_run_logger
from prefect.artifacts import acreate_markdown_artifact, acreate_table_artifact

from videogen.execution.runner import JobRunner
from videogen.planning.plan import Plan
from videogen.reports.contact_sheet_image import render_thumbnail
from videogen.results.clip import Clip
from videogen.results.run_result import RunResult
from videogen.text import escape_unprintable, format_duration, format_money

MAX_SHOWN_ROWS = 200
"""Limit for a table or a list, because Prefect's page draws all of it at once. The manifest has every clip."""
ADVICE_BY_CODE = {
    "authentication": "The token was refused: set REPLICATE_API_TOKEN or save the block of VIDEOGEN_TOKEN_BLOCK again.",
    "billing": "The account is out of credit: top it up.",
    "budget": "The budget is spent: raise `max_cost`, or the budget that ran out, if these clips are worth it.",
    "cancelled": "A command to the run cancelled these clips: run the job again to make them.",
    "duration": "The model delivers another length than requested: raise `duration_tolerance`, or use another model.",
    "interrupted": "The run ended before these clips were done: the next run makes them.",
    "input": "The provider refuses the input: change the scene. `videogen models check` detects changed models.",
    "moderation": "The model's moderation refuses the prompt or a picture: change it, or use another model.",
    "reference": "A reference picture cannot be used: replace it.",
    "storage": "The clips could not be written: free space in the out folder.",
    "timeout": "The model takes longer than its timeout: raise `timeout_seconds`.",
}
"""Advice for each failure code."""


RUN_AGAIN = "Run the job again: delivered clips are reused, failed clips are tried again."
CONTINUE = "Run the job again to continue: what was delivered, or finished at the provider within an hour, is reused."
"""What to do after a run that was cancelled."""
MAX_ADVICE = 2
"""Limit for the message of a state. The artifact with the verdict has all advice."""
CANCELLED_PUBLISH_S = 3.0
"""How long the end of a cancelled run waits for Prefect to take its artifacts. It all may take 15 s after Ctrl-C."""


async def publish_artifacts(batch: RunResult, session: JobRunner) -> None:
    """Publish verdict and clips under keys of the job, so that its runs can be compared over time.

    If Prefect refuses an artifact, a warning is logged and the run goes on: its clips are delivered.
    """
    picture = await asyncio.to_thread(render_thumbnail, session.run.store)
    gateway = session.settings.gateway_url
    await _publish(batch, session, render_verdict(batch, session.plan, gateway=gateway, picture=picture))


async def publish_cancelled(session: JobRunner) -> None:
    """Publish what a cancelled run has brought and cost, and how to continue, if it came so far as to know it.

    The worker that cancels a run may replace the message of its state by one of Prefect's. The artifacts stay.
    """
    batch = session.interrupted_result
    if batch is None:
        return
    verdict = render_verdict(batch, session.plan, gateway=session.settings.gateway_url, is_cancelled=True)
    try:
        async with asyncio.timeout(CANCELLED_PUBLISH_S):
            await _publish(batch, session, verdict)
    except TimeoutError:
        get_run_logger().warning("Prefect did not take the artifacts of this run within %.0f s", CANCELLED_PUBLISH_S)


async def _publish(batch: RunResult, session: JobRunner, verdict: str) -> None:
    job, gateway = batch.job_id, session.settings.gateway_url
    where = f"Clips of {job} in {session.run.folder}"
    for problem in await asyncio.gather(
        acreate_markdown_artifact(
            key=make_artifact_key(job, "verdict"), markdown=verdict, description=batch.verdict.reason
        ),
        acreate_table_artifact(
            key=make_artifact_key(job, "clips"), table=make_clip_rows(batch, gateway), description=where
        ),
        return_exceptions=True,
    ):
        if isinstance(problem, BaseException):
            get_run_logger().warning("an artifact of this run could not be published: %s", problem)


def make_artifact_key(job_id: str, what: str) -> str:
    """Return an artifact's key, which may have lower-case letters, digits and dashes only."""
    slug = re.sub(r"[^a-z0-9]+", "-", job_id.lower()).strip("-") or "job"
    return f"{slug}-{what}"


def render_verdict(
    batch: RunResult,
    plan: Plan,
    *,
    gateway: str | None = None,
    picture: bytes | None = None,
    is_cancelled: bool = False,
) -> str:
    """Return the verdict as Markdown: result, planned and actual cost, failed clips with reasons, and next steps."""
    planned = f"{format_money(plan.total_cost)}, at most {format_money(plan.worst_case_cost)}"
    lines = [
        f"# {batch.job_id}: {'cancelled' if is_cancelled else batch.verdict.status}",
        "",
        f"{escape_markdown(batch.verdict.reason)}.",
        "",
        *(line for warning in batch.verdict.warnings for line in (f"**Warning:** {escape_markdown(warning)}.", "")),
        "| | planned | actual |",
        "| --- | ---: | ---: |",
        f"| clips | {batch.total_clips} | {batch.successful_clips} delivered, {batch.failed_clips} failed |",
        f"| of these new | {len(plan.to_make)} | {sum(not clip.reused for clip in batch.clips if not clip.error)} |",
        f"| cost | {planned} | {format_money(batch.total_cost)} |",
        f"| time | | {format_duration(batch.total_generation_time)} |",
        "",
        f"Model {escape_markdown(batch.model)}, ratio {batch.aspect_ratio}, run {batch.run_id}.",
    ]
    if gateway:
        lines += ["", f"[Watch the clips]({gateway.rstrip('/')}/?run={batch.run_id})"]
    if failures := [clip for clip in batch.clips if clip.error]:
        lines += ["", "## Not delivered", "", *map(_format_failure, failures[:MAX_SHOWN_ROWS])]
        if len(failures) > MAX_SHOWN_ROWS:
            lines += [f"- … and {len(failures) - MAX_SHOWN_ROWS} more: manifest.json has them all"]
        lines += ["", "## What to do next", "", *(f"- {step}" for step in list_next_steps(failures))]
    if picture:
        lines += ["", "## Posters", "", f"![]({_make_data_url(picture)})"]
    return "\n".join(lines) + "\n"


def _format_failure(clip: Clip) -> str:
    assert clip.error
    tries = "1 attempt" if clip.attempts == 1 else f"{clip.attempts} attempts"
    return f"- **{clip.scene_id}** ({clip.error.code}, {tries}): {escape_markdown(clip.error.message)}"


def list_next_steps(failures: Sequence[Clip]) -> list[str]:
    """Return what to do about these clips, as sentences in Markdown."""
    codes = {clip.error.code for clip in failures if clip.error}
    steps = [ADVICE_BY_CODE[code] for code in ADVICE_BY_CODE if code in codes]
    return [*steps, CONTINUE if "interrupted" in codes else RUN_AGAIN]


def describe_verdict(batch: RunResult) -> str:
    """Return the message of a final state: the verdict's reason, and what to do unless everything was delivered.

    The page of a flow run shows it as plain text.
    """
    failures = [clip for clip in batch.clips if clip.error]
    if not failures:
        return batch.verdict.reason
    *advice, last = list_next_steps(failures)
    if len(advice) > MAX_ADVICE:
        advice = [*advice[:MAX_ADVICE], f"More is in the artifact {make_artifact_key(batch.job_id, 'verdict')}."]
    return " ".join([f"{batch.verdict.reason}.", *advice, last]).replace("`", "")


def _make_data_url(picture: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(picture).decode()}"


def make_clip_rows(batch: RunResult, gateway: str | None = None) -> list[dict[str, object]]:
    """Return one row for each clip, in scene order; of a long job only `MAX_SHOWN_ROWS`, failed clips first.

    Durations are in seconds, costs in USD. With the address of a gateway, the scene's name links to the clip.
    """
    clips = batch.clips
    if len(clips) > MAX_SHOWN_ROWS:
        clips = tuple(sorted(clips, key=lambda clip: clip.error is None)[:MAX_SHOWN_ROWS])
    differ = any(clip.original_target_duration != clip.target_duration for clip in clips)
    return [
        {
            "scene": _link_clip(batch, clip, gateway),
            "status": clip.error.code if clip.error else clip.outcome,
            "target": clip.target_duration,
            **({"original": clip.original_target_duration} if differ else {}),
            "buffered": clip.buffered_duration,
            "requested": clip.requested_duration,
            "actual": clip.actual_duration,
            "size": f"{clip.width}x{clip.height}" if clip.width else None,
            "tries": clip.attempts,
            "cost": str(clip.cost),
        }
        for clip in clips
    ]


def _link_clip(batch: RunResult, clip: Clip, gateway: str | None) -> str:
    if clip.video_path is None or gateway is None:
        return clip.scene_id
    return f"[{clip.scene_id}]({gateway.rstrip('/')}/runs/{batch.run_id}/clips/{clip.scene_id}.mp4)"


def escape_markdown(text: str) -> str:
    """Return untrusted text as harmless Markdown: one line of at most 500 characters, without HTML and links."""
    shown = escape_unprintable(" ".join(text.split()))[:500]
    return re.sub(r"([\\`*_\[\]|#!])", r"\\\1", html.escape(shown, quote=False))
