"""What is computed from a ledger and from files: bounds, makespans, lags."""

import heapq
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.emulators import PACES
from videogen.emulator.catalogue import MODELS
from videogen.emulator.timing import draw_timing

QUICK = "bytedance/seedance-1-pro"


def latencies(pace: str, creates: int) -> list[float]:
    """Seconds that each of the first creates at that emulator takes, in their order."""
    settings = PACES[pace]
    drawn = (draw_timing(MODELS[QUICK], settings, nth=nth, cold=False) for nth in range(1, creates + 1))
    return [settings.time_scale * (each.queue_s + each.run_s) for each in drawn]


def list_schedule(times_s: Iterable[float], slots: int) -> float:
    """The makespan when each slot takes the next one in the very moment it becomes free: nobody who begins them in
    this order can be quicker."""
    ends = [0.0] * slots
    for time_s in times_s:
        heapq.heapreplace(ends, ends[0] + time_s)
    return max(ends)


def seconds_at(stamp: str) -> float:
    """A time of the ledger on the wall clock."""
    whole, _, digits = stamp.removesuffix("Z").partition(".")
    return datetime.fromisoformat(f"{whole}+00:00").timestamp() + float(f"0.{digits or 0}")


def graph_bounds(ledger: Mapping[str, Any], folder: Path, upstreams: Sequence[int | None]) -> tuple[float, float]:
    """The seconds of the longest path of a graph, and of all its predictions together, as they came to be.

    `upstreams` has the number of the clip that each one continues, or None.
    """
    took_s = {
        row["id"]: seconds_at(row["completed_at"]) - seconds_at(row["created_at"]) for row in ledger["predictions"]
    }
    (manifest,) = folder.glob("out/*/manifest.json")
    clips = json.loads(manifest.read_text(encoding="utf-8"))["clips"]
    paths_s: list[float] = []
    for clip, upstream in zip(clips, upstreams, strict=True):
        before_s = 0.0 if upstream is None else paths_s[upstream]
        paths_s.append(before_s + sum(took_s[each] for each in clip["prediction_ids"]))
    return max(paths_s), sum(took_s.values())


def first_create(ledger: Mapping[str, Any]) -> float:
    return min(seconds_at(row["created_at"]) for row in ledger["predictions"])


def ready_at(films: Iterable[Path]) -> dict[Path, float]:
    """When each file got its bytes and its name, whichever came last, on the wall clock."""
    return {path: path.stat().st_ctime for path in films}


def lags(ledger: Mapping[str, Any], ready: Mapping[str, float]) -> list[float]:
    """Seconds from the remote end of each prediction until its file was ready; `ready` is by prediction id."""
    ends = {row["id"]: seconds_at(row["completed_at"]) for row in ledger["predictions"] if row["completed_at"]}
    return [at - ends[prediction_id] for prediction_id, at in ready.items()]


def quantile(values: Sequence[float], part: float) -> float:
    """The smallest value that at least this part of them does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, min(len(ordered) - 1, -int(-part * len(ordered) // 1) - 1))]
