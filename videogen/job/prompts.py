"""Compose the prompts of a job: variables are filled in, the cast is described, and the style is added."""

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from videogen.source_files.messages import Loc, did_you_mean

if TYPE_CHECKING:
    from videogen.job.model import Job, Scene

MAX_REFERENCES = 8
"""Most pictures of the characters of a scene, those of its cast included."""
_NAME = re.compile(r"\{([A-Za-z_][\w-]{0,40})\}", re.ASCII)


def find_prompt_problems(job: "Job") -> dict[Loc, str]:
    """Return the problems of the variables and the cast of a job and its scenes, each by its place."""
    wrong: dict[Loc, str] = {}
    known = _collect_texts(job)
    for name in job.cast.keys() & job.variables.keys():
        wrong["variables", name] = f"{name!r} is the name of a member of the cast, too"
    for place, text in _iterate_texts(job):
        unknown = [name for name in _NAME.findall(text) if name not in known]
        if known and unknown:
            wrong[place] = f"{{{unknown[0]}}} is no variable and not in the cast{did_you_mean(unknown[0], known)}"
    for index, scene in enumerate(job.scenes):
        for number, name in enumerate(scene.cast):
            if name not in job.cast:
                wrong["scenes", index, "cast", number] = f"{name!r} is not in the cast{did_you_mean(name, job.cast)}"
        pictures = len(_collect_pictures(job, scene))
        if pictures > MAX_REFERENCES:
            wrong["scenes", index, "cast"] = f"has {pictures} pictures with those of the cast, at most {MAX_REFERENCES}"
    return wrong


def compose_scenes(job: "Job") -> "Job":
    """Return the job with the variables, the cast and the style in the prompts and references of its scenes.

    A job without them is returned as it is.
    """
    if not (job.variables or job.cast or job.style):
        return job
    texts = _collect_texts(job)
    scenes = tuple(_compose_scene(job, scene, texts) for scene in job.scenes)
    return job.model_copy(update={"scenes": scenes, "variables": {}, "cast": {}, "style": None})


def _compose_scene(job: "Job", scene: "Scene", texts: Mapping[str, str]) -> "Scene":
    named = set(_NAME.findall(scene.prompt))
    others = [job.cast[name].description for name in scene.cast if name in job.cast and name not in named]
    style = [job.style.prompt] if job.style and job.style.prompt else []
    unwanted = [text for text in (scene.negative_prompt, job.style.negative_prompt if job.style else None) if text]
    return scene.model_copy(
        update={
            "prompt": _join_sentences([_fill_in(text, texts) for text in (scene.prompt, *others, *style)]),
            "negative_prompt": ", ".join(_fill_in(text, texts) for text in unwanted) or None,
            "character_reference_urls": _collect_pictures(job, scene),
            "cast": (),
        }
    )


def _collect_texts(job: "Job") -> dict[str, str]:
    """Return the text of each name that a prompt can contain in braces."""
    descriptions = {name: _fill_in(member.description, job.variables) for name, member in job.cast.items()}
    return descriptions | job.variables


def _collect_pictures(job: "Job", scene: "Scene") -> tuple[str, ...]:
    """Return the character references of a scene, then those of its cast, each once."""
    of_cast = (picture for name in scene.cast if name in job.cast for picture in job.cast[name].images)
    return tuple(dict.fromkeys((*scene.character_reference_urls, *of_cast)))


def _iterate_texts(job: "Job") -> Iterator[tuple[Loc, str]]:
    for index, scene in enumerate(job.scenes):
        yield ("scenes", index, "prompt"), scene.prompt
        yield ("scenes", index, "negative_prompt"), scene.negative_prompt or ""
    for name, member in job.cast.items():
        yield ("cast", name, "description"), member.description
    if job.style:
        yield ("style", "prompt"), job.style.prompt
        yield ("style", "negative_prompt"), job.style.negative_prompt


def _fill_in(text: str, texts: Mapping[str, str]) -> str:
    return _NAME.sub(lambda match: texts.get(match[1], match[0]), text)


def _join_sentences(texts: list[str]) -> str:
    """Return the texts one after another, each ended by a full stop; a single text stays as it is."""
    if len(texts) == 1:
        return texts[0]
    stripped = (text.strip() for text in texts)
    return " ".join(
        text if text.endswith((".", "!", "?", "\N{HORIZONTAL ELLIPSIS}")) else f"{text}." for text in stripped
    )
