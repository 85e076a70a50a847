"""The rows: each function plays what it needs and returns figures, with the limit that each is held against."""

import random
import sqlite3
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from shutil import copyfile

from benchmarks.contenders import PROMPT, SLOTS
from benchmarks.emulators import SEED
from benchmarks.measures import graph_bounds, lags, latencies, list_schedule, quantile
from benchmarks.stage import Played, Ran, Stage, run
from videogen.emulator.catalogue import MODELS
from videogen.emulator.models import ClipFormat, PixelSize
from videogen.emulator.rendering.spec import RenderSpec

NAMES = {
    "command": "**videogen**, the command in Prefect",
    "ours": "**videogen** without Prefect",
    "polling": "official client, create and wait, `asyncio.Semaphore(5)`",
    "blocking": "official client, `async_run`, `asyncio.Semaphore(5)`",
    "batch_process": "`replicate-batch-process` 1.1.1, 5 at once",
    "prefect_threads": "Prefect task mapped on `ThreadPoolTaskRunner(5)`",
    "prefect_tag_limit": "Prefect task mapped, limit of 5 on its tag",
}


@dataclass(frozen=True)
class Row:
    """A figure. `limit` is the most it may be; None: nothing is promised of it."""

    group: str
    name: str
    value: float
    unit: str
    limit: float | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        return None if self.limit is None else self.value <= self.limit


# -- how long a job takes ---------------------------------------------------------------------------------------------


def makespans(stage: Stage, clips: int, rivals: tuple[str, ...]) -> Iterator[Row]:
    """Over the list schedule of the same latencies: ours in Prefect, then the rivals, and what it says of lag."""
    group = f"Makespan of {clips} clips of 1–3 s, over the bound"
    times = latencies("seconds", clips)
    bound = list_schedule(times, SLOTS)
    yield Row(group, "one at a time (the sum of the latencies)", sum(times) / bound, "×")
    seen = dict[str, Played]()
    for who in ("command", *rivals):
        seen[who] = stage.play(who, clips, prefect=who == "command" or who.startswith("prefect"))
        limit = 1.03 if who == "command" and clips == 100 else None
        took = f"{seen[who].makespan_s:.1f} s, bound {bound:.1f} s"
        yield Row(group, NAMES[who], seen[who].makespan_s / bound, "×", limit, took)
    ours, best = seen["command"].makespan_s, min(seen[who].makespan_s for who in rivals)
    yield Row(group, "videogen over the quickest rival", ours / best, "×", 1.0)
    yield Row(group, "videogen beyond the bound, a clip", 1000 * (ours - bound) / clips, "ms")
    if clips == 100:
        yield from _lag_rows("Lag and calls at 2 s a clip", seen["command"], seen["polling"], lag_s=0.3, calls=6)


def tag_limit(stage: Stage, clips: int, within_s: float) -> Iterator[Row]:
    """The naive Prefect way, which may take minutes: it is ended when its time is up."""
    bound = list_schedule(latencies("seconds", clips), SLOTS)
    played = stage.play("prefect_tag_limit", clips, prefect=True, within_s=within_s)
    took_s = played.makespan_s if played.ran.ended else within_s
    note = f"{took_s:.1f} s, bound {bound:.1f} s"
    if not played.ran.ended:
        note = f"ended after {within_s:g} s with {len(played.ready)} of {clips} clips: it is at least this"
    yield Row(
        f"Makespan of {clips} clips of 1–3 s, over the bound",
        NAMES["prefect_tag_limit"],
        took_s / bound,
        "×",
        note=note,
    )


def _lag_rows(group: str, ours: Played, theirs: Played, *, lag_s: float, calls: float) -> Iterator[Row]:
    for name, played, is_ours in (("videogen", ours, True), ("official client's polling", theirs, False)):
        found = lags(played.ledger, played.ready_by_prediction)
        what = "checked file" if is_ours else "file"
        yield Row(
            group, f"{name}: remote end to {what}, median", statistics.median(found), "s", lag_s if is_ours else None
        )
        yield Row(group, f"{name}: the same, 95 %", quantile(found, 0.95), "s")
        yield Row(group, f"{name}: API calls a clip", played.calls_per_clip, "calls", calls if is_ours else None)


@contextmanager
def minute_lags(stage: Stage, clips: int) -> Iterator[Callable[[], Iterator[Row]]]:
    """Ours and the official client side by side, beside whatever the block does: both wait most of the time."""
    with ThreadPoolExecutor(2) as pool:
        ours: Future[Played] = pool.submit(stage.play, "ours", clips, pace="minute", job={"model": "minute"})
        theirs: Future[Played] = pool.submit(stage.play, "polling", clips, pace="minute-again")
        group = f"Lag and calls at 60 s a clip ({clips} clips of 50–72 s, without Prefect, beside the rows above)"
        yield lambda: _lag_rows(group, ours.result(), theirs.result(), lag_s=1.0, calls=15)


def longest_first(stage: Stage) -> Iterator[Row]:
    """A job with two models, one of which takes four times as long: the order in which clips are begun."""
    group = "Longest first: 8 scenes of two models, one four times as slow"
    job = {"models": ["quick", "slow"]}
    first, plain = (stage.play(who, 8, pace="models", job=job) for who in ("ours", "ours_in_scene_order"))
    yield Row(group, "in scene order", plain.makespan_s, "s")
    yield Row(group, "longest first", first.makespan_s, "s")
    yield Row(group, "longest first over scene order", first.makespan_s / plain.makespan_s, "×", 1.0)


def graphs(stage: Stage, clips: int, seeds: Sequence[int]) -> Iterator[Row]:
    """Random trees of clips that continue each other, over the longer of their longest path and of what five slots
    take for all of them. They are played side by side, in real time."""
    group = f"Makespan of a graph of {clips} clips of 20–60 s, over the bound"

    def play(seed: int) -> Row:
        chance = random.Random(seed)
        upstreams = [chance.randrange(n) if n and chance.random() < 0.8 else None for n in range(clips)]
        played = stage.play("ours", clips, pace=f"shots-{seed}", job={"model": "framed", "upstreams": upstreams})
        path_s, all_s = graph_bounds(played.ledger, played.folder, upstreams)
        bound_s = max(path_s, all_s / SLOTS)
        took = f"{played.makespan_s:.1f} s; longest path {path_s:.1f} s, {SLOTS} slots {all_s / SLOTS:.1f} s"
        return Row(group, f"videogen without Prefect, seed {seed}", played.makespan_s / bound_s, "×", 1.05, took)

    with ThreadPoolExecutor(len(seeds)) as pool:
        yield from pool.map(play, seeds)


def saved(stage: Stage, sizes: tuple[int, ...]) -> Iterator[Row]:
    """The headline: against one at a time, which is taken to lose nothing at all."""
    group = "Time saved against one at a time"
    for clips in sizes:
        alone_s = sum(latencies("seconds", clips))
        made = stage.play("command", clips, prefect=True)
        note = f"{made.makespan_s:.1f} s in place of {alone_s:.1f} s; five slots allow {_allowed(clips):.0f} %"
        yield Row(group, f"{clips} clips", 100 * (1 - made.makespan_s / alone_s), "%", note=note)


def _allowed(clips: int) -> float:
    times = latencies("seconds", clips)
    return 100 * (1 - list_schedule(times, SLOTS) / sum(times))


# -- what a clip costs ------------------------------------------------------------------------------------------------


def overhead(stage: Stage, alone: tuple[int, ...], in_prefect: int) -> Iterator[Row]:
    """Of clips that are there at once, 20 under way at a time: what is left is our work, and the emulator's."""
    group = "Overhead of a clip (instant predictions, 20 at a time)"
    start = _instant(stage, "ours", 1)
    plays = {clips: _instant(stage, "ours", clips) for clips in alone}
    cpu_ms = {clips: _cpu_ms(played, start.ran, clips) for clips, played in plays.items()}
    for clips, played in plays.items():
        yield Row(group, f"videogen without Prefect, {clips} clips: wall", 1000 * played.makespan_s / clips, "ms", 15)
        yield Row(group, f"videogen without Prefect, {clips} clips: CPU", cpu_ms[clips], "ms", 60)
    first, last = 500 if 500 in cpu_ms else alone[0], alone[-1]
    yield Row(group, f"CPU of a clip among {last} over one among {first}", cpu_ms[last] / cpu_ms[first], "×", 1.2)
    yield from _in_prefect(stage, group, in_prefect)
    most = plays[last]
    yield Row(
        "Memory and disk",
        f"peak memory, {last} scenes",
        most.ran.peak_mb,
        "MB",
        note=f"1 scene: {start.ran.peak_mb:.0f} MB",
    )
    journal = sum(path.stat().st_size for path in most.folder.glob("out/journal.db*"))
    yield Row("Memory and disk", "journal, a clip", journal / last / 1000, "kB")


def large(stage: Stage, sizes: tuple[int, int]) -> Iterator[Row]:
    """Very large jobs in one flow run: what a clip costs and what they hold in memory, over one clip and over fewer."""
    group = "Large jobs in Prefect (0.05 s a clip, 50 at a time)"
    plays = {clips: _blinking(stage, clips) for clips in (1, *sizes)}
    start = plays[1].ran
    wall_ms = {clips: 1000 * plays[clips].makespan_s / clips for clips in sizes}
    cpu_ms = {clips: _cpu_ms(plays[clips], start, clips) for clips in sizes}
    for clips in sizes:
        yield Row(group, f"{clips} scenes: wall, a clip", wall_ms[clips], "ms", note=f"{plays[clips].makespan_s:.0f} s")
        yield Row(group, f"{clips} scenes: CPU, a clip", cpu_ms[clips], "ms")
        above = f"1 scene: {start.peak_mb:.0f} MB"
        yield Row(
            group, f"{clips} scenes: memory above 1 scene", plays[clips].ran.peak_mb - start.peak_mb, "MB", 300, above
        )
    few, many = sizes
    yield Row(group, f"wall of a clip among {many} over one among {few}", wall_ms[many] / wall_ms[few], "×", 1.3)
    yield Row(group, f"CPU of a clip among {many} over one among {few}", cpu_ms[many] / cpu_ms[few], "×", 1.3)


def _blinking(stage: Stage, clips: int) -> Played:
    return stage.play("command", clips, pace="blink", job={"concurrency": 50}, prefect=True)


def _in_prefect(stage: Stage, group: str, clips: int) -> Iterator[Row]:
    start, empty_start = _instant(stage, "command", 1), stage.play("empty_flow", 1, pace="at-once", prefect=True).ran
    size = _prefect_bytes(stage)
    made = _instant(stage, "command", clips)
    grown_kb = (_prefect_bytes(stage) - size) / clips / 1000
    empty = stage.play("empty_flow", clips, pace="at-once", prefect=True)
    first, last = map(float, (empty.folder / "began").read_text().split())
    wall_ms, own_wall_ms = 1000 * made.makespan_s / clips, 1000 * (last - first) / clips
    cpu_ms, own_cpu_ms = _cpu_ms(made, start.ran, clips), _cpu_ms(empty, empty_start, clips)
    yield Row(group, f"Prefect's own: {clips} tasks that do nothing, wall", own_wall_ms, "ms")
    yield Row(group, f"Prefect's own: {clips} tasks that do nothing, CPU", own_cpu_ms, "ms")
    yield Row(group, f"videogen in Prefect beyond that, {clips} clips: wall", wall_ms - own_wall_ms, "ms", 15)
    yield Row(group, f"videogen in Prefect beyond that, {clips} clips: CPU", cpu_ms - own_cpu_ms, "ms", 60)
    yield Row("Memory and disk", "Prefect's database, a clip", grown_kb, "kB")


def _instant(stage: Stage, who: str, clips: int) -> Played:
    return stage.play(who, clips, pace="at-once", job={"concurrency": 20}, prefect=who == "command")


def _cpu_ms(played: Played, start: Ran, clips: int) -> float:
    """Of each clip after the first one, which pays for the start."""
    return 1000 * (played.ran.cpu_s - start.cpu_s) / (clips - 1)


def _prefect_bytes(stage: Stage) -> int:
    time.sleep(3)  # what is in its queue
    with sqlite3.connect(stage.prefect_home / "prefect.db", timeout=30) as database:
        pages, size, free = (
            database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size", "freelist_count")
        )
    return int((pages - free) * size)


# -- the start --------------------------------------------------------------------------------------------------------


def start(stage: Stage, repeats: int) -> Iterator[Row]:
    """Each figure is the median of so many starts, ours and the empty flow's in turn."""
    group = "Start"
    helped = [_help(stage, "--help") for _ in range(repeats)]
    yield Row(group, "`--help`: CPU", statistics.median(each.cpu_s for each in helped), "s")
    planned = [_help(stage, "job.json", "--dry-run") for _ in range(repeats)]
    yield Row(group, "`--dry-run`: CPU", statistics.median(each.cpu_s for each in planned), "s", 0.5)
    yield from _first_creates(stage, group, "a running Prefect server", repeats, prefect=True)
    stage.play("empty_flow", 1, prefect=False)  # makes the database of the server that a run starts for itself
    yield from _first_creates(stage, group, "no server (a run starts its own)", 1, prefect=False)


def _help(stage: Stage, *arguments: str) -> Ran:
    from benchmarks.stage import write_job

    folder = stage.new_folder()
    write_job(folder / "job.json", 8)
    return run(["-m", "flows.generate", *arguments], folder, stage.wired(stage.emulators["at-once"], prefect=False))


def _first_creates(stage: Stage, group: str, state: str, repeats: int, *, prefect: bool) -> Iterator[Row]:
    ours, empty = [], []
    for _ in range(repeats):
        ours.append(stage.play("command", 1, pace="at-once", prefect=prefect).to_first_create_s)
        played = stage.play("empty_flow", 1, pace="at-once", prefect=prefect)
        empty.append(float((played.folder / "began").read_text().split()[0]) - played.ran.spawned_at)
    first_s, empty_s = statistics.median(ours), statistics.median(empty)
    yield Row(group, f"to the first create, {state}", first_s, "s")
    yield Row(group, f"an empty flow's first task, {state}", empty_s, "s")
    yield Row(group, f"the first create over that, {state}", first_s / empty_s, "×", 1.1)


# -- the media --------------------------------------------------------------------------------------------------------


def memory(stage: Stage, films: Path) -> Iterator[Row]:
    """Five clips of 60 MB at once; the emulator serves a file that it finds where it keeps its films."""
    from tests.providers.test_memory import large_clip

    model = MODELS["bytedance/seedance-1-pro"]
    inputs = model.fill_defaults({"prompt": PROMPT, "resolution": "1080p", "duration": 10})
    spec = RenderSpec(model.get_format(inputs, None), PROMPT, SEED, None, smooth=False)
    large = large_clip(stage.folder / "large.mp4")
    copyfile(large, films / f"{spec.digest}.mp4")
    job = {"model": "large", "aspect_ratio": "16:9", "target_duration": 10}
    played = stage.play("ours", 5, job=job)
    size_mb = large.stat().st_size / 1e6
    if any(path.stat().st_size != large.stat().st_size for path in played.ready):
        raise RuntimeError("other clips came than the large one")
    yield Row("Memory and disk", f"peak memory, 5 × {size_mb:.0f} MB clips at once", played.ran.peak_mb, "MB")


def media(stage: Stage) -> Iterator[Row]:
    """Four seconds in each size: rendered by the emulator, and checked as a delivered clip is."""
    from videogen.emulator.rendering.encode import render_clip
    from videogen.media import inspect_video

    sizes = {"480p": PixelSize(864, 480), "720p": PixelSize(1280, 720), "1080p": PixelSize(1920, 1080)}
    for name, size in sizes.items():
        for smooth in (False, True):
            mode = "smooth" if smooth else "quick"
            path = stage.folder / f"{name}-{mode}.mp4"
            spec = RenderSpec(ClipFormat(size, 96, Fraction(24)), PROMPT, SEED, None, smooth)
            took_s = _timed(partial(render_clip, spec, None, path, threading.Event()))
            yield Row("Renderer", f"{name}, {mode}", 4 / took_s, "× realtime")
        took_s = min(_timed(partial(inspect_video, path, poster=stage.folder / "poster.jpg")) for _ in range(3))
        yield Row("Full check of a clip of 4 s", name, 1000 * took_s, "ms")


def _timed(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began
