"""Providers in the database."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from sqlalchemy.exc import IntegrityError
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from mlx_manager.catalog import Provider, ProviderKind
from mlx_manager.errors import Conflict, NotFound
from mlx_manager.storage.tables import ProviderRow

_COLUMNS = ("id", "name", "kind", "base_url", "is_on")


def as_value(row: ProviderRow) -> Provider:
    """The provider in a row."""
    return msgspec.convert(
        row.options
        | {
            "id": row.id,
            "name": row.name,
            "kind": ProviderKind(row.kind),
            "base_url": row.base_url,
            "is_on": row.is_on,
        },
        Provider,
    )


async def insert(session: AsyncSession, provider: Provider, sealed: str | None) -> Provider:
    """A new provider; its id is given by the database. Raises `Conflict` when there is one of that name."""
    row = ProviderRow(name=provider.name, kind=provider.kind.value, base_url="", options={}, secret=sealed)
    _fill(row, provider)
    session.add(row)
    try:
        await session.flush()
    except IntegrityError:
        raise Conflict(f"There is a provider called {provider.name!r} already.") from None
    return as_value(row)


async def change(session: AsyncSession, provider: Provider, sealed: str | None) -> None:
    """Write all of a provider but its name, and its secret. Raises `NotFound`."""
    row = await _row(session, provider.name)
    _fill(row, provider)
    row.secret = sealed
    await session.flush()


async def reseal(session: AsyncSession, sealed: Mapping[str, str]) -> None:
    """Write new ciphertexts of the same secrets, by the name of their provider."""
    for name, secret in sealed.items():
        (await _row(session, name)).secret = secret
    await session.flush()


async def remove(session: AsyncSession, name: str) -> None:
    """Delete a provider. Raises `NotFound`."""
    await session.delete(await _row(session, name))


def _fill(row: ProviderRow, provider: Provider) -> None:
    row.kind = provider.kind.value
    row.base_url = provider.base_url
    row.is_on = provider.is_on
    row.options = {key: value for key, value in msgspec.to_builtins(provider).items() if key not in _COLUMNS}


async def _row(session: AsyncSession, name: str) -> ProviderRow:
    row = (await session.exec(select(ProviderRow).where(ProviderRow.name == name))).first()
    if row is None:
        raise NotFound(f"There is no provider {name!r}.", param="name")
    return row
