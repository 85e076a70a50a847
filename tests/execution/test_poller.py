import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime

import pytest

from tests.support.builders import list_looks
from tests.support.builders import schedule_of as with_experience
from tests.support.fakes import FakeProvider, Script
from videogen.errors import TransientError
from videogen.execution.poll_schedule import PollSchedule
from videogen.execution.poller import (
    LIST_PAGE_SIZE,
    LISTED_POLL_FACTOR,
    PendingPrediction,
    Poller,
)
from videogen.execution.rate_limit_gate import ProviderGate
from videogen.providers.base import Prediction


class Provider(FakeProvider):
    """What is `hidden` is in none of them."""

    def __init__(self, predictions: int) -> None:
        super().__init__([Script()] * predictions)
        for number in range(predictions):
            name = f"prediction{number}"
            self.predictions[name] = Prediction(id=name, status="processing", created_at=datetime.now(UTC))
        self.hidden = set[str]()

    async def list_since(self, created_after: datetime) -> AsyncIterator[Prediction]:
        async for prediction in super().list_since(created_after):
            if prediction.id not in self.hidden:
                yield prediction

    def end(self, name: str) -> None:
        self._end(name, "succeeded")


def experienced() -> PollSchedule:
    return with_experience(0.2, 1.0, 2.0)


def track(poller: Poller, provider: Provider, name: str = "prediction0") -> AbstractContextManager[PendingPrediction]:
    return poller.track(provider.predictions[name], experienced(), time.monotonic())


async def listed(pending: PendingPrediction) -> None:
    async with asyncio.timeout(250):
        while not pending.was_listed:
            await asyncio.sleep(0.01)


async def test_one_alone_is_not_looked_up_in_lists() -> None:
    provider = Provider(1)
    poller = Poller(provider, ProviderGate())
    with track(poller, provider) as pending:
        await asyncio.sleep(0.5)
        assert pending.poll_delay_s() == pytest.approx(pending.next_delay_s(), rel=0.1)
    assert provider.lists == 0


async def test_one_list_answers_for_all() -> None:
    """Each end is noticed by the next list that begins after it, with fewer calls than if each were asked for."""
    run_s = [0.6, 0.8, 1.0, 1.2, 1.4]
    one_by_one = sum(len(list_looks(experienced(), each)) for each in [*run_s, run_s[-1]])
    provider, loop = Provider(6), asyncio.get_running_loop()
    poller = Poller(provider, ProviderGate())

    async def count_lists_until_noticed(number: int) -> int:
        name, before = f"prediction{number}", []

        def end() -> None:
            before.append(provider.lists)
            provider.end(name)

        loop.call_later(run_s[number], end)
        with track(poller, provider, name) as pending:
            assert (await asyncio.wait_for(pending.ended, 60)).id == name
        return provider.lists - before[0]

    with track(poller, provider, "prediction5"):  # it takes longer
        lists = await asyncio.gather(*map(count_lists_until_noticed, range(5)))
    assert max(lists) <= 2  # one may be on its way
    assert provider.lists < one_by_one


async def test_what_lists_show_is_seldom_asked_for_by_its_id() -> None:
    provider = Provider(2)
    poller = Poller(provider, ProviderGate())
    with track(poller, provider) as pending, track(poller, provider, "prediction1"):
        await listed(pending)
        assert pending.poll_delay_s() == pytest.approx(LISTED_POLL_FACTOR * pending.next_delay_s(), rel=0.1)


@pytest.mark.parametrize("why", ["hidden", "failing", "broken"])
async def test_what_lists_do_not_show_is_asked_for_at_its_own_pace(why: str) -> None:
    provider = Provider(2)
    poller = Poller(provider, ProviderGate())
    with track(poller, provider) as pending, track(poller, provider, "prediction1") as other:
        await listed(pending)
        if why == "hidden":
            provider.hidden = {"prediction0"}
        else:
            provider.faults["list"] = [TransientError("busy") if why == "failing" else RuntimeError("a defect")] * 100
        before = provider.lists
        while provider.lists < before + 2:
            await asyncio.sleep(0.02)
        assert not pending.was_listed
        assert other.was_listed == (why == "hidden")
        assert pending.poll_delay_s() == pytest.approx(pending.next_delay_s(), rel=0.1)


async def test_only_the_newest_of_an_account_are_looked_through() -> None:
    """An account may have thousands that others made since."""
    provider = Provider(LIST_PAGE_SIZE + 2)  # the list begins with the newest
    poller = Poller(provider, ProviderGate())
    newest = f"prediction{LIST_PAGE_SIZE + 1}"
    with track(poller, provider) as oldest, track(poller, provider, newest) as pending:
        await listed(pending)
        assert not oldest.was_listed


async def test_nothing_is_listed_when_nobody_waits_any_more() -> None:
    provider = Provider(2)
    poller = Poller(provider, ProviderGate())
    with track(poller, provider) as pending, track(poller, provider, "prediction1"):
        await listed(pending)
    lists = provider.lists
    await asyncio.sleep(0.6)
    assert provider.lists == lists
