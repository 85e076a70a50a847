"""docs/add-a-model.md, step by step."""

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

import av
import pytest

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "add-a-model.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^ *```(toml|console)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


@dataclass
class Said:
    """A command of the page, what the page says of it, and what it said."""

    command: str
    on_page: str
    said: str


def followed(folder: Path, environment: dict[str, str]) -> list[Said]:
    """Writes the page's files and runs its commands, each in its turn. A command that fails ends it."""
    done = []
    for language, text in BLOCK.findall(PAGE):
        block = dedent(text)
        if language == "toml":
            name, continued = re.fullmatch(r"# (\S+?)(, continued)?", block.splitlines()[0]).groups()  # type: ignore[union-attr]
            with (folder / name).open("a" if continued else "w", encoding="utf-8") as file:
                file.write(block)
            continue
        line, _, on_page = block.partition("\n")
        arguments = shlex.split(line.removeprefix("$ uv run videogen "))
        command = [sys.executable, "-m", "videogen", *arguments]
        ended = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=250, check=True
        )
        done.append(Said(" ".join(arguments), on_page, ended.stdout))
    return done


@pytest.mark.long
def test_the_page_can_be_followed_word_by_word(tmp_path: Path, prefect_api: str) -> None:
    """From a price that is changed to a clip of a model that is not shipped, without a token."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("REPLICATE_", "VIDEO"))}
    ours = {"PREFECT_API_URL": prefect_api, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    models, check, plan, run = followed(tmp_path, {**inherited, **ours})
    (changed,) = [line for line in models.said.splitlines() if line.split()[:1] == ["veo-3.1"]]
    assert ("0.15/s" in changed, "kling-v2.1" in models.said) == (True, True)
    assert check.said == check.on_page
    assert re.search(r"harbour +3 +3\.75 +4 ", plan.said)
    assert "1 of 1 clips to make with wide-draft at 21:9 for $0.12" in run.said
    (clip,) = (tmp_path / "out" / "film" / "clips").glob("*.mp4")
    with av.open(str(clip)) as container:
        (stream,) = container.streams.video
        assert stream.width / stream.height == pytest.approx(21 / 9, rel=0.02)
        assert float(stream.frames / (stream.average_rate or 1)) == pytest.approx(4, abs=0.1)


def test_what_the_page_has_written_is_what_editors_expect(tmp_path: Path) -> None:
    """By the schemas that its files name; what is added to a file does not repeat that line."""
    for path in (ROOT / "schemas").glob("*.json"):
        (tmp_path / "schemas").mkdir(exist_ok=True)
        (tmp_path / "schemas" / path.name).write_text(path.read_text())
    blocks = [dedent(text) for language, text in BLOCK.findall(PAGE) if language == "toml"]
    (tmp_path / "mine.toml").write_text("".join(blocks[:2]))
    (tmp_path / "film.toml").write_text(blocks[2])
    tombi = Path(sys.executable).with_name("tombi")
    done = subprocess.run(
        [str(tombi), "lint", "--offline", "mine.toml", "film.toml"], cwd=tmp_path, timeout=250, check=False
    )
    assert done.returncode == 0
