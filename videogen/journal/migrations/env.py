"""Alembic's entry: `videogen.journal.migrations.upgrade` hands over the connection."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
