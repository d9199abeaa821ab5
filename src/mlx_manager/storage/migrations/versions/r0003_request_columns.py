"""0003: what requests cost, who asked, and how they went, as columns of the audit."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_TEXTS = (
    "client_address",
    "user_agent",
    "path",
    "dialect",
    "target_kind",
    "target_model",
    "route",
    "fallback_reason",
    "error_code",
)
_NUMBERS = ("key_id", "num_prompt_tokens", "num_cached_tokens", "num_completion_tokens", "num_reasoning_tokens")
_FRACTIONS = ("queue_s", "ttft_s", "duration_s", "cost_usd")


def upgrade() -> None:
    """Add the columns, and fill those of the rows that are there from their records."""
    for kind, names in ((sa.Text, _TEXTS), (sa.Integer, _NUMBERS), (sa.Float, _FRACTIONS)):
        for name in names:
            op.add_column("requests", sa.Column(name, kind()))
    columns: list[sa.Column[object]] = [sa.Column("record", sa.JSON)]
    table = sa.table("requests", *columns, *(sa.column(name) for name in (*_TEXTS, *_NUMBERS, *_FRACTIONS)))
    record = table.c.record
    op.execute(
        table.update().values(
            {name: record[name].as_string() for name in _TEXTS}
            | {name: record[name].as_integer() for name in _NUMBERS}
            | {name: record[name].as_float() for name in _FRACTIONS}
        )
    )
    op.create_index("ix_requests_key_id", "requests", ["key_id"])
    op.create_index("ix_requests_model", "requests", ["model"])
