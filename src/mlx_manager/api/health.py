"""GET /health answers as soon as the gateway is up; GET /ready is 200 once the default model can answer."""

from __future__ import annotations

from typing import Literal

import msgspec
from fastapi import APIRouter
from starlette.responses import Response

from mlx_manager.api.json_answer import json_answer
from mlx_manager.api.state import HttpOptionsDep, ModelsDep, UptimeDep
from mlx_manager.api.who import PublicDep
from mlx_manager.errors import ErrorInfo
from mlx_manager.ipc import EngineStats
from mlx_manager.pool import ModelDirectory, ModelState, ModelStatus

router = APIRouter(tags=["health"])


class ModelHealth(msgspec.Struct, frozen=True, kw_only=True):
    """One model's state. `stage` and `fraction` (0 to 1) say how far a load has come."""

    id: str
    state: ModelState
    stage: str
    fraction: float
    worker_pid: int | None
    num_worker_deaths: int
    stats: EngineStats | None
    error: ErrorInfo | None


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """The body of GET /health."""

    status: Literal["ok"] = "ok"
    """The gateway's own: it answers. How the models stand is in `models`."""
    version: str
    uptime_s: float
    default_model: str | None
    models: list[ModelHealth]


class Readiness(msgspec.Struct, frozen=True, kw_only=True):
    """The body of GET /ready."""

    ready: bool
    model: str | None
    waiting_for: str | None
    """What is missing, for people; null when ready."""


@router.get("/health")
@router.head("/health", include_in_schema=False)
async def health(models: ModelsDep, http: HttpOptionsDep, uptime_s: UptimeDep, _: PublicDep) -> Response:
    """How the gateway and its models are."""
    body = Health(
        version=http.version,
        uptime_s=round(uptime_s, 3),
        default_model=models.default_model,
        models=[_model_health(status) for status in models.statuses()],
    )
    return json_answer(body)


@router.get("/ready")
@router.head("/ready", include_in_schema=False)
async def ready(models: ModelsDep, _: PublicDep) -> Response:
    """Whether a request to the default model would be answered without waiting for a load."""
    waiting_for = _missing(models)
    body = Readiness(ready=waiting_for is None, model=models.default_model, waiting_for=waiting_for)
    headers = {} if body.ready else {"retry-after": "1"}
    return json_answer(body, 200 if body.ready else 503, headers=headers)


def _missing(models: ModelDirectory) -> str | None:
    name = models.default_model
    if name is None:
        return "a model: none is configured"
    status = next((status for status in models.statuses() if status.entry.name == name), None)
    if status is None:
        return f"the model {name}: it is not on this machine"
    match status.state:
        case ModelState.READY:
            return None
        case ModelState.LOADING:
            return f"the model {name}: {status.stage or 'loading'} ({status.fraction:.0%})"
        case ModelState.FAILED:
            return f"the model {name}: {status.error.message if status.error else 'its load failed'}"
        case ModelState.COLD | ModelState.DRAINING:
            return f"the model {name}: it is {status.state.value}"


def _model_health(status: ModelStatus) -> ModelHealth:
    return ModelHealth(
        id=status.entry.name,
        state=status.state,
        stage=status.stage,
        fraction=status.fraction,
        worker_pid=status.worker_pid,
        num_worker_deaths=status.num_worker_deaths,
        stats=status.stats,
        error=status.error,
    )
