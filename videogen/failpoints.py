"""Named points at which a test can kill the process, to check that the next run resumes from there."""

import os
import signal
from collections import Counter

NAMES = (
    "before-intent",
    "after-intent",
    "after-create",
    "after-id",
    "mid-download",
    "before-rename",
    "after-rename",
    "before-manifest",
)
VARIABLE = "VIDEOGEN_CRASH_AT"
"""`NAME` or `NAME:N`: kill -9 at that point, the N-th time it is reached."""

_reached: Counter[str] = Counter()


def crash_if_requested(name: str) -> None:
    """Kill the process if the environment asks for a crash at this point; otherwise do nothing."""
    wanted = os.environ.get(VARIABLE)
    if not wanted:
        return
    _reached[name] += 1
    place, _, nth = wanted.partition(":")
    if place == name and _reached[name] == int(nth or 1):
        os.kill(os.getpid(), signal.SIGKILL)
