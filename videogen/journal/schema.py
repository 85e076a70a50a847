"""The tables of the journal."""

from typing import Literal

import sqlalchemy as sa

AttemptState = Literal["intended", "created", "succeeded", "delivered", "ended"]
OPEN_STATES: tuple[AttemptState, ...] = ("intended", "created", "succeeded")
CostBasis = Literal["known", "estimated", "undeterminable"]

metadata = sa.MetaData()

RUNS = sa.Table(
    "runs",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("job_id", sa.String(80), nullable=False, index=True),
    sa.Column("origin", sa.String(255), nullable=False),
    sa.Column("folder", sa.Text, nullable=False),
    sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("ended_at", sa.DateTime(timezone=True)),
    sa.Column("verdict", sa.String(16)),
    sa.Column("recovering", sa.Boolean, nullable=False, default=False),
    sa.Column("unrecorded_cost", sa.String(32)),
    sa.Column("max_cost", sa.String(32)),
)

COST_COLUMNS = ("run_id", "state", "cost_basis", "cost", "price", "reserved")
"""The columns of attempts that tell their cost."""

ATTEMPTS = sa.Table(
    "attempts",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("run_id", sa.String(64), nullable=False, index=True),
    sa.Column("origin", sa.String(255), nullable=False),
    sa.Column("clip_key", sa.String(32), nullable=False),
    sa.Column("scene_id", sa.String(80), nullable=False),
    sa.Column("input_digest", sa.String(64), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("prediction_id", sa.String(64).with_variant(sa.Text, "postgresql")),
    sa.Column("intended_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("created_at", sa.DateTime(timezone=True)),
    sa.Column("ended_at", sa.DateTime(timezone=True)),
    sa.Column("price", sa.String(32), nullable=False),
    sa.Column("cost", sa.String(32)),
    sa.Column("cost_basis", sa.String(16)),
    sa.Column("error_code", sa.String(32)),
    sa.Column("error_message", sa.Text),
    sa.Column("job_id", sa.String(80)),
    sa.Column("reserved", sa.String(32)),
    sa.Column("token", sa.String(32), index=True, unique=True),
    sa.Column("begun_by", sa.String(64)),
    sa.Column("digest_without_images", sa.String(64)),
    sa.Column("model", sa.Text),
    sa.UniqueConstraint("origin", "prediction_id"),
    # SQLite would look through all attempts of an origin if only a part of these columns had an index.
    sa.Index("ix_attempts_clip_key", "clip_key", "origin", "state"),
    # It has all columns that `find_costs` reads of 100,000 attempts, in the order in which it groups them.
    sa.Index("ix_attempts_job_id", "job_id", "origin", *COST_COLUMNS, "begun_by"),
)

DELIVERIES = sa.Table(
    "deliveries",
    metadata,
    sa.Column("origin", sa.String(255), primary_key=True),
    sa.Column("clip_key", sa.String(32), primary_key=True),
    sa.Column("folder", sa.Text, nullable=False),
    sa.Column("clip", sa.JSON, nullable=False),
    sa.Column("delivered_at", sa.DateTime(timezone=True), nullable=False),
)

EVENTS = sa.Table(
    "events",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("run_id", sa.String(64), nullable=False, index=True),
    sa.Column("type", sa.String(32), nullable=False),
    sa.Column("payload", sa.JSON, nullable=False),
    sa.Column("at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("token", sa.String(32), index=True, unique=True),
    sqlite_autoincrement=True,
)

LIMITS = sa.Table(
    "limits",
    metadata,
    sa.Column("name", sa.String(80), primary_key=True),
    sa.Column("slots", sa.Integer, nullable=False),
)

SLOTS = sa.Table(
    "slots",
    metadata,
    sa.Column("ticket", sa.Integer, primary_key=True),
    sa.Column("limit_name", sa.String(80), nullable=False, index=True),
    sa.Column("run_id", sa.String(64), nullable=False, index=True),
    sa.Column("taken", sa.Boolean, nullable=False),
    sqlite_autoincrement=True,
)

COMMANDS = sa.Table(
    "commands",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("run_id", sa.String(64), nullable=False, index=True),
    sa.Column("action", sa.String(16), nullable=False),
    sa.Column("scene_id", sa.Text),
    sa.Column("value", sa.String(32)),
    sa.Column("sent_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("sender", sa.String(255), nullable=False),
    sa.Column("taken_at", sa.DateTime(timezone=True)),
    sa.Column("outcome", sa.Text),
    sa.Column("token", sa.String(32), index=True, unique=True),
    sqlite_autoincrement=True,
)

BUDGETS = sa.Table(
    "budgets",
    metadata,
    sa.Column("name", sa.String(80), primary_key=True),
    sa.Column("amount", sa.String(32), nullable=False),
    sa.Column("period", sa.String(8), nullable=False),
    sa.Column("time_zone", sa.String(64), nullable=False),
    sa.Column("models", sa.Text),
)

BUDGETED_ATTEMPTS = sa.Table(
    "budgeted_attempts",
    metadata,
    sa.Column("budget_name", sa.String(80), primary_key=True),
    sa.Column("attempt_id", sa.Integer, primary_key=True),
    sa.Column("origin", sa.String(255), nullable=False),
    sa.Column("reserved_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("spent", sa.String(32), nullable=False),
    sa.Column("at_most", sa.String(32), nullable=False),
    sa.Index("ix_budgeted_attempts_attempt_id", "attempt_id"),
    sa.Index("ix_budgeted_attempts_amounts", "budget_name", "origin", "spent", "at_most", "reserved_at"),
)

BUDGET_ALERTS = sa.Table(
    "budget_alerts",
    metadata,
    sa.Column("budget_name", sa.String(80), primary_key=True),
    sa.Column("origin", sa.String(255), primary_key=True),
    sa.Column("period_start", sa.String(10), primary_key=True),
    sa.Column("percent", sa.Integer, primary_key=True),
)
