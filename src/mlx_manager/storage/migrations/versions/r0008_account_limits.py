"""0008: limits of accounts, and what was used by account as well as by key."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Add the limits, and make the table of what was used anew: its rows are told apart by account, too."""
    op.add_column("users", sa.Column("limits", sa.JSON, nullable=False, server_default="{}"))
    op.rename_table("usage_days", "usage_days_before")
    op.create_table(
        "usage_days",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("day", sa.Text, nullable=False),
        sa.Column("key_id", sa.Integer, nullable=False),
        sa.Column("user_id", sa.Integer, nullable=False),
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("num_requests", sa.BigInteger, nullable=False),
        sa.Column("num_prompt_tokens", sa.BigInteger, nullable=False),
        sa.Column("num_completion_tokens", sa.BigInteger, nullable=False),
        sa.Column("cost_micro_usd", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("day", "key_id", "user_id", "target"),
    )
    sums = "target, num_requests, num_prompt_tokens, num_completion_tokens, cost_micro_usd"
    op.execute(
        f"INSERT INTO usage_days (day, key_id, user_id, {sums}) "
        "SELECT day, key_id, COALESCE((SELECT user_id FROM api_keys WHERE api_keys.id = key_id), 0), "
        f"{sums} FROM usage_days_before"
    )
    op.drop_table("usage_days_before")
