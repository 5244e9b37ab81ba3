"""What Alembic runs a revision in: the connection and the transaction that `bento.migrations` has opened."""

from alembic import context

from bento.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=context.config.attributes["connection"].dialect.name == "sqlite",
)
context.run_migrations()
