"""Job and registry files made to hang, exhaust or fool whoever reads them."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from videogen.cli.main import main

MANY = 1_000_000
GIGABYTE = 1024**3
SCENE = '{"id": "a", "prompt": "p", "target_duration": 5}'

READ_ALL = """
import contextlib, io, json, os, re, sys
from videogen.cli.main import main

job = sys.argv[1]
for path in sys.argv[2:]:
    if "registry" in path:
        os.environ["VIDEOGEN_REGISTRY"] = path
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        code = main(["run", job if "registry" in path else path, "--dry-run"])
    os.environ.pop("VIDEOGEN_REGISTRY", None)
    peak_mb = int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024
    print(json.dumps([code, said.getvalue(), peak_mb]), flush=True)
"""


@dataclass
class Answer:
    """What the command said of a file, and the peak of the memory for all files so far."""

    code: int
    said: str
    peak_mb: float


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(GIGABYTE)


def toml_keys(number: int) -> Callable[[Path], object]:
    return lambda path: path.write_text("\n".join(f"{n:x}=0" for n in range(number)))


def json_keys(number: int, end: str = "}") -> Callable[[Path], object]:
    return lambda path: path.write_text("{" + ",".join(f'"{n:x}":0' for n in range(number)) + end)


FILES: dict[str, tuple[str | Callable[[Path], object], str]] = {
    # name: content, or what writes it, and what is said of it
    "huge.json": (sparse, r".*huge\.json: larger than 8 MiB"),
    "huge.toml": (sparse, r".*huge\.toml: larger than 8 MiB"),
    "arrays.json": ("[" * 50_000 + "]" * 50_000, r"arrays\.json:1:65: nested too deeply"),
    "objects.json": ('{"a":' * 50_000 + "1" + "}" * 50_000, r"objects\.json:1:321: nested too deeply"),
    "below-pythons-own-limit.json": (
        f'{{"scenes": [{SCENE}],\n "x": {"[" * 500}{"]" * 500}}}',
        r"below-pythons-own-limit\.json:2:70: nested too deeply",
    ),
    "arrays.toml": ("\na = " + "[" * 50_000 + "]" * 50_000, r"arrays\.toml:2:69: nested too deeply"),
    "tables.toml": ("a = " + "{a = " * 50_000 + "1" + "}" * 50_000, r"tables\.toml:1:325: nested too deeply"),
    "dots.toml": (".".join(["a"] * 50_000) + " = 1", r"dots\.toml:1:1: nested too deeply"),
    "header.toml": ("\n[" + ".".join(["a"] * 900) + "]", r"header\.toml:2:2: nested too deeply"),
    "many-dots.toml": (
        "\n".join("a." * 400 + f"b{n} = 1" for n in range(3_000)),
        r"many-dots\.toml:1:1: nested too deeply",
    ),
    "keys.toml": (toml_keys(MANY), r"keys\.toml:1:1: more than 100,000 values"),
    "keys.json": (
        json_keys(700_000),
        r"keys\.json:1:1: more than 100,000 values",
    ),
    "empty-tables.toml": ("[[scenes]]\n" * 700_000, r"empty-tables\.toml:1:1: more than 100,000 values"),
    "some-keys.toml": (
        toml_keys(90_000),
        r"some-keys\.toml:1:1: scenes: is required(\n.*){49}\nerror: some-keys\.toml: and 89951 problems more",
    ),
    "some-keys.json": (
        json_keys(90_000, ', "5": 1}'),
        r"some-keys\.json:1:32: 5: is there twice",
    ),
    "twice.json": ('{"scenes": [],\n "scenes": []}', r"twice\.json:1:2: scenes: is there twice"),
    "twice.toml": ("min_clips = 1\nmin_clips = 2", r"twice\.toml:2:14: not valid TOML"),
    "nul.json": ('{"model": "\x00"}', r"nul\.json:1:12: not valid JSON"),
    "nul.toml": ('model = "\x00"', r"nul\.toml:1:10: not valid TOML"),
    "escaped-nul.json": (
        f'{{"scenes": [{SCENE}], "a\\u0000b": 1}}',
        r"escaped-nul\.json:1:\d+: a\\x00b: unknown field",
    ),
    "unknown.json": (f'{{"scenes": [\n{SCENE}],\n"colour": 1}}', r"unknown\.json:3:1: colour: unknown field"),
    "unknown.toml": (
        'shade = 1\n[[scenes]]\nid = "a"\nprompt = "p"\ntarget_duration = 5\nhue = 2',
        r"unknown\.toml:1:1: shade: unknown field; there are: .*\nerror: unknown\.toml:6:1: scenes\.0\.hue: unknown",
    ),
    "digits.json": (f'{{"max_cost": {"9" * 10_000}}}', r"digits\.json:1:14: Exceeds the limit"),
    "digits.toml": (f"\nmax_cost = {'9' * 10_000}", r"digits\.toml:2:12: Exceeds the limit"),
    "surrogate.json": (f'{{"scenes": [{SCENE}], "model": "\\ud800"}}', r"surrogate\.json:1:74: half a surrogate pair"),
    "unclosed-strings.json": ('"\\' * 4_000_000, r"unclosed-strings\.json:1:1: not valid JSON"),
    "registry-arrays.toml": ("a = " + "[" * 50_000, r"registry-arrays\.toml:1:69: nested too deeply"),
    "registry-keys.toml": (toml_keys(MANY), r"registry-keys\.toml:1:1: more than 100,000"),
    "registry-huge.toml": (sparse, r".*registry-huge\.toml: larger than 8 MiB"),
    "registry-nul.toml": ('[models.a]\nsource = "\x00"', r"registry-nul\.toml:2:11: not valid TOML"),
    "registry-twice.toml": ("[models.a]\n[models.a]", r"registry-twice\.toml:2:10: not valid TOML"),
    "registry-unknown.toml": ("colour = 1\n[models]", r"registry-unknown\.toml:1:1: colour: unknown field"),
}

HEAVY = {"keys.toml", "keys.json", "empty-tables.toml", "some-keys.toml", "some-keys.json", "unclosed-strings.json"}


@pytest.fixture(scope="module")
def answers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Answer]]:
    """The files of this run's tests given to one process, one after the other."""
    folder = tmp_path_factory.mktemp("hostile")
    selected = {item.name for item in request.session.items}
    files = [name for name in FILES if any(f"[{name}]" in item for item in selected)]
    for name in files:
        content = FILES[name][0]
        if isinstance(content, str):
            (folder / name).write_text(content, encoding="utf-8")
        else:
            content(folder / name)
    job = folder / "job.json"
    job.write_text(f'{{"scenes": [{SCENE}]}}')
    command = [sys.executable, "-c", READ_ALL, str(job), *(str(folder / name) for name in files)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    lines = done.stdout.splitlines()
    assert len(lines) == len(files), f"{files[len(lines)]}: {done.stderr[-2000:]}"
    yield {name: Answer(*json.loads(line)) for name, line in zip(files, lines, strict=True)}
    for name in files:
        (folder / name).unlink()


@pytest.mark.xdist_group("hostile-files")  # all are given to one process
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.long] if name in HEAVY else []) for name in FILES]
)
def test_31_a_hostile_file_is_refused_in_a_line_that_says_where(answers: dict[str, Answer], name: str) -> None:
    """File, line and column, exit 2, nothing that a terminal obeys, within half a gigabyte."""
    answer = answers[name]
    assert answer.code == 2
    assert re.match(f"error: {FILES[name][1]}", answer.said), answer.said[:500]
    assert re.search(r"[^\n\x20-\x7e]", answer.said) is None
    assert len(answer.said) < 10_000
    assert answer.peak_mb < 512


@pytest.mark.parametrize("url", ["nonsense", "nonsense://journal"])
def test_31_a_journal_address_that_is_none_is_said_in_a_line(
    url: str, job_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No traceback."""
    monkeypatch.setenv("VIDEOGEN_JOURNAL_URL", url)
    path = job_file([{"id": "a", "prompt": "p", "target_duration": 2}])
    assert main(["run", str(path), "--dry-run"]) in (1, 2)
    assert len(capsys.readouterr().err.splitlines()) == 1
