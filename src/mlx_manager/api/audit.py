"""The audit of requests under /admin: looked through, exported, and followed as it grows."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Literal

import msgspec
from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response, StreamingResponse

from mlx_manager.api.json_answer import json_answer
from mlx_manager.api.paging import LAST_ID, BeforeQuery
from mlx_manager.api.state import AuditDep
from mlx_manager.api.who import admit_admin
from mlx_manager.ir import RequestRecord
from mlx_manager.storage.audit import AuditedRequest, AuditLog, AuditQuery, Outcome

router = APIRouter(prefix="/admin", tags=["audit"], dependencies=[Depends(admit_admin)])
_KEEPALIVE_S = 5.0
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


class AuditPage(msgspec.Struct, frozen=True, kw_only=True):
    """The body of GET /admin/requests, the last first."""

    requests: list[AuditedRequest]
    next_before: int | None
    """To be sent as `before` for the list's continuation; null at its end."""


async def _query(  # noqa: PLR0913 - one per filter
    *,
    model: str | None = None,
    user: str | None = None,
    key: str | None = None,
    key_id: Annotated[int | None, Query(ge=0, le=LAST_ID)] = None,
    client_address: str | None = None,
    path: str | None = None,
    dialect: Literal["openai", "anthropic"] | None = None,
    target: str | None = None,
    target_kind: str | None = None,
    target_model: str | None = None,
    route: str | None = None,
    fallback_reason: str | None = None,
    fallback: bool | None = None,
    status: Annotated[int | None, Query(ge=0, le=999)] = None,
    error_code: str | None = None,
    request_id: str | None = None,
    failed: bool | None = None,
    outcome: Outcome | None = None,
    words: Annotated[str | None, Query(max_length=200)] = None,
    since: float | None = None,
    until: float | None = None,
) -> AuditQuery:
    return AuditQuery(
        model=model,
        user=user,
        key=key,
        key_id=key_id,
        client_address=client_address,
        path=path,
        dialect=dialect,
        target=target,
        target_kind=target_kind,
        target_model=target_model,
        route=route,
        fallback_reason=fallback_reason,
        is_fallback=fallback,
        status=status,
        error_code=error_code,
        request_id=request_id,
        is_failed=failed,
        outcome=outcome,
        words=words,
        since_unix_s=since,
        until_unix_s=until,
    )


QueryDep = Annotated[AuditQuery, Depends(_query)]


@router.get("/requests")
async def list_requests(
    audit: AuditDep,
    query: QueryDep,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    before: BeforeQuery = None,
) -> Response:
    """Requests that match, the last first; `since` and `until` in Unix seconds."""
    found = await audit.find(query, limit=limit, before=before)
    page = AuditPage(requests=found, next_before=found[-1].id if len(found) == limit else None)
    return json_answer(page)


@router.get("/requests/export")
async def export_requests(
    audit: AuditDep, query: QueryDep, format: Literal["csv", "jsonl"] = "jsonl"
) -> StreamingResponse:
    """All requests that match, as CSV or as lines of JSON."""
    lines = _csv(audit, query) if format == "csv" else _jsonl(audit, query)
    media_type = "text/csv; charset=utf-8" if format == "csv" else "application/jsonl"
    headers = {"content-disposition": f'attachment; filename="requests.{format}"'}
    return StreamingResponse(lines, media_type=media_type, headers=headers)


@router.get("/requests/live")
async def follow_requests(request: Request, audit: AuditDep) -> StreamingResponse:
    """Requests as they end, as Server-Sent Events."""
    return StreamingResponse(
        _live(request, audit), media_type="text/event-stream", headers={"cache-control": "no-cache"}
    )


async def _jsonl(audit: AuditLog, query: AuditQuery) -> AsyncGenerator[bytes, None]:
    async with aclosing(audit.all(query)) as rows:
        async for row in rows:
            yield msgspec.json.encode(row.record) + b"\n"


async def _csv(audit: AuditLog, query: AuditQuery) -> AsyncGenerator[str, None]:
    names = RequestRecord.__struct_fields__
    yield _line(names)
    async with aclosing(audit.all(query)) as rows:
        async for row in rows:
            yield _line([_cell(getattr(row.record, name)) for name in names])


async def _live(request: Request, audit: AuditLog) -> AsyncGenerator[bytes, None]:
    async with audit.following() as records:
        yield b": following\n\n"
        while not await request.is_disconnected():
            try:
                record = await asyncio.wait_for(records.get(), _KEEPALIVE_S)
            except TimeoutError:
                yield b": keep-alive\n\n"
                continue
            yield b"data: " + msgspec.json.encode(record) + b"\n\n"


def _cell(value: object) -> str:
    """A value as text; what a spreadsheet would take for a formula is quoted, for clients choose names and agents."""
    text = "" if value is None else str(value)
    return f"'{text}" if isinstance(value, str) and text.startswith(_FORMULA) else text


def _line(cells: list[str] | tuple[str, ...]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer).writerow(cells)
    return buffer.getvalue()
