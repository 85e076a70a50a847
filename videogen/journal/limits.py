"""The limits of concurrent predictions that all runs on one journal share."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from videogen.journal.base import JournalBase
from videogen.journal.schema import LIMITS, RUNS, SLOTS


@dataclass(frozen=True, slots=True)
class SlotUse:
    """A live run's part in a limit: the slots that it holds, and the slots that it waits for."""

    run_id: str
    job_id: str
    held: int
    waiting: int


@dataclass(frozen=True, slots=True)
class Limit:
    """The number of slots of a limit, and the live runs that use it, in the order of their tickets."""

    name: str
    slots: int
    used_by: tuple[SlotUse, ...]


class LimitStore(JournalBase):
    """Keeps the limits, and the tickets of the runs that draw on them."""

    def set_limit(self, name: str, slots: int) -> None:
        """Create the limit, or change its number of slots, also for runs in progress."""

        def work(db: sa.Connection) -> None:
            changed = db.execute(LIMITS.update().where(LIMITS.c.name == name).values(slots=slots))
            if not changed.rowcount:
                db.execute(LIMITS.insert().values(name=name, slots=slots))

        self._run(work, exclusive=True)

    def find_limit(self, name: str) -> Limit | None:
        """Return the limit and its users, or None if there is no limit of this name."""

        def work(db: sa.Connection) -> tuple[int | None, list[Any]]:
            slots = db.execute(sa.select(LIMITS.c.slots).where(LIMITS.c.name == name)).scalar()
            return slots, self._live_tickets(db, name)

        slots, tickets = self._read(work)
        if slots is None:
            return None
        jobs = {ticket.run_id: ticket.job_id for ticket in tickets}
        held = Counter(ticket.run_id for ticket in tickets if ticket.taken)
        waiting = Counter(ticket.run_id for ticket in tickets if not ticket.taken)
        return Limit(name, slots, tuple(SlotUse(run, job, held[run], waiting[run]) for run, job in jobs.items()))

    def sync_tickets(self, limit: str, run_id: str, *, held: Collection[int], waiting: int) -> list[int]:
        """Return the tickets that are now granted to a run. It holds those in `held`, and waits for `waiting` more.

        Slots are granted in order of request over all live runs. If the answer is lost, its tickets are not in `held`
        the next time, and so are free again. Therefore the caller repeats the call, and this method does not.
        """

        def work(db: sa.Connection) -> list[int]:
            locked = sa.select(LIMITS.c.slots).where(LIMITS.c.name == limit).with_for_update()
            slots = db.execute(locked).scalar_one()
            _set_tickets(db, limit, run_id, held, waiting)
            tickets = self._live_tickets(db, limit)
            free = slots - sum(ticket.taken for ticket in tickets)
            first = [ticket for ticket in tickets if not ticket.taken][: max(0, free)]
            granted = [ticket.ticket for ticket in first if ticket.run_id == run_id]
            db.execute(SLOTS.update().where(SLOTS.c.ticket.in_(granted)).values(taken=True))
            return granted

        return self._run(work, is_repeated=False)

    def _live_tickets(self, db: sa.Connection, limit: str) -> list[Any]:
        """Return the tickets of the live runs, oldest first."""
        query = sa.select(SLOTS.c.ticket, SLOTS.c.taken, SLOTS.c.run_id, RUNS.c.job_id)
        query = query.join(RUNS, RUNS.c.id == SLOTS.c.run_id)
        query = query.where(SLOTS.c.limit_name == limit, *self._conditions_of_live(db)).order_by(SLOTS.c.ticket)
        return list(db.execute(query))


def _set_tickets(db: sa.Connection, limit: str, run_id: str, held: Collection[int], waiting: int) -> None:
    """Set a run's tickets to those it holds and `waiting` more. The oldest waiting ones keep their place."""
    mine = sa.select(SLOTS).where(SLOTS.c.limit_name == limit, SLOTS.c.run_id == run_id).order_by(SLOTS.c.ticket)
    tickets = db.execute(mine).all()
    returned = [ticket.ticket for ticket in tickets if ticket.taken and ticket.ticket not in held]
    queued = [ticket.ticket for ticket in tickets if not ticket.taken]
    if gone := returned + queued[waiting:]:
        db.execute(SLOTS.delete().where(SLOTS.c.ticket.in_(gone)))
    if new := waiting - len(queued[:waiting]):
        db.execute(SLOTS.insert(), [{"limit_name": limit, "run_id": run_id, "taken": False}] * new)
