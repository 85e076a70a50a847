"""The emulator as the bench uses it: one process, at one address for each pace, all with the same films.

uv run python -m benchmarks.emulators FOLDER     # prints the addresses as JSON; ends when its standard input does
"""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from videogen.emulator import Emulator, EmulatorSettings, run_emulator

SEED = 8
PACES: Mapping[str, EmulatorSettings] = {
    "seconds": EmulatorSettings(seed=SEED, latency_s=(1, 3), latency_shape="log-normal"),
    **{
        f"shots-{seed}": EmulatorSettings(seed=seed, latency_s=(20, 60), latency_shape="log-normal")
        for seed in (1, 2, 3)
    },
    "minute": EmulatorSettings(seed=SEED, latency_s=(50, 72), latency_shape="log-normal"),
    "minute-again": EmulatorSettings(seed=SEED, latency_s=(50, 72), latency_shape="log-normal"),
    "at-once": EmulatorSettings(seed=SEED, latency_s=(0, 0), queue_s=(0, 0)),
    "blink": EmulatorSettings(seed=SEED, latency_s=(0.05, 0.05), queue_s=(0, 0)),
    "models": EmulatorSettings(seed=SEED, time_scale=0.012, queue_s=(0, 0.01)),
}
"""`shots` take 20 to 60 seconds, as those of most models; `minute-again` is for who is measured beside another one;
`models` is each model's own pace, 80 times as fast."""


@contextmanager
def emulators(films: Path) -> Iterator[dict[str, Emulator]]:
    """By pace, for as long as the block lasts."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.emulators", str(films)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin
    assert process.stdout
    try:
        yield {pace: Emulator(url) for pace, url in json.loads(process.stdout.readline()).items()}
    finally:
        process.stdin.close()
        process.wait(20)
        process.stdout.close()


def main() -> None:
    films = Path(sys.argv[1])
    with ExitStack() as stack:
        urls = {
            pace: stack.enter_context(run_emulator(settings.model_copy(update={"cache": films}))).url
            for pace, settings in PACES.items()
        }
        print(json.dumps(urls), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
