"""Collect the takes of each scene of a job, from its last manifest and from the run in progress."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict

from videogen.job.choices import Choices, TakeLabel
from videogen.results.clip import Clip
from videogen.results.run_result import RunResult
from videogen.results.takes import get_scene_id, group_takes, make_label, mark_takes

ENDED = ("delivered", "failed")
"""States in which the event of a clip has all fields of the manifest."""


class TakeView(BaseModel):
    """One take of a scene. Money is in USD, lengths are in seconds."""

    model_config = ConfigDict(frozen=True)

    take_id: str
    """The clip's `scene_id` in the manifest."""
    take: int
    label: TakeLabel | None
    """How `choices.toml` names the take; None while that is not certain, because its run is in progress."""
    state: str
    """`delivered`, `failed`, `blocked`, or the state of a clip in progress: `waiting`, `running` or `retrying`."""
    is_in_progress: bool
    """Whether a run is making this take now, for the first time or again."""
    chosen: bool
    rating: int | None
    note: str | None
    prompt: str
    own_prompt: str | None
    """The prompt as it is in the job file, or in the description of the take, before the cast and the style are added.
    None if the take cannot be made again."""
    model: str | None
    seed: int | None
    cost: Decimal | None
    target_duration: float
    actual_duration: float | None
    width: int | None
    height: int | None
    warnings: tuple[str, ...]
    error: str | None
    sha256: str | None
    """Digest of the clip, which tells whether it is still the same."""
    video: str | None
    """Address of the clip, relative to that of the gateway."""
    poster: str | None
    remaining: float | None
    fraction: float | None


class SceneView(BaseModel):
    """The takes of one scene, in the order in which they were asked for."""

    scene_id: str
    takes: tuple[TakeView, ...]


class TakesView(BaseModel):
    """The takes of all scenes of a job, and the things that a visitor can do with them."""

    job_id: str
    run_id: str
    """The newest run of the job."""
    status: str
    """`running`, or the verdict of that run."""
    aspect_ratio: str | None
    is_reviewer: bool
    """Whether this visitor may act."""
    actions: tuple[str, ...]
    """Commands that the run in progress takes; empty if there is none, or if it takes none."""
    can_retake: bool
    retake_problem: str | None
    """Why takes cannot be made although the job file was named; None if they can."""
    scenes: tuple[SceneView, ...]

    def find_take(self, take_id: str) -> tuple[str, TakeView] | None:
        """Return the scene's id and the take with this id, or None."""
        found = ((scene.scene_id, take) for scene in self.scenes for take in scene.takes)
        return next(((scene_id, take) for scene_id, take in found if take.take_id == take_id), None)


@dataclass(frozen=True)
class RunInProgress:
    """A run that has not ended, as its events describe it."""

    run_id: str
    model: str | None
    aspect_ratio: str | None
    clips: Mapping[str, Mapping[str, Any]]
    """The clips by scene id, as `fold_events` returns them."""
    is_paused: bool = False

    @property
    def has_certain_labels(self) -> bool:
        """Whether the number alone names a take, because one model makes them all."""
        return "," not in (self.model or "")


@dataclass
class _Group:
    """The takes of one scene: those with all their fields, and those in progress."""

    scene_id: str
    clips: dict[str, Clip] = field(default_factory=dict)
    pending: dict[str, Mapping[str, Any]] = field(default_factory=dict)


def view_scenes(
    last: RunResult | None, run: RunInProgress | None, choices: Choices, own_prompts: Mapping[str, str]
) -> tuple[SceneView, ...]:
    """Return the takes of each scene in film order.

    Args:
        last: the manifest of the last run that ended; None if there was none.
        run: the run in progress, whose clips take the place of those of the manifest.
        choices: the choices as they are now.
        own_prompts: the prompts of scenes in the job file, by scene id; empty if takes cannot be made.
    """
    groups = _group(last, run)
    return tuple(_view_scene(group, last, run, choices, own_prompts.get(group.scene_id)) for group in groups)


def _group(last: RunResult | None, run: RunInProgress | None) -> Iterable[_Group]:
    groups: dict[str, _Group] = {}
    scene_ids: dict[str, str] = {}
    for takes in group_takes(last) if last else ():
        scene_id = get_scene_id(takes)
        groups[scene_id] = _Group(scene_id, {clip.scene_id: clip for clip in takes})
        scene_ids |= {clip.scene_id: scene_id for clip in takes}
    for take_id, clip in run.clips.items() if run else ():
        scene_id = scene_ids.get(take_id) or clip.get("take_of") or take_id
        group = groups.setdefault(scene_id, _Group(scene_id))
        if clip["state"] in ENDED:
            group.clips[take_id] = _read_clip(clip)
        else:
            group.pending[take_id] = clip
    return groups.values()


def _read_clip(clip: Mapping[str, Any]) -> Clip:
    return Clip.model_validate({name: value for name, value in clip.items() if name in Clip.model_fields})


def _view_scene(
    group: _Group, last: RunResult | None, run: RunInProgress | None, choices: Choices, own_prompt: str | None
) -> SceneView:
    ended = list(group.clips.values())
    in_manifest = {clip.scene_id for clip in last.clips} if last else set()
    entries = choices.get_entries(group.scene_id)
    views = []
    for clip in mark_takes(ended, group.scene_id, choices) if ended else ():
        is_certain = clip.scene_id in in_manifest or run is None or run.has_certain_labels
        label = make_label(clip, ended) if is_certain else None
        entry = entries.get(str(label))
        prompt = (entry and entry.prompt) or own_prompt if own_prompt else None
        is_of_run = run is not None and run.clips.get(clip.scene_id, {}).get("state") == "delivered"
        run_id = run.run_id if run and is_of_run else last.run_id if last else ""
        views.append(_view_ended(clip, label, prompt, run_id, group.pending.get(clip.scene_id)))
    views += [_view_pending(id_, clip) for id_, clip in group.pending.items() if id_ not in group.clips]
    return SceneView(scene_id=group.scene_id, takes=tuple(sorted(views, key=lambda view: view.take)))


def _view_ended(
    clip: Clip, label: TakeLabel | None, own_prompt: str | None, run_id: str, pending: Mapping[str, Any] | None
) -> TakeView:
    is_delivered = clip.status == "success"
    address = f"runs/{quote(run_id, safe='')}/clips/{quote(clip.scene_id, safe='')}"
    return TakeView(
        take_id=clip.scene_id,
        take=clip.take or 1,
        label=label,
        state=pending["state"] if pending else "delivered" if is_delivered else clip.status,
        is_in_progress=pending is not None,
        chosen=bool(clip.chosen) and is_delivered,
        rating=clip.rating,
        note=clip.note,
        prompt=clip.prompt or "",
        own_prompt=own_prompt,
        model=clip.model,
        seed=clip.seed,
        cost=clip.cost_when_made,
        target_duration=clip.target_duration,
        actual_duration=clip.actual_duration,
        width=clip.width,
        height=clip.height,
        warnings=clip.warnings,
        error=f"{clip.error.code}: {clip.error.message}" if clip.error else None,
        sha256=clip.sha256,
        video=f"{address}.mp4" if is_delivered else None,
        poster=f"{address}.jpg" if is_delivered else None,
        **_get_progress(pending or {}),
    )


def _view_pending(take_id: str, clip: Mapping[str, Any]) -> TakeView:
    error = clip.get("error")
    return TakeView(
        take_id=take_id,
        take=clip.get("take") or 1,
        label=None,
        state=clip["state"],
        is_in_progress=True,
        chosen=False,
        rating=None,
        note=None,
        prompt=clip.get("prompt") or "",
        own_prompt=None,
        model=None,
        seed=None,
        cost=None,
        target_duration=clip.get("target_duration") or 0,
        actual_duration=None,
        width=None,
        height=None,
        warnings=(),
        error=f"An attempt failed: {error['message']}" if error else None,
        sha256=None,
        video=None,
        poster=None,
        **_get_progress(clip),
    )


def _get_progress(clip: Mapping[str, Any]) -> dict[str, Any]:
    return {"remaining": clip.get("remaining"), "fraction": clip.get("fraction")}
