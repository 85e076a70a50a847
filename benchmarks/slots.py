"""How busy the slots of the limit are over several workers, at 20 to 60 s a clip.

    uv run python -m benchmarks.slots             # times scaled to a quarter: about four minutes
    uv run python -m benchmarks.slots --scale 1   # in real time: eleven minutes

PostgreSQL, Prefect's server, two workers and the emulator on this machine; three scheduled runs at once. From the
emulator's ledger: *efficiency* is the share of the five slots that was busy as long as there was a clip to begin, from
the first create to the last one; *overall* goes on to the last end, when there is not work for all of them.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.deployments.stage import Use, job_of, stage_in

SLOTS, RUNS, WORKERS = 5, 3, 2
LATENCY_S = (20.0, 60.0)
WANTED = 0.94


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=0.25, help="of the clips' times; 1 is real time")
    parser.add_argument("--scenes", type=int, default=24, help="of each run")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ledger = _played(Path(folder), arguments.scale, arguments.scenes)
    use = Use.of(ledger["predictions"])
    clips = RUNS * arguments.scenes
    print(f"{clips} clips, {ledger['creates']} creates, peak {use.peak}, {use.makespan_s:.1f} s")
    print(f"efficiency {use.efficiency(SLOTS):.3f}, overall {use.prediction_s / SLOTS / use.makespan_s:.3f}")
    print(f"time with at least {SLOTS - 1} slots busy: {use.share_at_least(SLOTS - 1):.3f}")
    passed = ledger["creates"] == clips and use.peak == SLOTS and use.efficiency(SLOTS) >= WANTED
    print("passed" if passed else "failed")
    return 0 if passed else 1


def _played(folder: Path, scale: float, scenes: int) -> dict[str, list[dict[str, str]]]:
    """The ledger after all runs."""
    with stage_in(folder / "stage", folder / "films", latency_s=LATENCY_S, time_scale=scale) as stage:
        for number in range(WORKERS):
            stage.start_worker(f"worker-{number}")
        began = time.monotonic()
        flow_runs = [stage.schedule(job_of(f"film-{number}", scenes)) for number in range(RUNS)]
        ends = stage.wait_for_end(*flow_runs, within_s=60 + 2 * scale * LATENCY_S[1] * RUNS * scenes / SLOTS)
        print(f"{', '.join(ends)}, {time.monotonic() - began:.0f} s after they were scheduled", flush=True)
        return stage.emulator.ledger()


if __name__ == "__main__":
    sys.exit(main())
