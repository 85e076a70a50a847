"""Plays jobs on hostile servers, kills and interrupts their runs, goes on until all is done, counts what was paid.

    uv run python -m benchmarks.chaos --seeds 200
    uv run python -m benchmarks.chaos --first 17 --keep /tmp/chaos    # play one seed again and keep its files

A seed draws a server (`tests.faults.hostile`), one or two jobs of a few scenes in one journal, and up to three rounds
of runs that are killed, crashed at a named point, interrupted, frozen for a while, or left alone. Then the server calms
down, and each job is run until it is complete. The oracle is the server's ledger and the bytes on the disk, never what
videogen says of itself: nothing is created for a clip that is being made or can still be had, no cap is passed, every
clip is whole and shows its own scene, and no file is outside of the jobs' folders.
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
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from decimal import Decimal
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

from benchmarks.kill_loop import IMPORTED_LATE, shorten_patience
from tests.faults.hostile import COLOURS, TOKEN, Hostile, Profile, picture_of, serving
from tests.support.builders import strip_record
from videogen import failpoints as crashpoints
from videogen.app import open_run, prepare_job
from videogen.errors import VideogenError
from videogen.execution import attempt as generation
from videogen.execution import lease
from videogen.execution import rate_limit_gate as calls
from videogen.execution.options import RunOptions
from videogen.job.model import Job
from videogen.journal import base as journal_base
from videogen.providers.replicate import Limits, ReplicateProvider

REGISTRY = Path(__file__).parent.parent / "tests" / "faults" / "chaos.toml"
PRICE = Decimal("0.06")
"""Of one clip of the model `quick`, in USD."""
FACTOR = 0.3
"""Times of the hostile server are so much shorter than its profile says."""
PATIENCE = 0.1
"""What videogen waits for in seconds or minutes is so much shorter; three times less than the faults last."""
LEASE_S, HEARTBEAT_S = 3.0, 0.5
MAX_ROUNDS = 3
ROUND_S = 15.0
"""A run of a round is killed after this time, whatever it does."""
CALM_RUNS = 3
CALM_RUN_S = 120.0
MANY_AT_ONCE = 4 * (os.cpu_count() or 1)
"""Seeds: they mostly wait."""
COMPLETE, INCOMPLETE, REFUSED, BROKEN = 0, 1, 2, 70
"""How a run ends: with all clips, without some, with an error of ours, with one that nobody meant."""


@dataclass
class Outcome:
    """What one seed came to."""

    seed: int
    faults: list[str] = field(default_factory=list)
    """What must not happen, as `kind: what`."""
    kinds: Counter[str] = field(default_factory=Counter)
    """Of `faults`."""
    runs: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    """How the runs of the rounds were ended."""
    creates: int = 0
    billed: Decimal = Decimal(0)
    clips: int = 0
    """Delivered whole."""
    failed: Counter[str] = field(default_factory=Counter)
    """Codes of the clips that did not come, where the profile explains them."""
    server_faults: Counter[str] = field(default_factory=Counter)
    took_s: float = 0.0

    def fault(self, kind: str, message: str) -> None:
        self.kinds[kind] += 1
        self.faults.append(f"{kind}: {message}")


@dataclass(frozen=True)
class Play:
    """What a seed has planned: its jobs, and how each run of each round ends."""

    jobs: tuple[Job, ...]
    rounds: tuple[tuple[tuple[str, int], ...], ...]
    """For each round, for each job: how its run ends, and after how many calls: a busy machine makes them later."""

    @classmethod
    def draw(cls, seed: int, folder: Path) -> "Play":
        """Return the play of a seed; `folder` has the pictures."""
        chance = random.Random(f"{seed}/play")
        model = chance.choice(("quick", "quick", "quick", "gpu"))
        scenes = list(_scenes(chance, seed, folder))
        job: dict[str, Any] = {"id": f"film-{seed}", "model": model, "scenes": scenes, "min_clips": 1}
        job["concurrency"] = chance.choice((1, 2, 5))
        if model == "quick" and chance.random() < 0.2:
            job["fallback_models"] = ["twin"]
        jobs = [job]
        if chance.random() < 0.3:  # another job that shares a scene, or all of them
            shared = chance.sample(scenes, k=chance.randint(1, len(scenes)))
            jobs.append({**job, "id": f"other-{seed}", "scenes": shared})
        elif chance.random() < 0.5:
            most = PRICE * (len(scenes) + chance.randint(0, 2))
            job["max_cost"] = str(most if model == "quick" else chance.choice(("0.05", "0.5", "1")))
        rounds = tuple(tuple(_end(chance) for _ in jobs) for _ in range(chance.randint(1, MAX_ROUNDS)))
        return cls(tuple(Job.model_validate(each) for each in jobs), rounds)

    def takes_of(self, asked: Sequence[Any]) -> int:
        """How many different clips of the jobs look like this on the wire."""
        _, prompt, colour, _ = asked
        return len({(scene.take) for job in self.jobs for scene in job.scenes if _shows(scene) == (prompt, colour)})


def _scenes(chance: random.Random, seed: int, folder: Path) -> Iterator[dict[str, Any]]:
    """Scenes that differ in their prompts, or only in their takes or pictures."""
    kind = chance.choice(("prompts", "prompts", "takes", "pictures"))
    colours = chance.sample(sorted(COLOURS), k=len(COLOURS))
    for number in range(chance.randint(2, 5) if kind != "pictures" else chance.randint(2, 4)):
        scene: dict[str, Any] = {"id": f"s{number}", "prompt": f"seed {seed}", "target_duration": 2}
        if kind == "prompts":
            scene["prompt"] += f", scene {number}"
        elif kind == "takes":
            scene["take"] = number + 1
        else:
            scene["scene_reference_url"] = str(folder / f"{colours[number]}.png")
        yield scene


def _end(chance: random.Random) -> tuple[str, int]:
    """How a run ends, and after how many calls of all runs of its round."""
    how = chance.choice(("killed", "killed", "killed", "interrupted", "frozen", "left alone", *crashpoints.NAMES))
    return how, chance.choice((1, 2, 3, 4, 6, 8, 12, 16, 24))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds are played")
    parser.add_argument("--factor", type=float, default=FACTOR, help="how long the server's faults last; 1: seconds")
    parser.add_argument("--keep", type=Path, help="a folder in which each seed leaves its files")
    parser.add_argument("--at-once", type=int, default=MANY_AT_ONCE, help="how many seeds are played at the same time")
    parser.add_argument("--verbose", action="store_true", help="print each seed's outcome")
    arguments = parser.parse_args()
    began = time.monotonic()
    outcomes = []
    seeds = range(arguments.first, arguments.first + arguments.seeds)
    for outcome in play_all(seeds, factor=arguments.factor, keep=arguments.keep, at_once=arguments.at_once):
        outcomes.append(outcome)
        for kind, fault in {fault.partition(":")[0]: fault for fault in reversed(outcome.faults)}.items():
            print(f"FAULT seed {outcome.seed}: {outcome.kinds[kind]} × {fault}", flush=True)
        if arguments.verbose:
            _print_outcome(outcome)
        if len(outcomes) % 10 == 0:
            print(f"  {len(outcomes)} of {arguments.seeds} seeds, {time.monotonic() - began:.0f} s", flush=True)
    return _sum_up(outcomes, time.monotonic() - began)


def _print_outcome(outcome: Outcome) -> None:
    failed = f", failed {dict(outcome.failed)}" if outcome.failed else ""
    print(
        f"seed {outcome.seed}: {outcome.runs} runs, {outcome.creates} creates, ${outcome.billed}, "
        f"{outcome.clips} clips{failed}, {outcome.took_s:.1f} s",
        flush=True,
    )


def _sum_up(outcomes: Sequence[Outcome], took_s: float) -> int:
    def total(name: str) -> Counter[str]:
        return sum((getattr(outcome, name) for outcome in outcomes), Counter())

    def told(counts: Counter[str]) -> str:
        return ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "none"

    print(f"{len(outcomes)} seeds, {sum(outcome.runs for outcome in outcomes)} runs: {told(total('ends'))}")
    print(f"the server's faults: {told(total('server_faults'))}")
    creates, billed = sum(each.creates for each in outcomes), sum(each.billed for each in outcomes)
    print(f"{creates} creates, ${billed} billed, {sum(each.clips for each in outcomes)} clips whole on disk")
    print(f"clips that failed as the server's faults explain: {told(total('failed'))}")
    print(f"{took_s:.0f} s; what must not happen: {told(total('kinds'))}")
    bad = [outcome for outcome in outcomes if outcome.faults]
    for outcome in bad:
        print(f"again: uv run python -m benchmarks.chaos --first {outcome.seed} --keep FOLDER  # {told(outcome.kinds)}")
    print("passed" if not bad else f"failed: {len(bad)} of {len(outcomes)} seeds")
    return 1 if bad else 0


def play_all(seeds: Sequence[int], *, factor: float, keep: Path | None, at_once: int) -> Iterator[Outcome]:
    """Play the seeds, several at once. Yields each outcome as it is there."""
    _warm_up()
    fork = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(min(at_once, len(seeds)), mp_context=fork) as pool:
        waited_for = [pool.submit(play, seed, factor, keep) for seed in seeds]
        for each in waited_for:
            yield each.result()


def _warm_up() -> None:
    """Import what a run needs and plan one: thousands of processes have it then when they are forked."""
    for name in IMPORTED_LATE:
        importlib.import_module(name)
    scene = {"id": "s", "prompt": "p", "target_duration": 2}
    with tempfile.TemporaryDirectory() as folder:
        options = RunOptions(out=folder, registry=REGISTRY, provider="replicate")
        asyncio.run(prepare_job(Job.model_validate({"model": "quick", "scenes": [scene]}), options))


def play(seed: int, factor: float, keep: Path | None) -> Outcome:
    """Play one seed from its first run to its verdict."""
    with contextlib.ExitStack() as stack:
        if keep is None:
            root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        else:
            root = keep / f"seed-{seed}"
            root.mkdir(parents=True)
        (root / "pictures").mkdir()
        for colour in COLOURS:
            (root / "pictures" / f"{colour}.png").write_bytes(picture_of(colour))
        profile = Profile.draw(seed)
        play = Play.draw(seed, root / "pictures")
        if keep is not None:
            (root / "play.txt").write_text(f"{profile}\n\n{play}\n", encoding="utf-8")
        server = stack.enter_context(serving(seed, profile, factor=factor))
        return _Player(Outcome(seed), play, profile, server, root).play()


@dataclass
class _Player:
    """One seed, being played."""

    outcome: Outcome
    wanted: Play
    profile: Profile
    server: Hostile
    root: Path

    def play(self) -> Outcome:
        began = time.monotonic()
        for ends in self.wanted.rounds:
            self._play_round(ends)
        self.server.calm_down()
        unfinished = list(self.wanted.jobs)
        for number in range(CALM_RUNS):
            unfinished = [job for job in unfinished if not self._is_completed(job, last=number == CALM_RUNS - 1)]
        ledger = self.server.ledger()
        if self.root.name.startswith("seed-"):
            (self.root / "ledger.json").write_text(json.dumps(ledger, indent=1), encoding="utf-8")
        self._judge_money(ledger)
        self._judge_files(ledger)
        self.outcome.took_s = time.monotonic() - began
        return self.outcome

    # -- runs ---------------------------------------------------------------------------------------------------------

    def _play_round(self, ends: Sequence[tuple[str, int]]) -> None:
        """Start a run of each job at once, and end them as it was drawn."""
        began, calls_before = time.monotonic(), self.server.count_calls()
        runs = [(self._start(job, how), how, after) for job, (how, after) in zip(self.wanted.jobs, ends, strict=True)]
        for process, how, after in sorted(runs, key=lambda run: run[2]):
            if how in ("killed", "interrupted", "frozen"):
                while process.exitcode is None and time.monotonic() < began + ROUND_S:
                    if self.server.count_calls(least=calls_before + after, within_s=0.2) >= calls_before + after:
                        break
                _send(process, {"killed": signal.SIGKILL, "interrupted": signal.SIGTERM}.get(how, signal.SIGSTOP))
        for process, how, _ in runs:
            if how == "frozen":
                process.join(LEASE_S + 0.5)
                _send(process, signal.SIGCONT)
        for process, how, _ in runs:
            process.join(max(0.0, began + ROUND_S - time.monotonic()))
            is_late = process.exitcode is None
            if is_late:
                process.kill()
                process.join()
            if process.exitcode == BROKEN:
                self._tell_traceback(process)
            ended_by = how if process.exitcode == -signal.SIGKILL else "nothing"
            self.outcome.ends["killed late" if is_late else f"ended by {ended_by}"] += 1

    def _is_completed(self, job: Job, *, last: bool) -> bool:
        """Run the job on the calm server. Returns whether it has all its clips."""
        process = self._start(job, "calm")
        process.join(CALM_RUN_S)
        if process.exitcode is None:
            process.kill()
            process.join()
            self.outcome.fault("stuck", f"a run of {job.id} on a calm server took more than {CALM_RUN_S:g} s")
        if process.exitcode == BROKEN:
            self._tell_traceback(process)
        elif last and process.exitcode == REFUSED:
            self.outcome.fault("refused", f"the last run of {job.id} ended with an error, see {self._log(process)}")
        return process.exitcode == COMPLETE

    def _start(self, job: Job, how: str) -> ForkProcess:
        self.outcome.runs += 1
        log = self.root / f"run-{self.outcome.runs}.log"
        crash_at = f"{how}:{1 + self.outcome.runs % 3}" if how in crashpoints.NAMES else None
        arguments = (job, self.root / "out", self.server.url, crash_at, log)
        process = multiprocessing.get_context("fork").Process(target=_drive, args=arguments, name=log.name)
        process.start()
        return process

    def _log(self, process: ForkProcess) -> str:
        lines = (self.root / process.name).read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return f"{process.name}: {lines[-1][:300] if lines else 'nothing'}"

    def _tell_traceback(self, process: ForkProcess) -> None:
        self.outcome.fault("traceback", self._log(process))

    # -- the oracle ---------------------------------------------------------------------------------------------------

    def _judge_money(self, ledger: dict[str, Any]) -> None:
        predictions = ledger["predictions"]
        fates = {each["id"]: f"{each['fate']}, {each['status']}" for each in predictions}
        self.outcome.creates = len(predictions)
        self.outcome.billed = sum((Decimal(each["bill"]) for each in predictions), Decimal(0))
        self.outcome.server_faults = Counter(ledger["faults"])
        for asked, later, earlier in ledger["paid_twice"]:
            if len(earlier) >= max(1, self.wanted.takes_of(asked)):
                had = ", ".join(f"{each} ({fates[each]})" for each in earlier)
                self.outcome.fault("paid twice", f"{later} was created for {asked} while there was {had}")
        caps = [job.max_cost for job in self.wanted.jobs if job.max_cost is not None]
        if caps and self.outcome.billed > sum(caps):
            self.outcome.fault("above the cap", f"${self.outcome.billed} were billed under a cap of ${sum(caps)}")
        running = [each["id"] for each in predictions if each["ended_at"] is None]
        if running and not self.profile.hides_pictures:  # what cannot be told apart is left to its own deadline
            self.outcome.fault("left running", ", ".join(running))

    def _judge_files(self, ledger: dict[str, Any]) -> None:
        out, ids = self.root / "out", {job.id for job in self.wanted.jobs}
        known = {*ids, "journal.db", "journal.db-wal", "journal.db-shm"}
        strangers = [path.name for path in out.iterdir() if path.name not in known]
        strangers += [path.name for path in self.root.iterdir() if path.name not in ("out", "pictures", *self._logs())]
        if strangers:
            self.outcome.fault("strange files", ", ".join(strangers))
        self._predictions = ledger["predictions"]
        made = {each["sha256"]: each for each in self._predictions}
        for job in self.wanted.jobs:
            manifest = out / job.id / "manifest.json"
            if not manifest.exists():
                self.outcome.fault("no manifest", job.id)
                continue
            clips = {clip["scene_id"]: clip for clip in json.loads(manifest.read_text(encoding="utf-8"))["clips"]}
            used: list[str] = []
            for scene in job.scenes:
                self._judge_clip(job, scene, clips.get(scene.id), made, used)
            if len(set(used)) < len(used):
                self.outcome.fault("one for two", f"clips of {job.id} are of one prediction: {used}")

    def _logs(self) -> list[str]:
        return ["play.txt", "ledger.json", *(f"run-{number + 1}.log" for number in range(self.outcome.runs))]

    def _judge_clip(self, job: Job, scene: Any, clip: Any, made: dict[str, Any], used: list[str]) -> None:
        """Hold what is said of a scene's clip against the bytes on the disk and the prediction that served them."""
        where = f"{job.id}/{scene.id}"
        if clip is None:
            self.outcome.fault("clip missing", f"{where} is not in the manifest")
        elif clip["status"] != "success":
            self._judge_failure(job, scene, where, clip["error"])
        else:
            path = self.root / "out" / job.id / clip["video_path"]
            served = strip_record(path.read_bytes()) if path.exists() else b""
            prediction = made.get(hashlib.sha256(served).hexdigest())
            if prediction is None:
                self.outcome.fault("clip damaged", f"{where}: no prediction served the bytes of {path.name}")
            elif tuple(prediction["asked"][1:3]) != _shows(scene):
                self.outcome.fault("swapped", f"{where} has the clip of {prediction['asked']}")
            else:
                self.outcome.clips += 1
                used.append(prediction["id"])

    def _judge_failure(self, job: Job, scene: Any, where: str, error: Any) -> None:
        """A clip may only be missing for what the server did to it, and must then be said to be."""
        asked_for = [each for each in self._predictions if tuple(each["asked"][1:3]) == _shows(scene)]
        fates = {each["fate"] for each in asked_for}
        profile = self.profile
        explained = {
            "budget": job.max_cost is not None,
            "bad-output": "damaged" in fates,
            "moderation": "moderation" in fates,
            "unreachable": profile.odd_ids or (profile.hides_pictures and _shows(scene)[1] is not None),
        }
        if explained.get(error["code"]):
            self.outcome.failed[error["code"]] += 1
        else:
            self.outcome.fault("not delivered", f"{where}: {error['code']}: {error['message'][:300]}; fates {fates}")


def _shows(scene: Any) -> tuple[str, str | None]:
    """The prompt and the colour of a scene."""
    return scene.prompt, Path(scene.scene_reference_url).stem if scene.scene_reference_url else None


def _send(process: ForkProcess, number: signal.Signals) -> None:
    if process.exitcode is None and process.pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)


# -- one run, in a process of its own ---------------------------------------------------------------------------------


def _drive(job: Job, out: Path, url: str, crash_at: str | None, log: Path) -> None:
    """Run the job without Prefect: every clip with its attempts, then the verdict."""
    given = {"REPLICATE_API_TOKEN": TOKEN, "REPLICATE_BASE_URL": url, "VIDEOGEN_REGISTRY": str(REGISTRY)}
    os.environ.update(given | ({crashpoints.VARIABLE: crash_at} if crash_at else {}))
    with log.open("w", encoding="utf-8") as file:
        os.dup2(file.fileno(), 2)
        os._exit(_exit_code(job, out))


def _exit_code(job: Job, out: Path) -> int:
    hurry()

    async def drive() -> int:
        task = asyncio.current_task()
        assert task
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        async with open_run(await prepare_job(job, RunOptions(out=str(out)))) as session:
            batch = await session.finish(await session.make_clips())
            return COMPLETE if batch.verdict.status == "complete" else INCOMPLETE

    try:
        return asyncio.run(drive())
    except asyncio.CancelledError:
        return INCOMPLETE
    except VideogenError as exc:
        print(f"{exc.code}: {exc}", file=sys.stderr, flush=True)
        return REFUSED
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        return BROKEN


def hurry() -> None:
    """Have this process wait tenths of a second where a user's waits seconds, and seconds where it waits minutes.

    It is the one place that reaches into videogen: the process only lives for one run.
    """
    journal_base.LEASE_S, lease.HEARTBEAT_S = LEASE_S, HEARTBEAT_S
    generation.CLAIM_POLL_S = 0.2
    _set_default(calls.ProviderGate.__init__, backoff_s=0.05)
    _set_default(ReplicateProvider.__init__, limits=Limits(stalled_s=1.5, call_s=3.0))
    shorten_patience(PATIENCE)


def _set_default(function: Any, **values: Any) -> None:
    """Change keyword defaults of a function, as far as it has them."""
    function.__kwdefaults__ |= {name: value for name, value in values.items() if name in function.__kwdefaults__}


if __name__ == "__main__":
    sys.exit(main())
