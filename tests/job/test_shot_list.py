"""Shot lists, as people keep them in spreadsheets, become job files; every row that is no scene is told by its line."""

from pathlib import Path
from typing import Any

import pytest
import tomli

from videogen.cli import main as cli
from videogen.errors import ValidationError
from videogen.job.load import read_job
from videogen.job.shot_list import read_shot_list, write_job

SHOTS = """Scene;Description;Duration;After;Characters;Required;Director
opening;"A pier; at dawn";5 s;;;yes;Ana
;"The boat ""Lena"" leaves
in the fog";2,5;opening;keeper.png, dog.png;;

storm 2;Storm;0:08;shot-002;;no;
"""


def read(folder: Path, text: str) -> list[dict[str, Any]]:
    path = folder / "shots.csv"
    path.write_bytes(text.encode())
    return [dict(scene) for scene in read_shot_list(path).scenes]


def test_columns_are_matched_by_their_names(tmp_path: Path) -> None:
    """In the words and with the separators of spreadsheets, quotes and line ends in cells included."""
    assert read(tmp_path, SHOTS) == [
        {"id": "opening", "prompt": "A pier; at dawn", "target_duration": 5, "required": True},
        {
            "id": "shot-002",
            "prompt": 'The boat "Lena" leaves\nin the fog',
            "target_duration": 2.5,
            "continues": "opening",
            "character_reference_urls": ["keeper.png", "dog.png"],
        },
        {"id": "storm-2", "prompt": "Storm", "target_duration": 8, "continues": "shot-002", "required": False},
    ]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("prefix", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_any_spreadsheet_can_have_saved_it(tmp_path: Path, separator: str, prefix: str, end: str) -> None:
    rows = [["prompt", "target duration", "NEGATIVE PROMPT"], ["A pier", "5", "rain"]]
    text = prefix + end.join(separator.join(row) for row in rows) + end
    assert read(tmp_path, text) == [
        {"id": "shot-001", "prompt": "A pier", "target_duration": 5, "negative_prompt": "rain"}
    ]


@pytest.mark.parametrize("before", ["\n \n", "sep=;\n", "\ufeffsep=;\r\n"])
def test_lines_before_the_names_do_not_matter(tmp_path: Path, before: str) -> None:
    (scene,) = read(tmp_path, f"{before}Shot;Seconds;Prompt\n1;5;A man, walking\n")
    assert (scene["prompt"], scene["target_duration"]) == ("A man, walking", 5)


def test_a_text_with_commas_and_without_quotes_is_not_cut_off(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=r"shots\.csv:2: has 4 cells, more than the 3 columns: put quotes"):
        read(tmp_path, "Shot,Seconds,Prompt\n1,5,A man, walking on the beach\n2,5,A dog,,\n")


def test_times_and_places_are_no_pictures(tmp_path: Path) -> None:
    """As in the shot lists of productions."""
    text = "No.;Description;Duration;Location;Start;End\n1;A man walks;5;Harbour, day;00:00;00:05\n"
    assert read(tmp_path, text) == [{"id": "1", "prompt": "A man walks", "target_duration": 5}]


def test_the_job_file_has_the_scenes_of_the_list(tmp_path: Path) -> None:
    """Whatever stands in its cells."""
    path = tmp_path / "shots.csv"
    path.write_text(SHOTS)
    job = tmp_path / "film.toml"
    job.write_text(write_job(read_shot_list(path), model="kling-v2.5-turbo", source="a\nb.csv"))
    read_back, _ = read_job(job)
    assert read_back.model == "kling-v2.5-turbo"
    assert [scene.id for scene in read_back.scenes] == ["opening", "shot-002", "storm-2"]
    assert read_back.scenes[1].upstream_ids == ("opening",)


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        pytest.param("", ["shots.csv: is empty: the first line names the columns"], id="empty"),
        pytest.param(
            "Shot,Text\na,b\n",
            ["shots.csv:1: no column for target_duration; there are 'Shot', 'Text'"],
            id="no-length",
        ),
        pytest.param(
            "prompt,seconds,seed\nA pier,five,1\n,4,2\nA boat,4,x\n",
            [
                "shots.csv:2: seconds: input should be a number, not 'five'",
                "shots.csv:3: prompt: is required",
                "shots.csv:4: seed: input should be a whole number, not 'x'",
            ],
            id="every-row",
        ),
        pytest.param(
            'prompt,seconds\n"A\npier",5\nA boat,-5\n',
            ["shots.csv:4: seconds: input should be a number, not '-5'"],
            id="lines-in-cells",
        ),
        pytest.param(
            "id,prompt,seconds,required\na,A pier,5,maybe\n",
            ["shots.csv:2: required: input should be true or false, not 'maybe'"],
            id="no-switch",
        ),
        pytest.param(
            "id,prompt,seconds\na,A pier,5\n\nA,A boat,5\n",
            ["shots.csv:4: id: 'A' is the id of line 2, too"],
            id="twice",
        ),
        pytest.param(
            "id,prompt,seconds,continues\na,A pier,5,c\nb,A boat,5,\n",
            ["shots.csv:2: continues: 'c' is no scene of this job"],
            id="no-upstream",
        ),
        pytest.param('prompt,seconds\n"A pier,5\n', ["shots.csv:2: no valid CSV: unexpected end of data"], id="quotes"),
    ],
)
def test_every_row_that_is_no_scene_is_told(tmp_path: Path, text: str, problems: list[str]) -> None:
    """By its line and the name of its column."""
    with pytest.raises(ValidationError) as caught:
        read(tmp_path, text)
    assert [str(problem) for problem in caught.value.problems] == problems


def test_another_encoding_is_told_with_what_would_be_right(tmp_path: Path) -> None:
    path = tmp_path / "shots.csv"
    path.write_bytes("prompt,seconds\nein Caf\u00e9,5\n".encode("latin-1"))
    with pytest.raises(ValidationError, match=r"shots\.csv: byte 22 is no UTF-8: save the table as CSV in UTF-8"):
        read_shot_list(path)


def test_the_command_prints_a_job_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And names the columns that it leaves out."""
    path = tmp_path / "shots.csv"
    path.write_text(SHOTS)
    assert cli.main(["import", str(path), "--model", "veo-3.1"]) == 0
    out, err = capsys.readouterr()
    assert err == "shots.csv: 3 scenes; no field of a scene, and not used: Director\n"
    assert tomli.loads(out)["model"] == "veo-3.1"
    assert cli.main(["import", str(tmp_path / "none.csv")]) == 2
    assert capsys.readouterr().err == "error: none.csv: cannot be read: No such file or directory\n"
