"""`create_app`: the app is a value that can be made twice; one lifespan builds and closes all that lives long."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from functools import partial

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from mlx_manager import __version__
from mlx_manager.api import (
    EXCEPTION_HANDLERS,
    ApiState,
    DocumentedApp,
    HttpOptions,
    RequestEdge,
    admin_router,
    alerts_router,
    anthropic_router,
    audit_router,
    auth_router,
    health_router,
    hub_router,
    metrics_router,
    models_router,
    openai_router,
    people_router,
    providers_router,
    routes_router,
    tokens_router,
    tool_servers_router,
    traces_router,
)
from mlx_manager.api.who import SESSION_COOKIE
from mlx_manager.app.access import is_loopback, open_access
from mlx_manager.app.limits import follow_limits
from mlx_manager.app.observing import alert_limits, open_tracer, watch_alerts
from mlx_manager.app.parts import PartsFactory, local_parts
from mlx_manager.app.reload import Reload, on_hangup
from mlx_manager.app.routing import open_routing
from mlx_manager.app.tooling import open_tooling
from mlx_manager.catalog import PrefixIsolation
from mlx_manager.catalog.settings import Settings
from mlx_manager.gateway import BackgroundWork, Gateway, MemoryResponses, PromptLimits, find_offers, log_record
from mlx_manager.observability.metrics import Metrics
from mlx_manager.observability.span_store import SpanReader
from mlx_manager.storage.audit import AuditQuery
from mlx_manager.storage.conversations import ConversationStore
from mlx_manager.ui import RECENT_WINDOW_S, Console, RecentRequests, console_routes

_MOST_REMEMBERED = 2_000
"""Requests of the last hour that the console of a new server knows already."""
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")


class AppState(ApiState):
    """The lifespan's state: what routes see, and what the pages of the console work with."""

    console: Console


def create_app(
    settings: Settings, *, parts: PartsFactory = local_parts, reread: Callable[[], Settings] | None = None
) -> FastAPI:
    """The whole server as an ASGI app; nothing is started before its lifespan is. `parts` is what answers requests.

    Where `reread` is given, SIGHUP has the settings read again by it.
    """
    app = DocumentedApp(
        title="MLX Manager",
        version=__version__,
        lifespan=_lifespan(settings, parts, reread),
        middleware=_middleware(settings),
        exception_handlers=EXCEPTION_HANDLERS,
        # its pages load scripts from elsewhere
        docs_url=None,
        redoc_url=None,
    )
    app.include_router(openai_router)
    app.include_router(tokens_router)
    app.include_router(anthropic_router)
    app.include_router(models_router)
    app.include_router(health_router)
    app.include_router(hub_router)
    app.include_router(admin_router)
    app.include_router(metrics_router)
    app.include_router(alerts_router)
    app.include_router(audit_router)
    app.include_router(traces_router)
    app.include_router(people_router)
    app.include_router(providers_router)
    app.include_router(routes_router)
    app.include_router(tool_servers_router)
    app.include_router(auth_router)
    if settings.console:
        app.router.routes.extend(console_routes(_allowed_hosts(settings.host)))
    return app


def _middleware(settings: Settings) -> list[Middleware]:
    edge = Middleware(RequestEdge, allowed_hosts=_allowed_hosts(settings.host))
    if not settings.cors_origins:
        return [edge]
    # without credentials: a page of another site sends an API key, never the session's cookie
    cors = Middleware(
        CORSMiddleware,
        allow_origins=settings.cors_origins,
        allow_methods=["GET", "POST"],
        allow_headers=["*"],
        expose_headers=["*"],
    )
    return [edge, cors]


def _lifespan(
    settings: Settings, parts: PartsFactory, reread: Callable[[], Settings] | None
) -> Callable[[FastAPI], AbstractAsyncContextManager[AppState]]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[AppState]:
        async with (
            open_access(settings) as opened,
            open_tracer(settings) as tracer,
            parts(settings) as built,
            watch_alerts(settings, built.models, built.pool) as alerts,
            open_routing(settings, opened, built.backends, built.models) as routing,
            open_tooling(opened) as tooling,
        ):
            pool = built.pool
            apply_limits = None if pool is None else follow_limits(pool, opened.access.store, routing.live)
            recent = RecentRequests()
            if settings.console:
                last_hour = AuditQuery(since_unix_s=time.time() - RECENT_WINDOW_S)
                known = await opened.audit.find(last_hour, limit=_MOST_REMEMBERED)
                recent.remember(row.record for row in reversed(known))
            metrics = Metrics(__version__, built.models.statuses, lambda: None if pool is None else pool.stats())
            account = (log_record, metrics.count, opened.count, opened.audit.put, recent.add, alerts.count)
            gateway = Gateway(
                routing.router,
                account=account,
                tracer=tracer,
                make_room=opened.audit.wait_for_room,
                budgets=routing.budgets,
                limits=PromptLimits(settings.max_messages, settings.max_tools),
                isolation=PrefixIsolation(settings.prefix_isolation),
            )
            console = Console(
                gateway=gateway,
                models=built.models,
                pool=pool,
                hub=built.hub,
                door=opened.access.door,
                people=opened.access.people,
                keys=opened.access.keys,
                session_cookie=SESSION_COOKIE,
                recent=recent,
                version=__version__,
                home=settings.home,
                conversations=ConversationStore(opened.access.store.database),
                toolbox=tooling.toolbox,
                tool_desk=tooling.desk,
                find_offers=partial(find_offers, gateway, lambda: opened.access.store.current),
                find_alerts=lambda: [*alerts.firing.values(), *reversed(alerts.past)],
                find_changes=lambda most: opened.access.store.changes(limit=most),
                find_api_paths=lambda: app.openapi()["paths"],
            )
            background = BackgroundWork()

            def follow(changed: Settings) -> None:
                logging.getLogger().setLevel(changed.log_level.upper())
                built.follow(changed)
                routing.live.settings = changed
                if apply_limits is not None:
                    apply_limits()
                alerts.limits = alert_limits(changed)
                opened.audit.max_rows, opened.audit.max_age_s = changed.audit_max_rows, changed.audit_max_age_h * 3600

            hangups = nullcontext() if reread is None else on_hangup(Reload(settings, reread, follow))
            state = AppState(
                console=console,
                gateway=gateway,
                models=built.models,
                pool=built.pool,
                hub=built.hub,
                responses=MemoryResponses(),
                background=background,
                metrics=metrics,
                audit=opened.audit,
                alerts=alerts,
                spans=SpanReader(settings.home / "state"),
                access=opened.access,
                desk=routing.desk,
                tool_desk=tooling.desk,
                live_settings=routing.live,
                http=HttpOptions(
                    version=__version__, max_body_bytes=settings.max_body_bytes, keepalive_s=settings.keepalive_s
                ),
                started_s=time.monotonic(),
            )
            with hangups:
                yield state
            gateway.close()
            await background.close()
            await console.close()

    return lifespan


def _allowed_hosts(host: str) -> tuple[str, ...] | None:
    """The names a loopback server answers to; any on another address, whose names are not known here."""
    return (*_LOOPBACK_NAMES, host) if is_loopback(host) else None
