"""Further takes of a job's scenes, the choice among them, ratings and notes: `choices.toml` in the job's folder."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, RootModel

from videogen.errors import InvalidError, Problem, ValidationError
from videogen.job.model import MAX_PROMPT_CHARS, Job, ModelInputs, Scene, Text
from videogen.source_files.document import SourceFile, join_path, read_source_file, split_path
from videogen.source_files.messages import did_you_mean
from videogen.source_files.scalars import IS_WHOLE_NUMBER
from videogen.storage.base import Folder

CHOICES_NAME = "choices.toml"
MAX_TAKE = 1000
_HEADER = """\
# Takes, choices, ratings and notes of this job. You may edit this file: `videogen retake`, `videogen choose` and
# `videogen rate` write it, too, and keep your comments. The next run makes the takes that are described here.
"""

TakeLabel = Annotated[int, Field(strict=True, ge=1)] | Annotated[str, Field(strict=True, min_length=1)]
"""Name of a take of a scene: its number, such as 2; with compared models the model, such as `"veo-3.1"`, or both,
such as `"veo-3.1/2"`; or the id of the clip."""


def _is_number(label: str) -> bool:
    return label.isascii() and label.isdigit()


def _require_label(label: str) -> str:
    if _is_number(label) and (label != str(int(label)) or not 1 <= int(label) <= MAX_TAKE):
        raise ValueError(f"a take has a number from 1 to {MAX_TAKE}")
    return label


def _require_words(text: str) -> str:
    if not text.strip():
        raise ValueError("is empty: leave it out, and the take has that of its scene")
    return text


class TakeEntry(BaseModel):
    """One take: its differences from the scene in the job file, your rating and your note."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: Annotated[Text, AfterValidator(_require_words)] | None = None
    """Prompt of this take; None means the scene's."""
    negative_prompt: Text | None = None
    """Negative prompt of this take; None means the scene's."""
    seed: Annotated[int, Field(ge=0, lt=2**31), IS_WHOLE_NUMBER] | None = None
    """Seed of this take; None means the scene's."""
    model: Annotated[str, AfterValidator(_require_words)] | None = None
    """Model that makes this take; None means the scene's."""
    tier: Annotated[str, AfterValidator(_require_words)] | None = None
    """Tier of this take; None means the scene's."""
    inputs: ModelInputs | None = None
    """Inputs of this take in place of the scene's; None means the scene's."""
    rating: Annotated[int, Field(ge=1, le=5), IS_WHOLE_NUMBER] | None = None
    """Your rating, from 1 to 5; None means that you gave none."""
    note: Annotated[str, Field(max_length=MAX_PROMPT_CHARS)] | None = None
    """Your note."""

    @property
    def changes(self) -> dict[str, Any]:
        """The fields of the scene that differ in this take."""
        names = ("prompt", "negative_prompt", "seed", "model", "tier", "inputs")
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    @property
    def is_order(self) -> bool:
        """Whether it asks for a take, and does not only say something of one."""
        return bool(self.changes) or (self.rating is None and self.note is None)


class SceneChoices(BaseModel):
    """The takes of one scene, and the chosen one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    chosen: TakeLabel | None = None
    """The take that is in the film; None means the newest one."""
    takes: dict[Annotated[str, AfterValidator(_require_label)], TakeEntry] = {}
    """By the label of the take. One with a number that the job does not make is made in addition."""


class Choices(RootModel[dict[str, SceneChoices]]):
    """The takes of a job, by the ids of its scenes."""

    model_config = ConfigDict(frozen=True)

    root: dict[str, SceneChoices] = {}
    _source: SourceFile | None = PrivateAttr(default=None)

    def locate_problem(self, message: str, *loc: str | int) -> Problem:
        """Return a problem of the value at this place of the file, with its line and column if it comes from a file."""
        if self._source is None:
            return Problem(message, where=join_path(loc), position=CHOICES_NAME)
        return self._source.problems_at([(loc, message)])[0]

    def with_places_of(self, written: "Choices") -> "Choices":
        """Return these choices, whose problems are told with the lines of the file as it is written."""
        located = self.model_copy()
        located._source = written._source
        return located

    def get_chosen(self, scene_id: str) -> TakeLabel | None:
        """Return the label of the take that was chosen for a scene; None means the newest one."""
        return self.root[scene_id].chosen if scene_id in self.root else None

    def get_entries(self, scene_id: str) -> Mapping[str, TakeEntry]:
        """Return the entries of the takes of a scene, by their labels."""
        return self.root[scene_id].takes if scene_id in self.root else {}

    def get_numbered_entries(self, scene_id: str) -> Mapping[int, TakeEntry]:
        """Return the entries of those takes of a scene whose label is a number."""
        return {int(label): entry for label, entry in self.get_entries(scene_id).items() if _is_number(label)}


def read_choices_text(folder: Folder) -> str | None:
    """Return the text of the `choices.toml` in a job's folder; None if there is no such file.

    Raises:
        ValidationError: it is not UTF-8.
        StorageError: the folder cannot be read.
    """
    try:
        return folder.text(CHOICES_NAME)
    except ValueError:
        raise ValidationError([Problem("not UTF-8: save it as plain text in UTF-8", position=CHOICES_NAME)]) from None


def parse_choices(text: str | None) -> Choices:
    """Return the choices in the text of a `choices.toml`; None means that there is no such file.

    Raises:
        ValidationError: with every problem of the text, each with its line and column.
    """
    if text is None:
        return Choices()
    with TemporaryDirectory() as folder:
        file = Path(folder) / CHOICES_NAME
        file.write_text(text, encoding="utf-8")
        source = read_source_file(file)
        choices = source.parse(Choices)
        choices._source = source
        return choices


def write_choices(text: str | None, changes: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the text of a `choices.toml` with changes, and with the comments that it had.

    Args:
        text: the text so far; None means that there is no file yet.
        changes: by scene id: `chosen`, and `takes` by label, each with the fields to set. A field that is None is
            removed.
    """
    import tomlkit

    document = tomlkit.parse(_HEADER if text is None else text)
    for scene_id, change in changes.items():
        _update_table(document, {scene_id: change})
    return tomlkit.dumps(document)


def _update_table(table: Any, changes: Mapping[str, Any]) -> None:
    import tomlkit

    for name, value in changes.items():
        if isinstance(value, Mapping):
            if name not in table:
                table[name] = tomlkit.table(is_super_table=name == "takes")
            _update_table(table[name], value)
        elif value is not None:
            table[name] = value
        elif name in table:
            del table[name]


# -- takes ------------------------------------------------------------------------------------------------------------


def add_takes(job: Job, choices: Choices) -> Job:
    """Return the job with the takes that the choices describe, as scenes at its end.

    Raises:
        ValidationError: a take would have the id of another scene, or the scene in the job file is described.
    """
    added = [take for scene in job.scenes for take in _make_takes(job, scene, choices)]
    if not added:
        return job
    ids = {scene.id.lower(): scene.take_of for scene, _ in job.variants()}
    for take in added:
        if ids.get(take.id.lower(), take.take_of) != take.take_of:
            message = f"this take would be {take.id}, which is another scene of the job: rename that scene"
            raise ValidationError([choices.locate_problem(message, str(take.take_of), "takes", str(take.take))])
    return job.model_copy(update={"scenes": (*job.scenes, *added)})


def _make_takes(job: Job, scene: Scene, choices: Choices) -> Iterator[Scene]:
    if scene.take_of is not None:
        return
    made = find_take_numbers(job, scene)
    for number, entry in choices.get_numbered_entries(scene.id).items():
        if number == scene.take and entry.changes:
            message = "this take is the scene in the job file: change it there, or describe a take with another number"
            raise ValidationError([choices.locate_problem(message, scene.id, "takes", str(number))])
        if number not in made or entry.changes:
            yield make_take(scene, number, **entry.changes)


def make_take(scene: Scene, number: int, **changes: Any) -> Scene:
    """Return another take of a scene, with the fields of the scene that differ in it."""
    named = {"id": f"{scene.id}.take-{number}", "take": number, "take_of": scene.id}
    return scene.model_copy(update={**changes, **named})


def find_choice_warnings(job: Job, choices: Choices) -> Iterator[str]:
    """Yield a warning for each scene of the choices that the job does not have."""
    scenes = {scene.id for scene in job.scenes if scene.take_of is None}
    for scene_id in choices.root.keys() - scenes:
        message = f"{scene_id!r} is no scene of {job.id}, and is ignored{did_you_mean(scene_id, scenes)}"
        yield str(choices.locate_problem(message, scene_id))


@contextmanager
def attribute_to_takes(job: Job, choices: Choices, *, scenes: int) -> Iterator[None]:
    """Attribute the problems of a job that are about takes to the choices that describe them.

    `scenes` is the number of scenes in the job file: those after them are takes, see `add_takes`.
    """
    try:
        yield
    except ValidationError as exc:
        raise ValidationError([_attribute_to_take(problem, job, choices, scenes) for problem in exc.problems]) from None


def _attribute_to_take(problem: Problem, job: Job, choices: Choices, scenes: int) -> Problem:
    found = re.fullmatch(r"scenes\.(\d+)(?:\.(.+))?", problem.where)
    if found is None or int(found[1]) < scenes:
        return problem
    take = job.scenes[int(found[1])]
    field = split_path(found[2]) if found[2] else ()
    return choices.locate_problem(problem.message, str(take.take_of), "takes", str(take.take), *field)


def find_take_numbers(job: Job, scene: Scene) -> set[int]:
    """Return the numbers of the takes of a scene that the job file asks for."""
    others = {other.take for other in job.scenes if other.take_of == scene.id}
    return {scene.take + number for number in range(job.takes)} | others


def find_next_take(job: Job, choices: Choices, scene: Scene) -> int:
    """Return the lowest number above those of all takes of a scene.

    Raises:
        InvalidError: there are 1,000 takes.
    """
    number = max(choices.get_numbered_entries(scene.id).keys() | find_take_numbers(job, scene)) + 1
    if number > MAX_TAKE:
        raise InvalidError(f"{scene.id} has {MAX_TAKE:,} takes, and cannot have more")
    return number


def find_scene(job: Job, scene_id: str) -> Scene:
    """Return the scene with this id. Raise `InvalidError` if there is none, with the most similar id."""
    scenes = {scene.id: scene for scene in job.scenes if scene.take_of is None}
    if scene_id not in scenes:
        raise InvalidError(f"{scene_id!r} is no scene of {job.id}{did_you_mean(scene_id, scenes)}")
    return scenes[scene_id]


def validate_selection(job: Job, only: Sequence[str]) -> None:
    """Raise `InvalidError` if one of these ids is neither that of a scene of the job nor that of a take."""
    known = {id_ for scene, _ in job.variants() for id_ in (scene.id, scene.take_of) if id_}
    for id_ in only:
        if id_ not in known:
            raise InvalidError(f"--only: {id_!r} is no scene of {job.id}{did_you_mean(id_, known)}")
