"""Responses in the database: complete ones, until they are too old or their room is needed."""

from __future__ import annotations

import time

from sqlalchemy import func, insert
from sqlmodel import col, delete, select
from sqlmodel.ext.asyncio.session import AsyncSession

from mlx_manager.protocols.openai.responses import StoredResponse
from mlx_manager.storage.database import Database
from mlx_manager.storage.tables import ResponseItemRow, ResponseRow

_TRIM_PERIOD_S = 60.0


class DatabaseResponses:
    """A `gateway.ResponseStore`. Each of its calls raises `StorageUnavailable` where the database cannot be used."""

    def __init__(
        self, database: Database, *, max_age_s: float, max_bytes: int, trim_period_s: float = _TRIM_PERIOD_S
    ) -> None:
        self._database = database
        self._max_age_s = max_age_s
        self._max_bytes = max_bytes
        self._trim_period_s = trim_period_s
        self._trimmed_s: float | None = None
        """On the monotonic clock."""

    async def put(self, response: StoredResponse) -> None:
        """See `ResponseStore.put`. One that is larger than all room there is is not kept."""
        async with self._database.writing() as session:
            await session.exec(delete(ResponseRow).where(col(ResponseRow.id) == response.id))
            if response.num_bytes <= self._max_bytes:
                await _insert(session, response)
            if self._trimmed_s is None or time.monotonic() - self._trimmed_s >= self._trim_period_s:
                await self._trim(session)
                self._trimmed_s = time.monotonic()

    async def get(self, response_id: str) -> StoredResponse | None:
        """See `ResponseStore.get`."""
        async with self._database.reading() as session:
            row = await session.get(ResponseRow, response_id)
        return self._value(row)

    async def delete(self, response_id: str) -> bool:
        """See `ResponseStore.delete`."""
        async with self._database.writing() as session:
            removed = await session.exec(delete(ResponseRow).where(col(ResponseRow.id) == response_id))
        return bool(removed.rowcount)

    async def find_by_item(self, item_id: str, owner: int | None) -> StoredResponse | None:
        """See `ResponseStore.find_by_item`."""
        wanted = (
            select(ResponseRow)
            .join(ResponseItemRow, col(ResponseItemRow.response_id) == col(ResponseRow.id))
            .where(col(ResponseItemRow.item_id) == item_id, col(ResponseRow.owner).is_not_distinct_from(owner))
            .order_by(col(ResponseRow.created_unix_s).desc())
            .limit(1)
        )
        async with self._database.reading() as session:
            row = (await session.exec(wanted)).first()
        return self._value(row)

    async def _trim(self, session: AsyncSession) -> None:
        oldest_unix_s = int(time.time() - self._max_age_s)
        await session.exec(delete(ResponseRow).where(col(ResponseRow.created_unix_s) < oldest_unix_s))
        newest_first = (col(ResponseRow.created_unix_s).desc(), col(ResponseRow.id).desc())
        summed = func.sum(ResponseRow.num_bytes).over(order_by=newest_first).label("num_bytes_so_far")
        sums = select(ResponseRow.id, summed).subquery()
        too_many = select(sums.c.id).where(sums.c.num_bytes_so_far > self._max_bytes)
        await session.exec(delete(ResponseRow).where(col(ResponseRow.id).in_(too_many)))

    def _value(self, row: ResponseRow | None) -> StoredResponse | None:
        if row is None or row.created_unix_s < time.time() - self._max_age_s:
            return None
        return StoredResponse(
            id=row.id,
            owner=row.owner,
            created_unix_s=row.created_unix_s,
            previous_response_id=row.previous_response_id,
            body=row.body,
            input_items=row.input_items,
        )


async def _insert(session: AsyncSession, response: StoredResponse) -> None:
    session.add(
        ResponseRow(
            id=response.id,
            owner=response.owner,
            created_unix_s=response.created_unix_s,
            previous_response_id=response.previous_response_id,
            num_bytes=response.num_bytes,
            body=response.body,
            input_items=response.input_items,
        )
    )
    await session.flush()
    items = [{"item_id": item_id, "response_id": response.id} for item_id in {item["id"] for item in response.turn()}]
    if items:
        await session.exec(insert(ResponseItemRow), params=items)
