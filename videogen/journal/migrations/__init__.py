"""The versions of the journal's schema (Alembic). CONTRIBUTING.md explains how to add one."""

from pathlib import Path

import sqlalchemy as sa

VERSIONS = ("0001", "0002", "0003", "0004", "0005", "0006", "0007")
"""All versions, oldest first."""
HEAD = VERSIONS[-1]


def read_version(db: sa.Connection) -> str | None:
    """Return the version of the schema in the database, or None if it has no schema yet."""
    if not db.dialect.has_table(db, "alembic_version"):
        return None
    found = db.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    return None if found is None else str(found)


def create_schema(db: sa.Connection, tables: sa.MetaData) -> None:
    """Create the schema of `HEAD` in an empty database, without Alembic, which takes a quarter of a second."""
    tables.create_all(db)
    version = sa.Table("alembic_version", sa.MetaData(), sa.Column("version_num", sa.String(32), primary_key=True))
    version.create(db)
    db.execute(version.insert().values(version_num=HEAD))


def upgrade_schema(db: sa.Connection) -> None:
    """Upgrade the schema to `HEAD`, in the connection's transaction."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = db
    command.upgrade(config, "head")
