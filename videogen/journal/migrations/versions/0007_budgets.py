"""The model of each attempt, and the budgets that runs share."""

from collections import defaultdict

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.add_column("attempts", sa.Column("model", sa.Text))
    _fill_models(op.get_bind())
    for name in ("ix_attempts_clip_key", "ix_attempts_job_id"):
        op.drop_index(name, "attempts")
    costs = ("run_id", "state", "cost_basis", "cost", "price", "reserved")
    op.create_index("ix_attempts_clip_key", "attempts", ["clip_key", "origin", "state"])
    op.create_index("ix_attempts_job_id", "attempts", ["job_id", "origin", *costs, "begun_by"])
    op.create_table(
        "budgets",
        sa.Column("name", sa.String(80), primary_key=True),
        sa.Column("amount", sa.String(32), nullable=False),
        sa.Column("period", sa.String(8), nullable=False),
        sa.Column("time_zone", sa.String(64), nullable=False),
        sa.Column("models", sa.Text),
    )
    op.create_table(
        "budgeted_attempts",
        sa.Column("budget_name", sa.String(80), primary_key=True),
        sa.Column("attempt_id", sa.Integer, primary_key=True),
        sa.Column("origin", sa.String(255), nullable=False),
        sa.Column("reserved_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("spent", sa.String(32), nullable=False),
        sa.Column("at_most", sa.String(32), nullable=False),
        sa.Index("ix_budgeted_attempts_attempt_id", "attempt_id"),
        sa.Index("ix_budgeted_attempts_amounts", "budget_name", "origin", "spent", "at_most", "reserved_at"),
    )
    op.create_table(
        "budget_alerts",
        sa.Column("budget_name", sa.String(80), primary_key=True),
        sa.Column("origin", sa.String(255), primary_key=True),
        sa.Column("period_start", sa.String(10), primary_key=True),
        sa.Column("percent", sa.Integer, primary_key=True),
    )


# The columns of this version that are read or written below.
_ATTEMPTS = sa.table("attempts", *map(sa.column, ("id", "run_id", "origin", "clip_key", "begun_by", "model")))
_DELIVERIES = sa.table("deliveries", sa.column("origin"), sa.column("clip_key"), sa.column("clip", sa.JSON))
_EVENTS = sa.table("events", sa.column("run_id"), sa.column("type"), sa.column("payload", sa.JSON))


def _fill_models(db: sa.Connection) -> None:
    """Record the model of each attempt of an older version, as far as it is certain. Others have none.

    A clip's key is made of its model, among others, so a delivered clip tells the model of all attempts with its key.
    Else the events tell, if the run that began the attempt had one model only.
    """
    delivered = sa.select(_DELIVERIES.c.clip["model"].as_string()).where(
        _DELIVERIES.c.origin == _ATTEMPTS.c.origin, _DELIVERIES.c.clip_key == _ATTEMPTS.c.clip_key
    )
    db.execute(_ATTEMPTS.update().values(model=delivered.scalar_subquery()))
    models = _find_models_of_runs(db)
    began = sa.func.coalesce(_ATTEMPTS.c.begun_by, _ATTEMPTS.c.run_id)
    unknown = sa.select(_ATTEMPTS.c.id, began).where(_ATTEMPTS.c.model.is_(None))
    found = [{"number": number, "name": models[run]} for number, run in db.execute(unknown).tuples() if run in models]
    if found:
        by_number = _ATTEMPTS.update().where(_ATTEMPTS.c.id == sa.bindparam("number"))
        db.execute(by_number.values(model=sa.bindparam("name")), found)


def _find_models_of_runs(db: sa.Connection) -> dict[str, str]:
    """Return the model of each run that had one only. A fallback shows in the event that announces its attempt."""
    name = _EVENTS.c.payload["model"].as_string()
    told = ("run.started", "clip.retrying", "clip.completed", "clip.failed")
    query = sa.select(_EVENTS.c.run_id, name).where(_EVENTS.c.type.in_(told), name.is_not(None)).distinct()
    names = defaultdict[str, list[str]](list)
    for run_id, model in db.execute(query).tuples():
        names[run_id].append(model)
    return {run_id: found[0] for run_id, found in names.items() if len(found) == 1 and "," not in found[0]}
