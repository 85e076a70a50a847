"""Commands to runs in progress, and the caps that they set."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("runs", sa.Column("max_cost", sa.String(32)))
    op.create_table(
        "commands",
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
