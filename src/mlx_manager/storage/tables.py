"""The tables. What is asked for by value is a column; what is only ever read as a whole is JSON.

Times are Unix seconds: they mean the same in every database.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, Column, Float, ForeignKey, Integer, LargeBinary, Text, UniqueConstraint
from sqlmodel import Field, SQLModel

_NEW_IDS = {"sqlite_autoincrement": True}
"""The id of a row that is gone is not given to another."""


def _time(*, is_optional: bool = False) -> Any:
    return Field(default=None, sa_column=Column(BigInteger, nullable=is_optional))


def _text() -> Any:
    return Field(default=None, sa_column=Column(Text))


def _json() -> Any:
    return Field(sa_column=Column(JSON, nullable=False))


def _of_user() -> Any:
    return Field(sa_column=Column(ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True))


def _of_conversation() -> Any:
    return Field(sa_column=Column(ForeignKey("conversations.id", ondelete="CASCADE"), primary_key=True))


class UserRow(SQLModel, table=True):
    """One account. The hash is argon2's own text, salt and costs included."""

    __tablename__ = "users"
    __table_args__ = _NEW_IDS

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(sa_column=Column(Text, nullable=False, unique=True))
    password_hash: str = Field(sa_column=Column(Text, nullable=False))
    role: str = Field(sa_column=Column(Text, nullable=False))
    state: str = Field(sa_column=Column(Text, nullable=False))
    created_unix_s: int = _time()
    limits: dict[str, Any] = _json()


class SessionRow(SQLModel, table=True):
    """One login. Its JWT is good while this row is here."""

    __tablename__ = "sessions"

    id: str = Field(sa_column=Column(Text, primary_key=True))
    user_id: int = _of_user()
    created_unix_s: int = _time()
    expires_unix_s: int = _time()
    address: str | None = Field(default=None, sa_column=Column(Text))
    client: str | None = Field(default=None, sa_column=Column(Text))


class ApiKeyRow(SQLModel, table=True):
    """One API key, by the SHA-256 of its 256 random bits."""

    __tablename__ = "api_keys"
    __table_args__ = (UniqueConstraint("user_id", "name"), _NEW_IDS)

    id: int | None = Field(default=None, primary_key=True)
    user_id: int = _of_user()
    name: str = Field(sa_column=Column(Text, nullable=False))
    digest: str = Field(sa_column=Column(Text, nullable=False, unique=True))
    hint: str = Field(sa_column=Column(Text, nullable=False))
    scopes: list[str] = _json()
    limits: dict[str, Any] = _json()
    created_unix_s: int = _time()
    expires_unix_s: int | None = _time(is_optional=True)
    last_used_unix_s: int | None = _time(is_optional=True)


class ProviderRow(SQLModel, table=True):
    """One provider. `secret` is a JWE of `catalog.ProviderSecret`."""

    __tablename__ = "providers"
    __table_args__ = _NEW_IDS

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(sa_column=Column(Text, nullable=False, unique=True))
    kind: str = Field(sa_column=Column(Text, nullable=False))
    base_url: str = Field(sa_column=Column(Text, nullable=False))
    is_on: bool = Field(default=True)
    options: dict[str, Any] = _json()
    secret: str | None = Field(default=None, sa_column=Column(Text, nullable=True))


class RouteRow(SQLModel, table=True):
    """One route."""

    __tablename__ = "routes"
    __table_args__ = _NEW_IDS

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(sa_column=Column(Text, nullable=False, unique=True))
    position: int = Field(default=0, index=True)
    pattern_kind: str = Field(sa_column=Column(Text, nullable=False))
    pattern: str = Field(sa_column=Column(Text, nullable=False))
    is_on: bool = Field(default=True)
    options: dict[str, Any] = _json()


class ToolServerRow(SQLModel, table=True):
    """One tool server. `secret` is a JWE of `catalog.ToolServerSecret`."""

    __tablename__ = "tool_servers"
    __table_args__ = _NEW_IDS

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(sa_column=Column(Text, nullable=False, unique=True))
    kind: str = Field(sa_column=Column(Text, nullable=False))
    is_on: bool = Field(default=True)
    options: dict[str, Any] = _json()
    secret: str | None = Field(default=None, sa_column=Column(Text, nullable=True))


class OverrideRow(SQLModel, table=True):
    """A setting that was changed while the server ran."""

    __tablename__ = "setting_overrides"

    name: str = Field(sa_column=Column(Text, primary_key=True))
    value: Any = Field(default=None, sa_column=Column(JSON, nullable=False))


class ChangeRow(SQLModel, table=True):
    """One change of what is configured: the audit. Its highest id tells every process whether there is news."""

    __tablename__ = "changes"
    __table_args__ = _NEW_IDS

    id: int | None = Field(default=None, primary_key=True)
    at_unix_s: int = _time()
    actor: str = Field(sa_column=Column(Text, nullable=False))
    action: str = Field(sa_column=Column(Text, nullable=False))
    subject: str = Field(sa_column=Column(Text, nullable=False))
    detail: dict[str, Any] = _json()


class UsageRow(SQLModel, table=True):
    """What was used on one day of UTC, by key, account and who answered. 0 is no key, and no account."""

    __tablename__ = "usage_days"
    __table_args__ = (UniqueConstraint("day", "key_id", "user_id", "target"),)

    id: int | None = Field(default=None, primary_key=True)
    day: str = Field(sa_column=Column(Text, nullable=False))
    key_id: int = Field(default=0)
    user_id: int = Field(default=0)
    target: str = Field(sa_column=Column(Text, nullable=False))
    num_requests: int = Field(default=0, sa_column=Column(BigInteger, nullable=False))
    num_prompt_tokens: int = Field(default=0, sa_column=Column(BigInteger, nullable=False))
    num_completion_tokens: int = Field(default=0, sa_column=Column(BigInteger, nullable=False))
    cost_micro_usd: int = Field(default=0, sa_column=Column(BigInteger, nullable=False))


class RequestRow(SQLModel, table=True):
    """One request that was accounted for: most of its record as columns, the rest of it as JSON."""

    __tablename__ = "requests"
    __table_args__ = _NEW_IDS

    id: int | None = Field(default=None, primary_key=True)
    arrived_unix_s: float = Field(sa_column=Column(Float, nullable=False, index=True))
    request_id: str = Field(sa_column=Column(Text, nullable=False, index=True))
    user: str | None = _text()
    key: str | None = _text()
    key_id: int | None = Field(default=None, sa_column=Column(Integer, index=True))
    client_address: str | None = _text()
    user_agent: str | None = _text()
    path: str | None = _text()
    dialect: str | None = _text()
    model: str | None = Field(default=None, sa_column=Column(Text, index=True))
    target: str | None = _text()
    target_kind: str | None = _text()
    target_model: str | None = _text()
    route: str | None = _text()
    fallback_reason: str | None = _text()
    status: int = Field(sa_column=Column(Integer, nullable=False))
    error_code: str | None = _text()
    queue_s: float | None = Field(default=None, sa_column=Column(Float))
    ttft_s: float | None = Field(default=None, sa_column=Column(Float))
    duration_s: float | None = Field(default=None, sa_column=Column(Float))
    num_prompt_tokens: int | None = Field(default=None, sa_column=Column(Integer))
    num_cached_tokens: int | None = Field(default=None, sa_column=Column(Integer))
    num_completion_tokens: int | None = Field(default=None, sa_column=Column(Integer))
    num_reasoning_tokens: int | None = Field(default=None, sa_column=Column(Integer))
    cost_usd: float | None = Field(default=None, sa_column=Column(Float))
    record: dict[str, Any] = _json()


class ConversationRow(SQLModel, table=True):
    """One conversation in the console. `words` is its title as it is searched."""

    __tablename__ = "conversations"

    id: str = Field(sa_column=Column(Text, primary_key=True))
    user_id: int = _of_user()
    title: str = Field(sa_column=Column(Text, nullable=False))
    words: str = Field(sa_column=Column(Text, nullable=False))
    options: dict[str, Any] = _json()
    created_unix_s: int = _time()
    changed_unix_s: int = _time()


class TurnRow(SQLModel, table=True):
    """One turn of a conversation. `words` is what it says as it is searched."""

    __tablename__ = "turns"

    conversation_id: str = _of_conversation()
    number: int = Field(sa_column=Column(Integer, primary_key=True, autoincrement=False))
    parent: int | None = Field(default=None, sa_column=Column(Integer))
    chosen: int = Field(sa_column=Column(Integer, nullable=False))
    words: str = Field(sa_column=Column(Text, nullable=False))
    body: dict[str, Any] = _json()


class AttachmentRow(SQLModel, table=True):
    """A file that goes along with turns of a conversation, by the SHA-256 of its content."""

    __tablename__ = "attachments"

    conversation_id: str = _of_conversation()
    digest: str = Field(sa_column=Column(Text, primary_key=True))
    content: bytes = Field(sa_column=Column(LargeBinary, nullable=False))


class ResponseRow(SQLModel, table=True):
    """One response that is complete. Bodies are JSON, as they went out."""

    __tablename__ = "responses"

    id: str = Field(sa_column=Column(Text, primary_key=True))
    owner: int | None = Field(
        default=None, sa_column=Column(ForeignKey("users.id", ondelete="CASCADE"), nullable=True, index=True)
    )
    created_unix_s: int = Field(sa_column=Column(BigInteger, nullable=False, index=True))
    previous_response_id: str | None = Field(default=None, sa_column=Column(Text))
    num_bytes: int = Field(sa_column=Column(BigInteger, nullable=False))
    body: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    input_items: bytes = Field(sa_column=Column(LargeBinary, nullable=False))


class ResponseItemRow(SQLModel, table=True):
    """An item that a response has in its input or its output."""

    __tablename__ = "response_items"

    item_id: str = Field(sa_column=Column(Text, primary_key=True))
    response_id: str = Field(
        sa_column=Column(ForeignKey("responses.id", ondelete="CASCADE"), primary_key=True, index=True)
    )
