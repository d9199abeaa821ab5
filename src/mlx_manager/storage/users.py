"""Accounts and their sessions in the database."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from sqlalchemy import func
from sqlmodel import col, delete, select
from sqlmodel.ext.asyncio.session import AsyncSession

from mlx_manager.catalog import KeyLimits, User, UserRole, UserState
from mlx_manager.errors import NotFound
from mlx_manager.storage.tables import ApiKeyRow, SessionRow, UserRow


class StoredSession(msgspec.Struct, frozen=True, kw_only=True):
    """One login."""

    id: str
    user_id: int
    created_unix_s: int
    expires_unix_s: int
    address: str | None = None
    """Where it was begun; None for one that is older than the column."""
    client: str | None = None
    """With which browser or program: its user agent."""


def as_value(row: UserRow) -> User:
    """The account in a row."""
    assert row.id is not None
    return User(
        id=row.id,
        name=row.name,
        role=UserRole(row.role),
        state=UserState(row.state),
        created_unix_s=row.created_unix_s,
        limits=msgspec.convert(row.limits, KeyLimits),
    )


async def insert(session: AsyncSession, user: User, password_hash: str) -> User:
    """A new account; its id is given by the database."""
    row = UserRow(
        name=user.name,
        password_hash=password_hash,
        role=user.role.value,
        state=user.state.value,
        created_unix_s=user.created_unix_s,
        limits=msgspec.to_builtins(user.limits),
    )
    session.add(row)
    await session.flush()
    return as_value(row)


async def find(session: AsyncSession, name: str) -> tuple[User, str] | None:
    """The account of that name and the hash of its password."""
    row = (await session.exec(select(UserRow).where(UserRow.name == name))).first()
    return None if row is None else (as_value(row), row.password_hash)


async def count(session: AsyncSession) -> int:
    """How many accounts there are."""
    return (await session.exec(select(func.count()).select_from(UserRow))).one()


async def count_other_admins(session: AsyncSession, user_id: int) -> int:
    """How many active admins there are besides this account."""
    counted = (
        select(func.count())
        .select_from(UserRow)
        .where(
            UserRow.role == UserRole.ADMIN.value, UserRow.state == UserState.ACTIVE.value, col(UserRow.id) != user_id
        )
    )
    return (await session.exec(counted)).one()


async def update(session: AsyncSession, user_id: int, values: Mapping[str, Any]) -> User:
    """Set columns of an account. Raises `NotFound`."""
    row = await _row(session, user_id)
    for name, value in values.items():
        setattr(row, name, value)
    await session.flush()
    return as_value(row)


async def remove(session: AsyncSession, user_id: int) -> None:
    """Delete an account, its sessions and its API keys."""
    await session.exec(delete(ApiKeyRow).where(col(ApiKeyRow.user_id) == user_id))
    await end_sessions(session, user_id)
    await session.delete(await _row(session, user_id))


async def add_session(session: AsyncSession, opened: StoredSession) -> None:
    """A login; those whose time is over go."""
    await session.exec(delete(SessionRow).where(col(SessionRow.expires_unix_s) <= opened.created_unix_s))
    session.add(SessionRow(**msgspec.structs.asdict(opened)))


async def has_session(session: AsyncSession, session_id: str, user_id: int) -> bool:
    """Whether that login of that account still holds."""
    row = await session.get(SessionRow, session_id)
    return row is not None and row.user_id == user_id


async def sessions_of(session: AsyncSession, user_id: int, now_unix_s: float) -> list[StoredSession]:
    """The logins of an account that still hold, the last first."""
    wanted = (
        select(SessionRow)
        .where(col(SessionRow.user_id) == user_id, col(SessionRow.expires_unix_s) > now_unix_s)
        .order_by(col(SessionRow.created_unix_s).desc(), col(SessionRow.id))
    )
    return [StoredSession(**row.model_dump()) for row in await session.exec(wanted)]


async def end_session(session: AsyncSession, session_id: str) -> None:
    """Log one out."""
    await session.exec(delete(SessionRow).where(col(SessionRow.id) == session_id))


async def end_sessions(session: AsyncSession, user_id: int) -> None:
    """Log an account out everywhere."""
    await session.exec(delete(SessionRow).where(col(SessionRow.user_id) == user_id))


async def _row(session: AsyncSession, user_id: int) -> UserRow:
    row = await session.get(UserRow, user_id)
    if row is None:
        raise NotFound(f"There is no account with the number {user_id}.")
    return row
