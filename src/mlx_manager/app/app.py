"""`create_app`: the app is a value that can be made twice; one lifespan builds and closes all that lives long."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from mlx_manager import __version__
from mlx_manager.api import (
    EXCEPTION_HANDLERS,
    ApiState,
    HttpOptions,
    RequestEdge,
    admin_router,
    anthropic_router,
    auth_router,
    health_router,
    hub_router,
    metrics_router,
    models_router,
    openai_router,
    people_router,
    tokens_router,
)
from mlx_manager.app.access import is_loopback, open_access
from mlx_manager.app.parts import PartsFactory, local_parts
from mlx_manager.catalog.settings import Settings
from mlx_manager.gateway import Gateway, MemoryResponses, log_record
from mlx_manager.observability.metrics import Metrics

_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")


def create_app(settings: Settings, *, parts: PartsFactory = local_parts) -> FastAPI:
    """The whole server as an ASGI app; nothing is started before its lifespan is. `parts` is what answers requests."""
    app = FastAPI(
        title="MLX Manager",
        version=__version__,
        lifespan=_lifespan(settings, parts),
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
    app.include_router(people_router)
    app.include_router(auth_router)
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


def _lifespan(settings: Settings, parts: PartsFactory) -> Callable[[FastAPI], AbstractAsyncContextManager[ApiState]]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[ApiState]:
        async with open_access(settings) as opened, parts(settings) as built:
            pool = built.pool
            metrics = Metrics(__version__, built.models.statuses, lambda: None if pool is None else pool.stats())
            gateway = Gateway(built.backends, account=[log_record, metrics.count, opened.count])
            yield ApiState(
                gateway=gateway,
                models=built.models,
                pool=built.pool,
                hub=built.hub,
                responses=MemoryResponses(),
                metrics=metrics,
                access=opened.access,
                http=HttpOptions(
                    version=__version__, max_body_bytes=settings.max_body_bytes, keepalive_s=settings.keepalive_s
                ),
                started_s=time.monotonic(),
            )
            gateway.close()

    return lifespan


def _allowed_hosts(host: str) -> tuple[str, ...] | None:
    """The names a loopback server answers to; any on another address, whose names are not known here."""
    return (*_LOOPBACK_NAMES, host) if is_loopback(host) else None
