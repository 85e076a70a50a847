"""Simulated time: how long a prediction takes, timestamps, `Cancel-After`, and the rate limit of creates."""

import math
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from videogen.emulator.models import EmulatedModel
from videogen.emulator.settings import EmulatorSettings, Range

OFFICIAL_QUEUE_S: Range = (0.004, 0.015)
"""Time in `starting` of an official model; 7 ms was measured."""


@dataclass(frozen=True, slots=True)
class PredictionTiming:
    """The simulated seconds that a prediction spends in `starting` (`queue_s`) and in `processing` (`run_s`)."""

    queue_s: float
    run_s: float


def draw_timing(model: EmulatedModel, settings: EmulatorSettings, *, nth: int, cold: bool) -> PredictionTiming:
    """Return the times of the nth create, which are equal for equal seeds, numbers and models."""
    rng = random.Random(f"{settings.seed}/{nth}/{model.full_name}")
    bounds = settings.latency_s or model.run_s
    run_s = draw_log_normal(rng, bounds) if settings.latency_shape == "log-normal" else rng.uniform(*bounds)
    has_cold_start = cold and not settings.latency_s
    model_queue_s = (model.cold_s, model.cold_s * 1.2) if has_cold_start else OFFICIAL_QUEUE_S
    return PredictionTiming(rng.uniform(*(settings.queue_s or model_queue_s)), run_s)


def draw_log_normal(rng: random.Random, bounds: Range) -> float:
    """Return a log-normal time with the bounds at two standard deviations, or 0 if the lower bound is 0."""
    low, high = bounds
    if low == 0:
        return 0.0
    middle = math.log(low * high) / 2
    deviation = math.log(high / low) / 4
    return min(high, max(low, rng.lognormvariate(middle, deviation)))


def format_timestamp(epoch_ns: int, *, digits: int) -> str:
    """Return an RFC 3339 time in UTC with `digits` decimals; with more than three, trailing zeros are omitted."""
    whole_s, rest_ns = divmod(epoch_ns, 1_000_000_000)
    fraction = f"{rest_ns:09d}"[:digits]
    if digits > 3:
        fraction = fraction.rstrip("0") or "0"
    return f"{datetime.fromtimestamp(whole_s, UTC):%Y-%m-%dT%H:%M:%S}.{fraction}Z"


_CANCEL_AFTER = re.compile(r"(?=\d)(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?")


def parse_cancel_after(text: str) -> int | None:
    """Return the seconds of a Cancel-After header (`90s`, `5m`, `1h30m`, `30`), or None unless they are 5 s to 24 h.

    Source: the description of the header in the published OpenAPI document, https://api.replicate.com/openapi.json.
    """
    found = _CANCEL_AFTER.fullmatch(text.strip())
    if found is None:
        return None
    hours, minutes, seconds = (int(part or 0) for part in found.groups())
    total_s = hours * 3600 + minutes * 60 + seconds
    return total_s if 5 <= total_s <= 86400 else None


class RateLimit:
    """A token bucket of `burst` tokens that refills `per_minute`, in minutes multiplied by `time_scale`."""

    def __init__(
        self, per_minute: int, burst: int, time_scale: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.per_minute = per_minute
        self.burst = burst
        self._interval_s = 60 * time_scale / per_minute
        self._clock = clock
        self._tokens = float(burst)
        self._seen_s = clock()

    def take(self) -> int | None:
        """Take a token and return None, or return the seconds until the next token, rounded up."""
        now = self._clock()
        if self._interval_s == 0:
            return None
        self._tokens = min(self.burst, self._tokens + (now - self._seen_s) / self._interval_s)
        self._seen_s = now
        if self._tokens >= 1:
            self._tokens -= 1
            return None
        return max(1, math.ceil((1 - self._tokens) * self._interval_s))
