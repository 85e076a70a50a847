"""Two runs of one job at once, through the whole command."""

import os
import signal
import socket

import pytest

from tests.faults.conftest import Stage, wait_for_creates
from tests.flows.conftest import CommandLine


@pytest.mark.long
def test_26_the_second_run_of_a_job_names_the_first_and_a_dead_ones_lock_is_free(
    stage: Stage, command: CommandLine
) -> None:
    """By process id and host, in one line, with nothing created; what the dead one had begun is then gone on with."""
    stage.emulate(latency_s=(15.0, 15.0))
    job = command.quick_job(2)
    first = command.start(job)
    wait_for_creates(stage, 2)
    second = command.run(job)
    assert (second.code, len(second.err.splitlines())) == (1, 1), second.err
    assert f"another run holds {command.folder / 'out' / 'film'}: " in second.err
    assert f"process {first.pid} on {socket.gethostname()}" in second.err
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    third = command.run(job, "--json")
    assert (third.code, third.manifest["successful_clips"]) == (0, 2), third.err
    stage.books(creates=2, billed=2)
