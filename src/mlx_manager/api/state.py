"""What the lifespan hands to every route, and the parameter types through which routes ask for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypedDict, cast

from fastapi import Depends, Request

from mlx_manager.api.who import Access, CallerDep, answer_headers_of
from mlx_manager.errors import InvalidRequest, Unavailable
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


def _kept(name: str, *, if_none: str = "") -> Any:
    """A dependency: what the lifespan's state has by this name. Raises `Unavailable(if_none)` where that is None."""

    # a coroutine, as all of these, not a plain function: FastAPI runs those in a thread
    async def find(request: Request) -> object:
        kept: object = getattr(request.state, name)
        if kept is None:
            raise Unavailable(if_none)
        return kept

    return Depends(find)


async def _gateway(request: Request, caller: CallerDep) -> Gateway:
    """The gateway, for this request's caller: whoever answers from it has been let in."""
    wanted = ", ".join(request.headers.getlist(BACKEND_HEADER)).strip().lower()
    if wanted not in ("", "local"):
        # who means to keep a request here has to know when that is not understood
        raise InvalidRequest(
            f"The header X-Backend cannot be {wanted[:40]!r}: send local, which keeps a request on this machine, or "
            "leave it out.",
            param=BACKEND_HEADER,
        )
    is_local_only = wanted == "local"
    asker = Asker(caller=caller, is_local_only=is_local_only, notes=answer_headers_of(request))
    return cast(Gateway, request.state.gateway).on_behalf_of(asker)


async def _responses(request: Request, caller: CallerDep) -> OwnResponses:
    return OwnResponses(cast(ResponseStore, request.state.responses), caller.user_id)


async def _http_options(request: Request) -> HttpOptions:
    return cast("Callable[[], HttpOptions]", request.state.http)()


async def _uptime_s(request: Request) -> float:
    return time.monotonic() - cast(float, request.state.started_s)


async def _request_id(request: Request) -> str:
    return cast(str, request.scope[REQUEST_ID_KEY])


BACKEND_HEADER = "x-backend"
REQUEST_ID_KEY = "mlx_manager.request_id"
"""Where `RequestEdge` leaves the request's id in the ASGI scope."""
_NO_POOL = "This server keeps no models of its own: there is nothing to load or unload."
_NO_HUB = "This server keeps no models, and so has nothing to do with the model hub."

GatewayDep = Annotated[Gateway, Depends(_gateway)]
PlainGatewayDep = Annotated[Gateway, _kept("gateway")]
"""On nobody's behalf: for questions about it, not for requests."""
DeskDep = Annotated[Desk, _kept("desk")]
ToolDeskDep = Annotated[ToolDesk, _kept("tool_desk")]
LiveSettingsDep = Annotated[LiveSettings, _kept("live_settings")]
ModelsDep = Annotated[ModelDirectory, _kept("models")]
PoolDep = Annotated[ModelPool, _kept("pool", if_none=_NO_POOL)]
HubDep = Annotated[HubDesk, _kept("hub", if_none=_NO_HUB)]
BackgroundDep = Annotated[BackgroundWork, _kept("background")]
ResponsesDep = Annotated[OwnResponses, Depends(_responses)]
MetricsDep = Annotated[Metrics, _kept("metrics")]
SpansDep = Annotated[SpanReader, _kept("spans")]
AuditDep = Annotated[AuditLog, _kept("audit")]
AlertsDep = Annotated[AlertWatch, _kept("alerts")]
HttpOptionsDep = Annotated[HttpOptions, Depends(_http_options)]
UptimeDep = Annotated[float, Depends(_uptime_s)]
RequestIdDep = Annotated[str, Depends(_request_id)]
