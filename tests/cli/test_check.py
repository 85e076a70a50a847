"""`videogen check`: what is said of files that are wrong, each in one way."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import tomli

from videogen.cli.main import main
from videogen.job.model import Job

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
    price = "1.40" if name == "clips.json" else "0.70"
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


TWICE = """{"model": "veo-9", "aspect_ratio": "16x9",
 "scenes": [
  {"id": "a", "id": 3.5, "prompt": "A pier", "target_duration": 5},
  {"id": "c", "promt": "A boat", "target_duration": 5}
]}
"""


def test_a_key_that_is_there_twice_and_an_unknown_model_hide_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """But for the value of the repeated key, as it is not known which one is meant."""
    assert checked(tmp_path, "film.json", TWICE) == 2
    said = capsys.readouterr().err.splitlines()
    assert [line.removeprefix("error: ").partition(";")[0] for line in said] == [
        "film.json:3:4: scenes.0.id: is there twice",
        "film.json:1:2: model: 'veo-9' is not in the registry",
        "film.json:1:20: aspect_ratio: no model supports '16x9'",
        "film.json:4:3: scenes.1.prompt: is required",
        "film.json:4:15: scenes.1.promt: unknown field",
    ]
    assert said[2].endswith("; did you mean '16:9'?")


def test_a_job_in_another_ratio_is_told_with_its_own_budget(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is a job of its own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "film.toml").write_text("max_cost = 2\n" + TOML)
    assert main(["plan", "film.toml", "--aspect-ratio", "9:16"]) == 0
    out, err = capsys.readouterr()
    assert err.startswith("--aspect-ratio 9:16: film-9x16 is a job of its own beside film,")
    assert err.endswith("with a folder and a budget of $2.00 of its own\n")
    assert "film-9x16: 2 of 2 clips to make" in out


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
        *(
            pytest.param(
                ["--max-cost", value], f"--max-cost: input should be a plain number such as 5 or 0.25, not {value!r}"
            )
            for value in (
                "nan",
                "NaN",
                "inf",
                "much",
                "1_0",
                "1e1",
                "\uff11",
                " 5",
                "5 ",
                "+5",
                "0x5",
                "5,00",
                "$5",
                "",
            )
        ),
        pytest.param(["--max-cost", "-1"], "--max-cost: input should be greater than or equal to 0, not '-1'"),
        *(
            pytest.param(["--min-clips", value], "--min-clips: input should be a number of clips from 1, or a share")
            for value in ("1_0", "1.4", "0x1", "\uff11", " 1", "-1")
        ),
        pytest.param(["--concurrency", "0"], "--concurrency: input should be greater than or equal to 1", id="none"),
        pytest.param(["--model", "sdv"], "--model: 'sdv' is not in the registry; `videogen models` lists", id="model"),
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


@pytest.mark.parametrize("value", ["1_0", "1.4", "0x1", "\uff11", " 1", "+1", ""])
@pytest.mark.parametrize(
    ("command", "flag"),
    [
        (["plan", "{job}", "--takes"], "--takes"),
        (["plan", "{job}", "--concurrency"], "--concurrency"),
        (["limit", "here"], "SLOTS"),
        (["gateway", "--port"], "--port"),
        (["emulator", "--port"], "--port"),
        (["emulator", "--seed"], "--seed"),
        (["emulator", "--creates-per-minute"], "--creates-per-minute"),
    ],
)
def test_a_whole_number_of_a_flag_is_written_in_digits(
    command: list[str], flag: str, value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`1_0` is not read as ten, and `1.4` not as one."""
    (job := tmp_path / "film.toml").write_text(TOML)
    assert main([*(part.format(job=job) for part in command), value]) == 2
    assert capsys.readouterr().err == f"error: {flag}: input should be a whole number such as 5, not {value!r}\n"


@pytest.mark.parametrize("value", ["1_0", "1e1", "\uff11", " 1", "nan"])
def test_other_numbers_of_flags_are_plain_numbers(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["emulator", "--time-scale", value]) == 2
    assert f"--time-scale: input should be a plain number such as 5 or 0.25, not {value!r}" in capsys.readouterr().err
    assert main(["emulator", "--latency", value]) == 2
    assert f"--latency: {value!r} is not LOW:HIGH in seconds" in capsys.readouterr().err


@pytest.mark.parametrize("amount", ["1e1", "1_0", "5.00", "0.0000001", '"5.00"', '"0.0000001"'])
def test_an_amount_is_the_same_after_a_job_is_passed_on(amount: str) -> None:
    """TOML has numbers with exponents and underscores, which are no texts; Prefect is given the job as JSON."""
    job = Job.model_validate(tomli.loads(f"max_cost = {amount}\n{TOML}", parse_float=Decimal))
    assert Job.model_validate_json(job.model_dump_json()) == job


# -- as a plan --------------------------------------------------------------------------------------------------------


def said_by(command: str, job: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = main([command, str(job)])
    return code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("before", "of_scene", "says"),
    [
        ("max_cost = 0.1\n", "", "film.toml:1:1: max_cost: the plan costs $0.35, $0.25 above the cap of $0.10: "),
        ("max_cost = 0\n", "", "max_cost: the plan costs $0.35, $0.35 above the cap of $0.00: --max-cost 0.35"),
        ('max_cost = "1_0"\n', "", "film.toml:1:1: max_cost: input should be a plain number"),
        (
            "takes = 3\nmax_cost = 1\n",
            "",
            "film.toml:2:1: max_cost: the plan costs $1.05, $0.05 above the cap of $1.00: --",
        ),
        *(
            ("", f'scene_reference_url = "{url}"\n', f"film.toml:5:1: scenes.0.scene_reference_url: {url}: {why}")
            for url, why in {
                "file:///etc/passwd": "file: URLs are not fetched; write the path of the file",
                "FILE:pier.png": "file: URLs are not fetched; write the path of the file",
                "http://pictures.example/a.png": "http: URLs are not fetched; use a public https URL",
                "s3://bucket/a.png": "s3: URLs are not fetched; use a public https URL",
                "https:///a.png": "a URL without a host",
                "https://[::1/a.png": "not a valid URL",
                "https://10.0.0.1/a.png": "host '10.0.0.1' is at 10.0.0.1, not a public address",
                "https://0x7f.1/a.png": "host '0x7f.1' is at 127.0.0.1, not a public address",
                "https://[::1]/a.png": "host '::1' is at ::1, not a public address",
            }.items()
        ),
        ("", 'scene_reference_url = "https://u:p@x.example/a.png"\n', "a URL with a password"),
        ("", 'character_reference_urls = [" http://x.example/a.png"]\n', "http: URLs are not fetched"),
    ],
)
def test_a_check_says_what_a_plan_says(
    before: str,
    of_scene: str,
    says: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In the same words, with the same exit code."""
    monkeypatch.chdir(tmp_path)
    scene = '[[scenes]]\nid = "a"\nprompt = "A pier"\ntarget_duration = 5\n'
    (job := tmp_path / "film.toml").write_text(before + scene + of_scene)
    checked, planned = (said_by(command, job, capsys) for command in ("check", "plan"))
    assert checked == planned
    assert (checked[0], says in checked[1]) == (2, True), checked[1]


def test_a_check_fetches_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also for an address with blanks around it; a name is not even looked up."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr("videogen.references.fetch.resolve_host", refuse)
    (job := tmp_path / "film.toml").write_text(
        TOML.replace("target", 'scene_reference_url = " https://x.example/a.png "\ntarget', 1)
    )
    assert said_by("check", job, capsys) == (0, "")


def test_both_references_and_the_budget_are_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = TOML.replace("target", 'scene_reference_url = "file:///a.png"\ntarget', 1)
    (job := tmp_path / "film.toml").write_text(f"max_cost = 0.1\n{text}")
    code, said = said_by("check", job, capsys)
    assert (code, len(said.splitlines())) == (2, 2)


def test_a_check_does_not_refuse_what_earlier_clips_may_pay_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A check does not read the journal, so it cannot know; it says so."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out" / "film").mkdir(parents=True)
    (tmp_path / "film.toml").write_text(f"max_cost = 0.5\n{TOML}")
    assert main(["check", "film.toml"]) == 0
    price = "$0.70, more than the $0.50 allowed unless clips of earlier runs are reused; no problems found"
    assert price in capsys.readouterr().out


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
