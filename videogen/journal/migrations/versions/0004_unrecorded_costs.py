"""Costs of a job that only its manifest knows, and the run that began an attempt which another run continues."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("runs", sa.Column("unrecorded_cost", sa.String(32)))
    op.add_column("attempts", sa.Column("begun_by", sa.String(64)))
