"""API keys in the database."""

from __future__ import annotations

import msgspec
from sqlalchemy.exc import IntegrityError
from sqlmodel import col, update
from sqlmodel.ext.asyncio.session import AsyncSession

from mlx_manager.catalog import ApiKey, KeyLimits, Scope
from mlx_manager.errors import Conflict, NotFound
from mlx_manager.storage.tables import ApiKeyRow


def as_value(row: ApiKeyRow) -> ApiKey:
    """The key in a row."""
    assert row.id is not None
    return ApiKey(
        id=row.id,
        user_id=row.user_id,
        name=row.name,
        hint=row.hint,
        scopes=tuple(Scope(scope) for scope in row.scopes),
        limits=msgspec.convert(row.limits, KeyLimits),
        created_unix_s=row.created_unix_s,
        expires_unix_s=row.expires_unix_s,
        last_used_unix_s=row.last_used_unix_s,
    )


async def insert(session: AsyncSession, key: ApiKey, digest: str) -> ApiKey:
    """A new key; its id is given by the database. Raises `Conflict` when its user has one of that name."""
    row = ApiKeyRow(
        user_id=key.user_id,
        name=key.name,
        digest=digest,
        hint=key.hint,
        scopes=[scope.value for scope in key.scopes],
        limits=msgspec.to_builtins(key.limits),
        created_unix_s=key.created_unix_s,
        expires_unix_s=key.expires_unix_s,
    )
    session.add(row)
    await _flush(session, key)
    return as_value(row)


async def change(session: AsyncSession, key: ApiKey) -> None:
    """Write the name, scopes, limits and expiry of `key`. Raises `NotFound`, and `Conflict` as `insert` does."""
    row = await _row(session, key.id)
    row.name = key.name
    row.scopes = [scope.value for scope in key.scopes]
    row.limits = msgspec.to_builtins(key.limits)
    row.expires_unix_s = key.expires_unix_s
    await _flush(session, key)


async def remove(session: AsyncSession, key_id: int) -> None:
    """Delete a key: it is good no longer. Raises `NotFound`."""
    await session.delete(await _row(session, key_id))


async def note_use(session: AsyncSession, key_id: int, at_unix_s: int) -> None:
    """When a key was used last."""
    await session.exec(update(ApiKeyRow).where(col(ApiKeyRow.id) == key_id).values(last_used_unix_s=at_unix_s))


async def _flush(session: AsyncSession, key: ApiKey) -> None:
    try:
        await session.flush()
    except IntegrityError:
        raise Conflict(f"There is an API key called {key.name!r} already: choose another name.") from None


async def _row(session: AsyncSession, key_id: int) -> ApiKeyRow:
    row = await session.get(ApiKeyRow, key_id)
    if row is None:
        raise NotFound(f"There is no API key with the number {key_id}.")
    return row
