"""A run's batch as Prefect artifacts: the verdict to read, the clips as a table."""

import html
import re

from prefect import get_run_logger
from prefect.artifacts import acreate_markdown_artifact, acreate_table_artifact

from videogen.clip import Batch, Clip
from videogen.errors import printable


async def publish(batch: Batch) -> None:
    """Records verdict and clips under keys of the job, so that its runs can be compared over time.

    Where Prefect does not take them the run goes without: its clips are delivered.
    """
    slug = re.sub(r"[^a-z0-9]+", "-", batch.job_id.lower()).strip("-") or "job"
    markdown, rows, of_job = verdict_markdown(batch), clip_rows(batch), f"Clips of {batch.job_id}"
    try:
        await acreate_markdown_artifact(key=f"{slug}-verdict", markdown=markdown, description=batch.verdict.reason)
        await acreate_table_artifact(key=f"{slug}-clips", table=rows, description=of_job)
    except Exception as exc:
        get_run_logger().warning("the artifacts of this run could not be published: %s", exc)


def verdict_markdown(batch: Batch) -> str:
    """What came of the run, what it cost, which clips failed and why."""
    lines = [
        f"# {batch.job_id}: {batch.verdict.status}",
        "",
        f"{batch.verdict.reason}.",
        "",
        "| clips | delivered | failed | cost | time | model | ratio |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        f"| {batch.total_clips} | {batch.successful_clips} | {batch.failed_clips} | ${batch.total_cost} "
        f"| {batch.total_generation_time:.1f} s | {_plain(batch.model)} | {batch.aspect_ratio} |",
    ]
    failures = [clip for clip in batch.clips if clip.error]
    if failures:
        lines += ["", "## Not delivered", "", *map(_failure_line, failures)]
        lines += ["", "Run the job again: what was delivered is reused, what failed is tried anew."]
    return "\n".join(lines) + "\n"


def _failure_line(clip: Clip) -> str:
    assert clip.error
    return f"- **{clip.scene_id}** ({clip.error.code}, {clip.attempts} attempts): {_plain(clip.error.message)}"


def clip_rows(batch: Batch) -> list[dict[str, object]]:
    """One row a clip, in scene order; durations in seconds, cost in USD."""
    return [
        {
            "scene": clip.scene_id,
            "status": "reused" if clip.reused else clip.status,
            "target": clip.target_duration,
            "requested": clip.requested_duration,
            "actual": clip.actual_duration,
            "size": f"{clip.width}x{clip.height}" if clip.width else None,
            "fps": clip.fps,
            "attempts": clip.attempts,
            "cost": str(clip.cost),
            "video": clip.video_path,
            "error": clip.error and clip.error.code,
        }
        for clip in batch.clips
    ]


def _plain(text: str) -> str:
    """Text from outside, harmless in Markdown: one line, no HTML, no links, at most 500 characters of it."""
    shown = printable(" ".join(text.split()))[:500]
    return re.sub(r"([\\`*_\[\]|#!])", r"\\\1", html.escape(shown, quote=False))
