"""0007: from where each session was begun."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add the columns; of sessions that are there nobody knows."""
    for name in ("address", "client"):
        op.add_column("sessions", sa.Column(name, sa.Text))
