"""What watches the server: its traces and alerts, opened from the settings and closed again without losing any."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from mlx_manager.catalog.settings import Settings
from mlx_manager.observability.alerts import AlertLimits, AlertWatch
from mlx_manager.observability.budget_use import BudgetUse
from mlx_manager.observability.tracer import Tracer
from mlx_manager.observability.webhook import Webhook
from mlx_manager.pool import ModelDirectory, ModelPool


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


@asynccontextmanager
async def watch_alerts(
    settings: Settings,
    models: ModelDirectory,
    pool: ModelPool | None,
    budget_uses: Callable[[], Sequence[BudgetUse]],
) -> AsyncIterator[AlertWatch]:
    """Looks after the conditions of the settings until the context ends."""
    watch = AlertWatch(
        alert_limits(settings),
        settings.home,
        models.statuses,
        lambda: None if pool is None else pool.stats(),
        budget_uses=budget_uses,
        webhook=Webhook(settings.alert_webhook) if settings.alert_webhook else None,
        period_s=settings.alert_period_s,
    )
    watch.open()
    try:
        yield watch
    finally:
        await watch.close()


def alert_limits(settings: Settings) -> AlertLimits:
    """When alerts fire, by the settings."""
    return AlertLimits(
        error_share=settings.alert_error_share,
        ttft_s=settings.alert_ttft_s,
        num_worker_restarts=settings.alert_worker_restarts,
        disk_free_bytes=settings.alert_disk_free_bytes,
    )
