import os
import re
import subprocess
import sys
from pathlib import Path

import pytest


def killed_runs(*arguments: str, **environment: str) -> int:
    """Plays the kill loop, which passes. It has a process of its own, for it forks a lot and this one is large."""
    ours = ("REPLICATE_", "VIDEO", "PREFECT_")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.kill_loop", "--seed", "24", *arguments],
        check=False,
        env=inherited | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    killed = re.search(r"(\d+) killed", done.stdout)
    assert killed, done.stdout
    return int(killed[1])


@pytest.mark.parametrize(
    ("rounds", "least"), [pytest.param(3, 1, id="3"), pytest.param(12, 6, id="12", marks=pytest.mark.long)]
)
@pytest.mark.timeout(900)
def test_24_a_run_killed_anywhere_is_continued_and_nothing_is_paid_twice(rounds: int, least: int) -> None:
    """In seeded rounds: every clip whole on disk, one create for each."""
    assert killed_runs("--rounds", str(rounds), "--command-every", "0") >= least


@pytest.mark.long
@pytest.mark.timeout(900)
def test_24_so_is_a_whole_command(prefect_api: str, tmp_path: Path) -> None:
    """Two rounds through Prefect."""
    arguments = ("--rounds", "2", "--command-every", "1")
    assert killed_runs(*arguments, PREFECT_API_URL=prefect_api, PREFECT_HOME=str(tmp_path)) >= 1
