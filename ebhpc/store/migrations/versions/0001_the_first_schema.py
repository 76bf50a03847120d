"""The first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "drivers",
        sa.Column("name", sa.String(length=80), nullable=False),
        sa.Column("incarnation", sa.String(length=36), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("pid_started", sa.Float(precision=53), nullable=False),
        sa.Column("heartbeat", sa.Float(precision=53), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_drivers")),
    )
    op.create_table(
        "identities",
        sa.Column("uuid", sa.String(length=36), nullable=False),
        sa.Column("username", sa.String(length=255), nullable=False),
        sa.Column("password", sa.Text(), nullable=False),
        sa.Column("admin", sa.Boolean(), nullable=False),
        sa.Column("created", sa.Float(precision=53), nullable=False),
        sa.PrimaryKeyConstraint("uuid", name=op.f("pk_identities")),
        sa.UniqueConstraint("username", name=op.f("uq_identities_username")),
    )
    op.create_table(
        "platforms",
        sa.Column("name", sa.String(length=40), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("snapshot", sa.LargeBinary(), nullable=True),
        sa.Column("taken", sa.Float(precision=53), nullable=True),
        sa.Column("trouble", sa.Text(), nullable=True),
        sa.Column("looked", sa.Float(precision=53), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_platforms")),
    )
    op.create_table(
        "offersets",
        sa.Column("uuid", sa.String(length=36), nullable=False),
        sa.Column("owner", sa.String(length=36), nullable=False),
        sa.Column("created", sa.Float(precision=53), nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["owner"], ["identities.uuid"], name=op.f("fk_offersets_owner")),
        sa.PrimaryKeyConstraint("uuid", name=op.f("pk_offersets")),
    )
    with op.batch_alter_table("offersets", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_offersets_expires"), ["expires"], unique=False)
        batch_op.create_index(batch_op.f("ix_offersets_owner_created"), ["owner", "created"], unique=False)

    op.create_table(
        "sessions",
        sa.Column("uuid", sa.String(length=36), nullable=False),
        sa.Column("offerset", sa.String(length=36), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("owner", sa.String(length=36), nullable=False),
        sa.Column("platform", sa.String(length=40), nullable=False),
        sa.Column("phase", sa.String(length=16), nullable=False),
        sa.Column("created", sa.Float(precision=53), nullable=False),
        sa.Column("modified", sa.Float(precision=53), nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=True),
        sa.Column("start", sa.BigInteger(), nullable=False),
        sa.Column("latest", sa.BigInteger(), nullable=False),
        sa.Column("finish", sa.BigInteger(), nullable=False),
        sa.Column("duration", sa.BigInteger(), nullable=False),
        sa.Column("firm", sa.Boolean(), nullable=False),
        sa.Column("allocations", sa.Text(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("messages", sa.Text(), nullable=False),
        sa.Column("connectors", sa.Text(), nullable=True),
        sa.Column("held", sa.Text(), nullable=True),
        sa.Column("native", sa.Text(), nullable=True),
        sa.Column("node", sa.Text(), nullable=True),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        sa.Column("started", sa.Float(precision=53), nullable=True),
        sa.Column("ended", sa.Float(precision=53), nullable=True),
        sa.Column("outcome", sa.String(length=16), nullable=True),
        sa.Column("unfinished", sa.Boolean(), nullable=False),
        sa.Column("submitting", sa.Boolean(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("troubled", sa.Float(precision=53), nullable=True),
        sa.Column("due", sa.Float(precision=53), nullable=False),
        sa.Column("lease", sa.String(length=80), nullable=True),
        sa.Column("lease_until", sa.Float(precision=53), nullable=True),
        sa.Column("kept_until", sa.Float(precision=53), nullable=True),
        sa.ForeignKeyConstraint(["offerset"], ["offersets.uuid"], name=op.f("fk_sessions_offerset")),
        sa.ForeignKeyConstraint(["owner"], ["identities.uuid"], name=op.f("fk_sessions_owner")),
        sa.PrimaryKeyConstraint("uuid", name=op.f("pk_sessions")),
    )
    with op.batch_alter_table("sessions", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_sessions_kept_until"), ["kept_until"], unique=False)
        batch_op.create_index(batch_op.f("ix_sessions_offerset"), ["offerset"], unique=False)
        batch_op.create_index(batch_op.f("ix_sessions_owner_created"), ["owner", "created"], unique=False)
        batch_op.create_index(
            batch_op.f("ix_sessions_owner_phase_expires"), ["owner", "phase", "expires"], unique=False
        )
        batch_op.create_index(
            batch_op.f("ix_sessions_platform_phase_expires"), ["platform", "phase", "expires"], unique=False
        )
        batch_op.create_index(
            batch_op.f("ix_sessions_unfinished_lease_due"), ["unfinished", "lease", "due"], unique=False
        )

    op.create_table(
        "bookings",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("session", sa.String(length=36), nullable=False),
        sa.Column("platform", sa.String(length=40), nullable=False),
        sa.Column("node", sa.String(length=255), nullable=False),
        sa.Column("start", sa.BigInteger(), nullable=False),
        sa.Column("finish", sa.BigInteger(), nullable=False),
        sa.Column("cores", sa.Integer(), nullable=False),
        sa.Column("memory", sa.BigInteger(), nullable=False),
        sa.Column("devices", sa.Text(), nullable=False),
        sa.Column("licences", sa.Text(), nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=True),
        sa.Column("changed", sa.BigInteger(), nullable=False),
        sa.Column("freed", sa.Float(precision=53), nullable=True),
        sa.ForeignKeyConstraint(["session"], ["sessions.uuid"], name=op.f("fk_bookings_session")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_bookings")),
    )
    with op.batch_alter_table("bookings", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_bookings_platform_changed"), ["platform", "changed"], unique=False)
        batch_op.create_index(batch_op.f("ix_bookings_session"), ["session"], unique=False)

    op.create_table(
        "events",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("session", sa.String(length=36), nullable=False),
        sa.Column("time", sa.Float(precision=53), nullable=False),
        sa.Column("previous", sa.String(length=16), nullable=False),
        sa.Column("phase", sa.String(length=16), nullable=False),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["session"], ["sessions.uuid"], name=op.f("fk_events_session")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
    )
    with op.batch_alter_table("events", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_events_session"), ["session"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("events", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_events_session"))

    op.drop_table("events")
    with op.batch_alter_table("bookings", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_bookings_session"))
        batch_op.drop_index(batch_op.f("ix_bookings_platform_changed"))

    op.drop_table("bookings")
    with op.batch_alter_table("sessions", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_sessions_unfinished_lease_due"))
        batch_op.drop_index(batch_op.f("ix_sessions_platform_phase_expires"))
        batch_op.drop_index(batch_op.f("ix_sessions_owner_phase_expires"))
        batch_op.drop_index(batch_op.f("ix_sessions_owner_created"))
        batch_op.drop_index(batch_op.f("ix_sessions_offerset"))
        batch_op.drop_index(batch_op.f("ix_sessions_kept_until"))

    op.drop_table("sessions")
    with op.batch_alter_table("offersets", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_offersets_owner_created"))
        batch_op.drop_index(batch_op.f("ix_offersets_expires"))

    op.drop_table("offersets")
    op.drop_table("platforms")
    op.drop_table("identities")
    op.drop_table("drivers")
