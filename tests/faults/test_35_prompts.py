"""Prompts and answers with what a terminal, a page or Markdown would obey instead of show."""

import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from tests.faults.conftest import REGISTRY, Stage, job_of, shot
from tests.flows.conftest import CommandLine
from tests.support.prefect_api import call_prefect
from tests.support.servers import Loopback, answer
from videogen.app import open_run, prepare_job
from videogen.cli.main import main
from videogen.emulator.rendering.captions import MAX_CHARACTERS, clean_prompt
from videogen.flows.artifacts import render_verdict

JobFile = Callable[..., Path]
ANSI, RED = "\x1b[2J\x1b[31m", "[bold red]red[/]"
HTML = "<script>alert(1)</script><img src=x onerror=alert(1)>"
MARKDOWN = "| a | `b` | [c](javascript:alert(1)) ![d](http://127.0.0.1/d.png) # e"
TITLE = "\x1b]0;title\x07\x9b31m"


@pytest.mark.long_variants
@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        pytest.param(f"a{ANSI}", "control character U+001B at character 2", id="ansi"),
        pytest.param("a\x9b31m", "control character U+009B at character 2", id="c1"),
        pytest.param("a\x00", "control character U+0000 at character 2", id="nul"),
        pytest.param("a\u202eb", "control character U+202E at character 2", id="bidi"),
        pytest.param("a" * 100_000, "at most 10000 characters", id="100-kB"),
    ],
)
def test_35_a_prompt_that_is_no_text_is_refused_in_a_short_line(
    prompt: str, says: str, job_file: JobFile, capsys: pytest.CaptureFixture[str]
) -> None:
    """By its place in the file, without its text."""
    path = job_file([{"id": "a", "prompt": prompt, "target_duration": 2}])
    assert main(["run", str(path), "--dry-run"]) == 2
    err = capsys.readouterr().err
    assert f"film.json:1:43: scenes.0.prompt: {says}" in err.replace("string should have ", "")
    assert (len(err) < 200, err.strip().isprintable()) == (True, True)


@pytest.mark.long
def test_35_what_a_provider_says_is_shown_and_not_obeyed(stage: Stage, command: CommandLine, prefect_api: str) -> None:
    """Its control characters are replaced where it comes in; what is left is text on its own line in the terminal, in
    Prefect's artifacts and in the manifest."""
    said = f"{ANSI}{RED} {HTML} {MARKDOWN}\n## {TITLE} flagged as sensitive"
    stage.emulate(f'do = "fail"\nerror = {json.dumps(said)}')
    job = command.job(
        *({"id": f"s{n}", "prompt": f"{RED} {HTML} {MARKDOWN}", "target_duration": 2} for n in range(2)),
        model="quick",
        id="row-35",
    )
    done = command.run(job)
    assert (done.code, done.err) == (1, "")
    assert [line for line in done.out.splitlines() if not line.isprintable()] == []
    (line,) = (line for line in done.out.splitlines() if "failed (moderation)" in line)
    assert rf"�[2J�[31m{RED} {HTML} {MARKDOWN}\n## �]0;title��31m flagged as sensitive" in line
    manifest = json.loads((command.folder / "out" / "row-35" / "manifest.json").read_text())
    kept = re.sub(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", "�", said)
    assert [kept in clip["error"]["message"] for clip in manifest["clips"] if clip["error"]] == [True]
    filter_ = {"artifacts": {"key": {"any_": ["row-35-verdict"]}}}
    (artifact,) = call_prefect("POST", f"{prefect_api}/artifacts/filter", filter_)
    assert_is_text(artifact["data"])


async def test_35_what_a_refusal_says_is_shown_and_not_obeyed(
    stage: Stage, job_file: JobFile, capsys: pytest.CaptureFixture[str]
) -> None:
    """It ends the command in a line on standard error."""
    path = job_file([{"id": "a", "prompt": "p", "target_duration": 2}])
    async with Loopback(answer(401, {"detail": f"{ANSI}{TITLE}"})) as server:
        stage.setenv("REPLICATE_BASE_URL", server.url)
        assert await asyncio.to_thread(main, ["run", str(path)]) == 3
    assert capsys.readouterr().err.strip().isprintable()


def assert_is_text(markdown: str) -> None:
    """Nothing in the Markdown but what we put there: headings, two lists, one table, one picture."""
    tokens = [token for block in MarkdownIt("gfm-like", {"linkify": False}).parse(markdown) for token in flat(block)]
    kinds = [token.type for token in tokens]
    assert not {"html_block", "html_inline", "link_open", "code_inline", "fence"} & set(kinds)
    ours = ("heading_open", "tr_open", "list_item_open", "image")
    assert [kinds.count(kind) for kind in ours] == [4, 5, 3, 1]
    shown = "".join(token.content for token in tokens if token.type.startswith("text"))
    assert f"{HTML} {MARKDOWN}" in shown
    assert all(char.isprintable() for char in shown)


def flat(token: Any) -> list[Any]:
    return [token, *(child for part in token.children or () for child in flat(part))]


async def test_35_a_name_in_the_registry_breaks_no_table(stage: Stage, tmp_path: Path) -> None:
    """It stands in a cell of the verdict's."""
    stage.emulate()
    text = REGISTRY.read_text()
    hostile = tmp_path / "models.toml"
    hostile.write_text(text.replace("[models.quick]", f"[models.{json.dumps(f'{HTML} {MARKDOWN}')}]"))
    stage.setenv("VIDEOGEN_REGISTRY", str(hostile))
    job = job_of().model_copy(update={"model": f"{HTML} {MARKDOWN}"})
    async with open_run(await prepare_job(job, stage.options)) as session:
        batch = await shot(session)
    blocks = MarkdownIt("gfm-like", {"linkify": False}).parse(render_verdict(batch, session.plan))
    tokens = [token for block in blocks for token in flat(block)]
    assert not {"html_inline", "link_open", "image", "code_inline"} & {token.type for token in tokens}
    texts = [token.content for token in tokens if token.type == "text"]
    assert f"Model {HTML} {MARKDOWN}, ratio 16:9, run {batch.run_id}." in "".join(texts)


def test_35_a_caption_is_one_line_of_text() -> None:
    """However the prompt came to the emulator."""
    shown = clean_prompt(f"{ANSI}{TITLE}\u202e{HTML}\n{RED}" + "a" * 100_000)
    assert shown.startswith(f"[2J [31m ]0;title 31m {HTML} {RED}")
    assert (shown.isprintable(), len(shown)) == (True, MAX_CHARACTERS)
