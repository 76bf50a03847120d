"""How many offers of each platform have expired: of the rows themselves retention leaves none."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # A default in the database: processes of the version before insert rows without it
    op.add_column("platforms", sa.Column("expired", sa.BigInteger(), nullable=False, server_default=sa.text("0")))


def downgrade() -> None:
    op.drop_column("platforms", "expired")
