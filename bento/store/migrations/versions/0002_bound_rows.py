"""A MAC for each API key, and an index of the audit's records of keys. `binding` fills in what needs the store's keys."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("keys", sa.Column("mac", sa.Text(), nullable=True))
    of_keys = sa.text("action in ('key.create', 'key.revoke')")
    op.create_index("audit_of_keys", "audit", ["action", "output"], unique=False, sqlite_where=of_keys, postgresql_where=of_keys)
