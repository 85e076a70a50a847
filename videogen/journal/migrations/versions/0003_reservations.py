"""Reserved cost and job of an attempt, and tokens by which a repeated insert recognises its row."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("attempts", sa.Column("job_id", sa.String(80)))
    op.add_column("attempts", sa.Column("reserved", sa.String(32)))
    op.add_column("attempts", sa.Column("token", sa.String(32)))
    op.create_index("ix_attempts_job_id", "attempts", ["job_id"])
    op.create_index("ix_attempts_token", "attempts", ["token"], unique=True)
    op.add_column("events", sa.Column("token", sa.String(32)))
    op.create_index("ix_events_token", "events", ["token"], unique=True)
    if op.get_bind().dialect.name == "postgresql":  # SQLite takes texts of any length
        op.alter_column("attempts", "prediction_id", type_=sa.Text)
