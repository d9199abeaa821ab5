"""The audit of requests: a row for each, whatever became of it, written in batches by one task.

What cannot be written waits, and new requests wait for it: nothing is lost while the server runs.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from enum import StrEnum
from typing import Any

import msgspec
from sqlalchemy import case, func, insert, or_
from sqlmodel import col, delete, select

from mlx_manager.errors import StorageUnavailable, ValueNotStorable
from mlx_manager.ir import RequestRecord
from mlx_manager.storage.database import Database
from mlx_manager.storage.tables import RequestRow

_logger = logging.getLogger("mlx_manager.storage")
_PERIOD_S = 0.5
_RETRY_S = 1.0
_MAX_BATCH = 500
_MAX_WAITING = 5_000
_TRIM_PERIOD_S = 60.0
_MOST_TRIMMED = 10_000
"""At a time: others want to write, too, and the database is not waited for without end."""
_MAX_UNREAD = 1_000
_EXPORT_PAGE = 500
_CLIENT_CLOSED = 499
_SEARCHED = (
    "model",
    "user",
    "key",
    "path",
    "target",
    "target_model",
    "route",
    "client_address",
    "request_id",
    "error_code",
)


class AuditedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the audit. `id` grows in the order in which requests ended."""

    id: int
    record: RequestRecord


class Outcome(StrEnum):
    """What became of a request."""

    ANSWERED = "answered"
    FAILED = "failed"
    LEFT = "left"
    """Its client had gone."""


class AuditSums(msgspec.Struct, frozen=True, kw_only=True):
    """Of the rows that match, together."""

    num_requests: int = 0
    num_failed: int = 0
    """Without those whose client had gone."""
    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    num_completion_tokens: int = 0
    cost_usd: float = 0.0


class AuditQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which rows: all that are given must hold."""

    model: str | None = None
    user: str | None = None
    key: str | None = None
    key_id: int | None = None
    client_address: str | None = None
    path: str | None = None
    dialect: str | None = None
    target: str | None = None
    target_kind: str | None = None
    target_model: str | None = None
    route: str | None = None
    fallback_reason: str | None = None
    status: int | None = None
    error_code: str | None = None
    request_id: str | None = None
    is_failed: bool | None = None
    """Whether its status is 400 or more."""
    outcome: Outcome | None = None
    words: str | None = None
    """Each of them stands somewhere in what the request named, who asked, who answered, or its id or error."""
    is_fallback: bool | None = None
    """Whether another backend than the first was asked."""
    since_unix_s: float | None = None
    until_unix_s: float | None = None


class AuditLog:
    """Lives in one event loop, from `open` to `close`."""

    def __init__(self, database: Database, *, max_rows: int, max_age_s: float, max_wait_s: float = 10.0) -> None:
        self._database = database
        self._max_rows = max_rows
        self._max_age_s = max_age_s
        self._max_wait_s = max_wait_s
        self._waiting: deque[RequestRecord] = deque()
        self._listeners: set[asyncio.Queue[RequestRecord]] = set()
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._wake = asyncio.Event()
        self._is_closing = False
        self._trimmed_s = 0.0
        self.num_written = 0
        """Rows written so far: whoever shows the audit need not look while it stays the same. Written here only."""
        self._writer: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Begin to write."""
        self._writer = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Write what is left, as far as it can be."""
        self._is_closing = True
        self._wake.set()
        if self._writer is not None and not await self._database.patience.for_the_last_of(self._end(self._writer)):
            _logger.error("%d requests are not in the audit: the database did not answer.", len(self._waiting))

    @staticmethod
    async def _end(writer: asyncio.Task[None]) -> None:
        await writer

    def follow(self, *, max_rows: int, max_age_s: float) -> None:
        """Keep so much from now on: what is more goes with the next rows that are written."""
        self._max_rows, self._max_age_s = max_rows, max_age_s
        self._trimmed_s = 0.0

    def put(self, record: RequestRecord) -> None:
        """Keep this one. Quick, and raises nothing."""
        self._waiting.append(record)
        if len(self._waiting) >= _MAX_WAITING:
            self._has_room.clear()
        for listener in self._listeners:
            with suppress(asyncio.QueueFull):
                # who reads too slowly misses some of the live view, not of the audit
                listener.put_nowait(record)

    async def wait_for_room(self) -> None:
        """Wait while more records wait than may. Raises `StorageUnavailable` after some seconds."""
        if self._has_room.is_set():
            return
        try:
            await asyncio.wait_for(self._has_room.wait(), self._max_wait_s)
        except TimeoutError:
            raise StorageUnavailable(
                f"The audit cannot be written: {len(self._waiting)} requests wait for it. Try again.", retry_after_s=5
            ) from None

    async def find(self, query: AuditQuery, *, limit: int, before: int | None = None) -> list[AuditedRequest]:
        """The rows that match, the last first; `before` goes on where an earlier list ended."""
        conditions = _conditions(query)
        if before is not None:
            conditions.append(col(RequestRow.id) < before)
        wanted = select(RequestRow).where(*conditions).order_by(col(RequestRow.id).desc()).limit(limit)
        async with self._database.reading() as session:
            rows = (await session.exec(wanted)).all()
        return [AuditedRequest(id=row.id or 0, record=_record_of(row)) for row in rows]

    async def sum(self, query: AuditQuery) -> AuditSums:
        """Everything that matches, summed up."""
        failed = (col(RequestRow.status) >= 400) & (col(RequestRow.status) != _CLIENT_CLOSED)
        sums: Any = [
            func.count(),
            func.sum(case((failed, 1), else_=0)),
            func.sum(RequestRow.num_prompt_tokens),
            func.sum(RequestRow.num_cached_tokens),
            func.sum(RequestRow.num_completion_tokens),
            func.sum(RequestRow.cost_usd),
        ]
        # more columns than the overloads of `select` count
        wanted: Any = select(*sums).where(*_conditions(query))
        async with self._database.reading() as session:
            row = (await session.exec(wanted)).one()
        return AuditSums(**{name: value or 0 for name, value in zip(AuditSums.__struct_fields__, row, strict=True)})

    async def all(self, query: AuditQuery) -> AsyncGenerator[AuditedRequest, None]:
        """Every row that matches, the last first, read page by page."""
        before: int | None = None
        while True:
            page = await self.find(query, limit=_EXPORT_PAGE, before=before)
            for row in page:
                yield row
            if len(page) < _EXPORT_PAGE:
                return
            before = page[-1].id

    @asynccontextmanager
    async def following(self) -> AsyncIterator[asyncio.Queue[RequestRecord]]:
        """The records that come from now on, while the context lasts."""
        listener: asyncio.Queue[RequestRecord] = asyncio.Queue(_MAX_UNREAD)
        self._listeners.add(listener)
        try:
            yield listener
        finally:
            self._listeners.discard(listener)

    async def _run(self) -> None:
        has_failed = False
        while True:
            is_last = self._is_closing
            batch = [self._waiting[index] for index in range(min(len(self._waiting), _MAX_BATCH))]
            if not batch:
                if is_last:
                    return
                await self._pause(_PERIOD_S)
                continue
            try:
                await self._write_or_leave_out(batch)
                has_failed = False
            except StorageUnavailable as error:
                if is_last:
                    _logger.error("%d requests are not in the audit: %s", len(self._waiting), error.message)
                    return
                if not has_failed:
                    _logger.warning("The audit is written later: %s", error.message)
                has_failed = True
                await self._pause(_RETRY_S)

    async def _write_or_leave_out(self, batch: Sequence[RequestRecord]) -> None:
        """Write all of them but those that no row can hold: one such must not keep back what comes after it."""
        try:
            await self._write(batch)
            return
        except ValueNotStorable:
            pass
        for record in batch:
            try:
                await self._write((record,))
            except ValueNotStorable as error:
                _logger.error("The request %s is not in the audit: %s", record.request_id, error.message)
                self._take_off(1)

    async def _write(self, batch: Sequence[RequestRecord]) -> None:
        async with self._database.writing() as session:
            await session.exec(insert(RequestRow), params=[_values(record) for record in batch])
            if time.monotonic() - self._trimmed_s > _TRIM_PERIOD_S or not self._trimmed_s:
                newest = (await session.exec(select(func.max(RequestRow.id)))).one() or 0
                too_old = col(RequestRow.arrived_unix_s) < time.time() - self._max_age_s
                too_many = col(RequestRow.id) <= newest - self._max_rows
                going = select(RequestRow.id).where(too_old | too_many).limit(_MOST_TRIMMED)
                gone = await session.exec(delete(RequestRow).where(col(RequestRow.id).in_(going)))
                if gone.rowcount < _MOST_TRIMMED:
                    self._trimmed_s = time.monotonic()
        # only now: what was not committed stays in its place
        self._take_off(len(batch))
        self.num_written += len(batch)

    def _take_off(self, num_records: int) -> None:
        for _ in range(num_records):
            self._waiting.popleft()
        if len(self._waiting) < _MAX_WAITING:
            self._has_room.set()

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), seconds)


_COLUMNS = tuple(name for name in RequestRecord.__struct_fields__ if name in RequestRow.model_fields)
_SAME = tuple(name for name in AuditQuery.__struct_fields__ if name in _COLUMNS)


def _values(record: RequestRecord) -> dict[str, Any]:
    values = msgspec.to_builtins(record)
    columns = {name: values.pop(name) for name in _COLUMNS}
    return columns | {"record": {name: value for name, value in values.items() if value is not None}}


def _record_of(row: RequestRow) -> RequestRecord:
    columns = {name: getattr(row, name) for name in _COLUMNS}
    return msgspec.convert(
        row.record | {name: value for name, value in columns.items() if value is not None}, RequestRecord
    )


def _conditions(query: AuditQuery) -> list[Any]:
    found = [getattr(RequestRow, name) == getattr(query, name) for name in _SAME if getattr(query, name) is not None]
    if query.is_fallback is not None:
        reason = col(RequestRow.fallback_reason)
        found.append(reason.is_not(None) if query.is_fallback else reason.is_(None))
    closed = col(RequestRow.status) == _CLIENT_CLOSED
    match query.outcome:
        case Outcome.ANSWERED:
            found.append(col(RequestRow.status) < 400)
        case Outcome.FAILED:
            found.append((col(RequestRow.status) >= 400) & ~closed)
        case Outcome.LEFT:
            found.append(closed)
    for word in (query.words or "").split():
        found.append(or_(*(col(getattr(RequestRow, name)).icontains(word, autoescape=True) for name in _SEARCHED)))
    if query.is_failed is not None:
        found.append(col(RequestRow.status) >= 400 if query.is_failed else col(RequestRow.status) < 400)
    if query.since_unix_s is not None:
        found.append(col(RequestRow.arrived_unix_s) >= query.since_unix_s)
    if query.until_unix_s is not None:
        found.append(col(RequestRow.arrived_unix_s) < query.until_unix_s)
    return found
