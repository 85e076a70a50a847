"""Show the plan of a job, and check a job file."""

import asyncio
import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from videogen.app import prepare_job
from videogen.cli.console import make_console, make_table, print_line
from videogen.cli.models import format_inputs
from videogen.cli.progress import format_clock
from videogen.errors import InvalidError, Problem, StorageError, ValidationError
from videogen.execution.judging import open_judge
from videogen.execution.options import PreparedJob, RunOptions
from videogen.job.choices import Choices, add_takes, parse_choices, read_choices_text
from videogen.job.model import Job
from videogen.job.prompts import compose_scenes
from videogen.planning.budgets import list_budget_lines
from videogen.planning.plan import Plan
from videogen.planning.requests import ClipRequest
from videogen.planning.rules import find_budget_problems
from videogen.planning.schedule import Schedule
from videogen.planning.validation import ValidatedJob, load_and_validate, plan_offline
from videogen.planning.ways_out import find_ways_out
from videogen.references.load import check_references
from videogen.settings import Settings, read_settings
from videogen.storage.base import is_remote
from videogen.storage.local import find_obstacle
from videogen.storage.open import open_folder
from videogen.text import escape_json, format_money, list_first

MAX_LENGTHS = 3
"""Number of lengths of segments that are shown one by one."""

# -- plan -------------------------------------------------------------------------------------------------------------


def show_plan(
    job: Job, options: RunOptions, *, as_json: bool, frames: Path | None = None, choices: Choices | None = None
) -> int:
    """Print the plan of a job, and write its start frames to `frames` unless that is None. Return the exit code.

    `choices` are its takes, in place of those in its folder.
    """
    asyncio.run(_show_plan(job, options, as_json=as_json, frames=frames, choices=choices))
    return 0


async def _show_plan(
    job: Job, options: RunOptions, *, as_json: bool, frames: Path | None, choices: Choices | None
) -> None:
    """Print the plan. Return nothing, because `asyncio.run` takes the `repr` of a result, which could be large."""
    if frames and (obstacle := find_obstacle(frames.absolute())):
        raise InvalidError(f"--frames: {obstacle}. Choose another folder")
    prepared = await prepare_job(job, options, choices=choices, for_run=False)
    plan = prepared.plan
    written = _write_frames(prepared, frames) if frames else []
    if as_json:
        print(escape_json(json.dumps(plan.summary(), indent=2)))
        return
    console = make_console(stderr=False)
    print_line(console, describe_provider(prepared))
    console.print(_make_plan_table(plan))
    ratios = {(request.model, request.aspect_ratio): request.ratio_inputs for request in plan.requests}
    for (model, ratio), inputs in ratios.items():
        print_line(console, f"sent to {model} for {ratio}: {format_inputs(inputs)}")
    for line in _describe_other_inputs(plan):
        print_line(console, line)
    schedule = plan.schedule
    if schedule.has_edges and plan.to_make:
        _print_graph(console, schedule)
    print_totals(console, plan)
    if prepared.provider == "replicate" and plan.to_make:
        print_line(console, f"expected to take about {format_clock(plan.expected_s)} with {plan.concurrency} at once")
    if frames:
        print_line(console, _describe_frames(written, frames))


def _print_graph(console: Console, schedule: Schedule) -> None:
    """Print which clips wait for others, and the scenes that take longest one after another."""
    for number, wave in enumerate(schedule.waves, 1):
        print_line(console, f"wave {number}: {list_first(wave, most=12)}")
    typically = format_clock(max(schedule.paths_s.values()))
    print_line(
        console, f"longest path: {list_first(schedule.critical_path, most=12, separator=' -> ')}, typically {typically}"
    )


def _describe_other_inputs(plan: Plan) -> Iterator[str]:
    """Yield a line for each set of inputs that are sent besides those of the ratio, the length and the scene itself."""
    scenes: dict[tuple[str, str], list[str]] = {}
    for request in plan.requests:
        of_scene = {request.scene.prompt, request.scene.negative_prompt, request.scene.seed}
        others = {
            name: value
            for name, value in request.prediction.inputs_without_images.items()
            if name not in request.ratio_inputs
            and value not in {part.requested_duration for part in request.parts}
            and not (isinstance(value, str | int) and value in of_scene)
        }
        if others:
            scenes.setdefault((request.model, format_inputs(others)), []).append(request.scene.id)
    for (model, inputs), ids in scenes.items():
        which = "" if len(ids) == len(plan.requests) else f" ({list_first(ids)})"
        yield f"also sent to {model}: {inputs}{which}"


def _describe_frames(written: list[Path], folder: Path) -> str:
    if not written:
        return "no start frames were written: no scene has one that is composed of its reference pictures"
    frames = f"{len(written)} start frame{'' if len(written) == 1 else 's'}"
    return f"{frames} written to {folder}: look at them before you run the job"


def _write_frames(prepared: PreparedJob, folder: Path) -> list[Path]:
    from videogen.providers.reference_images import write_frames

    try:
        return write_frames(prepared.plan.requests, prepared.references, folder)
    except StorageError as exc:
        raise InvalidError(f"--frames: {exc}. Choose another folder") from exc


def _make_plan_table(plan: Plan) -> Table:
    table = make_table("scene", "target s", "buffered s", "request s", "adds %", "cost $", "references")
    for request in plan.requests:
        table.add_row(
            request.scene.id,
            f"{request.scene.target_duration:g}",
            f"{request.buffered_duration:g}",
            f"{'≤ ' if request.length_is_automatic else ''}{_format_lengths(request)}",
            f"{request.buffer_cost_impact:g}",
            _format_price(plan, request),
            ", ".join(_list_pictures(request)),
        )
    return table


def _format_lengths(request: ClipRequest) -> str:
    """Return the lengths of the parts, such as `10 + 10 + 5`, or `12 × 10 + 5` if there are many."""
    lengths = [f"{part.requested_duration:g}" for part in request.parts]
    if len(lengths) <= MAX_LENGTHS:
        return " + ".join(lengths)
    return " + ".join(f"{count} × {length}" if count > 1 else length for length, count in Counter(lengths).items())


def _list_pictures(request: ClipRequest) -> Iterator[str]:
    """Yield how the pictures of a scene are used."""
    if request.scene.has_start_frame:
        yield f"continues {_find_upstream(request, at_the_cut=True)}" if request.scene.continues else "start"
    if request.scene.has_end_frame:
        yield f"ends on {_find_upstream(request, at_the_cut=False)}" if request.scene.ends_on else "end"
    yield from (f"{len(uses)} {name}" for name, uses in request.references if uses)


def _find_upstream(request: ClipRequest, *, at_the_cut: bool) -> str:
    """Return the id of the clip from whose cut the request goes on, or on whose first frame it ends."""
    frames = (frame for frame in request.frames_of_clips if (frame.cut_s is not None) == at_the_cut)
    return next((str(frame.scene_id) for frame in frames), "")


def _format_price(plan: Plan, request: ClipRequest) -> str:
    if request.scene.id in plan.reused:
        return "reused"
    if request.scene.id in plan.resumed:
        return "continued"
    cost = plan.get_remaining_cost(request)
    return f"{cost}" if request.cost_is_exact else f"≈ {cost}"


def print_totals(console: Console, plan: Plan) -> None:
    for warning in plan.warnings:
        print_line(console, f"warning: {warning}")
    if not plan.to_make:
        print_line(
            console, f"{plan.job_id}: all {len(plan.requests)} clips were delivered before and are reused, for $0"
        )
        return
    if plan.spent_before or plan.max_cost is not None:
        print_line(console, f"{plan.job_id}: {plan.describe_spending()}")
    for line in list_budget_lines(plan):
        print_line(console, line)
    if plan.resumed:
        print_line(
            console,
            f"{plan.job_id}: earlier runs began the predictions of {len(plan.resumed)} clips; they are continued and "
            "cost nothing more, unless they were cancelled meanwhile",
        )
    at_most = format_money(plan.worst_case_cost)
    print_line(
        console,
        f"{plan.job_id}: {len(plan.to_make)} of {len(plan.requests)} clips to make with {plan.model} "
        f"at {plan.aspect_ratio} for {plan.describe_cost()}; {at_most} if every attempt is needed; "
        f"the buffer adds {plan.buffer_cost_impact:g} % on average",
    )


def describe_provider(prepared: PreparedJob) -> str:
    place = "" if prepared.provider == "local" else f" at {prepared.origin}"
    return f"provider: {prepared.provider}{place} ({prepared.provider_reason})"


# -- check ------------------------------------------------------------------------------------------------------------


def check_job(path: Path, registry: Path | None, *, as_json: bool) -> int:
    """Print the problems of the job and the registry, or one line that sums up the job. Return the exit code."""
    settings = read_settings()
    try:
        checked = load_and_validate(path, registry or settings.registry)
        planned = plan_offline(checked, buffer=settings.duration_buffer)
        problems = [
            *_find_judge_problems(checked.job, settings),
            *_find_choice_problems(checked.job, settings),
            *_find_reference_problems(checked.job, path),
        ]
        if not _may_reuse_clips(settings, checked.job.id):
            ways_out = _describe_ways_out(checked, planned, settings.duration_buffer)
            problems += find_budget_problems(planned, ways_out=ways_out)
        if problems:
            raise checked.source.with_positions(ValidationError(problems))
    except ValidationError as exc:
        if not as_json:
            raise
        print(escape_json(json.dumps({"problems": [problem.summary() for problem in exc.problems]}, indent=2)))
        return 2
    if as_json:
        names = {"job_id", "model", "aspect_ratio", "total_cost", "cost_is_exact"}
        told = {name: value for name, value in planned.summary().items() if name in names}
        print(escape_json(json.dumps({"problems": [], "scenes": len(planned.requests), **told}, indent=2)))
        return 0
    scenes = f"{len(planned.requests)} scene{'' if len(planned.requests) == 1 else 's'}"
    at = f"{planned.model} at {planned.aspect_ratio}"
    cost = planned.describe_cost()
    if planned.max_cost is not None and planned.is_above_cap:
        cost += f", more than the {format_money(planned.max_cost)} allowed unless clips of earlier runs are reused"
    print_line(make_console(stderr=False), f"{path.name}: {scenes} for {at}, {cost}; no problems found")
    return 0


def _find_judge_problems(job: Job, settings: Settings) -> tuple[Problem, ...]:
    try:
        if job.judge:
            open_judge(job.judge, allows_programs=settings.allow_judges)
    except ValidationError as exc:
        return exc.problems
    return ()


def _find_choice_problems(job: Job, settings: Settings) -> tuple[Problem, ...]:
    """Return the problems of the `choices.toml` that earlier runs of the job left on this machine."""
    if is_remote(address := settings.get_job_folder(job.id)):
        return ()
    try:
        add_takes(job, parse_choices(read_choices_text(open_folder(address))))
    except ValidationError as exc:
        return exc.problems
    return ()


def _describe_ways_out(checked: ValidatedJob, planned: Plan, buffer: float | None) -> list[str]:
    """Return the flags with which a job that is above its cap can be run, each with its price."""
    if not planned.is_above_cap:
        return []
    today = datetime.now(UTC).date()

    def make_plan(job: Job) -> Plan:
        return plan_offline(replace(checked, job=job), buffer=buffer, today=today)

    ways = find_ways_out(planned, checked.job, checked.registry, make_plan=make_plan)
    return [way.describe() for way in ways]


def _find_reference_problems(job: Job, path: Path) -> tuple[Problem, ...]:
    try:
        asyncio.run(check_references(compose_scenes(job), path.absolute().parent))
    except ValidationError as exc:
        return exc.problems
    return ()


def _may_reuse_clips(settings: Settings, job_id: str) -> bool:
    """Return whether an earlier run may have delivered clips of the job, which cost nothing again."""
    folder = settings.get_job_folder(job_id)
    return is_remote(folder) or os.path.lexists(folder)
