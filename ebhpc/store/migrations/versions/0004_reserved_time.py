"""Reserved time: what ran in it, and the secret addresses of its users' calendars."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("sessions", sa.Column("usage", sa.Text(), nullable=True))
    op.create_table(
        "calendars",
        sa.Column("identity", sa.String(length=36), nullable=False),
        sa.Column("secret", sa.String(length=64), nullable=False),
        sa.Column("made", sa.Float(precision=53), nullable=False),
        sa.ForeignKeyConstraint(["identity"], ["identities.uuid"], name=op.f("fk_calendars_identity_identities")),
        sa.PrimaryKeyConstraint("identity", name=op.f("pk_calendars")),
        sa.UniqueConstraint("secret", name=op.f("uq_calendars_secret")),
    )


def downgrade() -> None:
    op.drop_table("calendars")
    with op.batch_alter_table("sessions", schema=None) as batch_op:
        batch_op.drop_column("usage")
