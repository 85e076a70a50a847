"""The commands of a review: make further takes, choose among them, rate them, and make the final ones."""

import asyncio
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from videogen.app import prepare_job
from videogen.cli.confirm import confirm_cost, needs_confirmation
from videogen.cli.console import make_console, print_line
from videogen.cli.exit_codes import FAILED
from videogen.cli.plan import describe_provider, print_totals, show_plan
from videogen.cli.run import run_job_file
from videogen.errors import InvalidError, JobLockedError
from videogen.execution.options import RunOptions
from videogen.job.choices import Choices, TakeLabel, find_next_take, find_scene, make_take
from videogen.job.model import Job, Scene
from videogen.job.prompts import compose_scenes
from videogen.results.clip import Clip
from videogen.results.takes import get_chosen_clips, get_scene_id, group_takes, make_label
from videogen.review import Review, describe_retakes, find_takes, require_same_variants, require_take
from videogen.text import is_whole_number

# -- retake and finish ------------------------------------------------------------------------------------------------


def retake_scene(
    job: Job,
    options: RunOptions,
    scene_id: str,
    changes: dict[str, Any],
    *,
    takes: int,
    file: Path,
    dry_run: bool,
    asks: bool,
    flags: Sequence[str],
) -> int:
    """Make further takes of a scene, and return the exit code of the run. `changes` are fields of the scene."""
    review = _open_review(job, options)
    batch = review.find_result()
    if batch and len(job.models_to_run) > 1 and "model" not in changes:
        chosen = {get_scene_id([clip]): clip for clip in get_chosen_clips(batch)}
        changes = {"model": chosen[scene_id].model} | changes if scene_id in chosen else changes
    delivered = review.list_delivered()
    retakes = describe_retakes(job, review.read_choices(), scene_id, changes, takes=takes, delivered=delivered)
    options = options.model_copy(update={"only": retakes.take_ids})
    return _make_takes(job, options, review, retakes.change, file=file, dry_run=dry_run, asks=asks, flags=flags)


def finish_job(
    job: Job,
    options: RunOptions,
    changes: dict[str, Any],
    *,
    file: Path,
    dry_run: bool,
    asks: bool,
    flags: Sequence[str],
) -> int:
    """Make the chosen take of each scene again with these changes, and return the exit code of the run."""
    review = _open_review(job, options)
    choices = review.read_choices()
    change: dict[str, dict[str, Any]] = {}
    only: list[str] = []
    for clip in get_chosen_clips(review.read_result()):
        scene = find_scene(job, get_scene_id([clip]))
        described = _describe_take(job, scene, clip, choices) | changes
        if label := _find_same_take(choices, scene.id, described):
            number = int(label)
        else:
            number = find_next_take(job, choices, scene)
            change[scene.id] = {"chosen": None, "takes": {str(number): described}}
        only.append(make_take(scene, number).id)
    options = options.model_copy(update={"only": tuple(only)})
    return _make_takes(job, options, review, change, file=file, dry_run=dry_run, asks=asks, flags=flags, always=True)


def _describe_take(job: Job, scene: Scene, clip: Clip, choices: Choices) -> dict[str, Any]:
    """Return how the take differs from its scene in the job file, which may have changed since it was made."""
    entry = choices.get_entries(scene.id).get(str(clip.take))
    described = dict(entry.changes) if entry else {}
    if len(job.models_to_run) > 1:
        described.setdefault("model", clip.model)
    take = make_take(scene, clip.take or 1, **described)
    (composed,) = compose_scenes(job.model_copy(update={"scenes": (take,)})).scenes
    if clip.prompt is not None and clip.prompt != composed.prompt:
        if job.cast or job.style or job.variables:
            print(
                f"warning: {scene.id}: its chosen take had another prompt than the job file now gives", file=sys.stderr
            )
        else:
            described["prompt"] = clip.prompt
    if clip.seed is not None and clip.seed != take.seed:
        described["seed"] = clip.seed
    return described


def _find_same_take(choices: Choices, scene_id: str, described: dict[str, Any]) -> str | None:
    """Return the newest take that is described like this already, as after a run that was interrupted."""
    entries = choices.get_entries(scene_id)
    return next((label for label in reversed(list(entries)) if entries[label].changes == described), None)


def _open_review(job: Job, options: RunOptions) -> Review:
    """Raise `InvalidError` if the last run made other variants of the scenes than the job file asks for."""
    review = Review.open(options.resolve_settings(), job.id)
    require_same_variants(job, review)
    return review


def _make_takes(
    job: Job,
    options: RunOptions,
    review: Review,
    change: dict[str, dict[str, Any]],
    *,
    file: Path,
    dry_run: bool,
    asks: bool,
    flags: Sequence[str],
    always: bool = False,
) -> int:
    """Make takes that a change of the choices describes. With `asks`, a price above `VIDEOGEN_CONFIRM_ABOVE` has to be
    confirmed first, and with `always` every price if there is a terminal."""
    choices = review.preview_choices(change)
    if dry_run:
        return show_plan(job, options, as_json=False, choices=choices)
    prepared = asyncio.run(prepare_job(job, options, choices=choices))  # reports problems before anything is written
    if asks and needs_confirmation(prepared, always=always):
        console = make_console(stderr=False)
        print_line(console, describe_provider(prepared))
        print_totals(console, prepared.plan)
        if not confirm_cost(prepared):
            return FAILED
    before = review.read_text()
    review.change_choices({scene_id: {"takes": each["takes"]} for scene_id, each in change.items()})
    try:
        code = run_job_file(job, options, file=file, asks=False, flags=flags)
    except JobLockedError:  # a refused command changes nothing
        review.restore(before)
        raise
    _drop_former_choices(job, review, change)
    return code


def _drop_former_choices(job: Job, review: Review, change: Mapping[str, Mapping[str, Any]]) -> None:
    """Have the new takes in the film, of those scenes whose new takes were delivered."""
    delivered, choices = review.list_delivered(), review.read_choices()
    done = {
        scene_id: {"chosen": None}
        for scene_id, each in change.items()
        if choices.get_chosen(scene_id) is not None
        and all(make_take(find_scene(job, scene_id), int(label)).id in delivered for label in each["takes"])
    }
    if done:
        review.change_choices(done)


# -- choose and rate --------------------------------------------------------------------------------------------------


def choose_takes(job_id: str, options: RunOptions, choices: Sequence[str]) -> int:
    """Choose takes, each given as `SCENE=TAKE`, and list the takes. Without a choice, only list them."""
    review = Review.open(options.resolve_settings(), job_id)
    batch = review.read_result()
    change: dict[str, dict[str, Any]] = {}
    for text in choices:
        scene_id, label = _parse_take(text)
        clip = require_take(batch, scene_id, label)
        change[scene_id] = {"chosen": make_label(clip, find_takes(batch, scene_id))}
    if change:
        batch = review.change_choices(change) or batch
    console = make_console(stderr=False)
    for takes in group_takes(batch):
        if len(takes) > 1:
            labels = [_describe_label(take, takes) for take in takes]
            print_line(console, f"{get_scene_id(takes)}: {', '.join(labels)}")
    if all(len(takes) == 1 for takes in group_takes(batch)):
        print_line(console, "each scene has one take: `videogen retake` makes another")
    return 0


def rate_take(job_id: str, options: RunOptions, take: str, rating: int | None, note: str | None) -> int:
    """Rate a take, given as `SCENE=TAKE`, and note something on it."""
    review = Review.open(options.resolve_settings(), job_id)
    batch = review.read_result()
    scene_id, label = _parse_take(take) if "=" in take else (take, None)
    takes = find_takes(batch, scene_id)
    clip = next((each for each in takes if each.chosen), takes[0])
    if label is not None:
        clip = require_take(batch, scene_id, label, is_delivered=False)
    said = {name: value for name, value in (("rating", rating), ("note", note)) if value is not None}
    if not said:
        raise InvalidError("give a rating from 1 to 5, --note, or both")
    label = make_label(clip, takes)
    review.change_choices({scene_id: {"takes": {str(label): {name: value or None for name, value in said.items()}}}})
    return 0


def _parse_take(text: str) -> tuple[str, TakeLabel]:
    scene_id, _, label = text.partition("=")
    if not scene_id or not label:
        raise InvalidError(f"{text!r} is not SCENE=TAKE, such as storm=2")
    return scene_id, int(label) if is_whole_number(label) else label


def _describe_label(clip: Clip, takes: Sequence[Clip]) -> str:
    said = f"take {make_label(clip, takes)}"
    said += " (chosen)" if clip.chosen else ""
    said += f" {'★' * clip.rating}" if clip.rating else ""
    return said if clip.status == "success" else f"{said} ({clip.status})"
