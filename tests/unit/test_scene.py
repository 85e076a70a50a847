import json
from pathlib import Path
from typing import Any

import pytest

from videogen.errors import ValidationError
from videogen.scene import Job, read_job


def job_of(text: str, folder: Path, name: str = "film.toml") -> Job:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return read_job(path)[0]


def problems_of(text: str, folder: Path, name: str = "film.toml") -> str:
    with pytest.raises(ValidationError) as caught:
        job_of(text, folder, name)
    return str(caught.value)


SCENE = '[[scenes]]\nid = "a"\nprompt = "p"\ntarget_duration = 5\n'


def test_a_job_is_named_by_its_file_and_has_the_described_defaults(tmp_path: Path) -> None:
    """16:9 where the job does not say; the name goes into paths, so odd characters are replaced."""
    job = job_of(SCENE, tmp_path, "my film!.toml")
    assert (job.id, job.aspect_ratio, job.scenes[0].take, job.min_clips) == ("my-film", "16:9", 1, None)


def test_the_upstream_list_of_clip_prompts_is_a_job(tmp_path: Path) -> None:
    """The scene planner's own JSON: `duration` is the target, `clip_index` and the references are kept."""
    clips = [
        {
            "clip_index": 7,
            "prompt": "p",
            "negative_prompt": None,
            "duration": 5.5,
            "scene_reference_url": "https://example.com/a.jpg",
            "character_reference_urls": ["https://example.com/b.png"],
            "metadata": {"beat": 3},
        }
    ]
    scene = job_of(json.dumps(clips), tmp_path, "clips.json").scenes[0]
    assert (scene.id, scene.clip_index, scene.target_duration) == ("clip-007", 7, 5.5)
    assert scene.reference_urls == ("https://example.com/a.jpg", "https://example.com/b.png")


@pytest.mark.parametrize(
    "scene_id",
    ["../x", "a/b", "CON", "nul.txt", ".hidden", "a" * 81, "", "ä", "a\\b", "a\x00"],
)
def test_an_id_that_cannot_name_a_file_is_refused(scene_id: str, tmp_path: Path) -> None:
    """No scene can write outside its job's folder, on any system."""
    text = json.dumps({"scenes": [{"id": scene_id, "prompt": "p", "target_duration": 5}]})
    assert "cannot name a file" in problems_of(text, tmp_path, "film.json")


def test_ids_that_differ_only_in_case_are_refused(tmp_path: Path) -> None:
    """They would be one file on some systems."""
    problem = problems_of(SCENE + SCENE.replace('"a"', '"A"'), tmp_path)
    assert problem.startswith("film.toml:6:1: scenes.1.id: 'A' is the id of an earlier scene, too")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("", "film.toml:1:1: scenes: is required", id="empty"),
        pytest.param("scenes = []", "film.toml:1:1: scenes: should have at least 1 entry, not 0", id="no-scenes"),
        pytest.param(SCENE + "wrong = 1\n", "film.toml:5:1: scenes.0.wrong: unknown field", id="unknown-field"),
        pytest.param(SCENE.replace("5", "nan"), "film.toml:4:1: scenes.0.target_duration", id="nan"),
        pytest.param(SCENE.replace("5", "-5"), "greater than 0, not -5", id="negative"),
        pytest.param(SCENE.replace('"p"', '"p\\u001b[31m"'), "control character U+001B at character 2", id="escape"),
        pytest.param(SCENE.replace('"p"', '""'), "film.toml:3:1: scenes.0.prompt", id="no-prompt"),
        pytest.param(SCENE.replace('"p"', f'"{"x" * 10_001}"'), "at most 10000 characters", id="long-prompt"),
        pytest.param("a = 1\na = 2", "film.toml:2:6: not valid TOML", id="duplicate-key"),
        pytest.param("a = " + "[" * 50_000 + "]" * 50_000, "nested too deeply", id="deep"),
        pytest.param("# " + "x" * 9 * 2**20, "larger than 8 MiB", id="huge"),
        pytest.param("min_clips = 0\n" + SCENE, "film.toml:1:1: min_clips", id="no-clips-wanted"),
    ],
)
def test_a_wrong_job_says_where_and_what(text: str, message: str, tmp_path: Path) -> None:
    """File, line and column, never a traceback."""
    assert message in problems_of(text, tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param('{"scenes": [1', "film.json:1:14: not valid JSON", id="cut"),
        pytest.param('{"scenes": 1, "scenes": 2}', "film.json:1:2: scenes: is there twice", id="twice"),
        pytest.param("[" * 50_000, "film.json:1:65: nested too deeply", id="deep"),
        pytest.param('[{"prompt": ""}, 1]', "film.json:1:18: 1: input should be", id="list-of-numbers"),
        pytest.param('[\n {"prompt": "", "duration": 5}]', "film.json:2:3: 0.prompt", id="upstream-position"),
        pytest.param("3", "film.json:1:1", id="number"),
    ],
)
def test_a_wrong_json_job_says_where_and_what(text: str, message: str, tmp_path: Path) -> None:
    """The same for JSON."""
    assert message in problems_of(text, tmp_path, "film.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [pytest.param(None, "no such file", id="missing"), pytest.param(b"\xff\xfe", "not UTF-8", id="binary")],
)
def test_a_file_that_cannot_be_read_says_so(content: Any, message: str, tmp_path: Path) -> None:
    """Also a folder where a file should be."""
    path = tmp_path / "film.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValidationError, match=message):
        read_job(path)
    with pytest.raises(ValidationError, match="not a regular file"):
        read_job(tmp_path)
