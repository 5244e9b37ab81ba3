"""Alembic's environment: revisions run in the connection and transaction that `bento.store.migrations` has opened."""

from alembic import context

from bento.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=context.config.attributes["connection"].dialect.name == "sqlite",
)
context.run_migrations()
