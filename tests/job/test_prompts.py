"""The prompts of scenes: variables, the cast, the style, and files that several jobs share."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError as PydanticError

from tests.support.builders import job_of
from videogen.errors import ValidationError
from videogen.job.load import read_job
from videogen.job.model import Job
from videogen.job.prompts import compose_scenes

KEEPER = {"description": "an old man with a white beard", "images": ["keeper.png", "hands.png"]}
DOG = {"description": "a brown dog."}
CAST = {"keeper": KEEPER, "dog": DOG}


def composed(scene: dict[str, Any], **fields: Any) -> Any:
    (made,) = compose_scenes(job_of(scene, **fields)).scenes
    return made


@pytest.mark.parametrize(
    ("scene", "fields", "prompt"),
    [
        pytest.param({}, {}, "scene 0", id="plain"),
        pytest.param({"prompt": "{keeper} climbs"}, {}, "{keeper} climbs", id="braces-without-a-cast-stay"),
        pytest.param({"prompt": "{keeper} climbs"}, {"cast": CAST}, "an old man with a white beard climbs", id="named"),
        pytest.param(
            {"prompt": "He climbs", "cast": ["keeper", "dog"]},
            {"cast": CAST},
            "He climbs. an old man with a white beard. a brown dog.",
            id="not-named",
        ),
        pytest.param(
            {"prompt": "{keeper} climbs!", "cast": ["keeper", "dog"]},
            {"cast": CAST},
            "an old man with a white beard climbs! a brown dog.",
            id="one-named",
        ),
        pytest.param({}, {"style": {"prompt": "35 mm film"}}, "scene 0. 35 mm film.", id="style"),
        pytest.param(
            {"prompt": "{weather} at {place}"},
            {"variables": {"weather": "Rain", "place": "sea"}, "style": {"prompt": "{weather}, grey"}},
            "Rain at sea. Rain, grey.",
            id="variables",
        ),
        pytest.param(
            {"prompt": "{man} walks", "cast": ["man"]},
            {"variables": {"weather": "rain"}, "cast": {"man": {"description": "a man in {weather}"}}},
            "a man in rain walks",
            id="variables-of-the-cast",
        ),
        pytest.param({"prompt": "{a}"}, {"variables": {"a": "{b}", "b": "x"}}, "{b}", id="filled-in-once"),
    ],
)
def test_the_prompt_is_composed(scene: dict[str, Any], fields: dict[str, Any], prompt: str) -> None:
    assert composed(scene, **fields).prompt == prompt


def test_the_negative_prompts_are_joined() -> None:
    style = {"negative_prompt": "text, {x}"}
    assert (
        composed({"negative_prompt": "rain"}, style=style, variables={"x": "blur"}).negative_prompt
        == "rain, text, blur"
    )
    assert composed({}, style=style, variables={"x": "blur"}).negative_prompt == "text, blur"
    assert composed({}, style={"prompt": "film"}).negative_prompt is None


def test_the_pictures_of_the_cast_follow_those_of_the_scene() -> None:
    """Each once."""
    made = composed({"cast": ["keeper"], "character_reference_urls": ["boat.png", "hands.png"]}, cast=CAST)
    assert made.character_reference_urls == ("boat.png", "hands.png", "keeper.png")


def test_a_composed_job_is_composed() -> None:
    job = job_of({"prompt": "{dog}", "cast": ["keeper"]}, cast=CAST, style={"prompt": "film"}, variables={"x": "y"})
    once = compose_scenes(job)
    assert compose_scenes(once) == once
    assert Job.model_validate(job.model_dump(mode="json")) == job


@pytest.mark.parametrize(
    ("scene", "fields", "place", "problem"),
    [
        pytest.param(
            {"prompt": "{keepr} climbs"},
            {"cast": CAST},
            ("scenes", 0, "prompt"),
            "{keepr} is no variable and not in the cast; did you mean 'keeper'?",
            id="unknown-name",
        ),
        pytest.param(
            {"cast": ["keeper", "cat"]}, {"cast": CAST}, ("scenes", 0, "cast", 1), "'cat' is not in the cast", id="cast"
        ),
        pytest.param(
            {},
            {"cast": CAST, "variables": {"dog": "a cat"}},
            ("variables", "dog"),
            "'dog' is the name of a member of the cast, too",
            id="two-meanings",
        ),
        pytest.param(
            {},
            {"style": {"prompt": "{mood}"}, "variables": {"mod": "sad"}},
            ("style", "prompt"),
            "{mood} is no variable and not in the cast; did you mean 'mod'?",
            id="style",
        ),
        pytest.param(
            {},
            {"cast": {"man": {"description": "a man in {wether}"}}, "variables": {"weather": "rain"}},
            ("cast", "man", "description"),
            "{wether} is no variable and not in the cast; did you mean 'weather'?",
            id="description",
        ),
        pytest.param(
            {"cast": ["keeper"], "character_reference_urls": [f"{number}.png" for number in range(7)]},
            {"cast": CAST},
            ("scenes", 0, "cast"),
            "has 9 pictures with those of the cast, at most 8",
            id="too-many-pictures",
        ),
        pytest.param({}, {"include": "a.toml"}, ("include",), "works in a job file only", id="include"),
    ],
)
def test_what_cannot_be_composed_is_told_with_its_place(
    scene: dict[str, Any], fields: dict[str, Any], place: tuple[str | int, ...], problem: str
) -> None:
    with pytest.raises(PydanticError) as caught:
        job_of(scene, **fields)
    (error,) = caught.value.errors()
    assert (error["loc"], error["msg"][: len(problem)]) == (place, problem)


SERIES = """
model = "veo-3.1"
aspect_ratio = "9:16"
[style]
prompt = "film"
negative_prompt = "text"
[cast.keeper]
description = "an old man"
images = ["pictures/keeper.png", "https://a.example/hands.png"]
[cast.dog]
description = "a dog"
"""
FILM = """
include = "shared/series.toml"
aspect_ratio = "16:9"
[style]
prompt = "ink"
[cast.dog]
description = "a cat"
[[scenes]]
id = "a"
prompt = "{keeper} and {dog}"
target_duration = 5
"""


def read(folder: Path, film: str = FILM, series: str | None = SERIES) -> Job:
    (folder / "shared").mkdir()
    if series is not None:
        (folder / "shared" / "series.toml").write_text(series)
    path = folder / "film.toml"
    path.write_text(film)
    return read_job(path)[0]


def test_a_job_has_the_fields_of_the_file_that_it_includes(tmp_path: Path) -> None:
    """Where it has none of its own. Paths of pictures are relative to the file in which they stand."""
    job = read(tmp_path)
    assert (job.id, job.model, job.aspect_ratio, job.include) == ("film", "veo-3.1", "16:9", None)
    assert job.style
    assert (job.style.prompt, job.style.negative_prompt) == ("ink", "text")
    assert {name: member.description for name, member in job.cast.items()} == {"keeper": "an old man", "dog": "a cat"}
    assert job.cast["keeper"].images == ("shared/pictures/keeper.png", "https://a.example/hands.png")


@pytest.mark.parametrize(
    ("film", "series", "problem"),
    [
        pytest.param(FILM, None, r"film\.toml:2:1: include: .*series\.toml: ", id="missing"),
        pytest.param(
            FILM, SERIES + '[[scenes]]\nid = "b"\n', r"series\.toml:12:3: scenes: belongs to one job", id="job"
        ),
        pytest.param(
            FILM, SERIES.replace("description", "descripton", 1), r"series\.toml:8:1: .*descripton", id="wrong-field"
        ),
        pytest.param(
            FILM.replace("{dog}", "{cow}"), SERIES, r"film\.toml:10:1: scenes\.0\.prompt: \{cow\} is no", id="own"
        ),
        pytest.param(FILM, "[style\n", r"include: .*series\.toml:1", id="not-well-formed"),
    ],
)
def test_a_problem_is_told_in_the_file_in_which_it_is(
    tmp_path: Path, film: str, series: str | None, problem: str
) -> None:
    with pytest.raises(ValidationError, match=problem):
        read(tmp_path, film, series)
