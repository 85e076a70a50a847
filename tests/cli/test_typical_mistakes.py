"""What people type, set and write wrongly: each is answered with what happened, where, and what to do."""

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from flows.command import choose_prefect_home

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
JOB = """[[scenes]]
id = "a"
prompt = "A pier"
target_duration = 5
"""


@dataclass(frozen=True)
class Mistake:
    arguments: tuple[str, ...]
    says: tuple[str, ...]
    """What happened, where, and what to do."""
    files: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    code: int = 2
    silent: tuple[str, ...] = ()
    """What must not be said."""


def of_file(text: str, *says: str, name: str = "film.toml") -> Mistake:
    return Mistake(("check", name), says, {name: text})


def of_flag(*arguments: str, says: tuple[str, ...], silent: tuple[str, ...] = ()) -> Mistake:
    return Mistake(("plan", "film.toml", *arguments), says, silent=silent)


def of_environment(name: str, value: str, *says: str) -> Mistake:
    return Mistake(("plan", "film.toml"), (name, *says), environment={name: value})


MISTAKES = {
    "job-missing": Mistake(("plan", "flim.toml"), ("flim.toml", "no such file")),
    "job-is-folder": Mistake(("plan", "."), ("not a regular file",)),
    "resume": of_flag(
        "--resume", says=("--resume", "run the same command again", "--retry-failed"), silent=("--fresh",)
    ),
    "continue": of_flag("--continue", says=("--continue", "run the same command again"), silent=("--fresh",)),
    "fersh-like": of_flag("--refresh-all", says=("--refresh-all",)),
    "min-clips": of_flag("--min-clips", "12", says=("--min-clips", "the job has 1 clip,", "ask for 1 at most")),
    "model": of_flag("--model", "veo", says=("--model", "'veo' is not in the registry", "there are: ")),
    "ratio": of_flag("--aspect-ratio", "16x9", says=("--aspect-ratio", "16x9", "did you mean '16:9'")),
    "provider": of_flag("--provider", "fal", says=("--provider", "fal", "replicate")),
    "both": of_flag("--fresh", "--retry-failed", says=("--fresh", "--retry-failed", "use one of them")),
    "max-cost": of_flag("--max-cost", "0.10", says=("--max-cost", "the plan costs $0.35", "$0.10")),
    "registry-flag": of_flag("--registry", "mine.toml", says=("mine.toml", "no such file")),
    "registry": of_environment(
        "VIDEOGEN_REGISTRY", "nowhere.toml", "nowhere.toml", "must name a models.toml that is there"
    ),
    "base-url": of_environment("REPLICATE_BASE_URL", "api.replicate.com", "must begin with http:// or https://"),
    "token": of_environment("REPLICATE_API_TOKEN", "r8 x", "must be one word of printable ASCII"),
    "buffer": of_environment("VIDEO_GENERATOR_DURATION_BUFFER", "25%", "a number of at least 1", "25%"),
    "buffer-underscore": of_environment("VIDEO_GENERATOR_DURATION_BUFFER", "1_5", "a number of at least 1", "1_5"),
    "provider-variable": of_environment("VIDEOGEN_PROVIDER", "fal", "'replicate' or 'local'"),
    "journal-in-memory": of_environment(
        "VIDEOGEN_JOURNAL_URL", "sqlite://", "a database in memory", "Name a file, such as sqlite:///journal.db"
    ),
    "journal-is-folder": of_environment("VIDEOGEN_JOURNAL_URL", "sqlite:///.", ". is a folder", "Name a file in it"),
    "journal-is-job-file": of_environment(
        "VIDEOGEN_JOURNAL_URL", "sqlite:///film.toml", "film.toml exists and is not a SQLite database"
    ),
    "out-is-file": of_flag("--out", "film.toml", says=("film.toml is not a folder", "another folder with --out")),
    "out-below-file": Mistake(
        ("plan", "film.toml"), ("film.toml is not a folder",), environment={"VIDEOGEN_OUT": "film.toml/x/y"}
    ),
    "out-has-question-mark": of_flag("--out", "why?", says=("why?", "question mark", "another folder with --out")),
    "frames-is-file": of_flag("--frames", "film.toml", says=("--frames", "film.toml is not a folder")),
    "frames-below-file": of_flag("--frames", "film.toml/x", says=("--frames", "film.toml is not a folder")),
    "picture-missing": of_file(
        JOB + 'scene_reference_url = "pier.png"\n', "film.toml:5:1", "scene_reference_url", "pier.png", "no such file"
    ),
    "picture-is-text": of_file(JOB + 'scene_reference_url = "film.toml"\n', "film.toml:5:1", "not a PNG, JPEG"),
    "picture-empty": of_file(
        JOB + 'character_reference_urls = [""]\n', "film.toml:5:29", "is empty", "leave the entry out"
    ),
    "yaml": of_file("scenes:\n - id: a\n", "film.yaml:1", "are TOML or JSON", name="film.yaml"),
    "csv": of_file("id,prompt\na,p\n", "shots.csv:1", "are TOML or JSON", name="shots.csv"),
    "field": of_file(JOB.replace("prompt", "promt"), "film.toml:3:1", "promt", "did you mean 'prompt'"),
    "duration": of_file(JOB.replace("5", '"5 s"'), "film.toml:4:1", "target_duration", "a number"),
    "too-long": of_file(JOB.replace("5", "25"), "film.toml:4:1", "at most 10 s", "split the scene into 3"),
    "twice": of_file(JOB + JOB, "film.toml:6:1", "id of an earlier scene", "unique"),
    "curly": of_file(JOB.replace('"a"', "\u201ca\u201d"), "film.toml:2", "straight quotes"),
}


def read_all(folder: Path) -> dict[str, str]:
    """Return the content of every file in the folder, by its path; folders have none."""
    return {str(path): "" if path.is_dir() else path.read_text("utf-8") for path in folder.rglob("*")}


def run(folder: Path, *arguments: str, environment: dict[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("VIDEO", "REPLICATE", "PYTHON"))}
    return subprocess.run(
        [sys.executable, "-m", "videogen", *arguments],
        cwd=folder,
        env={**clean, "PYTHONPATH": str(ROOT), **(environment or {})},
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES.keys())
def test_a_typical_mistake_is_told_with_what_where_and_what_to_do(mistake: Mistake, tmp_path: Path) -> None:
    """Never with a traceback, and without creating or changing a file."""
    for name, text in {"film.toml": JOB, **mistake.files}.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    before = read_all(tmp_path)
    done = run(tmp_path, *mistake.arguments, environment=mistake.environment)
    assert done.returncode == mistake.code, done.stderr
    assert "Traceback" not in done.stderr
    assert [words for words in mistake.says if words not in done.stderr] == []
    assert [words for words in mistake.silent if words in done.stderr] == []
    assert read_all(tmp_path) == before


def test_there_are_twenty_five_of_them() -> None:
    """At least."""
    assert len(MISTAKES) >= 25


@pytest.mark.parametrize(
    "console",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "cp1252"},
        {"PYTHONIOENCODING": "latin-1"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
    ids=lambda console: next(iter(console.values())),
)
@pytest.mark.parametrize(
    "arguments", [("models",), ("models", "show", "wan-2.5-i2v"), ("plan", "film.toml"), ("--help",)], ids=" ".join
)
def test_a_console_of_another_encoding_shows_everything(
    arguments: tuple[str, ...], console: dict[str, str], tmp_path: Path
) -> None:
    """What it has no character for is written as an escape."""
    (tmp_path / "film.toml").write_text(JOB.replace("A pier", "桟橋 🌊 {name}"), encoding="utf-8")
    done = run(tmp_path, *arguments, environment=console)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr


def test_what_looks_like_a_variable_is_warned_of(tmp_path: Path) -> None:
    """Nothing is filled in, and braces are legal text."""
    (tmp_path / "film.toml").write_text("min_clips = 4\n" + JOB.replace("A pier", "{name} at a pier"), encoding="utf-8")
    done = run(tmp_path, "plan", "film.toml")
    assert "scenes.0.prompt: {name} is sent as it is: variables are not filled in" in done.stdout
    assert "min_clips: 4 is more than the 1 clip of this job" in done.stdout


def test_a_token_under_another_name_is_named(tmp_path: Path) -> None:
    """The clients of other providers call it a key."""
    (tmp_path / "film.toml").write_text(JOB, encoding="utf-8")
    done = run(tmp_path, "plan", "film.toml", environment={"REPLICATE_API_KEY": "r8_x"})
    assert "REPLICATE_API_TOKEN is not set (REPLICATE_API_KEY is, which is not read)" in done.stdout


def test_a_proxy_that_is_not_there_is_named(tmp_path: Path) -> None:
    """With what was asked for by way of it, and without its password."""
    (tmp_path / "film.toml").write_text(JOB, encoding="utf-8")
    environment = {
        "REPLICATE_API_TOKEN": "r8_x",
        "HTTPS_PROXY": "http://us:secret@127.0.0.1:9",
    }
    done = run(tmp_path, "models", "check", "svd", environment=environment)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert "cannot connect to api.replicate.com by way of the proxy http://127.0.0.1:9" in done.stderr
    assert "secret" not in done.stderr


def test_prefect_keeps_its_files_in_the_out_folder_where_home_cannot_be_written(tmp_path: Path) -> None:
    """As in a container of an arbitrary user; PREFECT_HOME says otherwise."""
    assert choose_prefect_home({"HOME": "/dev/null"}, tmp_path) == str(tmp_path.absolute() / ".prefect")
    assert choose_prefect_home({"HOME": str(tmp_path)}, tmp_path) is None
    assert choose_prefect_home({"HOME": "/dev/null", "PREFECT_HOME": "/x"}, tmp_path) is None
