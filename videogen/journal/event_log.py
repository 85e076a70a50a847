"""The events of runs in the journal."""

import uuid
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from videogen.journal.base import JournalBase, utc_now
from videogen.journal.database import sanitize_json
from videogen.journal.schema import EVENTS

Event = tuple[int, str, dict[str, Any]]
"""Number, type and payload."""


RECENT_EVENTS = 500
"""Each clip in progress has an event among this many latest events of its run."""


class EventLog(JournalBase):
    """Keeps the events of runs, in order."""

    def add_event(self, run_id: str, type_: str, payload: Mapping[str, Any]) -> int:
        """Record an event and return its number."""
        token = uuid.uuid4().hex
        row = {"run_id": run_id, "type": type_, "token": token, "at": utc_now()}
        row |= {"payload": sanitize_json(dict(payload))}

        def work(db: sa.Connection) -> int:
            made = db.execute(sa.select(EVENTS.c.id).where(EVENTS.c.token == token)).scalar()
            if made is None:
                made = db.execute(EVENTS.insert().values(row).returning(EVENTS.c.id)).scalar_one()
            return int(made)

        return self._insert(work)

    def read_events(self, run_id: str, *, after: int = 0, limit: int | None = None) -> list[Event]:
        """Return a run's events after a number, in order, and at most the first `limit` of them."""
        query = _select_events(run_id).where(EVENTS.c.id > after).order_by(EVENTS.c.id).limit(limit)
        return self._read(lambda db: [_read_event(row) for row in db.execute(query)])

    def snapshot_events(self, run_id: str) -> list[Event]:
        """Return the events that show the state of a run: all except progress that newer progress has superseded."""
        recent = _select_events(run_id).order_by(EVENTS.c.id.desc()).limit(RECENT_EVENTS)

        def work(db: sa.Connection) -> list[Event]:
            latest = [_read_event(row) for row in db.execute(recent)][::-1]
            first = latest[0][0] if latest else 0
            older = _select_events(run_id).where(EVENTS.c.id < first, EVENTS.c.type != "clip.progress")
            return [*(_read_event(row) for row in db.execute(older.order_by(EVENTS.c.id))), *latest]

        return self._read(work)


def _select_events(run_id: str) -> sa.Select[Any]:
    return sa.select(EVENTS.c.id, EVENTS.c.type, EVENTS.c.payload).where(EVENTS.c.run_id == run_id)


def _read_event(row: Any) -> Event:
    return row.id, row.type, row.payload
