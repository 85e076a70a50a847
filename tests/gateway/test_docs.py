"""The examples in docs/follow-a-run.md."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.conftest import Played, Shown

PAGE = Path(__file__).parent.parent.parent / "docs" / "follow-a-run.md"


def test_the_python_example_prints_the_clips_of_a_run(
    finished: Shown, played: Played, capsys: pytest.CaptureFixture[str]
) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names: dict[str, Callable[..., Any]] = {}
    exec(example, names)
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
    assert len(addresses) == 7
    for address in addresses:
        known = ids.get(address.split("/")[1], played.batch.run_id)
        assert finished.http.get(address.replace("ID", known).replace("SCENE", "harbour")).status_code == 200, address
