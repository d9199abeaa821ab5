"""`create_app`: the app is a value that can be made twice; one lifespan builds and closes all that lives long."""

from __future__ import annotations

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
from mlx_manager.app.access import is_loopback, open_access, open_responses
from mlx_manager.app.following import Followers
from mlx_manager.app.observing import open_tracer, watch_alerts
from mlx_manager.app.parts import PartsFactory, local_parts
from mlx_manager.app.reload import Reload, on_hangup
from mlx_manager.app.routing import open_routing
from mlx_manager.app.tooling import open_tooling
from mlx_manager.catalog import PrefixIsolation
from mlx_manager.catalog.settings import Settings
from mlx_manager.gateway import (
    BackgroundWork,
    Gateway,
    LiveSettings,
    PromptLimits,
    find_offers,
    log_record,
)
from mlx_manager.observability.log_tail import LogTail
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
            LogTail().listening() as log,
            open_access(settings) as opened,
            nullcontext(LiveSettings(settings, opened.access.store)) as live,
            open_tracer(live.current) as tracer,
            parts(live.current) as built,
            watch_alerts(live.current, built.models, built.pool) as alerts,
            open_routing(live, opened, built.backends, built.models) as routing,
            open_tooling(opened) as tooling,
        ):
            pool = built.pool
            spans = SpanReader(settings.home / "state")
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
                limits=PromptLimits(live.current.max_messages, live.current.max_tools),
                isolation=PrefixIsolation(live.current.prefix_isolation),
            )
            console = Console(
                gateway=gateway,
                models=built.models,
                pool=pool,
                hub=built.hub,
                door=opened.access.door,
                people=opened.access.people,
                keys=opened.access.keys,
                desk=routing.desk,
                find_configuration=lambda: opened.access.store.current,
                live_settings=live,
                session_cookie=SESSION_COOKIE,
                recent=recent,
                audit=opened.audit,
                log=log,
                spans=spans,
                version=__version__,
                home=settings.home,
                conversations=ConversationStore(opened.access.store.database),
                toolbox=tooling.toolbox,
                tool_desk=tooling.desk,
                find_offers=partial(find_offers, gateway, lambda: opened.access.store.current),
                find_alerts=lambda: [*alerts.firing.values(), *reversed(alerts.past)],
                find_changes=lambda most: opened.access.store.changes(limit=most),
                note_change=opened.access.store.note,
                find_api_paths=lambda: app.openapi()["paths"],
            )
            background = BackgroundWork()
            followers = Followers(built, opened.audit, alerts, tracer)
            if live.current is not settings:
                followers.follow(live.current)
            live.subscribe(followers.follow)
            hangups = nullcontext() if reread is None else on_hangup(Reload(live, reread))
            state = AppState(
                console=console,
                gateway=gateway,
                models=built.models,
                pool=built.pool,
                hub=built.hub,
                responses=open_responses(live.current, opened.access.store.database),
                background=background,
                metrics=metrics,
                audit=opened.audit,
                alerts=alerts,
                spans=spans,
                access=opened.access,
                desk=routing.desk,
                tool_desk=tooling.desk,
                live_settings=live,
                http=lambda: HttpOptions(
                    version=__version__,
                    max_body_bytes=live.current.max_body_bytes,
                    keepalive_s=live.current.keepalive_s,
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
