"""Wrong takes, choices and ratings on the command line are told where they were written, and change nothing."""

import json
from pathlib import Path

import pytest

from tests.support.builders import deliver, job_of, result_of, small_clip
from videogen.cli.main import main
from videogen.job.choices import CHOICES_NAME
from videogen.storage.local import FileStore

pytestmark = pytest.mark.integration

JOB = """id = "film"
model = "wan-2.6-t2v"
[[scenes]]
id = "storm"
prompt = "A storm"
target_duration = 5
[[scenes]]
id = "calm"
prompt = "A calm"
target_duration = 5
"""
SCENES = [{"id": name, "prompt": f"A {name}", "target_duration": 5} for name in ("storm", "calm")]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a job after a run that made its first scene only."""
    monkeypatch.chdir(tmp_path)
    Path("film.toml").write_text(JOB)
    store = FileStore(tmp_path / "out" / "film")
    job = job_of(*SCENES)
    clip = deliver(store, job.scenes[0], small_clip(2))
    store.put_text(result_of(job, [clip]).manifest(), "manifest.json")
    return tmp_path / "out" / "film"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["rate", "film.toml", "storm=1", "4.5"], "error: RATING: input should be a whole number such as 5, not '4.5'"),
        (["rate", "film.toml", "storm=1", "6"], "error: RATING: 6 is not 1 to 5, nor 0, which removes the rating"),
        (["rate", "film.toml", "storm=1", "--note", "x" * 10_001], "error: command line: --note: take 1 of storm: "),
        (["rate", "film.toml", "calm", "4"], "error: calm has no take yet, because the last run made other scenes"),
        (["choose", "film.toml", "calm=1"], "error: calm has no take yet, because the last run made other scenes"),
        (["choose", "film.toml", "clam=1"], "error: 'clam' is no scene of film; did you mean 'calm'?"),
        (["choose", "film.toml", "storm=1", "storm=1"], "error: storm is chosen twice"),
        (["retake", "film.toml", "storm", "--prompt", ""], "error: command line: --prompt: take 2 of storm: is empty"),
        (["retake", "film.toml", "storm", "--prompt", " "], "error: command line: --prompt: take 2 of storm: is empty"),
        (["finish", "film.toml", "--tier", ""], "error: command line: --tier: take 2 of storm: is empty"),
        (["retake", "film.toml", "storm", "--seed", "-1"], "error: command line: --seed: take 2 of storm: "),
        (
            ["retake", "film.toml", "storm", "--model", "wan-2.6-t2w"],
            "error: command line: --model: take 2 of storm: 'wan-2.6-t2w' is not in the registry",
        ),
        (
            ["retake", "film.toml", "storm", "--takes", "2", "--tier", "none", "--dry-run"],
            "error: command line: --tier: take 2 of storm, take 3 of storm: ",
        ),
        (["finish", "film.toml", "--tier", "none", "--yes"], "error: command line: --tier: take 2 of storm: "),
    ],
)
def test_a_wrong_argument_is_told_and_changes_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    before = (folder / "manifest.json").read_text()
    assert main(arguments) == 2
    told = capsys.readouterr().err
    assert told.startswith(says)
    assert len(told.splitlines()) == 1
    assert not (folder / CHOICES_NAME).exists()
    assert (folder / "manifest.json").read_text() == before


def test_a_wrong_take_in_the_file_is_told_with_its_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also by a command about another scene."""
    text = '[storm.takes.2]\nseed = 7\n\n[calm.takes.2]\ntier = "none"\n'
    (folder / CHOICES_NAME).write_text(text, encoding="utf-8")
    for arguments in (["plan", "film.toml"], ["retake", "film.toml", "storm", "--seed", "8"]):
        assert main(arguments) == 2
        assert capsys.readouterr().err.startswith("error: choices.toml:5:1: calm.takes.2.tier: ")


def test_a_take_that_was_never_made_cannot_be_chosen_in_the_file_without_a_warning(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = '[storm]\nchosen = 9\n[storm.takes."veo-3.1"]\nrating = 4\n[storm.takes.1]\nrating = 5\n'
    (folder / CHOICES_NAME).write_text(text, encoding="utf-8")
    assert main(["plan", "film.toml", "--json"]) == 0
    assert [each for each in json.loads(capsys.readouterr().out)["warnings"] if "storm" in each] == [
        "choices.toml:2:1: storm.chosen: storm has no take 9, so this is ignored: its takes are 1",
        "choices.toml:3:2: storm.takes.veo-3.1: storm has no take veo-3.1, so this is ignored: its takes are 1",
    ]


def test_a_rating_of_a_take_that_was_never_made_is_told_because_the_take_would_be_paid_for(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / CHOICES_NAME).write_text("[storm.takes.7]\nrating = 3\n[storm.takes.8]\nseed = 1\n", encoding="utf-8")
    for command in (["plan"], ["choose"], ["export"]):
        assert main([*command, "film.toml"]) == 0
        said = [each for each in "".join(capsys.readouterr()).splitlines() if "choices.toml" in each]
        assert len(said) == 1, command
        assert "warning: choices.toml:1:2: storm.takes.7: this take was rated, but never made" in said[0]


def test_a_check_looks_at_the_choices_of_earlier_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / CHOICES_NAME).write_text('[storm]\nchosen = ""\n[storm.takes.1]\nseed = 1\n', encoding="utf-8")
    assert main(["check", "film.toml"]) == 2
    assert capsys.readouterr().err.startswith("error: choices.toml:2:1: storm.chosen: ")


def test_a_rating_is_shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rate", "film.toml", "storm", "4", "--note", "  "]) == 0
    assert capsys.readouterr().out == "storm: take 1 (chosen) ★★★★\n"
    assert "note =" not in (folder / CHOICES_NAME).read_text()


def test_a_number_that_several_models_have_names_no_take(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (clip,) = manifest["clips"]
    others = [{**clip, "scene_id": f"storm.{model}", "take_of": "storm", "model": model} for model in ("a", "b")]
    (folder / "manifest.json").write_text(json.dumps(manifest | {"clips": others, "cells_per_scene": 2}))
    assert main(["choose", "film.toml", "storm=1"]) == 2
    assert capsys.readouterr().err == "error: several models made take 1 of storm: name one, such as storm=a\n"


def test_another_model_makes_the_final_takes_at_its_own_tier(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / CHOICES_NAME).write_text('[storm.takes.2]\nmodel = "kling-v3-omni"\ntier = "draft"\n', encoding="utf-8")
    manifest = json.loads((folder / "manifest.json").read_text())
    take = {**manifest["clips"][0], "scene_id": "storm.take-2", "take": 2, "take_of": "storm"}
    (folder / "manifest.json").write_text(json.dumps(manifest | {"clips": [*manifest["clips"], take]}))
    assert main(["finish", "film.toml", "--model", "veo-3.1", "--dry-run"]) == 0
    assert "storm.take-3" in capsys.readouterr().out


def test_what_is_at_the_tier_already_is_not_made_again(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its clip would be another one of the same kind, and would be paid for."""
    manifest = json.loads((folder / "manifest.json").read_text())
    assert main(["plan", "film.toml", "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)["scenes"][0]
    manifest["clips"][0] |= {"model": "wan-2.6-t2v", "inputs": planned["inputs"]}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert main(["finish", "film.toml", "--model", "wan-2.6-t2v", "--yes"]) == 0
    said = capsys.readouterr().err.splitlines()
    assert said == ["storm: its chosen take is made like that already, and stays", "nothing is to be made"]
    assert not (folder / CHOICES_NAME).exists()


def test_a_folder_that_cannot_be_written_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As on a medium that is read-only. A folder in the place of the lock fails for every user."""
    (folder / ".choices.lock").mkdir()
    assert main(["choose", "film.toml", "storm=1"]) == 1
    assert f"{folder}/.choices.lock cannot be written: " in capsys.readouterr().err
