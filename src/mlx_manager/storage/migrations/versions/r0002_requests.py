"""0002: the audit of requests."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "requests",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("arrived_unix_s", sa.Float, nullable=False),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("user", sa.Text),
        sa.Column("key", sa.Text),
        sa.Column("model", sa.Text),
        sa.Column("target", sa.Text),
        sa.Column("status", sa.Integer, nullable=False),
        sa.Column("record", sa.JSON, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_requests_arrived_unix_s", "requests", ["arrived_unix_s"])
    op.create_index("ix_requests_request_id", "requests", ["request_id"])
