"""What watches the server: its traces, opened from the settings and closed again without losing any."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mlx_manager.catalog.settings import Settings
from mlx_manager.observability.tracer import Tracer


@asynccontextmanager
async def open_tracer(settings: Settings) -> AsyncIterator[Tracer | None]:
    """Keeps traces until the context ends; None where the settings want none."""
    if not settings.has_traces:
        yield None
        return
    folder = settings.home / "state"
    folder.mkdir(parents=True, exist_ok=True)
    tracer = Tracer(
        folder,
        max_bytes=settings.trace_max_bytes,
        max_age_s=settings.trace_max_age_h * 3600,
        with_content=settings.has_trace_content,
    )
    tracer.start()
    try:
        yield tracer
    finally:
        await asyncio.to_thread(tracer.close)
