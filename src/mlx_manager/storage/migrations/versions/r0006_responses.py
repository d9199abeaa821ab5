"""0006: responses that are stored, and the items that they can be found by."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "responses",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("owner", sa.Integer, sa.ForeignKey("users.id", ondelete="CASCADE")),
        sa.Column("created_unix_s", sa.BigInteger, nullable=False),
        sa.Column("previous_response_id", sa.Text),
        sa.Column("num_bytes", sa.BigInteger, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("input_items", sa.LargeBinary, nullable=False),
    )
    op.create_index("ix_responses_owner", "responses", ["owner"])
    op.create_index("ix_responses_created_unix_s", "responses", ["created_unix_s"])
    op.create_table(
        "response_items",
        sa.Column("item_id", sa.Text, primary_key=True),
        sa.Column("response_id", sa.Text, sa.ForeignKey("responses.id", ondelete="CASCADE"), primary_key=True),
    )
    op.create_index("ix_response_items_response_id", "response_items", ["response_id"])
