"""The traces under /admin: the last requests, and what happened when in one of them."""

from __future__ import annotations

import asyncio
from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Query
from starlette.responses import Response

from mlx_manager.api.json_answer import json_answer
from mlx_manager.api.paging import BeforeQuery
from mlx_manager.api.state import SpansDep
from mlx_manager.api.who import admit_admin
from mlx_manager.errors import NotFound
from mlx_manager.observability.span_store import TracedRequest
from mlx_manager.observability.spans import Span

router = APIRouter(prefix="/admin", tags=["traces"], dependencies=[Depends(admit_admin)])


class TraceList(msgspec.Struct, frozen=True, kw_only=True):
    """The body of GET /admin/traces."""

    traces: list[TracedRequest]
    next_before: int | None
    """To be sent as `before` for the list's continuation; null at its end."""


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """The body of GET /admin/traces/{trace_id}: spans in the order of their starts."""

    spans: list[Span]


@router.get("/traces")
async def list_traces(
    spans: SpansDep,
    *,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    before: BeforeQuery = None,
    model: str | None = None,
    failed: bool | None = None,
    min_duration: Annotated[float | None, Query(ge=0)] = None,
) -> Response:
    """The last traced requests, the last first; `min_duration` in seconds."""
    found = await asyncio.to_thread(
        spans.requests, limit=limit, before_id=before, model=model, is_failed=failed, min_duration_s=min_duration
    )
    next_before = found[-1].id if len(found) == limit else None
    return json_answer(TraceList(traces=found, next_before=next_before))


@router.get("/traces/{trace_id}")
async def show_trace(trace_id: str, spans: SpansDep) -> Response:
    """All spans of one trace, by its id or by that of the request."""
    found = await asyncio.to_thread(spans.trace, trace_id)
    if not found:
        raise NotFound(f"There is no trace {trace_id[:80]!r}. Traces go with their age and number.", param="trace_id")
    return json_answer(Trace(spans=found))
