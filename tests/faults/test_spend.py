"""`videogen spend --csv` is the provider's ledger, row by row, whatever the provider and the network have done.

A job is killed in its first run and interrupted in the second one; runs follow until nothing is left to do. Each
prediction of two in five has a fault, by a seed.
"""

import asyncio
import csv
import io
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from typing import Any

import pytest

from tests.faults.conftest import Change, Stage
from tests.flows.conftest import wait_until
from videogen.app import open_run, prepare_job
from videogen.cli.main import main
from videogen.execution.patience import Patience
from videogen.job.model import Job
from videogen.journal.store import Journal

FAULTS = (
    'do = "fail"\nerror = "CUDA out of memory"',
    'do = "fail"\nerror = "The input was flagged as sensitive (E005)"',
    'do = "abort"',
    'do = "cancel"',
    'do = "stick"',
    'do = "expire"',
    'do = "wrong_duration"\nseconds = 1',
    'do = "wrong_picture"\npicture = "black"',
    'on = "create"\ndo = "lose_answer"',
    'on = "create"\ndo = "reset"',
    'on = "create"\ndo = "hang"\naccepted = true',
    'on = "create"\ndo = "status"\nstatus = 504\nbody = "html"\naccepted = true',
    'on = "create"\ndo = "status"\nstatus = 429\nretry_after = 1',
    'on = "create"\ndo = "refuse"',
    'on = "create"\ndo = "malformed_json"',
    'do = "accept_late"\nseconds = 0.1',
    'do = "hide_from_list"\nseconds = 0.1',
    'on = "poll"\ndo = "html_500"\nnth_poll = 1',
    'on = "poll"\ndo = "unknown_status"\nnth_poll = 1',
    'on = "poll"\ndo = "malformed_json"\nnth_poll = 1',
    'on = "download"\ndo = "truncate"',
    'on = "download"\ndo = "wrong_content"\ncontent = "html"',
    'do = "late_output"\nlooks = 2',
)
OTHER_BILL = 'do = "bill"\ninputs = { duration = 5 }'
"""Another bill than planned is known only of a prediction that succeeds, so this is for those that nobody cancels."""
FAULTY_SHARE = 0.4
MOST_RUNS = 6
DRIVE = """
import asyncio, json, sys
from videogen import Job, RunOptions, run_job
asyncio.run(run_job(Job.model_validate(json.load(open(sys.argv[1]))), RunOptions(out=sys.argv[2])))
"""


def draw_rules(clips: int, seed: int) -> Iterator[str]:
    """Yield a rule for the fault of each faulty create. More creates than clips come, and the last ones have none."""
    chance = random.Random(seed)
    for number in range(1, clips + 1):
        if chance.random() < FAULTY_SHARE:
            yield f"nth_create = {number}\n{chance.choice(FAULTS)}"
        elif number > 0.8 * clips and chance.random() < 0.3:
            yield f"nth_create = {number}\n{OTHER_BILL}"


def make_job(clips: int) -> Job:
    """Return a job of which each twelfth clip is billed by GPU time."""
    scenes = [
        {"id": f"s{number:03d}", "prompt": f"A lighthouse, {number % 7}", "target_duration": 2, "take": number + 1}
        | ({"model": "cogvideox", "target_duration": 6} if number % 12 == 11 else {})
        for number in range(clips)
    ]
    fields: dict[str, Any] = {"id": "film", "model": "quick", "concurrency": 20, "min_clips": 1, "timeout_seconds": 6}
    return Job.model_validate({**fields, "strict_quality": True, "scenes": scenes})


async def run_once(stage: Stage, job: Job) -> None:
    async with open_run(await prepare_job(job, stage.options)) as session:
        await session.finish(await session.make_clips())


async def interrupt_run(stage: Stage, job: Job, *, creates: int) -> None:
    """Run the job, and interrupt it as soon as the provider has accepted so many creates."""
    running = asyncio.create_task(run_once(stage, job))
    while stage.emulator.ledger()["creates"] < creates and not running.done():
        await asyncio.sleep(0.02)
    running.cancel()
    await asyncio.wait([running])


def kill_run(stage: Stage, job: Job, *, creates: int) -> None:
    """Run the job in a process of its own, and kill it as soon as the provider has accepted so many creates."""
    file = stage.folder / "film.json"
    file.write_text(job.model_dump_json(exclude_unset=True))
    process = subprocess.Popen([sys.executable, "-c", DRIVE, str(file), str(stage.options.out)])
    try:
        wait_until(lambda: stage.emulator.ledger()["creates"] >= creates or process.poll() is not None)
    finally:
        process.kill()
        process.wait()


def read_rows(capsys: pytest.CaptureFixture[str], *flags: str) -> list[dict[str, str]]:
    capsys.readouterr()
    assert main(["spend", "--csv", *flags]) == 0
    return list(csv.DictReader(io.StringIO(capsys.readouterr().out)))


@pytest.mark.long_variants
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("clips", "seed"), [(20, 1), (500, 2)])
async def test_each_row_is_what_the_provider_billed(
    clips: int,
    seed: int,
    stage: Stage,
    defaults: Change,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """By prediction id and to the cent: nothing is missing on either side, and the sums agree with what the cap counts.

    A row without an id is a create that was not answered, and that the account's list did not have.
    """
    defaults(
        Patience.__init__, unknown_s=2.0, unknown_at_most_s=4.0
    )  # far longer than a create is late, on any machine
    stage.emulate(*draw_rules(clips, seed), latency_s=(0.05, 0.3), queue_s=(0.0, 0.1))
    monkeypatch.setenv("VIDEOGEN_OUT", str(stage.options.out))
    job = make_job(clips)
    await asyncio.to_thread(kill_run, stage, job, creates=clips // 4)
    await interrupt_run(stage, job, creates=clips // 2)
    for _ in range(MOST_RUNS):
        await run_once(stage, job)
        rows = read_rows(capsys)
        if not any(row["outcome"] in ("running", "undelivered") for row in rows):
            break
    ledger = {row["id"]: Decimal(row["billed"]) for row in stage.emulator.ledger()["predictions"]}
    booked = {row["prediction_id"]: row for row in rows if row["prediction_id"]}
    wrong = [
        (billed, booked.get(prediction_id))
        for prediction_id, billed in ledger.items()
        if prediction_id not in booked or Decimal(booked[prediction_id]["billed"] or "NaN") != billed
    ]
    assert wrong == []
    assert booked.keys() == ledger.keys()
    assert all(not row["billed"] for row in rows if not row["prediction_id"])
    outcomes = Counter(row["outcome"] for row in rows)
    assert outcomes["delivered"] + outcomes["failed_billed"] + outcomes["canceled"] + outcomes["failed"] >= clips
    with closing(Journal(f"sqlite:///{stage.options.out}/journal.db")) as journal:
        spent, reserved = journal.get_job_spending("film", stage.origin)
    assert sum(Decimal(row["billed"] or 0) for row in rows) == spent == sum(ledger.values())
    assert sum(Decimal(row["reserved"]) for row in rows) == reserved
