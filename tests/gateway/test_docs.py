"""The examples in docs/follow-a-run.md."""

import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.conftest import PAGE, RUN, Played, Shown, example, watching


def curl(url_on_page: str, url: str, **replaced: str) -> "subprocess.Popen[str]":
    """The command that calls this address on the page, run on that gateway."""
    (line,) = re.findall(rf"^\$ (curl .*{re.escape(url_on_page)}\S*)$", PAGE.read_text(), re.MULTILINE)
    for old, new in {url_on_page: url, **replaced}.items():
        assert old in line
        line = line.replace(old, new)
    return subprocess.Popen(
        [*shlex.split(line), "--max-time", "20"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


def test_curl_prints_what_happens_until_the_run_is_over(live: Shown) -> None:
    """As it happens: the first lines are there before the run is over."""
    live.begin(RUN, "a")
    with curl("http://127.0.0.1:8474", str(live.http.base_url).rstrip("/")) as command:
        assert command.stdout
        assert command.stdout.readline() == "event: snapshot\n"
        live.tell(RUN, "clip.completed", clip_index=0, scene_id="a", completed=1)
        while command.stdout.readline() != "event: clip.completed\n":
            pass
        live.tell(RUN, "run.completed", completed=1)
        assert "event: run.completed\n" in command.stdout.readlines()
    assert command.returncode == 0


def test_curl_shows_runs_to_who_has_the_token(tmp_path: Path) -> None:
    with watching(tmp_path / "out", token="secret") as guarded:
        guarded.begin("r1", "a")
        with curl("http://films.example:8474", str(guarded.http.base_url).rstrip("/"), **{"…": "secret"}) as command:
            said, _ = command.communicate()
    assert '"run_id":"r1"' in said


def test_the_python_example_prints_the_clips_of_a_run(
    finished: Shown, played: Played, capsys: pytest.CaptureFixture[str]
) -> None:
    names: dict[str, Callable[..., Any]] = {}
    exec(example("python"), names)
    url = str(finished.http.base_url).rstrip("/")
    names["follow"](url, played.batch.run_id)
    clips = f"{url}/runs/{played.batch.run_id}/clips"
    printed = capsys.readouterr().out.splitlines()
    assert sorted(printed) == [f"harbour {clips}/harbour.mp4", f"storm {clips}/storm.mp4"]


def test_the_addresses_are_those_there_are(finished: Shown, played: Played) -> None:
    """Every address of the table answers."""
    table = re.findall(r"^\| (`/.*?) \|", PAGE.read_text(), re.MULTILINE)
    ids = {"models": "svd", "runs": played.batch.run_id}
    addresses = [address for row in table for address in re.findall(r"`(/[^`]*)`", row)]
    assert len(addresses) == 8
    for address in addresses:
        known = ids.get(address.split("/")[1], played.batch.run_id)
        assert finished.http.get(address.replace("ID", known).replace("SCENE", "harbour")).status_code == 200, address
