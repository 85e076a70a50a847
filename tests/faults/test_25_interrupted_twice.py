"""Ctrl-C and SIGTERM, the second time before the first has done its work; once is in tests/flows/test_generate.py."""

import signal
import time

import pytest

from tests.faults.conftest import Stage
from tests.faults.test_26_two_runs import wait_for_creates
from tests.flows.conftest import CommandLine


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "sigterm"])
def test_25_the_second_interruption_leaves_at_once_and_says_what_still_runs(
    stage: Stage, command: CommandLine, number: signal.Signals, code: int
) -> None:
    """Where cancels are not answered the first would wait for them; the ids are those of the ledger."""
    stage.emulate('on = "cancel"\ndo = "hang"\ntimes = "always"', latency_s=(30.0, 30.0))
    process = command.start(command.quick_job(5))
    wait_for_creates(stage, 5)
    time.sleep(0.5)  # until the ids are known: that a create was accepted is not yet that it was answered
    process.send_signal(number)
    assert process.stderr
    assert process.stderr.readline().startswith("interrupted: cancelling what runs; once more to leave at once")
    process.send_signal(number)
    began = time.monotonic()
    _, err = process.communicate(timeout=30)
    assert (process.returncode, time.monotonic() - began < 1) == (code, True), err
    ledger = stage.emulator.ledger()
    ids = {row["id"] for row in ledger["predictions"]}
    assert ledger["running"] == len(ids) == 5
    assert set(err.splitlines()) == {f"may still be running: prediction {id_}" for id_ in ids}


def test_25_who_leaves_at_once_leaves_no_prefect_server_behind(stage: Stage, command: CommandLine) -> None:
    """The run's own server would hold the standard output, and its port, for ever."""
    stage.emulate('on = "cancel"\ndo = "hang"\ntimes = "always"', latency_s=(60.0, 60.0))
    del command.environment["PREFECT_API_URL"]
    process = command.start(command.quick_job(1))
    wait_for_creates(stage, 1)
    process.send_signal(signal.SIGINT)
    assert process.stderr
    while not process.stderr.readline().startswith("interrupted:"):
        pass
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)  # returns when nobody has its pipes any more
    assert process.returncode == 130
