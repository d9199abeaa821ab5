"""Tool servers in the database."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from sqlalchemy.exc import IntegrityError
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from mlx_manager.catalog import ToolServer, ToolServerKind
from mlx_manager.errors import Conflict, NotFound
from mlx_manager.storage.tables import ToolServerRow

_COLUMNS = ("id", "name", "kind", "is_on")


def as_value(row: ToolServerRow) -> ToolServer:
    """The tool server in a row."""
    return msgspec.convert(
        row.options | {"id": row.id, "name": row.name, "kind": ToolServerKind(row.kind), "is_on": row.is_on},
        ToolServer,
    )


async def insert(session: AsyncSession, server: ToolServer, sealed: str | None) -> ToolServer:
    """A new one; its id is given by the database. Raises `Conflict` when there is one of that name."""
    row = ToolServerRow(name=server.name, kind=server.kind.value, options={}, secret=sealed)
    _fill(row, server)
    session.add(row)
    try:
        await session.flush()
    except IntegrityError:
        raise Conflict(f"There is a tool server called {server.name!r} already.") from None
    return as_value(row)


async def change(session: AsyncSession, server: ToolServer, sealed: str | None) -> None:
    """Write all of a tool server but its name, and its secret. Raises `NotFound`."""
    row = await _row(session, server.name)
    _fill(row, server)
    row.secret = sealed
    await session.flush()


async def reseal(session: AsyncSession, sealed: Mapping[str, str]) -> None:
    """Write new ciphertexts of the same secrets, by the name of their server."""
    for name, secret in sealed.items():
        (await _row(session, name)).secret = secret
    await session.flush()


async def remove(session: AsyncSession, name: str) -> None:
    """Delete a tool server. Raises `NotFound`."""
    await session.delete(await _row(session, name))


def _fill(row: ToolServerRow, server: ToolServer) -> None:
    row.kind = server.kind.value
    row.is_on = server.is_on
    row.options = {key: value for key, value in msgspec.to_builtins(server).items() if key not in _COLUMNS}


async def _row(session: AsyncSession, name: str) -> ToolServerRow:
    row = (await session.exec(select(ToolServerRow).where(ToolServerRow.name == name))).first()
    if row is None:
        raise NotFound(f"There is no tool server {name!r}.", param="name")
    return row
