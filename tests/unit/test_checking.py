"""`videogen check`: what is said of files that are wrong, each in one way."""

import json
from pathlib import Path
from typing import Any

import pytest
import tomli

from videogen.cli.main import main

TOML = """model = "kling-v2.5-turbo"
aspect_ratio = "16:9"

[[scenes]]
id = "a"
prompt = "A pier"
target_duration = 5

[[scenes]]
id = "b"
prompt = "A boat"
target_duration = 5
"""
JSON = """{"model": "kling-v2.5-turbo",
 "scenes": [
  {"id": "a", "prompt": "A pier", "target_duration": 5},
  {"id": "b", "prompt": "A boat", "target_duration": 5}
]}
"""
PLANNED = """[
  {"clip_index": 0, "prompt": "A pier", "duration": 5.5, "metadata": {"beat": 1}},
  {"clip_index": 1, "prompt": "A boat", "duration": 5.5}
]
"""
REGISTRY = """[models.mine]
replicate = "me/mine"
source = "https://replicate.com/me/mine"
typical_run_seconds = 60
duration = { mode = "discrete", sizes = [5, 10], input = "duration" }
aspect_ratios = { "16:9" = { aspect_ratio = "16:9" } }
parameters = { prompt = "prompt" }
price = { per_second = "0.10", as_of = 2026-11-01, basis = "exact" }

[models."kling-v2.1".price]
per_second = "0.08"
"""
RIGHT = {"film.toml": TOML, "film.json": JSON, "clips.json": PLANNED, "models.toml": REGISTRY}
BROKEN = tomli.loads(Path(__file__).with_name("broken_files.toml").read_text(encoding="utf-8"))["files"]


def checked(folder: Path, name: str, text: str, *flags: str) -> int:
    """Exit code of `check` on a folder of files that are right but for this one."""
    for each, right in RIGHT.items():
        (folder / each).write_text(text if each == name else right, encoding="utf-8")
    job = "film.toml" if name == "models.toml" else name
    return main(["check", str(folder / job), "--registry", str(folder / "models.toml"), *flags])


@pytest.mark.parametrize("name", ["film.toml", "film.json", "clips.json"])
def test_a_job_that_is_right_is_told_in_a_line(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its scenes, its model and its price; the planner's clips are 5.5 s, so 10 s each are paid for."""
    assert checked(tmp_path, name, RIGHT[name]) == 0
    price = "1.400" if name == "clips.json" else "0.700"
    said = f"{name}: 2 scenes for kling-v2.5-turbo at 16:9, ${price}; no problems found\n"
    assert capsys.readouterr() == (said, "")


@pytest.mark.parametrize("file", BROKEN, ids=lambda file: f"{file['name']}-{file['mistake']}")
def test_a_mistake_is_told_with_its_place_and_what_would_be_right(
    file: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 2, and nothing else is said."""
    name, old = file["name"], file["old"] or RIGHT[file["name"]]
    assert old in RIGHT[name]
    assert checked(tmp_path, name, RIGHT[name].replace(old, file["new"], 1)) == 2
    assert capsys.readouterr() == ("", "".join(f"error: {line}\n" for line in file["says"]))


def test_every_kind_of_mistake_has_a_file_of_its_own() -> None:
    """Forty at least, none twice."""
    assert len({(file["name"], file["mistake"]) for file in BROKEN}) == len(BROKEN) > 40


ALL_WRONG = """
modle = "x"
concurrency = 0
[[scenes]]
id = "a"
prompt = "p"
target_duration = 50
[[scenes]]
id = "A"
promt = "p"
target_duration = 1
"""


def test_all_mistakes_are_told_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of both files: those of form, those that only show when the scenes are compared, and those against the model."""
    (tmp_path / "film.toml").write_text(ALL_WRONG.lstrip())
    (tmp_path / "models.toml").write_text(REGISTRY.replace('"0.10"', '"-0.10"'))
    assert main(["check", str(tmp_path / "film.toml"), "--registry", str(tmp_path / "models.toml"), "--json"]) == 2
    problems = json.loads(capsys.readouterr().out)["problems"]
    assert [(each["file"], each["line"], each["column"], each["field"]) for each in problems] == [
        ("models.toml", 8, 11, "models.mine.price.per_second"),
        ("film.toml", 1, 1, "modle"),
        ("film.toml", 2, 1, "concurrency"),
        ("film.toml", 6, 1, "scenes.0.target_duration"),
        ("film.toml", 7, 3, "scenes.1.prompt"),
        ("film.toml", 8, 1, "scenes.1.id"),
        ("film.toml", 9, 1, "scenes.1.promt"),
    ]


def test_a_mistake_is_not_told_again_as_what_follows_from_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a model or a tolerance nothing can be said of lengths; of a wrong ratio or reference only that."""
    text = TOML.replace("= 5", "= 50", 1)
    for wrong in ("model = 3", "duration_tolerance = -1"):
        checked(tmp_path, "film.toml", text.replace('model = "kling-v2.5-turbo"', wrong))
        assert [line.split(":")[1] for line in capsys.readouterr().err.splitlines()] == [" film.toml"]
    (tmp_path / "tall.toml").write_text(REGISTRY.replace('"16:9"', '"9:16"'))
    (tmp_path / "film.toml").write_text(TOML.replace("kling-v2.5-turbo", "mine").replace('"16:9"', "1.78"))
    main(["check", str(tmp_path / "film.toml"), "--registry", str(tmp_path / "tall.toml")])
    assert [line.split(": ")[2:3] for line in capsys.readouterr().err.splitlines()] == [["aspect_ratio"]]
    text = TOML.replace("kling-v2.5-turbo", "svd").replace('"A pier"', '"A pier"\nscene_reference_url = 3')
    checked(tmp_path, "film.toml", text)
    said = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[2] for line in said] == ["scenes.0.scene_reference_url", "scenes.1.scene_reference_url"]


def test_a_model_that_is_wrong_in_the_registry_is_not_called_unknown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The registry is to be mended, not the job."""
    job = tmp_path / "film.toml"
    checked(tmp_path, "models.toml", REGISTRY.replace("= 60", "= 0"))
    job.write_text(TOML.replace("kling-v2.5-turbo", "mine"))
    capsys.readouterr()
    assert main(["check", str(job), "--registry", str(tmp_path / "models.toml")]) == 2
    assert capsys.readouterr().err.count("error: ") == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        pytest.param(["--max-cost", "nan"], "--max-cost: input should be a finite number, not 'nan'", id="nan"),
        pytest.param(["--max-cost", "much"], "--max-cost: input should be a number, not 'much'", id="no-number"),
        pytest.param(["--concurrency", "0"], "--concurrency: input should be greater than or equal to 1", id="none"),
        pytest.param(["--model", "sdv"], "--model: 'sdv' is not in the registry; there are: kling", id="model"),
    ],
)
def test_a_wrong_flag_is_told_beside_what_is_wrong_with_the_job(
    flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In our words, and as the flag's fault."""
    path = tmp_path / "film.toml"
    path.write_text(TOML.replace('"A pier"', '""'))
    assert main(["plan", str(path), *flags]) == 2
    of_flag, of_job = capsys.readouterr().err.splitlines()
    assert of_flag.startswith(f"error: command line: {message}")
    assert of_job.startswith("error: film.toml:6:1: scenes.0.prompt")


def test_programs_get_what_was_looked_at_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One object; a front end shows the price before anything is made."""
    assert checked(tmp_path, "film.toml", TOML, "--json") == 0
    assert json.loads(capsys.readouterr().out) == {
        "problems": [],
        "scenes": 2,
        "job_id": "film",
        "model": "kling-v2.5-turbo",
        "aspect_ratio": "16:9",
        "total_cost": "0.700",
        "cost_is_exact": True,
    }
