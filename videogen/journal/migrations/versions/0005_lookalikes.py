"""The digest of an attempt's inputs without its images, for a provider that does not show images."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("attempts", sa.Column("digest_without_images", sa.String(64)))
