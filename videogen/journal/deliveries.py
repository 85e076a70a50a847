"""The delivered clips in the journal."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

import sqlalchemy as sa

from videogen.journal.base import JournalBase, split_keys, utc_now
from videogen.journal.database import sanitize_json
from videogen.journal.schema import ATTEMPTS, DELIVERIES, EVENTS, RUNS
from videogen.results.clip import Clip

JUDGED = frozenset({"complete", "partial", "failed"})
"""Verdicts of runs that were completed."""


@dataclass(frozen=True, slots=True)
class DeliveryRecord:
    """A delivered clip, and the address of the job folder that its paths are relative to."""

    folder: str
    clip: Clip


class DeliveryStore(JournalBase):
    """Keeps which clips are delivered, and where."""

    def find_delivery(self, origin: str, key: str) -> DeliveryRecord | None:
        return self.find_deliveries(origin, [key]).get(key)

    def find_deliveries(self, origin: str, keys: Sequence[str]) -> dict[str, DeliveryRecord]:
        """Return those of the clips that were delivered, by key."""
        query = sa.select(DELIVERIES).where(DELIVERIES.c.origin == origin)
        rows = self._read(
            lambda db: [
                row for some in split_keys(keys) for row in db.execute(query.where(DELIVERIES.c.clip_key.in_(some)))
            ]
        )
        return {row.clip_key: DeliveryRecord(folder=row.folder, clip=Clip.model_validate(row.clip)) for row in rows}

    def import_delivery(self, key: str, *, origin: str, folder: str, clip: Clip) -> None:
        """Record a clip that was delivered by a run that this journal does not know."""
        self._run(lambda db: replace_delivery(db, key, origin, folder, clip), exclusive=True)

    def find_deliveries_in(self, origin: str, folder: str) -> list[DeliveryRecord]:
        """Return all clips that were delivered into a folder, by any job."""
        query = sa.select(DELIVERIES).where(DELIVERIES.c.origin == origin, DELIVERIES.c.folder == folder)
        rows = self._read(lambda db: db.execute(query).all())
        return [DeliveryRecord(row.folder, Clip.model_validate(row.clip)) for row in rows]

    def find_delivered_clip(self, run_id: str, scene_id: str) -> DeliveryRecord | None:
        """Return the clip that a run delivered, or reused, for a scene."""
        query = sa.select(RUNS.c.folder, EVENTS.c.payload).join(RUNS, RUNS.c.id == EVENTS.c.run_id)
        query = query.where(
            EVENTS.c.run_id == run_id,
            EVENTS.c.type == "clip.completed",
            EVENTS.c.payload["scene_id"].as_string() == sanitize_json(scene_id),
        )
        row = self._read(lambda db: db.execute(query.order_by(EVENTS.c.id.desc()).limit(1)).one_or_none())
        if row is None:
            return None
        clip = {name: value for name, value in row.payload.items() if name in Clip.model_fields}
        return DeliveryRecord(folder=row.folder, clip=Clip.model_validate(clip))

    def find_fresh_keys(self, origin: str, folder: str) -> set[str]:
        """Return the keys of the clips that an unjudged `--fresh` run of this folder delivered, and the runs after it.

        The result is empty once a run of the folder was judged: the next `--fresh` then makes every clip again.
        """
        is_fresh = EVENTS.c.payload["fresh"].as_boolean()
        query = sa.select(RUNS.c.id, RUNS.c.verdict, is_fresh.label("fresh")).where(RUNS.c.folder == folder)
        begun = sa.and_(EVENTS.c.run_id == RUNS.c.id, EVENTS.c.type == "run.started")
        query = query.outerjoin(EVENTS, begun).where(RUNS.c.origin == origin).order_by(RUNS.c.started_at.desc())
        delivered = sa.select(ATTEMPTS.c.clip_key).where(ATTEMPTS.c.state == "delivered")

        def work(db: sa.Connection) -> set[str]:
            unjudged = list(takewhile(lambda run: run.verdict not in JUDGED, db.execute(query)))
            fresh = [number for number, run in enumerate(unjudged, 1) if run.fresh]
            since = [run.id for run in unjudged[: max(fresh, default=0)]]
            return set(db.scalars(delivered.where(ATTEMPTS.c.run_id.in_(since))))

        return self._read(work)


def is_delivered(db: sa.Connection, origin: str, key: str) -> bool:
    query = sa.select(DELIVERIES.c.folder).where(DELIVERIES.c.origin == origin, DELIVERIES.c.clip_key == key)
    return db.execute(query).first() is not None


def replace_delivery(db: sa.Connection, key: str, origin: str, folder: str, clip: Clip) -> None:
    row = {"origin": origin, "clip_key": key, "folder": folder, "clip": sanitize_json(clip.model_dump(mode="json"))}
    db.execute(DELIVERIES.delete().where(DELIVERIES.c.origin == origin, DELIVERIES.c.clip_key == key))
    db.execute(DELIVERIES.insert().values(**row, delivered_at=utc_now()))
