"""How soon does a run on another process obey? From the insert of a command to the run's answer in the journal.

    uv run python -m benchmarks.commands [--number 40]

Runs a job in a process of its own, with its journal in SQLite and then in PostgreSQL, and pauses and resumes it in
turn, at times that are not in step with the run. Prints the median, the 95th percentile and the longest time, and the
share of a core that the whole run uses while it is paused.
"""

import argparse
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from tests.support.servers import database, postgresql_server
from tests.support.tokens import TOKEN
from videogen.control import find_run_to_control, send_command
from videogen.emulator import EmulatorSettings, run_emulator
from videogen.errors import InvalidError
from videogen.journal.commands import Command
from videogen.journal.runs import RunRecord
from videogen.journal.store import Journal

RUN = """
import asyncio, sys
from videogen import Job, RunOptions, run_job
scenes = [{"id": f"s{n}", "prompt": f"scene {n}", "target_duration": 2} for n in range(4)]
job = Job.model_validate({"id": "film", "model": "quick", "concurrency": 2, "scenes": scenes})
asyncio.run(run_job(job, RunOptions(out=sys.argv[1])))
"""
REGISTRY = Path(__file__).parents[1] / "tests" / "faults" / "models.toml"
LOOK_S = 0.005
"""Pause between two looks for the answer: what is measured is exact to this time."""
QUIET_S = 20.0
"""How long the processor time of a paused run is measured."""


@contextmanager
def run_in_process(folder: Path, journal_url: str, provider_url: str) -> "Iterator[subprocess.Popen[bytes]]":
    """Run a job whose predictions do not end, in a process of its own."""
    environment = {
        **os.environ,
        "REPLICATE_API_TOKEN": TOKEN,
        "REPLICATE_BASE_URL": provider_url,
        "VIDEOGEN_JOURNAL_URL": journal_url,
        "VIDEOGEN_LIMIT": "",
        "VIDEOGEN_REGISTRY": str(REGISTRY),
    }
    running = subprocess.Popen([sys.executable, "-c", RUN, str(folder)], env=environment, stderr=subprocess.DEVNULL)
    try:
        yield running
    finally:
        running.send_signal(signal.SIGINT)
        running.wait(60)


def wait_for_run(journal: Journal, process: "subprocess.Popen[bytes]") -> RunRecord:
    """Return the run as soon as its predictions are running."""
    while process.poll() is None:
        try:
            run = find_run_to_control(journal, "film")
        except InvalidError:
            time.sleep(0.1)
            continue
        if len(journal.find_running_attempts(run.id)) == 2:
            return run
        time.sleep(0.1)
    raise RuntimeError("the run has ended")


def wait_for_answer(journal: Journal, command: Command) -> None:
    while (found := journal.find_command(command.id)) is None or found.outcome is None:
        time.sleep(LOOK_S)


def read_cpu_s(process_id: int) -> float:
    """Return the processor time that a process has used, in seconds."""
    fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(name: str, journal_url: str, folder: Path, number: int) -> None:
    delays_s = []
    with (
        run_emulator(EmulatorSettings(latency_s=(600.0, 600.0))) as emulator,
        closing(Journal(journal_url)) as journal,
    ):
        if name == "PostgreSQL":
            journal.set_limit("replicate", 5)
        with run_in_process(folder, journal_url, emulator.url) as process:
            run = wait_for_run(journal, process)
            for index in range(number):
                time.sleep(random.uniform(0.1, 0.6))
                began = time.perf_counter()
                command = send_command(journal, run, "resume" if index % 2 else "pause")
                wait_for_answer(journal, command)
                delays_s.append(time.perf_counter() - began)
            wait_for_answer(journal, send_command(journal, run, "pause"))
            before_s = read_cpu_s(process.pid)
            time.sleep(QUIET_S)
            share = (read_cpu_s(process.pid) - before_s) / QUIET_S
    ordered = sorted(delays_s)
    late_s = ordered[int(0.95 * len(ordered))]
    print(
        f"{name}: {number} commands, median {statistics.median(ordered):.2f} s, 95% within {late_s:.2f} s, longest "
        f"{ordered[-1]:.2f} s; a paused run with two predictions uses {share:.1%} of a core"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--number", type=int, default=40)
    number = parser.parse_args().number
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        measure("SQLite", f"sqlite:///{folder / 'journal.db'}", folder / "sqlite", number)
        (folder / "pg").mkdir()
        with postgresql_server(folder / "pg") as server:
            measure("PostgreSQL", database(server, "postgresql+psycopg"), folder / "postgresql", number)


if __name__ == "__main__":
    main()
