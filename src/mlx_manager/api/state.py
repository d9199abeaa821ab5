"""What the lifespan hands to every route, and the parameter types through which routes ask for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, TypedDict, cast

from fastapi import Depends, Request

from mlx_manager.api.who import Access, CallerDep, answer_headers_of
from mlx_manager.errors import Unavailable
from mlx_manager.gateway import Asker, BackgroundWork, Gateway, LiveSettings, OwnResponses, ResponseStore, ToolDesk
from mlx_manager.gateway.desk import Desk
from mlx_manager.hub.desk import HubDesk
from mlx_manager.observability.alerts import AlertWatch
from mlx_manager.observability.metrics import Metrics
from mlx_manager.observability.span_store import SpanReader
from mlx_manager.pool import ModelDirectory, ModelPool
from mlx_manager.storage.audit import AuditLog


@dataclass(frozen=True)
class HttpOptions:
    """Plain values for the routes."""

    version: str
    max_body_bytes: int
    keepalive_s: float
    """Silence after which a stream sends a comment."""
    start_wait_s: float = 2.0
    """How long a stream waits for its first text before its headers go out; until then an error has its own status."""

    @property
    def fingerprint(self) -> str:
        """`system_fingerprint` of the answers."""
        return f"mlx-manager-{self.version}"


class ApiState(TypedDict):
    """The lifespan's state, as far as routes may see it."""

    gateway: Gateway
    models: ModelDirectory
    pool: ModelPool | None
    """The same as `models`, where models can be loaded and unloaded."""
    hub: HubDesk | None
    """None on a server that has no models of its own."""
    responses: ResponseStore
    background: BackgroundWork
    metrics: Metrics
    spans: SpanReader
    audit: AuditLog
    alerts: AlertWatch
    access: Access
    desk: Desk
    tool_desk: ToolDesk
    live_settings: LiveSettings
    http: Callable[[], HttpOptions]
    """As they hold now."""
    started_s: float
    """On the monotonic clock."""


# coroutines, not plain functions: FastAPI runs those in a thread


async def _gateway(request: Request, caller: CallerDep) -> Gateway:
    """The gateway, for this request's caller: whoever answers from it has been let in."""
    is_local_only = request.headers.get("x-backend", "").strip().lower() == "local"
    asker = Asker(caller=caller, is_local_only=is_local_only, notes=answer_headers_of(request))
    return cast(Gateway, request.state.gateway).on_behalf_of(asker)


async def _plain_gateway(request: Request) -> Gateway:
    """On nobody's behalf: for questions about it, not for requests."""
    return cast(Gateway, request.state.gateway)


async def _desk(request: Request) -> Desk:
    return cast(Desk, request.state.desk)


async def _tool_desk(request: Request) -> ToolDesk:
    return cast(ToolDesk, request.state.tool_desk)


async def _live_settings(request: Request) -> LiveSettings:
    return cast(LiveSettings, request.state.live_settings)


async def _models(request: Request) -> ModelDirectory:
    return cast(ModelDirectory, request.state.models)


async def _pool(request: Request) -> ModelPool:
    pool = cast("ModelPool | None", request.state.pool)
    if pool is None:
        raise Unavailable("This server keeps no models of its own: there is nothing to load or unload.")
    return pool


async def _hub(request: Request) -> HubDesk:
    hub = cast("HubDesk | None", request.state.hub)
    if hub is None:
        raise Unavailable("This server keeps no models, and so has nothing to do with the model hub.")
    return hub


async def _responses(request: Request, caller: CallerDep) -> OwnResponses:
    return OwnResponses(cast(ResponseStore, request.state.responses), caller.user_id)


async def _background(request: Request) -> BackgroundWork:
    return cast(BackgroundWork, request.state.background)


async def _metrics(request: Request) -> Metrics:
    return cast(Metrics, request.state.metrics)


async def _spans(request: Request) -> SpanReader:
    return cast(SpanReader, request.state.spans)


async def _audit(request: Request) -> AuditLog:
    return cast(AuditLog, request.state.audit)


async def _alerts(request: Request) -> AlertWatch:
    return cast(AlertWatch, request.state.alerts)


async def _http_options(request: Request) -> HttpOptions:
    return cast("Callable[[], HttpOptions]", request.state.http)()


async def _uptime_s(request: Request) -> float:
    return time.monotonic() - cast(float, request.state.started_s)


async def _request_id(request: Request) -> str:
    return cast(str, request.scope[REQUEST_ID_KEY])


REQUEST_ID_KEY = "mlx_manager.request_id"
"""Where `RequestEdge` leaves the request's id in the ASGI scope."""

GatewayDep = Annotated[Gateway, Depends(_gateway)]
PlainGatewayDep = Annotated[Gateway, Depends(_plain_gateway)]
DeskDep = Annotated[Desk, Depends(_desk)]
ToolDeskDep = Annotated[ToolDesk, Depends(_tool_desk)]
LiveSettingsDep = Annotated[LiveSettings, Depends(_live_settings)]
ModelsDep = Annotated[ModelDirectory, Depends(_models)]
PoolDep = Annotated[ModelPool, Depends(_pool)]
HubDep = Annotated[HubDesk, Depends(_hub)]
BackgroundDep = Annotated[BackgroundWork, Depends(_background)]
ResponsesDep = Annotated[OwnResponses, Depends(_responses)]
MetricsDep = Annotated[Metrics, Depends(_metrics)]
SpansDep = Annotated[SpanReader, Depends(_spans)]
AuditDep = Annotated[AuditLog, Depends(_audit)]
AlertsDep = Annotated[AlertWatch, Depends(_alerts)]
HttpOptionsDep = Annotated[HttpOptions, Depends(_http_options)]
UptimeDep = Annotated[float, Depends(_uptime_s)]
RequestIdDep = Annotated[str, Depends(_request_id)]
