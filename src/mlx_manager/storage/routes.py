"""Routes in the database."""

from __future__ import annotations

import msgspec
from sqlalchemy.exc import IntegrityError
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from mlx_manager.catalog import PatternKind, Route
from mlx_manager.errors import Conflict, NotFound
from mlx_manager.storage.tables import RouteRow

_COLUMNS = ("id", "name", "position", "pattern_kind", "pattern", "is_on")


def as_value(row: RouteRow) -> Route:
    """The route in a row."""
    return msgspec.convert(
        row.options
        | {
            "id": row.id,
            "name": row.name,
            "position": row.position,
            "pattern_kind": PatternKind(row.pattern_kind),
            "pattern": row.pattern,
            "is_on": row.is_on,
        },
        Route,
    )


async def insert(session: AsyncSession, route: Route) -> Route:
    """A new route; its id is given by the database. Raises `Conflict` when there is one of that name."""
    row = RouteRow(name=route.name, pattern_kind="", pattern="", options={})
    _fill(row, route)
    session.add(row)
    try:
        await session.flush()
    except IntegrityError:
        raise Conflict(f"There is a route called {route.name!r} already.") from None
    return as_value(row)


async def change(session: AsyncSession, route: Route) -> None:
    """Write all of a route but its name. Raises `NotFound`."""
    _fill(await _row(session, route.name), route)
    await session.flush()


async def remove(session: AsyncSession, name: str) -> None:
    """Delete a route. Raises `NotFound`."""
    await session.delete(await _row(session, name))


def _fill(row: RouteRow, route: Route) -> None:
    row.position = route.position
    row.pattern_kind = route.pattern_kind.value
    row.pattern = route.pattern
    row.is_on = route.is_on
    row.options = {key: value for key, value in msgspec.to_builtins(route).items() if key not in _COLUMNS}


async def _row(session: AsyncSession, name: str) -> RouteRow:
    row = (await session.exec(select(RouteRow).where(RouteRow.name == name))).first()
    if row is None:
        raise NotFound(f"There is no route {name!r}.", param="name")
    return row
