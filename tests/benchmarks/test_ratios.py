"""What `just bench` measures, small enough for every test run."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from benchmarks.contenders import SLOTS
from benchmarks.emulators import emulators
from benchmarks.measures import lags, latencies, list_schedule
from benchmarks.page import bars, number, write_page
from benchmarks.rows import Row
from benchmarks.spending import large_journal
from benchmarks.stage import Stage, run, write_job
from videogen.journal.store import Journal

pytestmark = pytest.mark.xdist_group("bench")
CLIPS = 6


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The bench's own, without a Prefect server."""
    folder = tmp_path_factory.mktemp("bench")
    with emulators(folder / "films") as paces:
        yield Stage(folder, paces, "", folder)


def test_a_play_is_measured(stage: Stage) -> None:
    """Every slot is used, each clip has its lag, and an end is noticed with few calls."""
    played = stage.play("ours", CLIPS)
    assert played.ledger["peak"] == SLOTS
    assert len(lags(played.ledger, played.ready_by_prediction)) == CLIPS
    assert played.calls_per_clip <= 9
    assert played.makespan_s >= list_schedule(latencies("seconds", CLIPS), SLOTS)


def test_a_dry_run_imports_neither_prefect_nor_the_journal_nor_the_decoder(stage: Stage) -> None:
    """Where there is no journal yet: each of them takes longer than the plan."""
    folder = stage.new_folder()
    write_job(folder / "job.json", 3)
    environment = stage.wired(stage.emulators["at-once"], prefect=False)
    command = [sys.executable, "-X", "importtime", "-m", "flows.generate", "job.json", "--dry-run"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "videogen.planning.planner" in imported
    assert not imported & {"prefect", "sqlalchemy", "av", "replicate"}


@pytest.mark.long
def test_a_plan_with_a_large_journal_is_measured(stage: Stage) -> None:
    """The plan counts what the journal has: all of the job in one of them, and nothing in the others."""
    rows = list(large_journal(stage, 400, 1))
    assert [row.limit for row in rows] == [None, 50, 50, None]
    outs = sorted(stage.folder.glob("play-*/out?"))
    assert [count_attempts(out / "journal.db", "film") for out in outs] == [0, 0, 400]


def count_attempts(file: Path, job_id: str) -> int:
    with closing(Journal(f"sqlite:///{file}")) as journal:
        return len(journal.find_expenses(journal.list_origins(), job_id=job_id))


def test_a_process_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    """And says so; one that fails raises with what it printed."""
    assert not run(["-c", "import time; time.sleep(30)"], tmp_path, {}, within_s=0.2).ended
    with pytest.raises(RuntimeError, match="no such thing"):
        run(["-c", "raise SystemExit('no such thing')"], tmp_path, {})


def test_the_bound_is_the_schedule_without_a_pause() -> None:
    """Each slot takes the next one in the moment it becomes free."""
    assert list_schedule([3, 1, 1, 1], 2) == 3
    assert list_schedule([1, 1, 1, 3], 2) == 4
    assert list_schedule([2.5], 5) == 2.5


def test_the_page_says_what_is_met_and_keeps_what_a_person_wrote(tmp_path: Path) -> None:
    """Tables and plots are written anew, the notes at the end stay."""
    rows = [
        Row("Makespan", "us", 1.0, "×", 1.03),
        Row("Start", "`--help`", 0.4, "s"),
        Row("Start", "plan", 2.0, "s", 0.5),
    ]
    write_page(rows, {"machine": "a small one"}, docs=tmp_path)
    page = tmp_path / "benchmarks.md"
    page.write_text(page.read_text() + "\nIt was the imports.\n")
    write_page(rows, {"machine": "a large one"}, docs=tmp_path)
    text = page.read_text()
    assert "| us | 1.00 × | ≤ 1.03 | met |" in text
    assert "| plan | 2.00 s | ≤ 0.5 | **missed** |" in text
    assert text.endswith("It was the imports.\n")
    assert "a large one" in text
    assert "a small one" not in text
    assert "<svg" in (tmp_path / "images" / "bench-makespan.svg").read_text()


def test_figures_have_three_digits() -> None:
    """Fewer would hide, more would lie."""
    assert [number(value) for value in (0.1234, 1.2345, 12.345, 123.45)] == ["0.123", "1.23", "12.3", "123"]
    assert "us &amp; them" in bars([Row("", "us & them", 1, "s")])
