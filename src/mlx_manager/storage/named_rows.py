"""Rows that hold one value each, known by its name: providers, routes and tool servers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, Protocol, TypeVar

import msgspec
from sqlalchemy.exc import IntegrityError
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from mlx_manager.catalog import Provider, Route, ToolServer
from mlx_manager.errors import Conflict, NotFound
from mlx_manager.storage.tables import ProviderRow, RouteRow, ToolServerRow


class _NamedRow(Protocol):
    id: int | None
    name: str
    options: dict[str, Any]


class _SealedRow(_NamedRow, Protocol):
    secret: str | None


_Row = TypeVar("_Row", bound=_NamedRow)
_Sealed = TypeVar("_Sealed", bound=_SealedRow)
_Value = TypeVar("_Value", bound=Provider | Route | ToolServer)


class NamedRows(Generic[_Row, _Value]):
    """One table. Fields of the value that have a column are kept there, all others together in `options`.

    `noun` is what errors call one of them.
    """

    def __init__(self, row_type: type[_Row], value_type: type[_Value], noun: str) -> None:
        self._row_type = row_type
        self._value_type = value_type
        self._noun = noun
        fields = {field.name for field in msgspec.structs.fields(value_type)}
        self._columns = fields & set(row_type.__annotations__)

    def as_value(self, row: _Row) -> _Value:
        """The value in a row."""
        return msgspec.convert(row.options | {name: getattr(row, name) for name in self._columns}, self._value_type)

    async def insert(self, session: AsyncSession, value: _Value, **beside: str | None) -> _Value:
        """A new one; its id is given by the database. `beside` are columns that are not of the value.

        Raises `Conflict` when there is one of that name.
        """
        row = self._row_type()
        row.name = value.name
        self._fill(row, value, beside)
        session.add(row)
        try:
            await session.flush()
        except IntegrityError:
            raise Conflict(f"There is a {self._noun} called {value.name!r} already.") from None
        return self.as_value(row)

    async def change(self, session: AsyncSession, value: _Value, **beside: str | None) -> None:
        """Write all of one but its name, and what is `beside` it. Raises `NotFound`."""
        self._fill(await self._row(session, value.name), value, beside)
        await session.flush()

    async def remove(self, session: AsyncSession, name: str) -> None:
        """Delete one. Raises `NotFound`."""
        await session.delete(await self._row(session, name))

    def _fill(self, row: _Row, value: _Value, beside: Mapping[str, str | None]) -> None:
        fields = msgspec.to_builtins(value)
        for name in self._columns - {"id", "name"}:
            setattr(row, name, fields[name])
        for name, text in beside.items():
            setattr(row, name, text)
        row.options = {name: field for name, field in fields.items() if name not in self._columns}

    async def _row(self, session: AsyncSession, name: str) -> _Row:
        row = (await session.exec(select(self._row_type).where(self._row_type.name == name))).first()
        if row is None:
            raise NotFound(f"There is no {self._noun} {name!r}.", param="name")
        return row


class SealedRows(NamedRows[_Sealed, _Value]):
    """Such a table with a column `secret`: a ciphertext, or None where nothing is secret."""

    async def reseal(self, session: AsyncSession, sealed: Mapping[str, str]) -> None:
        """Write new ciphertexts of the same secrets, by name."""
        for name, secret in sealed.items():
            (await self._row(session, name)).secret = secret
        await session.flush()


PROVIDERS = SealedRows(ProviderRow, Provider, "provider")
ROUTES = NamedRows(RouteRow, Route, "route")
TOOL_SERVERS = SealedRows(ToolServerRow, ToolServer, "tool server")
