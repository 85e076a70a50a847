"""A run that is cancelled in Prefect, or interrupted at its terminal: what is created, what is billed, what is said."""

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.faults.conftest import Stage, wait_for_creates
from tests.flows.conftest import CommandLine, wait_until
from tests.support.prefect_api import call_prefect


def flow_run(api: str, folder: Path) -> dict[str, Any]:
    """Return the latest flow run of a job file in this folder. Other tests use the server at the same time."""
    runs = call_prefect("POST", f"{api}/flow_runs/filter", {"sort": "START_TIME_DESC"})
    return next(dict(run) for run in runs if (run["parameters"].get("options") or {}).get("folder") == str(folder))


def set_state(api: str, run: str, type_: str) -> None:
    body = {"state": {"type": type_, "name": type_.capitalize()}}
    answer = call_prefect("POST", f"{api}/flow_runs/{run}/set_state", body)
    assert answer["status"] == "ACCEPT"


def verdicts(stage: Stage) -> list[str | None]:
    with closing(sqlite3.connect(stage.folder / "out" / "journal.db")) as db:
        return [verdict for (verdict,) in db.execute("SELECT verdict FROM runs ORDER BY started_at")]


def started(stage: Stage, process: "subprocess.Popen[str]", number: int) -> None:
    """Returns when so many predictions are running, and the run knows their ids."""
    assert process.stdout
    seen = 0
    while seen < number:
        line = process.stdout.readline()
        assert line, process.communicate()
        seen += ": started, attempt" in line
    wait_for_creates(stage, number)


@pytest.mark.parametrize("type_", ["CANCELLING", pytest.param("CANCELLED", marks=pytest.mark.long)])
def test_48_a_cancel_in_prefect_reaches_a_command_line_run(
    stage: Stage, command: CommandLine, prefect_api: str, type_: str
) -> None:
    """As the page's button or `prefect flow-run cancel` say it. Nothing is created after it, all that runs is
    cancelled, the run ends as Cancelled and with the exit code of Ctrl-C."""
    stage.emulate(latency_s=(60.0, 60.0))
    process = command.start(command.quick_job(12))
    started(stage, process, 5)
    set_state(prefect_api, flow_run(prefect_api, command.folder)["id"], type_)
    _, err = process.communicate(timeout=250)
    assert process.returncode == 130, err
    ledger = stage.emulator.ledger()
    assert (ledger["creates"], ledger["cancels"], ledger["running"]) == (5, 5, 0)
    assert "cancelled in Prefect: 0 of 12 delivered, $0.30 spent, of which $0.30 for cancelled predictions" in err
    run = flow_run(prefect_api, command.folder)
    assert run["state"]["type"] == "CANCELLED"
    of_run = {"flow_runs": {"id": {"any_": [run["id"]]}}}
    artifacts = call_prefect("POST", f"{prefect_api}/artifacts/filter", of_run)
    (told,) = (each["data"] for each in artifacts if each["key"].endswith("-verdict"))
    assert ": cancelled\n\ncancelled in Prefect: 0 of 12 clips delivered, $0.30 spent.\n" in told
    assert "- Run the job again to continue: " in told
    assert verdicts(stage) == ["interrupted"]


def test_48_ctrl_c_says_what_cancelling_costs_and_what_the_run_has_cost(
    stage: Stage, command: CommandLine, prefect_api: str
) -> None:
    """Before it cancels, and at the end; the journal and Prefect know that the run is over."""
    stage.emulate(latency_s=(60.0, 60.0))
    process = command.start(command.quick_job(8))
    started(stage, process, 5)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=250)
    first, *_, cost, last = err.splitlines()
    assert "5 predictions are running, cancelling is billed up to $0.30" in first
    assert "--on-interrupt leave" in first
    assert cost == "interrupted: 0 of 8 delivered, $0.30 spent, of which $0.30 for cancelled predictions"
    assert last == "interrupted: delivered clips are kept, run the same command again to continue"
    assert verdicts(stage) == ["interrupted"]
    state = flow_run(prefect_api, command.folder)["state"]
    assert state["type"] == "CANCELLED"
    message = "interrupted at the terminal: 0 of 8 clips delivered, $0.30 spent. Run the job again to continue: "
    assert state["message"].startswith(message)
    assert stage.books(creates=5, cancels=5, billed=5)


@pytest.mark.long
def test_48_predictions_can_be_left_to_the_next_run(stage: Stage, command: CommandLine) -> None:
    """With `--on-interrupt leave` Ctrl-C cancels none, and the next run continues them: each is paid for once."""
    stage.emulate(latency_s=(8.0, 8.0))
    job = command.quick_job(8)
    process = command.start(job, "--on-interrupt", "leave")
    started(stage, process, 5)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=250)
    assert process.returncode == 130
    assert "5 predictions are left running, for up to $0.30" in err.splitlines()[0]
    assert "interrupted: 0 of 8 delivered, $0.00 spent, of which $0.00 for cancelled predictions" in err
    assert (stage.emulator.ledger()["creates"], stage.emulator.ledger()["cancels"]) == (5, 0)
    again = command.run(job)
    assert again.code == 0, again.err
    stage.books(creates=8, billed=8)


@pytest.mark.long
def test_48_an_interrupted_run_does_not_know_what_a_lost_journal_forgot(stage: Stage, command: CommandLine) -> None:
    """The run after a lost journal is interrupted: the one after that still looks at the account before it pays."""
    stage.emulate(latency_s=(1.0, 1.0))
    job = command.quick_job(8)
    process = command.start(job)
    started(stage, process, 5)
    process.kill()
    process.communicate()
    wait_until(lambda: stage.emulator.ledger()["running"] == 0)
    for file in (stage.folder / "out").glob("journal.db*"):
        file.unlink()
    process = command.start(job)
    assert process.stdout
    assert any("Prefect's server is ready" in line for line in process.stdout)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=250)
    done = command.run(job)
    assert done.code == 0, done.err
    assert stage.emulator.ledger()["creates"] == 8


@pytest.mark.long
def test_48_nothing_is_created_after_ctrl_c(stage: Stage, command: CommandLine) -> None:
    """Not even what is tried again because its answer was an error: the ledger counts what came after it."""
    stage.emulate('on = "create"\ndo = "status"\nstatus = 500\ntimes = 12', latency_s=(60.0, 60.0))
    process = command.start(command.quick_job(5))
    wait_until(lambda: sum(stage.emulator.ledger()["faults"]) >= 5)
    process.send_signal(signal.SIGINT)
    before = stage.emulator.ledger()["creates"]
    _, err = process.communicate(timeout=250)
    assert process.returncode == 130, err
    assert stage.emulator.ledger()["creates"] == before


@pytest.mark.parametrize("module", [pytest.param("videogen", marks=pytest.mark.long), "flows.generate"])
def test_48_ctrl_c_during_the_imports_ends_in_one_line(module: str, command: CommandLine) -> None:
    """No traceback, and the exit code of an interruption."""
    slow = command.folder / "slow"
    slow.mkdir()
    (slow / "cyclopts.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(60)\n")
    process = subprocess.Popen(
        [sys.executable, "-m", module, "--help"],
        cwd=command.folder,
        env={**os.environ, **command.environment, "PYTHONPATH": f"{slow}:{Path.cwd()}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=250)
    assert (process.returncode, err) == (130, "interrupted\n")
