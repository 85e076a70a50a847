"""The journal's schema, version by version (Alembic). CONTRIBUTING.md says how to add one."""

from pathlib import Path

import sqlalchemy as sa

VERSIONS = ("0001", "0002", "0003")
"""All there are, oldest first."""
HEAD = VERSIONS[-1]


def read_version(db: sa.Connection) -> str | None:
    """The version of the schema in the database; None where there is none yet."""
    if not db.dialect.has_table(db, "alembic_version"):
        return None
    found = db.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    return None if found is None else str(found)


def create_schema(db: sa.Connection, tables: sa.MetaData) -> None:
    """Makes the schema of `HEAD` where there is none yet: without Alembic, which takes a quarter of a second."""
    tables.create_all(db)
    version = sa.Table("alembic_version", sa.MetaData(), sa.Column("version_num", sa.String(32), primary_key=True))
    version.create(db)
    db.execute(version.insert().values(version_num=HEAD))


def upgrade_schema(db: sa.Connection) -> None:
    """Brings the schema up to `HEAD`, in the connection's transaction."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = db
    command.upgrade(config, "head")
