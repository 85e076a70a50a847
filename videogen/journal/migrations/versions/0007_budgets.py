"""The model of each attempt, and the budgets that runs share."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.add_column("attempts", sa.Column("model", sa.Text))
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
