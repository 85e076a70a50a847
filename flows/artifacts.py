"""A run's batch as Prefect artifacts: the verdict to read, the clips as a table, their posters as a picture."""

import asyncio
import base64
import html
import re
from collections.abc import Sequence

from prefect import get_run_logger
from prefect.artifacts import acreate_markdown_artifact, acreate_table_artifact

from videogen.bootstrap import Session
from videogen.clip import Clip, RunResult
from videogen.contact_sheet import preview, status, time
from videogen.errors import escape_unprintable
from videogen.planning import Plan

SHOWN_ROWS = 200
"""Of a table or a list: the page that shows it draws all of it at once. The manifest has every clip."""
STEPS = {
    "authentication": "The token is refused: set REPLICATE_API_TOKEN to one that works.",
    "billing": "The account is out of credit: top it up.",
    "budget": "The budget is spent: raise `max_cost` if these clips are worth it.",
    "duration": "The model delivers another length than asked: raise `duration_tolerance`, or take another model.",
    "input": "The provider refuses the input: change the scene; `videogen models check` looks for a changed model.",
    "moderation": "The model's moderation refuses the prompt or a picture: change them, or take another model.",
    "reference": "A reference picture cannot be used: replace it.",
    "storage": "The clips could not be written: free space in the out folder.",
    "timeout": "The model takes longer than it is given: raise `timeout_seconds`.",
}
"""By the code of a failure: what helps against it."""


async def publish(batch: RunResult, session: Session) -> None:
    """Records verdict and clips under keys of the job, so that its runs can be compared over time.

    Where Prefect does not take them the run goes without: its clips are delivered.
    """
    job, gateway = batch.job_id, session.settings.gateway_url
    picture = await asyncio.to_thread(preview, session.run.store)
    verdict = verdict_markdown(batch, session.plan, gateway=gateway, picture=picture)
    where = f"Clips of {job} in {session.run.folder}"
    for problem in await asyncio.gather(
        acreate_markdown_artifact(key=key_of(job, "verdict"), markdown=verdict, description=batch.verdict.reason),
        acreate_table_artifact(key=key_of(job, "clips"), table=clip_rows(batch, gateway), description=where),
        return_exceptions=True,
    ):
        if isinstance(problem, BaseException):
            get_run_logger().warning("an artifact of this run could not be published: %s", problem)


def key_of(job_id: str, what: str) -> str:
    """An artifact's key: small letters, digits and dashes."""
    slug = re.sub(r"[^a-z0-9]+", "-", job_id.lower()).strip("-") or "job"
    return f"{slug}-{what}"


def verdict_markdown(batch: RunResult, plan: Plan, *, gateway: str | None = None, picture: bytes | None = None) -> str:
    """What came of the run, what it cost beside what was planned, which clips failed, why, and what to do next."""
    lines = [
        f"# {batch.job_id}: {batch.verdict.status}",
        "",
        f"{batch.verdict.reason}.",
        "",
        "| | planned | actual |",
        "| --- | ---: | ---: |",
        f"| clips | {batch.total_clips} | {batch.successful_clips} delivered, {batch.failed_clips} failed |",
        f"| of these new | {len(plan.to_create)} | {sum(not clip.reused for clip in batch.clips if not clip.error)} |",
        f"| cost | ${plan.total_cost}, at most ${plan.worst_case_cost} | ${batch.total_cost} |",
        f"| time | | {time(batch.total_generation_time)} |",
        "",
        f"Model {_plain(batch.model)}, ratio {batch.aspect_ratio}, run {batch.run_id}.",
    ]
    if gateway:
        lines += ["", f"[Watch the clips]({gateway.rstrip('/')}/?run={batch.run_id})"]
    if failures := [clip for clip in batch.clips if clip.error]:
        lines += ["", "## Not delivered", "", *map(_failure_line, failures[:SHOWN_ROWS])]
        if len(failures) > SHOWN_ROWS:
            lines += [f"- … and {len(failures) - SHOWN_ROWS} more: manifest.json has them all"]
        lines += ["", "## What to do next", "", *_next_steps(failures)]
    if picture:
        lines += ["", "## Posters", "", f"![]({_address(picture)})"]
    return "\n".join(lines) + "\n"


def _failure_line(clip: Clip) -> str:
    assert clip.error
    tries = "1 attempt" if clip.attempts == 1 else f"{clip.attempts} attempts"
    return f"- **{clip.scene_id}** ({clip.error.code}, {tries}): {_plain(clip.error.message)}"


def _next_steps(failures: Sequence[Clip]) -> list[str]:
    codes = {clip.error.code for clip in failures if clip.error}
    steps = [f"- {STEPS[code]}" for code in STEPS if code in codes]
    return [*steps, "- Run the job again: what was delivered is reused, what failed is tried anew."]


def _address(picture: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(picture).decode()}"


def clip_rows(batch: RunResult, gateway: str | None = None) -> list[dict[str, object]]:
    """One row a clip, in scene order; durations in seconds, cost in USD. Of a long job, those that failed first.

    With the address of a gateway the scene's name leads to the clip.
    """
    clips = batch.clips
    if len(clips) > SHOWN_ROWS:
        clips = tuple(sorted(clips, key=lambda clip: clip.error is None)[:SHOWN_ROWS])
    differ = any(clip.original_target_duration != clip.target_duration for clip in clips)
    return [
        {
            "scene": _linked(batch, clip, gateway),
            "status": clip.error.code if clip.error else status(clip),
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


def _linked(batch: RunResult, clip: Clip, gateway: str | None) -> str:
    if clip.video_path is None or gateway is None:
        return clip.scene_id
    return f"[{clip.scene_id}]({gateway.rstrip('/')}/runs/{batch.run_id}/clips/{clip.scene_id}.mp4)"


def _plain(text: str) -> str:
    """Text from outside, harmless in Markdown: one line, no HTML, no links, at most 500 characters of it."""
    shown = escape_unprintable(" ".join(text.split()))[:500]
    return re.sub(r"([\\`*_\[\]|#!])", r"\\\1", html.escape(shown, quote=False))
