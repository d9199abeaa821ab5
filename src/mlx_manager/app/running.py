"""What a running server is made of: its parts, opened one on the other, and what is built over them."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from mlx_manager import __version__
from mlx_manager.api.who import SESSION_COOKIE
from mlx_manager.app.access import Opened, open_access
from mlx_manager.app.following import Followers
from mlx_manager.app.observing import open_tracer, watch_alerts
from mlx_manager.app.parts import Parts, PartsFactory
from mlx_manager.app.routing import Routing, open_routing
from mlx_manager.app.tooling import Tooling, open_tooling
from mlx_manager.catalog import PrefixIsolation
from mlx_manager.catalog.settings import Settings
from mlx_manager.gateway import Gateway, LiveSettings, PromptLimits, find_offers, log_record
from mlx_manager.observability.alerts import AlertWatch
from mlx_manager.observability.log_tail import LogTail
from mlx_manager.observability.metrics import Metrics
from mlx_manager.observability.span_store import SpanReader
from mlx_manager.observability.tracer import Tracer
from mlx_manager.storage.audit import AuditQuery
from mlx_manager.storage.conversations import ConversationStore
from mlx_manager.ui import RECENT_WINDOW_S, Console, RecentRequests

_MOST_REMEMBERED = 2_000
"""Requests of the last hour that the console of a new server knows already."""


@dataclass(frozen=True)
class Running:
    """The parts that have to be closed again, in the order in which they are opened."""

    log: LogTail
    opened: Opened
    live: LiveSettings
    tracer: Tracer | None
    parts: Parts
    alerts: AlertWatch
    routing: Routing
    tooling: Tooling


@asynccontextmanager
async def open_running(settings: Settings, parts: PartsFactory) -> AsyncIterator[Running]:
    """Open all of them; closed in the opposite order, so that each finds what it was opened on to its end."""
    async with LogTail().listening() as log, open_access(settings) as opened:
        # what admins changed holds from here on
        live = LiveSettings(settings, opened.access.store)
        async with (
            open_tracer(live.current) as tracer,
            parts(live.current) as built,
            open_routing(live, opened, built.backends, built.models) as routing,
            watch_alerts(live.current, built.models, built.pool, routing.budgets.uses) as alerts,
            open_tooling(opened) as tooling,
        ):
            followers = Followers(built, opened.audit, alerts, tracer)
            if live.current is not settings:
                followers.follow(live.current)
            live.subscribe(followers.follow)
            yield Running(log, opened, live, tracer, built, alerts, routing, tooling)


async def recall_requests(running: Running, settings: Settings) -> RecentRequests:
    """The last hour's requests, as far as there are pages that show them."""
    recent = RecentRequests()
    if settings.console:
        last_hour = AuditQuery(since_unix_s=time.time() - RECENT_WINDOW_S)
        known = await running.opened.audit.find(last_hour, limit=_MOST_REMEMBERED)
        recent.remember(row.record for row in reversed(known))
    return recent


def build_metrics(running: Running) -> Metrics:
    """What /metrics tells."""
    pool = running.parts.pool
    return Metrics(
        __version__,
        running.parts.models.statuses,
        lambda: None if pool is None else pool.stats(),
        budget_uses=running.routing.budgets.uses,
        home=running.live.current.home,
    )


def build_gateway(running: Running, metrics: Metrics, recent: RecentRequests) -> Gateway:
    """The gateway, and everybody who is told of each request that ended."""
    opened, settings = running.opened, running.live.current
    gateway = Gateway(
        running.routing.router,
        account=(log_record, metrics.count, opened.count, opened.audit.put, recent.add, running.alerts.count),
        tracer=running.tracer,
        watch_attempts=metrics.count_attempts,
        make_room=opened.audit.wait_for_room,
        budgets=running.routing.budgets,
        limits=lambda: PromptLimits(running.live.current.max_messages, running.live.current.max_tools),
        isolation=PrefixIsolation(settings.prefix_isolation),
    )
    metrics.show_targets_left_alone(gateway.targets_left_alone)
    return gateway


def build_console(
    running: Running,
    gateway: Gateway,
    *,
    settings: Settings,
    recent: RecentRequests,
    spans: SpanReader,
    find_api_paths: Callable[[], Collection[str]],
) -> Console:
    """What the pages work with."""
    access, alerts = running.opened.access, running.alerts
    return Console(
        gateway=gateway,
        models=running.parts.models,
        pool=running.parts.pool,
        hub=running.parts.hub,
        door=access.door,
        people=access.people,
        keys=access.keys,
        desk=running.routing.desk,
        find_configuration=lambda: access.store.current,
        live_settings=running.live,
        session_cookie=SESSION_COOKIE,
        recent=recent,
        audit=running.opened.audit,
        log=running.log,
        spans=spans,
        version=__version__,
        home=settings.home,
        conversations=ConversationStore(access.store.database),
        toolbox=running.tooling.toolbox,
        tool_desk=running.tooling.desk,
        find_offers=partial(find_offers, gateway, lambda: access.store.current),
        find_alerts=lambda: [*alerts.firing.values(), *reversed(alerts.past)],
        find_changes=lambda most: access.store.changes(limit=most),
        note_change=access.store.note,
        find_api_paths=find_api_paths,
    )
