"""`create_app`: the app is a value that can be made twice; one lifespan builds and closes all that lives long."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

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
from mlx_manager.app.access import is_loopback, open_responses
from mlx_manager.app.parts import PartsFactory, local_parts
from mlx_manager.app.reload import Reload, on_hangup
from mlx_manager.app.running import Running, build_console, build_gateway, build_metrics, open_running, recall_requests
from mlx_manager.catalog.settings import Settings
from mlx_manager.gateway import BackgroundWork, Gateway
from mlx_manager.observability.metrics import Metrics
from mlx_manager.observability.span_store import SpanReader
from mlx_manager.ui import Console, console_routes

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
        # the work over the running parts ends before them, what began last first: no more hangups, no more answers,
        # then what still waits for one
        async with open_running(settings, parts) as running, AsyncExitStack() as work:
            spans = SpanReader(settings.home / "state")
            recent = await recall_requests(running, settings)
            metrics = build_metrics(running)
            gateway = build_gateway(running, metrics, recent)
            console = build_console(
                running,
                gateway,
                settings=settings,
                recent=recent,
                spans=spans,
                find_api_paths=lambda: app.openapi()["paths"],
            )
            work.push_async_callback(console.close)
            background = BackgroundWork()
            work.push_async_callback(background.close)
            work.callback(gateway.close)
            if reread is not None:
                work.enter_context(on_hangup(Reload(running.live, reread)))
            yield _state(running, gateway, console=console, background=background, metrics=metrics, spans=spans)

    return lifespan


def _state(
    running: Running,
    gateway: Gateway,
    *,
    console: Console,
    background: BackgroundWork,
    metrics: Metrics,
    spans: SpanReader,
) -> AppState:
    opened, live = running.opened, running.live
    return AppState(
        console=console,
        gateway=gateway,
        models=running.parts.models,
        pool=running.parts.pool,
        hub=running.parts.hub,
        responses=open_responses(live.current, opened.access.store.database),
        background=background,
        metrics=metrics,
        audit=opened.audit,
        alerts=running.alerts,
        spans=spans,
        access=opened.access,
        desk=running.routing.desk,
        tool_desk=running.tooling.desk,
        live_settings=live,
        http=lambda: HttpOptions(
            version=__version__,
            max_body_bytes=live.current.max_body_bytes,
            keepalive_s=live.current.keepalive_s,
        ),
        started_s=time.monotonic(),
    )


def _allowed_hosts(host: str) -> tuple[str, ...] | None:
    """The names a loopback server answers to; any on another address, whose names are not known here."""
    return (*_LOOPBACK_NAMES, host) if is_loopback(host) else None
