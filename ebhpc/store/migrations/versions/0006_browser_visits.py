"""Browsers that are signed in on the page."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "visits",
        sa.Column("mark", sa.String(length=64), nullable=False),
        sa.Column("identity", sa.String(length=36), nullable=False),
        sa.Column("created", sa.Float(precision=53), nullable=False),
        sa.Column("expires", sa.Float(precision=53), nullable=False),
        sa.ForeignKeyConstraint(["identity"], ["identities.uuid"], name=op.f("fk_visits_identity")),
        sa.PrimaryKeyConstraint("mark", name=op.f("pk_visits")),
    )
    op.create_index(op.f("ix_visits_identity"), "visits", ["identity"])
    op.create_index(op.f("ix_visits_expires"), "visits", ["expires"])


def downgrade() -> None:
    op.drop_table("visits")
