"""Indexes of the few sessions that a driver works on, or that have results: an offer has no entry in them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_ON_SQLITE, _ON_POSTGRESQL = sa.text("unfinished IS 1"), sa.text("unfinished IS true")
_HAS_RESULTS = sa.text("kept_until IS NOT NULL")


def upgrade() -> None:
    op.drop_index("ix_sessions_unfinished_lease_due", table_name="sessions")
    op.drop_index("ix_sessions_kept_until", table_name="sessions")
    op.create_index(
        "ix_sessions_lease_due", "sessions", ["lease", "due"], sqlite_where=_ON_SQLITE, postgresql_where=_ON_POSTGRESQL
    )
    op.create_index(
        "ix_sessions_kept_until", "sessions", ["kept_until"], sqlite_where=_HAS_RESULTS, postgresql_where=_HAS_RESULTS
    )


def downgrade() -> None:
    op.drop_index("ix_sessions_kept_until", table_name="sessions")
    op.drop_index("ix_sessions_lease_due", table_name="sessions")
    op.create_index("ix_sessions_kept_until", "sessions", ["kept_until"])
    op.create_index("ix_sessions_unfinished_lease_due", "sessions", ["unfinished", "lease", "due"])
