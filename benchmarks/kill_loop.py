"""Kills runs at random moments and at every named crash point, goes on until they are done, and counts what was paid.

    uv run python -m benchmarks.kill_loop --seed 1 --rounds 200

A round is a job of two to five scenes, on an emulator that outlives it; in two of three rounds some scenes continue
others and one is made of segments, in one of them by a fallback, because the provider refuses the first model. Its runs
are killed (SIGKILL) up to four times, then one is let through. The model it is held against is short: every scene has
one whole clip on disk, made from the clip that it continues as that is there, and the emulator's ledger has exactly one
prediction that succeeded for each clip and segment. Rounds drive the library without Prefect; every tenth goes through
the whole command.
The seed is printed, and the same seed gives the same jobs and the same kills (not the same microsecond).
"""

import argparse
import asyncio
import contextlib
import hashlib
import importlib
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from tests.support.small_clips import make_small_clips
from videogen import failpoints as crashpoints
from videogen.app import open_run, prepare_job
from videogen.emulator import Emulator, EmulatorSettings, run_emulator
from videogen.execution.options import RunOptions
from videogen.execution.patience import Patience
from videogen.job.model import Job

IMPORTED_LATE = (
    *("alembic.command", "av", "jinja2", "PIL.ImageDraw", "PIL.ImageFont", "PIL.ImageOps"),
    *(f"videogen.providers.{name}" for name in ("open", "reference_images", "replicate")),
    *("videogen.storage.open", "videogen.execution.attempt", "videogen.execution.runner"),
    *("videogen.reports.contact_sheet", "videogen.reports.contact_sheet_image", "videogen.reports.rough_cut"),
)
"""What a run imports when it needs it: imported here once, and not by each of a thousand runs."""
REGISTRY = Path(__file__).parent.parent / "tests" / "faults" / "models.toml"
LONG_S, SEGMENTS = 4.5, 3
"""Length of the scene that is longer than the two seconds of a clip, and of how many segments it is made."""
UNLUCKY = """
[[rules]]
do = "fail"
model = "minimax/hailuo-2.3"
error = "flagged as sensitive"
times = "always"
"""
MAX_KILLS = 4
RUN_S = 300.0


@dataclass
class Tally:
    """What the rounds came to."""

    rounds: int = 0
    runs: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    creates: int = 0
    clips: int = 0
    faults: list[str] = field(default_factory=list)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument(
        "--command-every", type=int, default=10, help="each how many rounds the whole command is driven, 0: never"
    )
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    began = time.monotonic()
    tally = kill_loop(arguments.seed, arguments.rounds, command_every=arguments.command_every)
    kills = ", ".join(f"{count} {place}" for place, count in sorted(tally.kills.items()))
    print(f"{tally.rounds} rounds, {tally.runs} runs, {sum(tally.kills.values())} killed: {kills}")
    print(f"{tally.clips} clips, {tally.creates} creates, {time.monotonic() - began:.0f} s")
    for fault in tally.faults:
        print(f"FAULT {fault}")
    print("passed" if not tally.faults else f"failed, seed {arguments.seed}")
    return 1 if tally.faults else 0


def kill_loop(seed: int, rounds: int, *, command_every: int) -> Tally:
    """Plays the rounds of a seed, each `command_every`-th through the whole command (0: none of them).

    `Tally.faults` is empty when every promise held.
    """
    for name in IMPORTED_LATE:
        importlib.import_module(name)
    tally = Tally()
    with tempfile.TemporaryDirectory() as folder, _environment(Path(folder)) as emulator:
        for number in range(1, rounds + 1):
            command = command_every > 0 and number % command_every == 0
            _round(random.Random(f"{seed}/{number}"), number, Path(folder), emulator, tally, command=command)
            if number % 10 == 0:
                print(f"  {number} of {rounds} rounds, {tally.clips} clips, {tally.creates} creates", flush=True)
    return tally


@contextlib.contextmanager
def _environment(folder: Path) -> Iterator[Emulator]:
    make_small_clips()
    faults = folder / "faults.toml"
    faults.write_text(UNLUCKY)
    with run_emulator(EmulatorSettings(latency_s=(0.1, 0.5), cache=folder / "renders", faults=faults)) as emulator:
        ours = {"REPLICATE_API_TOKEN": "local", "REPLICATE_BASE_URL": emulator.url, "VIDEOGEN_REGISTRY": str(REGISTRY)}
        os.environ.update(ours)
        yield emulator


def _round(
    chance: random.Random, number: int, folder: Path, emulator: Emulator, tally: Tally, *, command: bool
) -> None:
    scenes = [
        {"id": f"s{n}", "prompt": f"round {number}", "target_duration": 1.5, "take": n}  # which is cut to its length
        for n in range(1, chance.randint(2, 5) + 1)
    ]
    model = ("quick", "framed", "unlucky")[number % 3]
    if model != "quick":
        _chain(scenes, chance)
    fallbacks = ["framed"] if model == "unlucky" else []
    job = Job.model_validate(
        {"id": f"round-{number}", "model": model, "fallback_models": fallbacks, "scenes": scenes, "attempts": 1}
    )
    out = folder / "out"
    emulator.reset()
    for _ in range(chance.randint(1, MAX_KILLS)):
        tally.runs += 1
        place = _place(chance)
        if _killed(job, out, place, chance, command=command):
            tally.kills[place] += 1
    tally.runs += 1
    if code := _run_to_end(job, out, command=command):
        tally.faults.append(f"round {number}: the last run ended with {code}")
        return
    _judge(job, out / job.id, emulator, tally, number)


def _chain(scenes: list[dict[str, Any]], chance: random.Random) -> None:
    """Has most scenes continue one that comes before them, makes one longer than a clip, and mixes them, in place."""
    chance.choice(scenes).update(target_duration=LONG_S, long_scenes="continue")
    for index, scene in enumerate(scenes[1:], 1):
        if chance.random() < 0.7:
            scene["continues"] = chance.choice(scenes[:index])["id"]
    chance.shuffle(scenes)


def _place(chance: random.Random) -> str:
    return chance.choice([*crashpoints.NAMES, "random moment", "random moment"])


def _killed(job: Job, out: Path, place: str, chance: random.Random, *, command: bool) -> bool:
    """Starts a run that is killed at a place; whether it was, or ended before."""
    named = place in crashpoints.NAMES
    process = _start(job, out, f"{place}:{chance.randint(1, 3)}" if named else None, command=command)
    if not named:
        time.sleep((8 if command else 0) * chance.random() + chance.uniform(0, 1.2))
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid or 0, signal.SIGKILL)
    return _wait(process) == -signal.SIGKILL


def _run_to_end(job: Job, out: Path, *, command: bool) -> int:
    return _wait(_start(job, out, None, command=command))


Process = multiprocessing.context.ForkProcess | subprocess.Popen[bytes]


def _start(job: Job, out: Path, crash_at: str | None, *, command: bool) -> Process:
    if not command:
        process = multiprocessing.get_context("fork").Process(target=_drive, args=(job, out, crash_at), daemon=True)
        process.start()
        return process
    path = out.parent / f"{job.id}.json"
    path.write_text(job.model_dump_json(exclude_none=True), encoding="utf-8")
    environment = os.environ | ({crashpoints.VARIABLE: crash_at} if crash_at else {})
    return subprocess.Popen(
        [sys.executable, "-m", "flows.generate", str(path), "--out", str(out)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _wait(process: Process) -> int:
    if isinstance(process, subprocess.Popen):
        return process.wait(RUN_S)
    process.join(RUN_S)
    if process.exitcode is None:
        process.kill()
        raise TimeoutError(f"a run took more than {RUN_S:g} s")
    return process.exitcode


def shorten_patience(factor: float) -> None:
    """Have this process, which lives for one run, wait so much shorter than a user does for what is not final."""
    usual = Patience()
    shorter = {each.name: getattr(usual, each.name) * factor for each in fields(usual)}
    defaults: dict[str, float] = Patience.__init__.__kwdefaults__  # type: ignore[assignment]
    defaults.update(shorter)


def _drive(job: Job, out: Path, crash_at: str | None) -> None:
    """A run without Prefect, in a process of its own: every clip with its attempts, then the verdict."""
    shorten_patience(0.02)
    os.environ.pop(crashpoints.VARIABLE, None)
    if crash_at:
        os.environ[crashpoints.VARIABLE] = crash_at

    async def drive() -> int:
        async with open_run(await prepare_job(job, RunOptions(out=str(out)))) as session:
            clips = await session.make_clips()
            return 0 if (await session.finish(clips)).verdict.status == "complete" else 1

    os._exit(asyncio.run(drive()))


def _judge(job: Job, folder: Path, emulator: Emulator, tally: Tally, number: int) -> None:
    """Holds what is on disk and what was paid against what was asked."""
    ledger = emulator.ledger()
    tally.rounds += 1
    tally.creates += ledger["creates"]
    tally.clips += len(job.scenes)

    def fault(message: str) -> None:
        tally.faults.append(f"round {number}: {message}")

    wanted = len(job.scenes) + sum(SEGMENTS - 1 for scene in job.scenes if scene.target_duration == LONG_S)
    made = sum(prediction["status"] == "succeeded" for prediction in ledger["predictions"])
    if made != wanted:
        fault(f"{made} predictions for {wanted} clips and segments")
    if job.model != "unlucky" and ledger["creates"] != wanted:
        fault(f"{ledger['creates']} creates for {wanted} clips and segments")
    if ledger["running"]:
        fault(f"{ledger['running']} predictions were left running")
    for message in _find_wrong_clips(job, folder):
        fault(message)


def _find_wrong_clips(job: Job, folder: Path) -> Iterator[str]:
    manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    clips = {clip["scene_id"]: clip for clip in manifest["clips"]}
    if len(manifest["clips"]) != len(job.scenes):
        yield f"{len(manifest['clips'])} of {len(job.scenes)} clips are in the manifest"
    for name, clip in clips.items():
        path = folder / (clip["video_path"] or "missing")
        if not path.exists() or hashlib.sha256(path.read_bytes()).hexdigest() != clip["sha256"]:
            yield f"clip {name} is not whole"
        elif clip["target_duration"] == LONG_S and abs(clip["actual_duration"] - LONG_S) > 0.1:
            yield f"clip {name} is {clip['actual_duration']:g} s long"
    for scene in job.scenes:
        upstreams = [clips[scene_id]["sha256"] for scene_id in scene.upstream_ids if scene_id in clips]
        if scene.id in clips and list((clips[scene.id]["made_from"] or {}).values()) != upstreams:
            yield f"clip {scene.id} was made from a clip that is not there any more"


if __name__ == "__main__":
    sys.exit(main())
