"""Alerts: the decisions that a person has to look at."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "alerts",
        sa.Column("position", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("decision", sa.Text(), nullable=False),
        sa.Column("person", sa.Text(), nullable=True),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("expected_loss", sa.Double(), nullable=False),
        sa.Column("opened_at", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("assignee", sa.Text(), nullable=True),
        sa.Column("claimed_at", sa.BigInteger(), nullable=True),
        sa.Column("disposition", sa.Text(), nullable=True),
        sa.Column("closed_at", sa.BigInteger(), nullable=True),
        sa.Column("reason", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("position"),
        sa.UniqueConstraint("decision"),
        sqlite_autoincrement=True,
    )
    op.create_index("alerts_by_loss", "alerts", ["state", "expected_loss", "position"], unique=False)
    op.create_index("alerts_by_time", "alerts", ["state", "position"], unique=False)
    of_assignee, of_person = sa.text("assignee is not null"), sa.text("person is not null")
    op.create_index(
        "alerts_by_assignee",
        "alerts",
        ["assignee", "state", "expected_loss", "position"],
        unique=False,
        sqlite_where=of_assignee,
        postgresql_where=of_assignee,
    )
    op.create_index("alerts_by_person", "alerts", ["person"], unique=False, sqlite_where=of_person, postgresql_where=of_person)
