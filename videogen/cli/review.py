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
from videogen.execution.options import PreparedJob, RunOptions
from videogen.job.choices import (
    CHOICES_NAME,
    Choices,
    TakeLabel,
    find_next_take,
    find_scene,
    make_take,
)
from videogen.job.model import Job, Scene
from videogen.job.prompts import compose_scenes
from videogen.results.clip import Clip
from videogen.results.takes import get_chosen_clips, get_scene_id, group_takes, make_label
from videogen.review import (
    Review,
    attribute_to_command,
    describe_retakes,
    find_takes,
    put_in_film,
    require_same_variants,
    require_take,
)
from videogen.text import is_whole_number, list_first

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
    drafts = {get_scene_id([clip]): clip for clip in get_chosen_clips(review.read_result())}
    for scene_id, clip in drafts.items():
        scene = find_scene(job, scene_id)
        described = _describe_take(job, scene, clip, choices)
        if "model" in changes:
            described.pop("tier", None)  # tiers are names of one model
        described |= changes
        if label := _find_same_take(choices, scene.id, described):
            change[scene.id] = {"takes": {label: {}}}
        else:
            change[scene.id] = {"takes": {str(find_next_take(job, choices, scene)): described}}
    for scene_id in _find_finished(job, options, review, change, drafts):
        print(f"{scene_id}: its chosen take is made like that already, and stays", file=sys.stderr)
        del change[scene_id]
    if not change:
        print("nothing is to be made", file=sys.stderr)
        return 0
    return _make_takes(job, options, review, change, file=file, dry_run=dry_run, asks=asks, flags=flags, always=True)


def _find_finished(
    job: Job, options: RunOptions, review: Review, change: Mapping[str, Mapping[str, Any]], drafts: Mapping[str, Clip]
) -> list[str]:
    """Return the scenes whose chosen take was made by the same model from the same inputs as the new one would be."""
    requests = {request.scene.id: request for request in _prepare_takes(job, options, review, change).plan.requests}
    ids = {scene_id: _list_take_ids(job, scene_id, each)[0] for scene_id, each in change.items()}
    return [
        scene_id
        for scene_id, take_id in ids.items()
        if take_id != drafts[scene_id].scene_id
        and drafts[scene_id].status == "success"
        and requests[take_id].model == drafts[scene_id].model
        and requests[take_id].prediction.inputs == drafts[scene_id].inputs
    ]


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
    options = _select_takes(job, options, change)
    if dry_run:
        with attribute_to_command(change):
            return show_plan(job, options, as_json=False, choices=review.preview_choices(change))
    prepared = _prepare_takes(job, options, review, change)  # reports problems before anything is written
    if asks and needs_confirmation(prepared, always=always):
        console = make_console(stderr=False)
        print_line(console, describe_provider(prepared))
        print_totals(console, prepared.plan)
        if not confirm_cost(prepared):
            return FAILED
    before, choices = review.read_text(), review.read_choices()
    take_ids = prepared.options.only
    if not prepared.plan.to_make and review.list_delivered().issuperset(take_ids):
        print("nothing is to be made: these takes were delivered before", file=sys.stderr)
        put_in_film(review, change, before=choices)
        return 0
    review.change_choices(change)
    try:
        code = run_job_file(job, options, file=file, asks=False, flags=flags)
    except JobLockedError:  # a refused command changes nothing
        review.restore(before)
        raise
    for scene_id in put_in_film(review, change, before=choices):
        print(f"{scene_id}: another take was chosen meanwhile, and stays in the film", file=sys.stderr)
    if missing := [take_id for take_id in take_ids if take_id not in review.list_delivered()]:
        print(
            f"not made: {list_first(missing)}. The same command and the next run make them. To drop a take, remove its "
            f"lines from {review.store.address}/{CHOICES_NAME}",
            file=sys.stderr,
        )
    return code


def _select_takes(job: Job, options: RunOptions, change: Mapping[str, Mapping[str, Any]]) -> RunOptions:
    ids = [take_id for scene_id, each in change.items() for take_id in _list_take_ids(job, scene_id, each)]
    return options.model_copy(update={"only": tuple(ids)})


def _list_take_ids(job: Job, scene_id: str, change: Mapping[str, Any]) -> list[str]:
    return [make_take(find_scene(job, scene_id), int(label)).id for label in change["takes"]]


def _prepare_takes(
    job: Job, options: RunOptions, review: Review, change: Mapping[str, Mapping[str, Any]]
) -> PreparedJob:
    options = _select_takes(job, options, change)
    with attribute_to_command(change):
        return asyncio.run(prepare_job(job, options, choices=review.preview_choices(change)))


# -- choose and rate --------------------------------------------------------------------------------------------------


def choose_takes(job: Job, options: RunOptions, choices: Sequence[str]) -> int:
    """Choose takes, each given as `SCENE=TAKE`, and list the takes. Without a choice, only list them."""
    review = Review.open(options.resolve_settings(), job.id)
    batch = review.read_result()
    change: dict[str, dict[str, Any]] = {}
    for text in choices:
        scene_id, label = _parse_take(text)
        if scene_id in change:
            raise InvalidError(f"{scene_id} is chosen twice: one take of a scene is in the film")
        clip = require_take(batch, scene_id, label)
        change[scene_id] = {"chosen": make_label(clip, find_takes(batch, scene_id))}
    if change:
        batch = review.change_choices(change) or batch
    for warning in review.find_warnings(job):
        print_line(make_console(stderr=True), f"warning: {warning}")
    console = make_console(stderr=False)
    for takes in group_takes(batch):
        if len(takes) > 1:
            print_line(console, _describe_takes(takes))
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
    given = {"rating": rating or None, "note": (note or "").strip() or None}
    change = {scene_id: {"takes": {str(label): {name: given[name] for name in said}}}}
    batch = review.change_choices(change) or batch
    print_line(make_console(stderr=False), _describe_takes(find_takes(batch, scene_id)))
    return 0


def _parse_take(text: str) -> tuple[str, TakeLabel]:
    scene_id, _, label = text.partition("=")
    if not scene_id or not label:
        raise InvalidError(f"{text!r} is not SCENE=TAKE, such as storm=2")
    return scene_id, int(label) if is_whole_number(label) else label


def _describe_takes(takes: Sequence[Clip]) -> str:
    return f"{get_scene_id(takes)}: {', '.join(_describe_label(take, takes) for take in takes)}"


def _describe_label(clip: Clip, takes: Sequence[Clip]) -> str:
    said = f"take {make_label(clip, takes)}"
    said += " (chosen)" if clip.chosen else ""
    said += f" {'★' * clip.rating}" if clip.rating else ""
    return said if clip.status == "success" else f"{said} ({clip.status})"
