import json
from pathlib import Path
from typing import Any

import pytest

from videogen.errors import ValidationError
from videogen.job.load import read_job
from videogen.job.model import Job
from videogen.planning.planner import build_plan
from videogen.registry.load import read_registry


def job_of(text: str, folder: Path, name: str = "film.toml") -> Job:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return read_job(path)[0]


def find_problems(text: str, folder: Path, name: str = "film.toml") -> str:
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


@pytest.mark.long_variants
@pytest.mark.parametrize(
    "scene_id",
    ["../x", "a/b", "CON", "nul.txt", ".hidden", "a" * 81, "", "ä", "a\\b", "a\x00"],
)
def test_an_id_that_cannot_name_a_file_is_refused(scene_id: str, tmp_path: Path) -> None:
    """No scene can write outside its job's folder, on any system."""
    text = json.dumps({"scenes": [{"id": scene_id, "prompt": "p", "target_duration": 5}]})
    assert "cannot name a file" in find_problems(text, tmp_path, "film.json")


def test_ids_that_differ_only_in_case_are_refused(tmp_path: Path) -> None:
    """They would be one file on some systems."""
    problem = find_problems(SCENE + SCENE.replace('"a"', '"A"'), tmp_path)
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
    assert message in find_problems(text, tmp_path)


NUMBER, WHOLE, BOOLEAN = "input should be a number", "input should be a whole number", "input should be true or false"


@pytest.mark.long_variants
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("target_duration", '"1_0"', NUMBER),
        ("target_duration", '"5"', NUMBER),
        ("original_target_duration", "true", NUMBER),
        ("seed", "true", WHOLE),
        ("take", '"1"', WHOLE),
        ("clip_index", '"0"', WHOLE),
        ("required", '"n"', BOOLEAN),
        ("required", "1", BOOLEAN),
    ],
)
def test_a_value_of_a_scene_has_the_type_of_its_field(name: str, value: str, message: str, tmp_path: Path) -> None:
    """No string is a number or a boolean, and no boolean is a number."""
    text = SCENE.replace("target_duration = 5\n", "") + f"{name} = {value}\n"
    if name != "target_duration":
        text += "target_duration = 5\n"
    shown = repr(json.loads(value))
    assert f"film.toml:4:1: scenes.0.{name}: {message}, not {shown}" in find_problems(text, tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("takes", '"2"', WHOLE),
        ("attempts", '"1_0"', WHOLE),
        ("concurrency", "true", WHOLE),
        ("timeout_seconds", '"60"', NUMBER),
        ("duration_tolerance", "false", NUMBER),
        ("max_cost", "true", NUMBER),
        ("audio", '"yes"', BOOLEAN),
        ("strict_quality", '"off"', BOOLEAN),
    ],
)
def test_a_value_of_a_job_has_the_type_of_its_field(name: str, value: str, message: str, tmp_path: Path) -> None:
    shown = repr(json.loads(value))
    assert f"film.toml:1:1: {name}: {message}, not {shown}" in find_problems(f"{name} = {value}\n{SCENE}", tmp_path)


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
    assert message in find_problems(text, tmp_path, "film.json")


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


@pytest.mark.parametrize(
    ("written", "read"),
    [
        pytest.param("a\r\nb", "a\nb", id="windows"),
        pytest.param("a\r\n\r\nb\r\n", "a\n\nb\n", id="windows-paragraphs"),
        pytest.param("a\rb", "a\nb", id="old-mac"),
        pytest.param("a \u2068\u0645\u0631\u2069 b", "a \u2068\u0645\u0631\u2069 b", id="isolates"),
        pytest.param("a\n\rb", "a\n\nb", id="the-other-way-round"),
        pytest.param("a\x0bb", "a\nb", id="soft-return-of-word"),
        pytest.param("a\x0cb", "a\nb", id="page-break"),
        pytest.param("a\x85b", "a\nb", id="next-line"),
        pytest.param("a\u2028b\u2029c", "a\u2028b\u2029c", id="line-separators-as-ever"),
        pytest.param("a\tb\nc", "a\tb\nc", id="tab-and-lf"),
        pytest.param("\U0001f469\u200d\U0001f680", "\U0001f469\u200d\U0001f680", id="joined-emoji"),
    ],
)
@pytest.mark.parametrize("field", ["prompt", "negative_prompt"])
def test_line_ends_of_every_kind_are_line_ends(field: str, written: str, read: str, tmp_path: Path) -> None:
    """A job exported on Windows, by a spreadsheet or a word processor says the same as one that was typed."""
    scene = {"id": "a", "prompt": "p", "target_duration": 5, field: written}
    job = job_of(json.dumps({"scenes": [scene]}), tmp_path, "film.json")
    assert getattr(job.scenes[0], field) == read


AS_JSON = json.dumps({"scenes": [{"id": "a", "prompt": "p", "target_duration": 5}]}, indent=1)
KINDS = "job files and registries are TOML or JSON, named .toml or .json"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        pytest.param("film.txt", AS_JSON, id="json-in-txt"),
        pytest.param("film", AS_JSON, id="json-without-suffix"),
        pytest.param("film.jsonc", AS_JSON, id="jsonc-without-comments"),
        pytest.param("film.txt", '[{"prompt": "p", "duration": 5}]', id="planned-in-txt"),
        pytest.param("film.txt", SCENE, id="toml-in-txt"),
        pytest.param("film", SCENE, id="toml-without-suffix"),
        pytest.param("film.JSON", AS_JSON, id="capitals"),
    ],
)
def test_a_job_is_read_by_its_suffix_or_else_by_how_it_begins(name: str, text: str, tmp_path: Path) -> None:
    """What people save under another name is the same job."""
    assert len(job_of(text, tmp_path, name).scenes) == 1


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        pytest.param("film.yaml", "scenes:\n  - id: a\n", f"{KINDS}: write this .yaml file", id="yaml"),
        pytest.param("film.yml", "scenes: []\n", f"{KINDS}: write this .yml file", id="yml"),
        pytest.param("film.csv", "id,prompt\na,p\n", f"{KINDS}: write this .csv file", id="csv"),
        pytest.param("film.jsonl", '{"id": "a"}\n{"id": "b"}\n', f"{KINDS}: put the lines", id="json-lines"),
        pytest.param("film.jsonc", '{"id": "a", // x\n}', f"{KINDS}: remove the comments", id="jsonc"),
        pytest.param("film.txt", "Once upon a time", KINDS, id="prose"),
        pytest.param("film", "Once upon a time", KINDS, id="prose-without-suffix"),
        pytest.param("film.json", f"```json\n{AS_JSON}\n```", "remove the lines with ```", id="from-a-chat"),
        pytest.param("film.toml", "model = \u201cveo-3.1\u201d", "straight quotes", id="curly-quotes"),
    ],
)
def test_a_file_of_another_kind_is_told_what_job_files_are(name: str, text: str, message: str, tmp_path: Path) -> None:
    """By what its suffix or its first characters say."""
    assert message in find_problems(text, tmp_path, name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(AS_JSON.encode("utf-16"), "film.json: not UTF-8, but UTF-16", id="utf-16"),
        pytest.param(b"PK\x03\x04\xff\xff", "not UTF-8, but a ZIP archive or an office document", id="docx"),
        pytest.param('{"a": "Caf\xe9"}'.encode("latin-1"), "save it as plain text in UTF-8", id="latin-1"),
    ],
)
def test_a_file_that_is_not_utf8_is_told_how_to_save_it(content: bytes, message: str, tmp_path: Path) -> None:
    """With what it is, where that can be seen."""
    (tmp_path / "film.json").write_bytes(content)
    with pytest.raises(ValidationError) as caught:
        read_job(tmp_path / "film.json")
    assert message in str(caught.value)


def test_a_mistake_in_json_of_another_suffix_has_its_line(tmp_path: Path) -> None:
    """Places are found as the data was read."""
    text = AS_JSON.replace('"p"', '""')
    assert find_problems(text, tmp_path, "film.txt").startswith("film.txt:5:4: scenes.0.prompt")


@pytest.mark.parametrize("note", ["second cut", 7, ["a", {"b": None}], {"beat": 1, "_x": [1.5]}, True, None])
@pytest.mark.parametrize("name", ["notes", "metadata", "_notes", "_"])
def test_notes_may_stand_in_a_job_and_its_scenes(name: str, note: Any, tmp_path: Path) -> None:
    """They are not looked at, and the job is the same without them."""
    plain: dict[str, Any] = {"scenes": [{"id": "a", "prompt": "p", "target_duration": 5}]}
    noted = {name: note, "scenes": [{**plain["scenes"][0], name: note}]}
    assert job_of(json.dumps(noted), tmp_path, "film.json") == job_of(json.dumps(plain), tmp_path, "film.json")


def test_a_planned_clip_may_have_notes(tmp_path: Path) -> None:
    """As in a job."""
    job = job_of('[{"prompt": "p", "duration": 5, "notes": 1, "_n": 2, "metadata": 3}]', tmp_path, "film.json")
    assert job.scenes[0].notes is None


def test_notes_are_no_part_of_a_clips_key(tmp_path: Path) -> None:
    """A note that is added later costs nothing."""
    scene = {"id": "a", "prompt": "p", "target_duration": 5}
    jobs = [
        job_of(json.dumps({"scenes": [each]}), tmp_path, "film.json")
        for each in (scene, {**scene, "notes": "x", "metadata": {"y": 1}, "_z": 2})
    ]
    first, second = (build_plan(job, read_registry()).requests[0].key for job in jobs)
    assert first == second
