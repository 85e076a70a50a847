"""Whether predictions have ended: one is asked for by its id, several are looked up in one list of the account's."""

import asyncio
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta

from videogen.calls import ProviderGate
from videogen.pace import PollSchedule
from videogen.ports import Prediction, VideoProvider

MIN_LIST_INTERVAL_S = 0.05
SLOW_CALL_S = 2.0
"""What counts of a call that took longer: it waited for a rate limit."""
LIST_PAGE_SIZE = 100
"""Predictions of a list: a page of Replicate's."""
LIST_INTERVAL_FACTOR = 1.3
"""A list is called for so much more seldom than the predictions would be asked for together, one by one."""
LISTED_POLL_FACTOR, LISTED_POLL_MAX_S = 10, 30.0
"""So much more seldom, but at least every so many seconds, is one asked for by its id that was in the last list."""
CLOCK_SKEW = timedelta(seconds=2)


class PendingPrediction:
    """A prediction that is waited for."""

    def __init__(self, prediction: Prediction, schedule: PollSchedule, began: float, *, will_be_listed: bool) -> None:
        self.prediction = prediction
        self._schedule, self._began = schedule, began
        self.ended: asyncio.Future[Prediction] = asyncio.get_running_loop().create_future()
        """The prediction when a list has it as ended."""
        self.was_listed = will_be_listed

    def next_delay_s(self) -> float:
        """Seconds until it should be looked at."""
        return self._schedule.next_delay_s(time.monotonic() - self._began)

    def poll_delay_s(self) -> float:
        """Seconds until it should be asked for by its id: seldom when lists show it, so that nothing hangs on them."""
        return (
            min(LISTED_POLL_FACTOR * self.next_delay_s(), LISTED_POLL_MAX_S) if self.was_listed else self.next_delay_s()
        )

    def observe(self, listed: Prediction | None) -> None:
        """What the last list has of it."""
        self.was_listed = listed is not None
        if listed and listed.ended and not self.ended.done():
            self.ended.set_result(listed)


class Poller:
    """Looks for the ends of all predictions that a run waits for.

    Once there are several, one list answers for all of them: each is looked at nearly as often as all together would
    be asked for. The list is a shortcut, and nothing hangs on it: what it does not show, or when it fails, is asked for
    by its id at the pace of its model.
    """

    def __init__(self, provider: VideoProvider, calls: ProviderGate) -> None:
        self._provider, self._gate = provider, calls
        self._pending: dict[str, PendingPrediction] = {}
        self._listing: asyncio.Task[None] | None = None
        self._call_s = 0.0

    @contextmanager
    def track(self, prediction: Prediction, schedule: PollSchedule, began: float) -> Iterator[PendingPrediction]:
        """Has the lists looked through for this prediction; `began` is its creation on the monotonic clock."""
        others_are = any(each.was_listed for each in self._pending.values())
        pending = self._pending[prediction.id] = PendingPrediction(
            prediction, schedule, began, will_be_listed=others_are
        )
        if len(self._pending) > 1 and not self._listing:
            self._listing = asyncio.create_task(self._list_repeatedly())
        try:
            yield pending
        finally:
            del self._pending[prediction.id]
            if not self._pending and self._listing:
                self._listing.cancel()
                self._listing = None

    async def _list_repeatedly(self) -> None:
        while True:
            await asyncio.sleep(self._pause_s())
            began = time.monotonic()
            await self._list()
            self._call_s = min(time.monotonic() - began, SLOW_CALL_S)

    def _pause_s(self) -> float:
        """As long as the predictions ask for, but a list that is slow, or long, is not called for all the time."""
        looks_per_s = sum(1 / pending.next_delay_s() for pending in self._pending.values())
        return max(MIN_LIST_INTERVAL_S, 4 * self._call_s, LIST_INTERVAL_FACTOR / looks_per_s)

    async def _list(self) -> None:
        missing = {id_: pending for id_, pending in self._pending.items() if not pending.ended.done()}
        since = [pending.prediction.created_at for pending in missing.values() if pending.prediction.created_at]
        if not since:
            return
        found = dict[str, Prediction]()
        with suppress(Exception):  # whatever it is: who asks by id will meet it, too
            found = await self._gate.call_with_retries(
                lambda: self._find_listed(missing, min(since) - CLOCK_SKEW), tries=1
            )
        for prediction_id, pending in missing.items():
            pending.observe(found.get(prediction_id))

    async def _find_listed(self, ids: Collection[str], since: datetime) -> dict[str, Prediction]:
        """Those that are among the newest of the account, by id."""
        found, looked_through = dict[str, Prediction](), 0
        async for prediction in self._provider.list_since(since):
            looked_through += 1
            if prediction.id in ids:
                found[prediction.id] = prediction
            if len(found) == len(ids) or looked_through == LIST_PAGE_SIZE:
                break
        return found
