"""Detect the end of predictions: poll a single one by its id, and several at once with one list of the account."""

import asyncio
import logging
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from videogen.execution.poll_schedule import PollSchedule
from videogen.execution.rate_limit_gate import ProviderGate
from videogen.providers.base import Prediction, VideoProvider
from videogen.text import make_loggable

logger = logging.getLogger(__name__)

MIN_LIST_INTERVAL_S = 0.05
SLOW_CALL_S = 2.0
"""A list call counts with this duration at most. A longer one waited for a rate limit."""
LIST_PAGE_SIZE = 100
"""Predictions of a list that are read at most: a page of Replicate's."""
LIST_INTERVAL_FACTOR = 1.3
"""The list is called this many times less often than its predictions together would be polled by id."""
LISTED_POLL_FACTOR = 10
LISTED_POLL_MAX_S = 30.0
"""A prediction that was in the last list is polled by id this many times less often, but at least this often."""
CLOCK_SKEW = timedelta(seconds=2)


class PendingPrediction:
    """A prediction whose end the run waits for."""

    def __init__(self, prediction: Prediction, schedule: PollSchedule, began: float, *, will_be_listed: bool) -> None:
        self.prediction = prediction
        self._schedule, self._began = schedule, began
        self.ended: asyncio.Future[Prediction] = asyncio.get_running_loop().create_future()
        """Resolves to the prediction once a list shows that it has ended."""
        self.was_listed = will_be_listed

    def next_delay_s(self) -> float:
        """Return the seconds until its state should be known again."""
        return self._schedule.next_delay_s(time.monotonic() - self._began)

    def poll_delay_s(self) -> float:
        """Return the seconds until it should be polled by its id: longer while lists show it, but never infinite."""
        return (
            min(LISTED_POLL_FACTOR * self.next_delay_s(), LISTED_POLL_MAX_S) if self.was_listed else self.next_delay_s()
        )

    def observe(self, listed: Prediction | None) -> None:
        """Take the prediction from the last list; None means that it was not there."""
        self.was_listed = listed is not None
        if listed and listed.ended and not self.ended.done():
            self.ended.set_result(listed)


class Poller:
    """Detects the ends of all predictions that a run waits for.

    Once there are several, one list answers for all of them, and is called nearly as often as all of them together
    would be polled. The list is only a shortcut: a prediction that it does not show, or all of them when it fails, are
    polled by id on the schedule of their model.
    """

    def __init__(self, provider: VideoProvider, calls: ProviderGate) -> None:
        self._provider, self._gate = provider, calls
        self._pending: dict[str, PendingPrediction] = {}
        self._listing: asyncio.Task[None] | None = None
        self._call_s = 0.0

    @contextmanager
    def track(self, prediction: Prediction, schedule: PollSchedule, began: float) -> Iterator[PendingPrediction]:
        """Look for this prediction in the lists, too; `began` is the time of its creation on the monotonic clock, in
        seconds."""
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
        """Return the pause before the next list: as short as the predictions ask for, but longer after a slow call."""
        looks_per_s = sum(1 / pending.next_delay_s() for pending in self._pending.values())
        return max(MIN_LIST_INTERVAL_S, 4 * self._call_s, LIST_INTERVAL_FACTOR / looks_per_s)

    async def _list(self) -> None:
        missing = {id_: pending for id_, pending in self._pending.items() if not pending.ended.done()}
        since = [pending.prediction.created_at for pending in missing.values() if pending.prediction.created_at]
        if not since:
            return
        found = dict[str, Prediction]()
        try:
            found = await self._gate.call_with_retries(
                lambda: self._find_listed(missing, min(since) - CLOCK_SKEW), tries=1
            )
        except Exception as exc:  # polling by id will meet the same error, and report it
            logger.debug("the account's list cannot be read: %s", make_loggable(exc))
        for prediction_id, pending in missing.items():
            pending.observe(found.get(prediction_id))

    async def _find_listed(self, ids: Collection[str], since: datetime) -> dict[str, Prediction]:
        """Return those of the predictions that are among the newest of the account, by id."""
        found, looked_through = dict[str, Prediction](), 0
        async for prediction in self._provider.list_since(since):
            looked_through += 1
            if prediction.id in ids:
                found[prediction.id] = prediction
            if len(found) == len(ids) or looked_through == LIST_PAGE_SIZE:
                break
        return found
