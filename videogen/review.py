"""Read and change the choices of a job, and bring the files of its last run up to date with them."""

from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from filelock import FileLock

from videogen.errors import InvalidError, Problem, StorageError, ValidationError
from videogen.execution.recovery import read_manifest
from videogen.job.choices import (
    CHOICES_NAME,
    Choices,
    TakeLabel,
    find_choice_warnings,
    find_next_take,
    find_scene,
    find_take_numbers,
    make_take,
    parse_choices,
    read_choices_text,
    write_choices,
)
from videogen.job.model import Job
from videogen.reports import contact_sheet, contact_sheet_image
from videogen.reports.media_root import MediaRoot
from videogen.reports.rough_cut import ROUGH_CUT_NAME
from videogen.reports.timeline import TIMELINE_NAMES, write_timeline
from videogen.results.clip import Clip
from videogen.results.run_result import RunResult
from videogen.results.takes import (
    apply_choices,
    choose_take,
    find_take,
    find_take_warnings,
    find_unmade_scenes,
    get_chosen_clips,
    get_scene_id,
    group_takes,
    make_label,
)
from videogen.settings import Settings
from videogen.source_files.messages import did_you_mean
from videogen.storage.base import Store
from videogen.storage.open import open_store
from videogen.text import list_first

LOCK_NAME = ".choices.lock"


@dataclass(frozen=True)
class Review:
    """The folder of a job whose clips are looked at and chosen."""

    job_id: str
    store: Store
    lock: FileLock

    @classmethod
    def open(cls, settings: Settings, job_id: str) -> "Review":
        """Return the review of the job with this id. Raise `SettingsError` if its folder cannot be opened."""
        work_folder = settings.get_work_folder(job_id)
        store = open_store(settings.get_job_folder(job_id), work_folder)
        store.scratch("choices")  # makes the folder
        return cls(job_id, store, FileLock(work_folder / LOCK_NAME))

    def read_text(self) -> str | None:
        """Return the text of `choices.toml`; None if there is no file. Raise `ValidationError` unless it is text."""
        return read_choices_text(self.store)

    def read_choices(self) -> Choices:
        """Return the choices so far. Raise `ValidationError` with every problem of the file."""
        return parse_choices(self.read_text())

    def find_warnings(self, job: Job) -> list[str]:
        """Return a warning for each scene and each take in `choices.toml` that does not exist."""
        choices = self.read_choices()
        return [*find_choice_warnings(job, choices), *find_take_warnings(job, choices, self.find_result())]

    def restore(self, text: str | None) -> None:
        """Write an earlier text of `choices.toml` again."""
        with self._hold_lock():
            self.store.put_text(write_choices(None, {}) if text is None else text, CHOICES_NAME)
        self.change_choices({})

    def preview_choices(self, changes: Mapping[str, Mapping[str, Any]]) -> Choices:
        """Return the choices with changes, see `write_choices`, which are not written."""
        text = self.read_text()
        written = parse_choices(text)
        with attribute_to_command(changes):
            return parse_choices(write_choices(text, changes)).with_places_of(written)

    def change_choices(self, changes: Mapping[str, Mapping[str, Any]]) -> RunResult | None:
        """Write the changes to `choices.toml`, see `write_choices`, then `manifest.json`, the timelines and the contact
        sheet.

        Return the result of the last run with the new choices; None if there was no run.
        """
        with self._hold_lock():
            choices, text = self.preview_choices(changes), write_choices(self.read_text(), changes)
            self.store.put_text(text, CHOICES_NAME)
            if (batch := read_manifest(self.store)) is None:
                return None
            batch = apply_choices(batch, choices)
            self.store.put_text(batch.manifest(), "manifest.json")
        self.write_timelines(batch)
        contact_sheet_image.write_image(batch, self.store)
        self.write_page(batch)
        return batch

    @contextmanager
    def _hold_lock(self) -> Iterator[None]:
        """Keep other processes from writing the choices. Raise `StorageError` if the folder cannot be written."""
        try:
            self.lock.acquire()
        except OSError as exc:
            raise StorageError(f"{self.lock.lock_file} cannot be written: {exc.strerror or exc}") from exc
        try:
            yield
        finally:
            self.lock.release()

    def find_missing_files(self, batch: RunResult) -> list[str]:
        """Return the names of the chosen clips whose files are not in the folder any more."""
        names = [clip.video_path for clip in get_chosen_clips(batch) if clip.status == "success"]
        return [name for name in names if name and not self.store.sha256(name)]

    def write_timelines(self, batch: RunResult, *, media_root: MediaRoot = None) -> None:
        """Write the timelines for editing programs. Raise `StorageError` if one cannot be written."""
        for name in TIMELINE_NAMES:
            write_timeline(name, batch, self.store, media_root=media_root)

    def write_page(self, batch: RunResult) -> None:
        """Write the contact sheet to play, with links to the files that are there."""
        contact_sheet.write_page(batch, {}, self.store, files=self._list_files())

    def find_result(self) -> RunResult | None:
        """Return the manifest of the last run; None if there was none."""
        return read_manifest(self.store)

    def list_delivered(self) -> frozenset[str]:
        """Return the ids of the clips that the last run delivered, or reused."""
        batch = self.find_result()
        return frozenset(clip.scene_id for clip in batch.clips if clip.status == "success") if batch else frozenset()

    def read_result(self) -> RunResult:
        """Return the result of the last run with the choices as they are. Raise `InvalidError` if there was none."""
        batch = self.find_result()
        if batch is None and self.store.sha256("manifest.json"):
            raise InvalidError(f"manifest.json in {self.store.address} is damaged: run the job, which writes it again")
        if batch is None:
            raise InvalidError(
                f"there is no manifest.json in {self.store.address}: run the job first, or wait for the end of its "
                "first run"
            )
        return apply_choices(batch, self.read_choices())

    def _list_files(self) -> list[str]:
        names = ("manifest.json", contact_sheet.IMAGE_NAME, *TIMELINE_NAMES, ROUGH_CUT_NAME)
        return [name for name in names if self.store.sha256(name)]


def find_takes(batch: RunResult, scene_id: str) -> tuple[Clip, ...]:
    """Return the takes of a scene. Raise `InvalidError` if the run had no such scene."""
    groups = {get_scene_id(takes): takes for takes in group_takes(batch)}
    unmade = {scene.scene_id for scene in find_unmade_scenes(batch)}
    if scene_id in unmade:
        raise InvalidError(f"{scene_id} has no take yet, because the last run made other scenes: run the job")
    if scene_id not in groups:
        raise InvalidError(f"{scene_id!r} is no scene of {batch.job_id}{did_you_mean(scene_id, [*groups, *unmade])}")
    return groups[scene_id]


def require_take(batch: RunResult, scene_id: str, label: TakeLabel, *, is_delivered: bool = True) -> Clip:
    """Return the take of a scene with this label.

    Raises:
        InvalidError: there is none, or it was not delivered although `is_delivered` is asked for.
    """
    takes = find_takes(batch, scene_id)
    clip = find_take(takes, label)
    labels = [make_label(take, takes) for take in takes if take.status == "success" or not is_delivered]
    known = f"its takes are {', '.join(map(str, labels))}" if labels else "it has none yet"
    if clip is None:
        raise InvalidError(f"{scene_id} has no take {label}: {known}")
    if isinstance(label, int) and (own := make_label(clip, takes)) != label:
        raise InvalidError(f"several models made take {label} of {scene_id}: name one, such as {scene_id}={own}")
    if is_delivered and clip.status != "success":
        raise InvalidError(f"take {label} of {scene_id} was not delivered, and cannot be chosen: {known}")
    return clip


@dataclass(frozen=True)
class Retakes:
    """Further takes of a scene that are not written yet."""

    numbers: tuple[int, ...]
    take_ids: tuple[str, ...]
    change: dict[str, dict[str, Any]]
    """The change of the choices that describes them, see `Review.change_choices`."""


def describe_retakes(
    job: Job,
    choices: Choices,
    scene_id: str,
    changes: Mapping[str, Any],
    *,
    takes: int = 1,
    delivered: Container[str] | None = None,
) -> Retakes:
    """Return the next takes of a scene.

    Given the clips that were delivered, takes with the same description that are not among them come first, so that the
    same command continues an interrupted run.

    Args:
        changes: fields of the scene. Each take has the next higher seed.
        delivered: the ids of the clips that the last run delivered; None means that only new takes are wanted.

    Raises:
        InvalidError: the job has no such scene, or the scene has too many takes.
    """
    scene, seed = find_scene(job, scene_id), changes.get("seed")
    entries, own = choices.get_numbered_entries(scene_id), find_take_numbers(job, scene)
    pending = [
        number
        for number in entries
        if delivered is not None and number not in own and make_take(scene, number).id not in delivered
    ]
    described: dict[int, dict[str, Any]] = {}
    free = find_next_take(job, choices, scene)
    for index in range(takes):
        wanted = {**changes, **({} if seed is None else {"seed": seed + index})}
        same = (each for each in pending if each not in described and entries[each].changes == wanted)
        number = next(same, None)
        if number is None:
            number, free = free, free + 1
        described[number] = wanted
    numbers = tuple(described)
    ids = tuple(make_take(scene, number).id for number in numbers)
    takes_to_write = {str(number): wanted for number, wanted in described.items()}
    return Retakes(numbers, ids, {scene_id: {"takes": takes_to_write}})


def put_in_film(review: Review, change: Mapping[str, Mapping[str, Any]], *, before: Choices) -> list[str]:
    """Have the new takes in the film, of those scenes whose new takes were all delivered.

    A scene whose newest take is in the film needs no choice for that.

    Args:
        change: describes the takes, see `Retakes.change`.
        before: the choices when the takes were ordered. A later choice counts more than the new take.

    Returns:
        The scenes for which a person has chosen another take meanwhile.
    """
    if (batch := review.find_result()) is None:
        return []
    groups = {get_scene_id(takes): takes for takes in group_takes(batch)}
    chosen: dict[str, dict[str, Any]] = {}
    for scene_id, each in change.items():
        made = [find_take(groups.get(scene_id, ()), label) for label in each["takes"]]
        if not made or any(clip is None or clip.status != "success" for clip in made):
            continue
        last = max((clip for clip in made if clip), key=lambda clip: clip.take or 1)
        is_newest = last is choose_take(groups[scene_id])
        chosen[scene_id] = {"chosen": None if is_newest else make_label(last, groups[scene_id])}
    choices = review.read_choices()
    later = [id_ for id_ in chosen if choices.get_chosen(id_) != before.get_chosen(id_)]
    changed = {id_: each for id_, each in chosen.items() if choices.get_chosen(id_) != each["chosen"]}
    if changed := {id_: each for id_, each in changed.items() if id_ not in later}:
        review.change_choices(changed)
    return later


@contextmanager
def attribute_to_command(changes: Mapping[str, Mapping[str, Any]]) -> Iterator[None]:
    """Attribute the problems of takes that a command describes, see `write_choices`, to its flags.

    Those takes are not in the file yet. Problems that several of them share are told once.
    """
    try:
        yield
    except ValidationError as exc:
        raise ValidationError(_attribute_to_command(exc.problems, changes)) from None


def _attribute_to_command(problems: Sequence[Problem], changes: Mapping[str, Mapping[str, Any]]) -> list[Problem]:
    described = {
        f"{scene_id}.takes.{label}": (f"take {label} of {scene_id}", fields)
        for scene_id, change in changes.items()
        for label, fields in change.get("takes", {}).items()
    }
    merged: dict[Problem, list[str]] = {}
    for problem in problems:
        entry, _, field = problem.where.rpartition(".")
        take, fields = described.get(entry, ("", {}))
        if field in fields:
            flag = f"--{field.replace('_', '-')}"
            problem = replace(problem, where=flag, position="command line")  # noqa: PLW2901
        elif take:
            problem = Problem(f"{field}: {problem.message}")  # noqa: PLW2901
        merged.setdefault(problem, []).append(take)
    return [
        replace(problem, message=f"{list_first(takes)}: {problem.message}") if any(takes) else problem
        for problem, takes in merged.items()
    ]


def require_same_variants(job: Job, review: Review) -> None:
    """Raise `InvalidError` if the last run made other variants of the scenes than the job file asks for."""
    last = review.find_result()
    if last and last.cells_per_scene != job.variants_per_scene:
        raise InvalidError(
            f"the last run made {last.cells_per_scene} clips of each scene, and the job file asks for "
            f"{job.variants_per_scene}: put `takes` or `models` into the job file, so that later runs know its takes"
        )
