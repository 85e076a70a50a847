"""The slots of a run, and who is next."""

import asyncio

import pytest

from videogen.execution.slots import PrioritySemaphore, Slot, Slots


async def wait_for_turn(semaphore: PrioritySemaphore, name: str, priority: float, turns: list[str]) -> None:
    await semaphore.acquire(priority)
    turns.append(name)


async def test_the_first_in_order_is_next_and_equal_ones_in_the_order_in_which_they_came() -> None:
    semaphore, turns = PrioritySemaphore(1), list[str]()
    await semaphore.acquire(9)
    waiting = [
        asyncio.create_task(wait_for_turn(semaphore, name, priority, turns))
        for name, priority in (("c", 5), ("a", 1), ("d", 5), ("b", 2))
    ]
    await asyncio.sleep(0)
    for _ in waiting:
        semaphore.release()
        await asyncio.sleep(0)
    await asyncio.gather(*waiting)
    assert turns == ["a", "b", "c", "d"]


async def test_a_new_one_does_not_overtake_those_that_wait() -> None:
    """Though it was given back: it belongs to the one that was woken."""
    semaphore, turns = PrioritySemaphore(1), list[str]()
    await semaphore.acquire(0)
    first = asyncio.create_task(wait_for_turn(semaphore, "first", 5, turns))
    await asyncio.sleep(0)
    semaphore.release()
    second = asyncio.create_task(wait_for_turn(semaphore, "second", 1, turns))
    await first
    assert turns == ["first"]
    semaphore.release()
    await second


@pytest.mark.parametrize("moment", ["waiting", "woken"])
async def test_one_that_is_cancelled_leaves_its_turn_to_the_next(moment: str) -> None:
    semaphore, turns = PrioritySemaphore(1), list[str]()
    await semaphore.acquire(0)
    gone = asyncio.create_task(wait_for_turn(semaphore, "gone", 1, turns))
    after = asyncio.create_task(wait_for_turn(semaphore, "after", 2, turns))
    await asyncio.sleep(0)
    if moment == "woken":
        semaphore.release()
    gone.cancel()
    if moment == "waiting":
        await asyncio.sleep(0)
        semaphore.release()
    await after
    assert turns == ["after"]
    semaphore.release()
    await semaphore.acquire(0)


async def test_a_clip_that_can_be_made_late_overtakes_those_that_queue_for_a_slot() -> None:
    """Its upstream has just ended, and the longest path goes through it."""
    slots, turns = Slots(2), list[str]()

    async def make(name: str, priority: float) -> None:
        async with Slot(slots, priority) as slot:
            await slot.acquire()
            slot.leave_queue()
            turns.append(name)

    held = [await slots.acquire(0), await slots.acquire(0)]
    making = [asyncio.create_task(make(name, priority)) for name, priority in (("leaf", 8), ("urgent", 1))]
    await asyncio.sleep(0)
    for ticket in held:
        slots.release(ticket)
    await asyncio.gather(*making)
    assert turns == ["urgent", "leaf"]
