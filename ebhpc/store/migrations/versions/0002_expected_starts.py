"""Expected starts: what was learned of each queue, the forecasts, and what sessions were promised."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "learned",
        sa.Column("platform", sa.String(length=40), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.LargeBinary(), nullable=True),
        sa.Column("lease", sa.String(length=80), nullable=True),
        sa.Column("lease_until", sa.Float(precision=53), nullable=True),
        sa.PrimaryKeyConstraint("platform", name=op.f("pk_learned")),
    )
    op.create_table(
        "forecasts",
        sa.Column("platform", sa.String(length=40), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("forecast", sa.LargeBinary(), nullable=False),
        sa.Column("taken", sa.Float(precision=53), nullable=False),
        sa.Column("seconds", sa.Float(precision=53), nullable=False),
        sa.Column("figures", sa.Text(), nullable=False),
        sa.Column("starts", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("platform", name=op.f("pk_forecasts")),
    )
    # Both engines add a nullable column in place: no batch mode, which would copy the table on SQLite
    op.add_column("sessions", sa.Column("promised", sa.Text(), nullable=True))
    op.add_column("sessions", sa.Column("wants", sa.Text(), nullable=True))
    op.add_column("sessions", sa.Column("outlook", sa.Text(), nullable=True))
    begun = sa.text("started IS NOT NULL")
    op.create_index(
        op.f("ix_sessions_platform_started"),
        "sessions",
        ["platform", "started"],
        unique=False,
        sqlite_where=begun,
        postgresql_where=begun,
    )


def downgrade() -> None:
    op.drop_index(op.f("ix_sessions_platform_started"), table_name="sessions")
    with op.batch_alter_table("sessions", schema=None) as batch_op:
        batch_op.drop_column("outlook")
        batch_op.drop_column("wants")
        batch_op.drop_column("promised")
    op.drop_table("forecasts")
    op.drop_table("learned")
