"""What workers on PostgreSQL compare to learn of each other's changes of history: the transaction that inserted a row, and a version."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("transactions", sa.Column("written_in", sa.BigInteger(), nullable=True))
    if op.get_bind().dialect.name == "postgresql":
        # As a separate statement: a column that is added with such a default has every row rewritten.
        op.execute("alter table transactions alter column written_in set default pg_current_xact_id()::text::bigint")
    written = sa.text("written_in is not null")
    op.create_index("transactions_by_writing", "transactions", ["written_in"], sqlite_where=written, postgresql_where=written)
    op.create_table(
        "history_version",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
