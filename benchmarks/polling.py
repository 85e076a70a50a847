"""Does the list shortcut of the poller pay? Clips of 30 to 180 s over five slots, in virtual time.

    python -m benchmarks.polling

Prints, with the list and without it, the calls per clip and how long after its end a clip's end is known.
"""

import asyncio
import random
import selectors
import statistics
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock

from videogen.execution.poll_schedule import PollSchedule
from videogen.execution.poller import Poller
from videogen.execution.rate_limit_gate import ProviderGate
from videogen.providers.base import Prediction

CLIPS, SLOTS = 100, 5
SHORTEST_S, LONGEST_S = 30.0, 180.0
CALL_S = 0.15
"""Duration of a call to Replicate."""
ORIGIN = datetime(2026, 1, 1, tzinfo=UTC)


class _SkippingSelector(selectors.DefaultSelector):
    """Instead of waiting, it sets the clock forward."""

    now = 0.0

    def read_clock(self) -> float:
        return self.now

    def select(self, timeout: float | None = None) -> list[Any]:
        self.now += timeout or 0.0
        return super().select(0)


@dataclass
class _Provider:
    """Predictions that take as long as they were made to, and the calls that asked for them."""

    clock: Callable[[], float]
    predictions: dict[str, tuple[Prediction, float]] = field(default_factory=dict)
    calls: int = 0

    def start(self, number: int, duration_s: float) -> Prediction:
        now = self.clock()
        prediction = Prediction(id=f"p{number}", status="processing", created_at=ORIGIN + timedelta(seconds=now))
        self.predictions[prediction.id] = prediction, now + duration_s
        return prediction

    def describe(self, prediction_id: str) -> Prediction:
        prediction, ends_at = self.predictions[prediction_id]
        return replace(prediction, status="succeeded") if self.clock() >= ends_at else prediction

    async def get(self, prediction_id: str) -> Prediction:
        self.calls += 1
        await asyncio.sleep(CALL_S)
        return self.describe(prediction_id)

    async def list_since(self, created_after: datetime) -> AsyncIterator[Prediction]:
        self.calls += 1
        await asyncio.sleep(CALL_S)
        for prediction_id, (prediction, _) in reversed(self.predictions.items()):
            if prediction.created_at and prediction.created_at >= created_after:
                yield self.describe(prediction_id)


class _WithoutList(Poller):
    async def _list_repeatedly(self) -> None:
        await asyncio.Event().wait()

    def track(self, *arguments: Any) -> Any:
        for pending in self._pending.values():
            pending.was_listed = False
        return super().track(*arguments)


def measure(poller_class: type[Poller], seed: int) -> tuple[float, float]:
    """Return the calls per clip, and the mean delay in seconds after which the end of a clip is known."""
    selector = _SkippingSelector()
    loop = asyncio.SelectorEventLoop(selector)
    with mock.patch.object(time, "monotonic", selector.read_clock):
        provider = _Provider(selector.read_clock)
        delays_s = loop.run_until_complete(_run(poller_class, provider, random.Random(seed)))
    loop.close()
    return provider.calls / CLIPS, statistics.mean(delays_s)


async def _run(poller_class: type[Poller], provider: _Provider, draw: random.Random) -> list[float]:
    poller = poller_class(provider, ProviderGate())  # type: ignore[arg-type]
    schedule, slots = PollSchedule(), asyncio.Semaphore(SLOTS)
    durations = [draw.uniform(SHORTEST_S, LONGEST_S) for _ in range(CLIPS)]

    async def clip(number: int) -> float:
        async with slots:
            prediction = provider.start(number, durations[number])
            began = provider.clock()
            with poller.track(prediction, schedule, began) as pending:
                while not prediction.ended:
                    await asyncio.wait([pending.ended], timeout=pending.poll_delay_s())
                    prediction = pending.ended.result() if pending.ended.done() else await provider.get(prediction.id)
            schedule.observe_run(durations[number])
            return provider.clock() - began - durations[number]

    return await asyncio.gather(*(clip(number) for number in range(CLIPS)))


def main() -> None:
    for name, poller_class in (("with the list", Poller), ("by id alone", _WithoutList)):
        rounds = [measure(poller_class, seed) for seed in range(5)]
        calls, delay_s = (statistics.mean(each) for each in zip(*rounds, strict=True))
        print(f"{name}: {calls:.1f} calls per clip, {delay_s:.2f} s after its end")


if __name__ == "__main__":
    main()
