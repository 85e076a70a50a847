"""How much longer is a plan if the journal holds the attempts of years?

    uv run python -m benchmarks.spending [--attempts 100000] [--repeats 15]

Plans a job of eight scenes with `videogen plan`, in processes of their own: with an empty journal, with one of many
jobs, and with one in which all attempts belong to the planned job. Prints the median of each, and how long
`videogen spend` takes.
"""

import argparse
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from benchmarks.rows import Row
from benchmarks.stage import Stage, run, write_job
from videogen.emulator import Emulator
from videogen.journal.schema import ATTEMPTS, DELIVERIES, EVENTS, RUNS
from videogen.journal.store import Journal

ATTEMPTS_PER_RUN, JOBS = 200, 250
SCENES = 8
ORIGIN = "127.0.0.1:9"
"""Nothing listens there, and a plan calls nobody."""
CLIP = {"model": "quick", "status": "success", "sha256": "0" * 64, "prompt": "A lighthouse at dusk. " * 20}
"""Of a delivery: as long as real ones."""
BATCH = 5_000


def fill_journal(file: Path, attempts: int, *, job_id: str | None) -> None:
    """Write a journal with so many attempts, one in ten of which has failed, and with their deliveries and events.

    They belong to `JOBS` jobs, or all to one job if its id is given.
    """
    Journal(f"sqlite:///{file}").close()
    engine = sa.create_engine(f"sqlite:///{file}")
    with engine.begin() as db:
        for first in range(0, attempts, BATCH):
            numbers = range(first, min(first + BATCH, attempts))
            for table, rows in _make_rows(numbers, job_id).items():
                if rows:
                    db.execute(table.insert(), rows)
    engine.dispose()


def _make_rows(numbers: Sequence[int], job_id: str | None) -> dict[sa.Table, list[dict[str, Any]]]:
    rows: dict[sa.Table, list[dict[str, Any]]] = {RUNS: [], ATTEMPTS: [], DELIVERIES: [], EVENTS: []}
    for number in numbers:
        run, at = number // ATTEMPTS_PER_RUN, datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=4 * number)
        job, key, has_failed = job_id or f"job-{run % JOBS}", f"{number:032x}", number % 10 == 0
        if number % ATTEMPTS_PER_RUN == 0:
            row = {"id": f"run-{run}", "job_id": job, "origin": ORIGIN, "folder": f"/films/{job}", "recovering": False}
            rows[RUNS].append(row | {"started_at": at, "seen_at": at, "ended_at": at, "verdict": "complete"})
        rows[ATTEMPTS].append(
            {
                "run_id": f"run-{run}",
                "origin": ORIGIN,
                "clip_key": key,
                "scene_id": f"s{number % ATTEMPTS_PER_RUN:04d}",
                "input_digest": key * 2,
                "digest_without_images": key * 2,
                "state": "ended" if has_failed else "delivered",
                "prediction_id": f"p{number:025d}",
                "intended_at": at,
                "created_at": at,
                "ended_at": at,
                "price": "0.350",
                "cost": "0" if has_failed else "0.350",
                "cost_basis": "estimated" if has_failed else "known",
                "error_code": "model-error" if has_failed else None,
                "job_id": job,
                "reserved": "0.350",
                "token": key,
                "model": "quick",
            }
        )
        told = {"run_id": f"run-{run}", "at": at}
        rows[EVENTS].append(told | {"type": "clip.started", "payload": {"scene_id": "s"}, "token": f"s{key[1:]}"})
        if not has_failed:
            place = {"origin": ORIGIN, "clip_key": key, "folder": f"/films/{job}", "delivered_at": at}
            rows[DELIVERIES].append(place | {"clip": CLIP})
    return rows


def large_journal(stage: Stage, attempts: int, repeats: int) -> Iterator[Row]:
    """Plan with an empty journal and with each kind of full one in turn, and compare the medians."""
    group = f"A journal of {attempts:,} attempts"
    folder = stage.new_folder()
    jobs: dict[str, str | None] = {
        "an empty journal": None,
        "all of other jobs": None,
        "all of the planned job": "film",
    }
    outs = [folder / f"out{number}" for number in range(len(jobs))]
    for (name, job_id), out in zip(jobs.items(), outs, strict=True):
        (out / "film").mkdir(parents=True)  # the journal of a folder that was used before is read
        fill_journal(out / "journal.db", attempts if name.startswith("all") else 0, job_id=job_id)
    write_job(folder / "job.json", SCENES, id="film")
    environment = stage.wired(Emulator(f"http://{ORIGIN}"), prefect=False)
    times_s: list[list[float]] = [[] for _ in outs]
    for _ in range(repeats + 1):
        for out, found in zip(outs, times_s, strict=True):
            command = ["-m", "videogen", "plan", str(folder / "job.json"), "--out", str(out)]
            found.append(run(command, folder, environment).wall_s)
    empty_s, *full_s = (statistics.median(found[1:]) for found in times_s)
    yield Row(group, "`videogen plan` with an empty journal", 1000 * empty_s, "ms")
    for name, plan_s in zip(list(jobs)[1:], full_s, strict=True):
        yield Row(group, f"`videogen plan` beyond that, {name}", 1000 * (plan_s - empty_s), "ms", 50)
    spend_s = run(["-m", "videogen", "spend", "--out", str(outs[1])], folder, environment).wall_s
    yield Row(group, "`videogen spend`, which reads them all", spend_s, "s")


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--attempts", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        for row in large_journal(Stage(Path(name), {}, "", Path(name)), arguments.attempts, arguments.repeats):
            print(f"{row.name}: {row.value:.2f} {row.unit}")


if __name__ == "__main__":
    main()
