"""Who the broker's users are elsewhere, and what they did."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_INSTANT = sa.Float(precision=53)


def upgrade() -> None:
    # Nullable columns, so that both engines add them in place
    op.add_column("identities", sa.Column("issuer", sa.String(length=512), nullable=True))
    op.add_column("identities", sa.Column("subject", sa.String(length=255), nullable=True))
    op.add_column("identities", sa.Column("seen", _INSTANT, nullable=True))
    op.add_column("identities", sa.Column("barred", _INSTANT, nullable=True))
    op.create_index("ux_identities_issuer_subject", "identities", ["issuer", "subject"], unique=True)
    op.create_table(
        "memberships",
        sa.Column("identity", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.ForeignKeyConstraint(["identity"], ["identities.uuid"], name=op.f("fk_memberships_identity")),
        sa.PrimaryKeyConstraint("identity", "name", name=op.f("pk_memberships")),
    )
    op.create_index(op.f("ix_memberships_name"), "memberships", ["name"])
    op.create_table(
        "audit",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("time", _INSTANT, nullable=False),
        sa.Column("actor", sa.String(length=36), nullable=True),
        sa.Column("username", sa.String(length=255), nullable=False),
        sa.Column("address", sa.String(length=64), nullable=False),
        sa.Column("action", sa.String(length=40), nullable=False),
        sa.Column("kind", sa.String(length=40), nullable=False),
        sa.Column("object", sa.String(length=255), nullable=False),
        sa.Column("result", sa.String(length=16), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
    )
    op.create_index(op.f("ix_audit_time"), "audit", ["time"])
    op.create_index(op.f("ix_audit_username_time"), "audit", ["username", "time"])
    op.create_index(op.f("ix_audit_object"), "audit", ["object"])


def downgrade() -> None:
    op.drop_table("audit")
    op.drop_table("memberships")
    op.drop_index("ux_identities_issuer_subject", table_name="identities")
    # Both engines drop a column in place; batch mode would replace the table, to which others refer
    for name in ("barred", "seen", "subject", "issuer"):
        op.execute(f"ALTER TABLE identities DROP COLUMN {name}")
