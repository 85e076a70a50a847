"""`videogen control` from one process, and the run that obeys in another one."""

import subprocess
import sys

import pytest

from tests.faults.conftest import Stage, manifest
from tests.flows.conftest import CommandLine, wait_until
from videogen.journal.store import Journal

pytestmark = pytest.mark.integration


def control(command: CommandLine, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run `videogen control` as another person would, on the same journal."""
    return subprocess.run(
        [sys.executable, "-m", "videogen", "control", *arguments],
        env=command.whole_environment,
        cwd=command.folder,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )


def count_events(stage: Stage, type_: str) -> int:
    journal = Journal(f"sqlite:///{stage.folder / 'out' / 'journal.db'}")
    found = sum(each == type_ for run in journal.list_runs(limit=1) for _, each, _ in journal.read_events(run.id))
    journal.close()
    return found


@pytest.mark.long
def test_a_run_obeys_the_commands_of_another_process(stage: Stage, command: CommandLine) -> None:
    """It pauses, cancels clips that run and one that does not, makes a cancelled one again, and goes on. The ledger is
    the witness: the first two predictions never end by themselves."""
    stage.emulate('do = "stick"\nnth_create = [1, 2]\ntimes = 2', latency_s=(1.0, 1.0))
    process = command.start(command.quick_job(5, concurrency=2, min_clips=1))
    wait_until(lambda: count_events(stage, "clip.started") == 2)
    paused = control(command, "film", "pause")
    assert (paused.returncode, paused.stderr) == (0, "")
    assert paused.stdout.endswith("of film: pause: accepted\n")
    assert [control(command, "film", "cancel", scene).returncode for scene in ("s4", "s1", "s0")] == [0] * 3
    wait_until(lambda: count_events(stage, "clip.failed") == 3)
    assert control(command, "film", "retry", "s1").stdout.endswith("retry s1: accepted\n")
    refused = control(command, "film", "retry", "s2")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "retry s2: refused: s2 has not failed: it is still being made" in refused.stderr
    unknown = control(command, "film", "cancel", "s44")
    assert (unknown.returncode, "'s44' is no scene" in unknown.stderr) == (2, True)
    assert control(command, "film", "cap", "20").returncode == 0
    shown = control(command, "film").stdout.splitlines()
    assert shown[0].endswith("of film: paused, 2 of 5 clips, 2 failed")
    assert (shown[1].startswith("cap $20.00"), shown[2:]) == (True, ["in progress: none", "failed: s0, s4"])
    ledger = stage.emulator.ledger()
    assert (ledger["creates"], ledger["cancels"], ledger["running"]) == (2, 2, 0)
    assert control(command, "film", "resume").returncode == 0
    _, err = process.communicate(timeout=250)
    assert process.returncode == 0, err
    clips = {clip["scene_id"]: clip for clip in manifest(command)["clips"]}
    codes = [(clips[f"s{number}"]["error"] or {}).get("code") for number in range(5)]
    assert codes == ["cancelled", None, None, None, "cancelled"]
    ledger = stage.emulator.ledger()
    assert (ledger["creates"], ledger["cancels"], ledger["running"]) == (5, 2, 0)
    over = control(command, "film", "pause")
    assert (over.returncode, "has ended (partial): run `videogen run JOB` again" in over.stderr) == (2, True)
