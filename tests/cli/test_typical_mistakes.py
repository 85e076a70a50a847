"""What people type, set and write wrongly: each is answered with what happened, where, and what to do."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from tests.support.servers import Loopback, answer, https_server, unused_url
from tests.support.tokens import TOKEN
from videogen.cli.main import main
from videogen.execution import rate_limit_gate
from videogen.flows.command import choose_prefect_home

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
OUR_VARIABLES = ("VIDEO", "REPLICATE", "PYTHON")
"""Prefixes of the environment variables that change what a command does."""
Check = Callable[..., Awaitable[tuple[int, str]]]
JOB = """[[scenes]]
id = "a"
prompt = "A pier"
target_duration = 5
"""


@dataclass(frozen=True)
class Mistake:
    arguments: tuple[str, ...]
    says: tuple[str, ...]
    """What happened, and where."""
    do: str
    """What to do."""
    files: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    code: int = 2
    silent: tuple[str, ...] = ()
    """What must not be said."""
    needs_prefect: bool = False
    """Whether Prefect is imported, which must see the environment: then the command has a process of its own."""


def of_file(text: str, *says: str, do: str, name: str = "film.toml") -> Mistake:
    return Mistake(("check", name), says, do, {name: text})


def of_flag(*arguments: str, says: tuple[str, ...] = (), do: str, silent: tuple[str, ...] = ()) -> Mistake:
    return Mistake(("plan", "film.toml", *arguments), (arguments[0], *says), do, silent=silent)


def of_environment(name: str, value: str, *says: str, do: str) -> Mistake:
    return Mistake(("plan", "film.toml"), (name, *says), do, environment={name: value})


MISTAKES = {
    "job-misspelt": Mistake(("plan", "flim.toml"), ("flim.toml: no such file",), "did you mean 'film.toml'?"),
    "job-missing": Mistake(("plan", "x/y.toml"), ("x/y.toml: no such file",), "check its name and folder"),
    "job-is-folder": Mistake(("plan", "."), (".: not a regular file, but a folder",), "name a file in it"),
    "resume": of_flag("--resume", says=("--retry-failed",), do="run the same command again", silent=("--fresh",)),
    "continue": of_flag("--continue", do="run the same command again", silent=("--fresh",)),
    "fersh-like": of_flag("--refresh-all", says=("Unknown option",), do="Did you mean --fresh?"),
    "min-clips": of_flag("--min-clips", "12", says=("the job has 1 clip,",), do="ask for 1 at most"),
    "model": of_flag(
        "--model", "veo", says=("'veo' is not in the registry", "`videogen models` lists"), do="did you mean 'veo-3.1'"
    ),
    "ratio": of_flag("--aspect-ratio", "16x9", says=("16x9",), do="did you mean '16:9'"),
    "provider": of_flag("--provider", "fal", says=("fal",), do='Choose from: "replicate", "local"'),
    "both": of_flag("--fresh", "--retry-failed", says=("--retry-failed",), do="use one of them"),
    "max-cost": of_flag(
        "--max-cost",
        "0.10",
        says=("the plan costs $0.35, $0.25 above the cap of $0.10",),
        do="--max-cost 0.35",
    ),
    "registry-flag": Mistake(
        ("plan", "film.toml", "--registry", "models.tml"), ("models.tml: no such file",), "check its name and folder"
    ),
    "registry": of_environment(
        "VIDEOGEN_REGISTRY", "nowhere.toml", "nowhere.toml", do="must name a models.toml that exists, or be unset"
    ),
    "base-url": of_environment("REPLICATE_BASE_URL", "api.replicate.com", do="must begin with http:// or https://"),
    "token": of_environment("REPLICATE_API_TOKEN", "r8 x", "must be one word of printable ASCII", do="copy it again"),
    "buffer": of_environment("VIDEO_GENERATOR_DURATION_BUFFER", "25%", "25%", do="must be a number of at least 1"),
    "buffer-underscore": of_environment(
        "VIDEO_GENERATOR_DURATION_BUFFER", "1_5", "1_5", do="must be a number of at least 1"
    ),
    "provider-variable": of_environment("VIDEOGEN_PROVIDER", "fal", "fal", do="should be 'replicate' or 'local'"),
    "journal-in-memory": of_environment(
        "VIDEOGEN_JOURNAL_URL", "sqlite://", "a database in memory", do="Name a file, such as sqlite:///journal.db"
    ),
    "journal-is-folder": of_environment("VIDEOGEN_JOURNAL_URL", "sqlite:///.", ". is a folder", do="Name a file in it"),
    "journal-is-job-file": of_environment(
        "VIDEOGEN_JOURNAL_URL",
        "sqlite:///film.toml",
        "film.toml exists and is not a SQLite database",
        do="Name another file, such as sqlite:///journal.db",
    ),
    "out-is-file": of_flag("--out", "film.toml", says=("film.toml is not a folder",), do="another folder with --out"),
    "out-below-file": Mistake(
        ("plan", "film.toml"),
        ("film.toml is not a folder",),
        "another folder with --out",
        environment={"VIDEOGEN_OUT": "film.toml/x/y"},
    ),
    "out-has-question-mark": of_flag("--out", "why?", says=("why?", "question mark"), do="another folder with --out"),
    "frames-is-file": of_flag("--frames", "film.toml", says=("film.toml is not a folder",), do="Choose another folder"),
    "frames-below-file": of_flag(
        "--frames", "film.toml/x", says=("film.toml is not a folder",), do="Choose another folder"
    ),
    "music-without-sound": Mistake(
        ("run", "film.toml", "--music", "film.toml"),
        ("music: ", "film.toml: it has no sound that can be decoded"),
        "Give a file with sound",
    ),
    "prefect-away": Mistake(
        ("run", "film.toml"),
        ("Prefect cannot be used: its server at http://127.0.0.1:9/api cannot be reached",),
        "Start it, or correct PREFECT_API_URL; without that setting, the run starts a server of its own",
        environment={"PREFECT_API_URL": "http://127.0.0.1:9/api"},
        code=1,
        needs_prefect=True,
    ),
    "picture-missing": of_file(
        JOB + 'scene_reference_url = "pier.png"\n',
        "film.toml:5:1",
        "scene_reference_url: pier.png",
        do="there is no such file in ",
    ),
    "picture-is-text": of_file(
        JOB + 'scene_reference_url = "film.toml"\n', "film.toml:5:1", "but text", do="not a PNG, JPEG or WEBP"
    ),
    "picture-empty": of_file(
        JOB + 'character_reference_urls = [""]\n', "film.toml:5:29", "is empty", do="leave the entry out"
    ),
    "yaml": of_file(
        "scenes:\n - id: a\n", "film.yaml:1", do="TOML or JSON, named .toml or .json: write this", name="film.yaml"
    ),
    "csv": of_file(
        "id,prompt\na,p\n", "shots.csv:1", do="TOML or JSON, named .toml or .json: write this", name="shots.csv"
    ),
    "field": of_file(
        JOB.replace("prompt", "promt"), "film.toml:3:1", "promt: unknown field", do="did you mean 'prompt'?"
    ),
    "duration": of_file(
        JOB.replace("5", '"5 s"'), "film.toml:4:1", "target_duration", "not '5 s'", do="should be a number"
    ),
    "too-long": of_file(JOB.replace("5", "25"), "film.toml:4:1", "at most 10 s", do="split the scene into 3"),
    "twice": of_file(JOB + JOB, "film.toml:6:1", "id of an earlier scene", do="ids must be unique"),
    "curly": of_file(
        JOB.replace('"a"', "\u201ca\u201d"), "film.toml:2", do="around values there must be straight quotes"
    ),
}


def read_all(folder: Path) -> dict[str, str]:
    """Return the content of every file in the folder, by its path; folders have none."""
    return {str(path): "" if path.is_dir() else path.read_text("utf-8") for path in folder.rglob("*")}


def run(folder: Path, *arguments: str, environment: dict[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
    clean = {name: value for name, value in os.environ.items() if not name.startswith(OUR_VARIABLES)}
    return subprocess.run(
        [sys.executable, "-m", "videogen", *arguments],
        cwd=folder,
        env={**clean, "PYTHONPATH": str(ROOT), **(environment or {})},
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )


@pytest.mark.long_variants
@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES.keys())
def test_a_typical_mistake_is_told_with_what_where_and_what_to_do(
    mistake: Mistake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Never with a traceback, and without creating or changing a file."""
    for name, text in {"film.toml": JOB, **mistake.files}.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    before = read_all(tmp_path)
    if mistake.needs_prefect:
        done = run(tmp_path, *mistake.arguments, environment=mistake.environment)
        code, said = done.returncode, done.stderr
    else:
        monkeypatch.chdir(tmp_path)
        for name in [name for name in os.environ if name.startswith(OUR_VARIABLES)]:
            monkeypatch.delenv(name)
        for name, value in mistake.environment.items():
            monkeypatch.setenv(name, value)
        code, said = main(mistake.arguments), capsys.readouterr().err
    assert code == mistake.code, said
    assert "Traceback" not in said
    assert [words for words in (*mistake.says, mistake.do) if words not in said] == []
    assert [words for words in mistake.silent if words in said] == []
    assert read_all(tmp_path) == before


def test_there_are_twenty_five_of_them() -> None:
    """At least."""
    assert len(MISTAKES) >= 25


@pytest.mark.long_variants
@pytest.mark.parametrize(
    ("arguments", "console"),
    [
        pytest.param(
            arguments,
            console,
            id=f"{' '.join(arguments)}-{next(iter(console.values()))}",
            marks=[] if number == other else [pytest.mark.long],
        )
        for number, arguments in enumerate(
            [("models",), ("models", "show", "wan-2.5-i2v"), ("plan", "film.toml"), ("--help",)]
        )
        for other, console in enumerate(
            [
                {"PYTHONIOENCODING": "ascii"},
                {"PYTHONIOENCODING": "cp1252"},
                {"PYTHONIOENCODING": "latin-1"},
                {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
            ]
        )
    ],
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


@pytest.fixture
def check_models(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Check:
    """`videogen models check` in this process, without pauses between its tries. Gives exit code and message."""
    monkeypatch.setattr(rate_limit_gate, "ProviderGate", partial(rate_limit_gate.ProviderGate, backoff_s=0))
    monkeypatch.setenv("REPLICATE_API_TOKEN", TOKEN)
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "VIDEOGEN_REGISTRY"):
        monkeypatch.delenv(name, raising=False)

    async def check(**environment: str) -> tuple[int, str]:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        code = await asyncio.to_thread(main, ["models", "check", "svd"])
        return code, capsys.readouterr().err

    return check


async def test_no_network_is_told_with_what_to_do(check_models: Check) -> None:
    """After a few tries, with the address that was called."""
    address = unused_url()
    code, err = await check_models(REPLICATE_BASE_URL=address)
    assert code == 1
    assert err.startswith("error: cannot connect to 127.0.0.1: ")
    assert "Check the network and REPLICATE_BASE_URL; if the network needs a proxy, name it in HTTPS_PROXY" in err


async def test_a_proxy_that_is_not_there_is_named(check_models: Check) -> None:
    """With what was asked for by way of it, and without its password."""
    code, err = await check_models(HTTPS_PROXY="http://us:secret@127.0.0.1:9", REPLICATE_BASE_URL="https://api.example")
    assert code == 1
    assert "cannot connect to api.example by way of the proxy http://127.0.0.1:9: " in err
    assert "Check the network and the proxy, which HTTPS_PROXY or ALL_PROXY names" in err
    assert "secret" not in err


async def test_an_authority_that_is_not_trusted_is_told_with_what_to_do(check_models: Check, tmp_path: Path) -> None:
    """As where a company inspects all connections."""
    with https_server(tmp_path, b"{}") as (address, _):
        code, err = await check_models(REPLICATE_BASE_URL=address)
    assert code == 1
    assert "cannot connect to localhost: [SSL: CERTIFICATE_VERIFY_FAILED]" in err
    assert "If your network has a certificate authority of its own, name its file in SSL_CERT_FILE" in err


async def test_a_wrong_token_is_told_with_where_to_get_one(check_models: Check) -> None:
    """It is called by its variable, and not shown."""
    problem = {"title": "Unauthenticated", "detail": "You did not pass a valid authentication token", "status": 401}
    async with Loopback(answer(401, problem)) as replicate:
        code, err = await check_models(REPLICATE_BASE_URL=replicate.url)
    assert code == 3
    assert err == (
        "error: Replicate refused the token (401): You did not pass a valid authentication token. "
        "Check REPLICATE_API_TOKEN, or the block of VIDEOGEN_TOKEN_BLOCK: your tokens are at https://replicate.com/account/api-tokens\n"
    )


def test_prefect_keeps_its_files_in_the_out_folder_where_home_cannot_be_written(tmp_path: Path) -> None:
    """As in a container of an arbitrary user; PREFECT_HOME says otherwise."""
    assert choose_prefect_home({"HOME": "/dev/null"}, tmp_path) == str(tmp_path.absolute() / ".prefect")
    assert choose_prefect_home({"HOME": str(tmp_path)}, tmp_path) is None
    assert choose_prefect_home({"HOME": "/dev/null", "PREFECT_HOME": "/x"}, tmp_path) is None
