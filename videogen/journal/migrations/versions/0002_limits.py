"""Limits that all runs share, and the tickets for their slots."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "limits",
        sa.Column("name", sa.String(80), primary_key=True),
        sa.Column("slots", sa.Integer, nullable=False),
    )
    op.create_table(
        "slots",
        sa.Column("ticket", sa.Integer, primary_key=True),
        sa.Column("limit_name", sa.String(80), nullable=False, index=True),
        sa.Column("run_id", sa.String(64), nullable=False, index=True),
        sa.Column("taken", sa.Boolean, nullable=False),
        sqlite_autoincrement=True,
    )
