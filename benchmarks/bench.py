"""All measurements in one run: `just bench`, or some of them.

    uv run python -m benchmarks.bench                    # all, under ten minutes; writes docs/benchmarks.md
    uv run python -m benchmarks.bench --full             # also the large ones
    uv run python -m benchmarks.bench --only start saved # these alone; prints them and leaves the page alone

Results are also in `benchmarks/results/latest.json`, which is not kept in the repository: the page has every figure.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks import rows
from benchmarks.emulators import emulators
from benchmarks.page import number, write_page
from benchmarks.rows import Row
from benchmarks.spending import large_journal
from benchmarks.stage import Stage
from tests.support.servers import free_port, prefect_server

RESULTS = Path(__file__).parent / "results" / "latest.json"
VERSIONS = ("videogen-batch", "prefect", "replicate", "replicate-batch-process", "httpx", "sqlalchemy", "av")
MOST_RIVALS = ("polling", "batch_process")
ALL_RIVALS = ("ours", *MOST_RIVALS, "prefect_threads")
TAG_LIMIT_S = 90.0
MINUTE_CLIPS = 25

Group = Callable[[], Iterator[Row]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="also 500 and 5,000 clips")
    parser.add_argument("--only", nargs="+", default=[], metavar="GROUP", help="some groups, and leave the page alone")
    arguments = parser.parse_args()
    began, machine = time.monotonic(), machine_now()
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as name:
        found = measured(Path(name), full=arguments.full, only=arguments.only)
    machine |= {"took": f"{time.monotonic() - began:.0f} s", "size": "full" if arguments.full else "quick"}
    RESULTS.parent.mkdir(exist_ok=True)
    result = {"machine": machine, "rows": [asdict(row) | {"met": row.met} for row in found]}
    RESULTS.write_text(json.dumps(result, indent=2), encoding="utf-8")
    if not arguments.only:
        write_page(found, machine)
    missed = [row.name for row in found if row.met is False]
    print(f"{len(found)} rows in {machine['took']}; missed: {'; '.join(missed) or 'none'}")
    return 0


def measured(folder: Path, *, full: bool, only: list[str]) -> list[Row]:
    """The rows of all groups, or of those asked for. Prints them as they come."""
    (folder / "prefect").mkdir()
    with emulators(folder / "films") as paces, prefect_server(folder / "prefect", free_port()) as (api, _):
        stage = Stage(folder, paces, api, folder / "prefect")
        for pace in paces:  # films are rendered, and byte code is compiled
            if not pace.startswith(("minute", "shots")):
                job = {"models": ["quick", "slow"]} if pace == "models" else {}
                stage.play("ours", 1, pace=pace, job=job)
        with ExitStack() as stack:
            wanted = not only or "minute" in only
            minute = stack.enter_context(rows.minute_lags(stage, MINUTE_CLIPS)) if wanted else None
            groups = dict(_groups(stage, folder / "films", minute, full=full))
            if unknown := set(only) - set(groups):
                sys.exit(f"no such group: {', '.join(unknown)}; there are: {', '.join(groups)}")
            return [row for name, group in groups.items() if not only or name in only for row in _told(group())]


def _groups(stage: Stage, films: Path, minute: Group | None, *, full: bool) -> Iterator[tuple[str, Group]]:
    sizes, in_prefect = ((100, 500, 1000, 5000), 1000) if full else ((100, 1000), 200)
    yield "makespan-25", lambda: rows.makespans(stage, 25, (*ALL_RIVALS, "blocking") if full else ALL_RIVALS)
    yield "tag-limit", lambda: rows.tag_limit(stage, 25, TAG_LIMIT_S)
    yield "makespan-100", lambda: rows.makespans(stage, 100, ALL_RIVALS if full else MOST_RIVALS)
    if full:
        yield "makespan-500", lambda: rows.makespans(stage, 500, MOST_RIVALS)
    if minute:
        yield "minute", minute
    yield "saved", lambda: rows.saved(stage, (6, 12, 30))
    yield "longest-first", lambda: rows.longest_first(stage)
    yield "start", lambda: rows.start(stage, 3)
    yield "overhead", lambda: rows.overhead(stage, sizes, in_prefect)
    if full:
        yield "graphs", lambda: rows.graphs(stage, 60, (1, 2, 3))
        yield "large", lambda: rows.large(stage, (500, 5000))
    yield "journal", lambda: large_journal(stage, 100_000, 15)
    yield "memory", lambda: rows.memory(stage, films)
    yield "media", lambda: rows.media(stage)


def _told(group: Iterator[Row]) -> Iterator[Row]:
    for row in group:
        limit = "" if row.limit is None else f"  (≤ {row.limit:g}: {'met' if row.met else 'MISSED'})"
        print(f"{row.group}: {row.name}: {number(row.value)} {row.unit}{limit}  {row.note}", flush=True)
        yield row


def machine_now() -> dict[str, str]:
    """What the figures depend on."""
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}",
        "load before": f"{os.getloadavg()[0]:.1f}",
        "Python": platform.python_version(),
        "packages": ", ".join(f"{name} {version(name)}" for name in VERSIONS),
    }


if __name__ == "__main__":
    sys.exit(main())
