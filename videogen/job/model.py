"""The job and its scenes, as a user writes them in a job file."""

import re
from collections.abc import Container, Iterator, Sequence
from decimal import Decimal
from itertools import product
from math import ceil
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticKnownError

from videogen.job.graph import find_graph_problems
from videogen.job.prompts import MAX_REFERENCES, find_prompt_problems
from videogen.source_files.messages import Loc, did_you_mean, make_nested_value_error
from videogen.source_files.scalars import IS_BOOLEAN, IS_NUMBER, IS_WHOLE_NUMBER
from videogen.text import is_plain_number

MAX_PROMPT_CHARS = 10_000
MAX_SCENES = 5_000
_RESERVED_NAMES = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}
MAX_NAME_CHARS = 80
_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_NAME_CHARS - 1}}}", re.ASCII)
_LINE_END = re.compile(r"\r\n|[\r\x0b\x0c\x85]")
"""Line ends that Windows, spreadsheets and word processors write in place of LF. U+2028 and U+2029 are sent unchanged,
because a changed prompt gets another key and the clip would be paid for again."""
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u202a-\u202e]")
"""Control characters that a prompt may not contain. Bidirectional isolates, U+2066 to U+2069, are allowed: phones put
them around names."""

_TAKEN = "is the id of an earlier scene, too; ids must be unique, also when case is ignored"
_PERCENT = re.compile(r"(100|(?!0+(?:\.0+)? ?%)\d{1,2}(?:\.\d{1,9})?) ?%", re.ASCII)


def _validate_count_or_percent(value: Any) -> Any:
    is_percent = isinstance(value, str) and _PERCENT.fullmatch(value)
    is_count = type(value) is int and value >= 1
    if not is_percent and not is_count:
        raise ValueError('input should be a number of clips from 1, or a share of the scenes such as "60%"')
    return value


MinClips = Annotated[
    int | str,
    BeforeValidator(
        _validate_count_or_percent,
        json_schema_input_type=Annotated[int, Field(ge=1)] | Annotated[str, Field(pattern=f"^(?:{_PERCENT.pattern})$")],
    ),
]


def count_required_clips(wanted: int | str, scenes: int) -> int:
    """Return how many clips a job needs, from 1 to `scenes`.

    `wanted` is a count, or a share of the scenes such as "60%", which is rounded up.
    """
    if isinstance(wanted, str):
        wanted = ceil(Decimal(wanted.rstrip("% ")) * scenes / 100)
    return min(max(wanted, 1), scenes)


def _require_plain_number(value: Any) -> Any:
    if isinstance(value, str) and not is_plain_number(value):
        raise ValueError(f"input should be a plain number such as 5 or 0.25, not {value[:80]!r}")
    if isinstance(value, bool):
        raise PydanticKnownError("decimal_type")
    return value


Money = Annotated[
    Decimal,
    Field(ge=0, allow_inf_nan=False),
    BeforeValidator(
        _require_plain_number,
        json_schema_input_type=Annotated[float, Field(ge=0)] | Annotated[str, Field(pattern=r"^(\d+\.?\d*|\.\d+)$")],
    ),
    PlainSerializer(lambda value: f"{value:f}", return_type=str, when_used="json"),
]
"""An amount in USD. In JSON it is a text without an exponent, which is valid again when a job is passed on."""
Seconds = Annotated[float, Field(gt=0, le=600, allow_inf_nan=False), IS_NUMBER]


def require_safe_name(name: str) -> str:
    """Return `name` if it can name a file on every system, else raise `ValueError` with the allowed characters."""
    if name.partition(".")[0].lower() in _RESERVED_NAMES:
        raise ValueError(f"{name!r} cannot name a file: Windows reserves it")
    if not _NAME.fullmatch(name) or name.endswith("."):
        raise ValueError(
            f"{name[:40]!r} cannot name a file: use 1 to 80 of letters, digits, '.', '_', '-', "
            "beginning with a letter or digit"
        )
    return name


def display_name(source: str) -> str:
    """Return a short, printable name of a reference for messages, without the parts of a URL that may be secret."""
    if source[:5].lower() == "data:":
        return f"{source[:40].partition(',')[0]},… ({len(source):,} characters)"
    name = source
    if is_url(source):
        name = re.sub(r"[?#].*", "?…", re.sub(r"//[^/?#]*@", "//…@", source, count=1), count=1, flags=re.DOTALL)
    name = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in name)
    return name if len(name) <= 120 else name[:80] + "…" + name[-39:]


def is_url(source: str) -> bool:
    """Return whether a reference is an address, such as `https:` or `data:`, and not a path."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", source) is not None


Note = Annotated[None, BeforeValidator(lambda _: None, json_schema_input_type=Any)]
"""A field for the user's own data. Its value is discarded."""


def _drop_notes(data: Any) -> Any:
    """Return the table without the keys that begin with `_`, which are notes of its author."""
    if not isinstance(data, dict) or not any(str(name).startswith("_") for name in data):
        return data
    return {name: value for name, value in data.items() if not str(name).startswith("_")}


_NOTES_IN_SCHEMA: dict[str, Any] = {"patternProperties": {"^_": {}}}


def _require_text(value: str) -> str:
    if not value.strip():
        raise ValueError("is empty: name a picture, or leave the entry out")
    return value


def _require_printable(value: str) -> str:
    if found := _CONTROL.search(value):
        raise ValueError(f"control character U+{ord(found.group()):04X} at character {found.start() + 1}")
    return _LINE_END.sub("\n", value)


_Reference = Annotated[str, AfterValidator(_require_text)]
LongScenes = Literal["refuse", "continue"]
_Scalar = bool | int | float | str
ModelInputs = dict[str, _Scalar | list[_Scalar]]
"""Inputs of a prediction, by the names of the endpoint."""


def _list_names(value: Any) -> Any:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list | tuple):
        raise ValueError("input should be the name of a budget, or an array of names")
    if any("," in name for name in names if isinstance(name, str)):
        raise ValueError('names of budgets have no commas: write several names as an array, ["one", "two"]')
    return names


_BudgetName = Annotated[str, Field(min_length=1, max_length=80)]
_BudgetNames = Annotated[
    tuple[_BudgetName, ...],
    BeforeValidator(_list_names, json_schema_input_type=_BudgetName | tuple[_BudgetName, ...]),
]


Text = Annotated[str, Field(max_length=MAX_PROMPT_CHARS), AfterValidator(_require_printable)]


class CastMember(BaseModel):
    """A character, or a thing, that looks the same in several scenes."""

    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_extra=_NOTES_IN_SCHEMA)

    description: Annotated[Text, Field(min_length=1)]
    """Description of its looks. It takes the place of its name in braces in a prompt, or is added to the prompt."""
    images: Annotated[tuple[_Reference, ...], Field(max_length=MAX_REFERENCES)] = ()
    """Pictures of it, given as in `character_reference_urls` of a scene, to which they are added."""


class Style(BaseModel):
    """The look of all scenes."""

    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_extra=_NOTES_IN_SCHEMA)

    prompt: Text = ""
    """Added to the prompt of each scene."""
    negative_prompt: Text = ""
    """Added to the negative prompt of each scene."""


class Scene(BaseModel):
    """One scene of a job, of which one clip is made. Durations are seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_extra=_NOTES_IN_SCHEMA)

    id: str
    """Names the clip's files. It must be unique in the job, also when case is ignored."""
    prompt: Annotated[str, Field(min_length=1, max_length=MAX_PROMPT_CHARS)]
    """Description of what the clip should show."""
    negative_prompt: Annotated[str, Field(max_length=MAX_PROMPT_CHARS)] | None = None
    """Description of what the clip should not show. It is sent to models that support it."""
    target_duration: Seconds
    """Seconds that the film needs. A clip may be longer, and shorter only within the tolerance."""
    original_target_duration: Seconds | None = None
    """The duration before the composer adjusted it, for comparison in the manifest; None means `target_duration`."""
    seed: Annotated[int, Field(ge=0, lt=2**31), IS_WHOLE_NUMBER] | None = None
    """Sent to models that support it; None leaves the choice to the model."""
    take: Annotated[int, Field(ge=1, le=1000), IS_WHOLE_NUMBER] = 1
    """Number of the version: another number asks for another version of the same scene."""
    take_of: str | None = None
    """Id of the scene that this is another take of, so that only one of them is in the film; None means of none."""
    scene_reference_url: str | None = None
    """Image of the background: an https or `data:` URL, or a path relative to the job file."""
    character_reference_urls: Annotated[tuple[_Reference, ...], Field(max_length=MAX_REFERENCES)] = ()
    """Images of characters and objects to show, given as in `scene_reference_url`."""
    cast: tuple[str, ...] = ()
    """Names of the members of the job's cast that the clip shows."""
    start_image: _Reference | None = None
    """Picture with which the clip begins, given as in `scene_reference_url`. The model must take a start frame."""
    end_image: _Reference | None = None
    """Picture with which the clip ends, given as in `scene_reference_url`. The model must take an end frame."""
    continues: str | None = None
    """Id of the scene that this one continues: the clip starts from the last frame of that scene's, at its target
    length, where the cut falls. The model must take a start frame."""
    ends_on: str | None = None
    """Id of the scene on whose first frame the clip ends. The model must take an end frame."""
    long_scenes: LongScenes | None = None
    """What happens if the model makes no clip as long as this scene; None means as the job says."""
    tier: str | None = None
    """Quality of the clip, such as `draft` or `final`: a name in the model's `tiers`; None means the job's `tier`."""
    inputs: ModelInputs = {}
    """Inputs of the model that videogen has no field for, by the names of the endpoint."""
    model: str | None = None
    """Name of the model that makes this clip; None means the job's."""
    aspect_ratio: str | None = None
    """Aspect ratio of this clip; None means the job's."""
    audio: Annotated[bool, IS_BOOLEAN] | None = None
    """Whether this clip has sound; None means as the job says."""
    timeout_seconds: Annotated[float, Field(gt=0, le=1800), IS_NUMBER] | None = None
    """The prediction is canceled after this time; None means the job's."""
    attempts: Annotated[int, Field(ge=1, le=10), IS_WHOLE_NUMBER] | None = None
    """Maximum number of predictions for this clip; None means the job's."""
    required: Annotated[bool, IS_BOOLEAN] = False
    """Whether the job fails without this clip, however many others are delivered."""
    clip_index: Annotated[int, Field(ge=0), IS_WHOLE_NUMBER] | None = None
    """Position in the film, from 0; None means the scene's position in the job."""

    notes: Note = None
    """Your own notes on the scene, of any type. They are not sent. Keys that begin with `_` are notes, too."""
    metadata: Note = None
    """Your own data of any type, such as a program's. It is not sent."""

    @model_validator(mode="before")
    @classmethod
    def _notes_are_not_read(cls, data: Any) -> Any:
        return _drop_notes(data)

    @field_validator("id")
    @classmethod
    def _id_names_a_file(cls, value: str) -> str:
        return require_safe_name(value)

    @field_validator("prompt", "negative_prompt")
    @classmethod
    def _prompt_is_text(cls, value: str | None) -> str | None:
        return None if value is None else _require_printable(value)

    @property
    def has_start_frame(self) -> bool:
        """Whether the clip starts from a given frame: a picture, or the end of another clip."""
        return self.start_image is not None or self.continues is not None

    @property
    def has_end_frame(self) -> bool:
        """Whether the clip ends on a given frame: a picture, or the beginning of another clip."""
        return self.end_image is not None or self.ends_on is not None

    @property
    def upstream_ids(self) -> tuple[str, ...]:
        """Ids of the scenes whose clips this one is made from, each once."""
        return tuple(dict.fromkeys(id_ for id_ in (self.continues, self.ends_on) if id_ is not None))

    @property
    def picture_urls(self) -> tuple[str, ...]:
        """All pictures of the scene: its start image, its end image and its references."""
        frames = (self.start_image, self.end_image)
        return (*(source for source in frames if source), *self.reference_urls)

    @property
    def reference_urls(self) -> tuple[str, ...]:
        """All references, with the background first."""
        return (*((self.scene_reference_url,) if self.scene_reference_url else ()), *self.character_reference_urls)


class Job(BaseModel):
    """A list of scenes, to be made by one model or by several models that are compared."""

    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_extra=_NOTES_IN_SCHEMA)

    id: str = "job"
    """Names the job's folder. By default it is the job file's name without its suffix."""
    model: str = "kling-v2.5-turbo"
    """Name of a model in the registry; `videogen models` lists them."""
    aspect_ratio: str = "16:9"
    """Aspect ratio of the clips. The model must support it."""
    tier: str | None = None
    """Quality of the clips, such as `draft` or `final`: a name in the model's `tiers`; None means its default."""
    inputs: ModelInputs = {}
    """Inputs of the model that videogen has no field for, by the names of the endpoint. Those of a scene override
    them."""
    models: Annotated[tuple[str, ...], Field(max_length=8)] = ()
    """Models to compare. Each of them makes every scene, in place of `model`."""
    takes: Annotated[int, Field(ge=1, le=10), IS_WHOLE_NUMBER] = 1
    """How many versions of every scene each model makes."""
    fallback_models: Annotated[tuple[str, ...], Field(max_length=5)] = ()
    """Models to try, in order, for a scene whose clip failed for good. Each must support the job's aspect ratio and
    all of its scenes."""
    min_clips: MinClips | None = None
    """Minimum number of delivered clips; with fewer the job fails. A count, capped at the number of scenes, or a share
    ("60%")."""
    max_cost: Money | None = None
    """Maximum cost of the job in USD; None means no maximum."""
    budget: _BudgetNames = ()
    """Names of the budgets that the job's runs count for (`videogen budget NAME 200/month`): one name, or a list. Those
    in `VIDEOGEN_BUDGET` count, too."""
    timeout_seconds: Annotated[float, Field(gt=0, le=1800), IS_NUMBER] | None = None
    """A prediction is canceled after this time; None means the model's own, or the registry's default."""
    attempts: Annotated[int, Field(ge=1, le=10), IS_WHOLE_NUMBER] | None = None
    """Maximum number of predictions for a clip; None means the registry's default."""
    concurrency: Annotated[int, Field(ge=1, le=100), IS_WHOLE_NUMBER] | None = None
    """Maximum number of concurrent predictions; None means the registry's default."""
    duration_tolerance: Annotated[float, Field(ge=0, le=60), IS_NUMBER] | None = None
    """Seconds by which a clip may differ from the requested length, or fall short of its target; None means the
    registry's default."""
    audio: Annotated[bool, IS_BOOLEAN] = False
    """Whether clips have sound. It is requested, and paid for, where the model has an option for it. If false, sound is
    removed."""
    remake_stale: Annotated[bool, IS_BOOLEAN] = False
    """Whether a clip is made again if one that it continues, or ends on, has been made again. If false, it is kept, and
    the plan tells that it is stale."""
    long_scenes: LongScenes = "refuse"
    """What happens to scenes that are longer than any clip of the model: `refuse` is an error, and `continue` makes
    segments that continue each other, and joins them to one clip."""
    strict_quality: Annotated[bool, IS_BOOLEAN] = False
    """Whether a clip that is black or frozen from start to end fails. If false, the manifest has a warning instead."""
    judge: Annotated[str, Field(min_length=1, max_length=MAX_PROMPT_CHARS)] | None = None
    """Judge of each clip before it is delivered: `basic`, a Python function as `module:function`, or a command with
    `{clip}` and `{prompt}`; None means no judge."""
    retake_below: Annotated[float, Field(ge=0, le=1), IS_NUMBER] | None = None
    """A clip that the judge rejects, or gives a lower score, is made again while attempts and budget allow it; None
    means that it is delivered with its score."""
    include: str | None = None
    """A file with fields that several jobs share, such as `cast` and `style`: a path relative to the job file."""
    variables: dict[str, Text] = {}
    """Texts that take the place of their names in braces, such as `{weather}`, in prompts."""
    cast: dict[str, CastMember] = {}
    """Characters and things that look the same in several scenes, by their names."""
    style: Style | None = None
    """The look of all scenes."""
    notes: Note = None
    """Your own notes on the job, of any type. They are not sent. Keys that begin with `_` are notes, too."""
    metadata: Note = None
    """Your own data of any type, such as a program's. It is not sent."""
    scenes: Annotated[tuple[Scene, ...], Field(min_length=1, max_length=MAX_SCENES)]

    @field_validator("id")
    @classmethod
    def _id_names_a_folder(cls, value: str) -> str:
        return require_safe_name(value)

    @model_validator(mode="after")
    def _compared_models_stand_alone(self) -> Self:
        wrong: dict[Loc, str] = {
            ("models", index): f"{name} is compared already"
            for index, name in enumerate(self.models)
            if name in self.models[:index]
        }
        if self.models and self.fallback_models:
            wrong["fallback_models",] = "models are compared as they are: leave it out"
        if self.models:
            alone = "models are compared on every scene: leave it out"
            wrong |= {("scenes", index, "model"): alone for index, scene in enumerate(self.scenes) if scene.model}
        if wrong:
            raise make_nested_value_error(wrong)
        return self

    @model_validator(mode="after")
    def _retakes_need_a_judge(self) -> Self:
        if self.retake_below is not None and self.judge is None:
            raise make_nested_value_error({("retake_below",): 'needs a judge: set judge = "basic", or another one'})
        return self

    @model_validator(mode="after")
    def _clips_are_named_apart(self) -> Self:
        seen: set[str] = set()
        taken: dict[Loc, str] = {}
        for index, variant, _ in self._iterate_variants():
            if variant.id.lower() in seen:
                taken["scenes", index, "id"] = f"{variant.id!r} {_TAKEN}"
            seen.add(variant.id.lower())
        if taken:
            raise make_nested_value_error(taken)
        return self

    @model_validator(mode="after")
    def _takes_are_of_scenes(self) -> Self:
        ids = {scene.id for scene in self.scenes if scene.take_of is None}
        wrong: dict[Loc, str] = {}
        for index, scene in enumerate(self.scenes):
            if scene.take_of is not None and scene.take_of not in ids:
                hint = did_you_mean(scene.take_of, ids)
                wrong["scenes", index, "take_of"] = f"{scene.take_of!r} is no scene of this job{hint}"
        if wrong:
            raise make_nested_value_error(wrong)
        return self

    @model_validator(mode="after")
    def _scenes_continue_others(self) -> Self:
        if wrong := find_graph_problems(self.scenes):
            raise make_nested_value_error({("scenes", *loc): message for loc, message in wrong.items()})
        return self

    @model_validator(mode="after")
    def _prompts_can_be_composed(self) -> Self:
        wrong = find_prompt_problems(self)
        if self.include is not None:
            wrong["include",] = "works in a job file only: the fields of another file are read with it"
        if wrong:
            raise make_nested_value_error(wrong)
        return self

    @property
    def models_to_run(self) -> tuple[str, ...]:
        """The models that each make every scene, in the order of the job file."""
        return self.models or (self.model,)

    @property
    def models_used(self) -> tuple[str, ...]:
        """The models that make the clips, also those of single scenes, each once."""
        return tuple(dict.fromkeys(model for _, model in self.variants()))

    def of_scene(self, scene: Scene) -> Self:
        """Return the job with the fields that the scene has in place of the job's."""
        own = ("model", "aspect_ratio", "audio", "timeout_seconds", "attempts", "long_scenes")
        given = {name: value for name in own if (value := getattr(scene, name)) is not None}
        return self.model_copy(update=given) if given else self

    @property
    def variants_per_scene(self) -> int:
        """Number of clips made of each scene: one for each model and take. A scene that is another take is made
        once."""
        return len(self.models_to_run) * self.takes

    @property
    def clips_per_model(self) -> int:
        """Number of clips that each model makes, without further takes of scenes."""
        return sum(scene.take_of is None for scene in self.scenes) * self.takes

    def variants(self) -> Iterator[tuple[Scene, str]]:
        """Yield a scene and its model for every clip to make, scene by scene, each followed by its further takes.

        A scene with several variants is copied for each, with an id of its own.
        """
        yield from ((variant, model) for _, variant, model in self._iterate_variants())

    def _iterate_variants(self) -> Iterator[tuple[int, Scene, str]]:
        """Yield the variants, each with the index of its scene in the job."""
        further: dict[str, list[tuple[int, Scene]]] = {}
        for index, scene in enumerate(self.scenes):
            if scene.take_of is not None:
                further.setdefault(scene.take_of, []).append((index, scene))
        takes = {take.id for others in further.values() for _, take in others}
        place = 0
        for index, scene in enumerate(self.scenes):
            if scene.take_of is not None:
                continue
            others = further.get(scene.id, [])
            replaced = {take.take for _, take in others}
            for variant, model in self._make_variants(scene, place, takes):
                if variant.take not in replaced or variant.id == scene.id:
                    yield index, variant, model
            for own, take in others:
                variant, model = next(self._make_variants(take, place, takes))
                named = {"id": take.id, "take": take.take, "take_of": scene.id, "clip_index": variant.clip_index}
                yield own, variant.model_copy(update=named), model
            place += self.variants_per_scene

    def _make_variants(self, scene: Scene, place: int, takes: Container[str]) -> Iterator[tuple[Scene, str]]:
        """Yield the variants of a scene, of which the first has this place in the film.

        `takes` are the ids of scenes that are further takes: of those there is one variant, to which others refer.
        """
        if self.variants_per_scene == 1:
            yield scene, scene.model or self.models_to_run[0]
            return
        upstreams = {"continues": scene.continues, "ends_on": scene.ends_on}
        for index, (model, take) in enumerate(product(self.models_to_run, range(self.takes))):
            of_model = f".{model}" if len(self.models_to_run) > 1 else ""
            of_take = f".take-{take + 1}" if self.takes > 1 else ""
            variant = f"{of_model}{of_take}"
            named: dict[str, Any] = {"id": f"{scene.id}{variant}", "take": scene.take + take, "take_of": scene.id}
            named["clip_index"] = place + index
            for name, upstream in upstreams.items():
                if upstream is not None and upstream not in takes:
                    named[name] = f"{upstream}{variant}"
            yield scene.model_copy(update=named), scene.model or model

    @model_validator(mode="before")
    @classmethod
    def _scenes_know_their_place(cls, data: Any) -> Any:
        data = _drop_notes(data)
        if not isinstance(data, dict) or not isinstance(data.get("scenes"), list | tuple):
            return data
        return {**data, "scenes": _with_clip_indexes(data["scenes"])}


def _with_clip_indexes(scenes: Sequence[Any]) -> list[Any]:
    """Return the scenes with their place in the job, or that of the scene of which they are a take."""
    places = {str(scene.get("id")): index for index, scene in enumerate(scenes) if isinstance(scene, dict)}
    return [
        {**scene, "clip_index": places.get(str(scene.get("take_of")), index)}
        if isinstance(scene, dict) and scene.get("clip_index") is None
        else scene
        for index, scene in enumerate(scenes)
    ]
