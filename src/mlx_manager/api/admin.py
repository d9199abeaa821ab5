"""The pool under /admin: how models stand, loading and unloading them, their settings, and the books.

A model's name stands in the path as it is, slashes included: /admin/models/ORG/NAME/load.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec
from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from mlx_manager.api.body import read_json_body
from mlx_manager.api.json_answer import json_answer
from mlx_manager.api.state import HttpOptionsDep, ModelsDep, PoolDep
from mlx_manager.api.who import Access, AccessDep, AdminDep, admit_admin
from mlx_manager.catalog import MODEL_SETTINGS, ModelKind, model_setting
from mlx_manager.errors import ErrorInfo, InvalidRequest, ModelNotFound
from mlx_manager.ipc import EngineStats
from mlx_manager.ir import Caller
from mlx_manager.pool import Eviction, ModelPool, ModelState, ModelStatus, PoolStats, WorkerFault
from mlx_manager.storage.store import Change

router = APIRouter(prefix="/admin", tags=["pool"], dependencies=[Depends(admit_admin)])


class AdminModel(msgspec.Struct, frozen=True, kw_only=True):
    """One model. `settings` are those of its own, by name; what is missing there is the server's."""

    id: str
    state: ModelState
    kind: ModelKind
    stage: str
    fraction: float
    """While loading: 0 to 1."""
    is_default: bool
    aliases: tuple[str, ...]
    pinned: bool
    settings: dict[str, Any]
    num_in_flight: int
    num_waiting: int
    num_uses: int
    idle_s: float | None
    loaded_for_s: float | None
    """How long it has been in memory; null out of it."""
    planned_bytes: int
    """What the memory budget counts for it."""
    measured_bytes: int
    is_trimmed: bool
    """Whether its caches were given back while it is idle; its next request gets room for them first."""
    size_bytes: int
    kv_budget_bytes: int | None
    """Null out of memory."""
    path: str | None
    """How it is served: paged, batched or sequential; null out of memory."""
    worker_pid: int | None
    num_worker_deaths: int
    num_by_fault: dict[WorkerFault, int]
    """Of those, how many died, hung or leaked."""
    num_failures_in_row: int
    is_given_up: bool
    """Whether it failed so often in a row that only a load, or the end of the pause, brings it back."""
    error: ErrorInfo | None
    retry_in_s: float | None


class AdminModels(msgspec.Struct, frozen=True, kw_only=True):
    """The body of GET /admin/models."""

    models: list[AdminModel]


class Changed(msgspec.Struct, frozen=True, kw_only=True):
    """The body of a change's answer."""

    model: AdminModel
    after_next_load: tuple[str, ...]
    """Those of the changed settings that the model in memory does not follow yet."""


class AdminStats(msgspec.Struct, frozen=True, kw_only=True):
    """The body of GET /admin/stats."""

    pool: PoolStats
    engines: dict[str, EngineStats]
    """The books of the models in memory, by name."""


class Evictions(msgspec.Struct, frozen=True, kw_only=True):
    """The body of GET /admin/evictions, the last first."""

    evictions: list[Eviction]


@router.get("/models")
async def list_models(models: ModelsDep) -> Response:
    """Every model: its state, its part of the memory, its settings."""
    listed = [_render(status, models.default_model) for status in models.statuses()]
    return json_answer(AdminModels(models=listed))


@router.post("/models/{name:path}/load")
async def load_model(name: str, pool: PoolDep, access: AccessDep, admin: AdminDep) -> Response:
    """Begin to load a model; its state tells when it is there."""
    status = pool.begin_load(name)
    await access.store.note(Change(actor=admin.label, action="model.load", subject=name))
    return json_answer(_render(status, pool.default_model), 200 if status.state is ModelState.READY else 202)


@router.post("/models/{name:path}/unload")
async def unload_model(name: str, pool: PoolDep, access: AccessDep, admin: AdminDep) -> Response:
    """Unload a model: at once, or once its requests are answered, at the latest after the drain timeout."""
    status = await pool.unload(name)
    await access.store.note(Change(actor=admin.label, action="model.unload", subject=name))
    return json_answer(_render(status, pool.default_model), 202 if status.state is ModelState.DRAINING else 200)


@router.post("/models/{name:path}/pin")
async def pin_model(name: str, pool: PoolDep, access: AccessDep, admin: AdminDep) -> Response:
    """Keep a model in memory once it is there, whatever else needs room."""
    status = await _change(pool, access, admin, name, {"pinned": True})
    return json_answer(_render(status, pool.default_model))


@router.post("/models/{name:path}/unpin")
async def unpin_model(name: str, pool: PoolDep, access: AccessDep, admin: AdminDep) -> Response:
    """Let a model go when others need room."""
    status = await _change(pool, access, admin, name, {"pinned": False})
    return json_answer(_render(status, pool.default_model))


@router.patch("/models/{name:path}")
async def change_model(
    request: Request, name: str, *, pool: PoolDep, http: HttpOptionsDep, access: AccessDep, admin: AdminDep
) -> Response:
    """Change settings of one model, by name; null goes back to what config.toml says."""
    body = await read_json_body(request, http.max_body_bytes)
    try:
        values = json.loads(body)
    except ValueError as error:
        raise InvalidRequest(f"The body is not JSON: {error}.") from None
    if not isinstance(values, dict):
        raise InvalidRequest('The body has to be an object of settings: {"pinned": true}.')
    status = await _change(pool, access, admin, name, values)
    is_cold = status.state in (ModelState.COLD, ModelState.FAILED)
    late = () if is_cold else tuple(key for key in values if model_setting(key).needs_load)
    return json_answer(Changed(model=_render(status, pool.default_model), after_next_load=late))


@router.get("/models/{name:path}")
async def show_model(name: str, models: ModelsDep) -> Response:
    """One model."""
    for status in models.statuses():
        if name == status.entry.name or name in status.overrides.aliases:
            return json_answer(_render(status, models.default_model))
    raise ModelNotFound(f"There is no model {name!r}.", param="name")


@router.get("/stats")
async def show_stats(pool: PoolDep) -> Response:
    """The pool's books and those of every engine."""
    engines = {status.entry.name: status.stats for status in pool.statuses() if status.stats is not None}
    return json_answer(AdminStats(pool=pool.stats(), engines=engines))


@router.get("/evictions")
async def list_evictions(pool: PoolDep) -> Response:
    """What was unloaded or trimmed lately, and why."""
    return json_answer(Evictions(evictions=pool.evictions()))


async def _change(pool: ModelPool, access: Access, admin: Caller, name: str, values: dict[str, Any]) -> ModelStatus:
    """Change settings and record it, or neither."""
    change = Change(actor=admin.label, action="model.change", subject=name, detail=values)
    async with access.store.changing(change):
        return pool.change(name, values)


def _render(status: ModelStatus, default_model: str | None) -> AdminModel:
    entry, said, report = status.entry, status.overrides, status.report
    settings = {row.name: getattr(said, row.field) for row in MODEL_SETTINGS}
    return AdminModel(
        id=entry.name,
        state=status.state,
        kind=entry.kind,
        stage=status.stage,
        fraction=status.fraction,
        is_default=entry.name == default_model,
        aliases=said.aliases,
        pinned=said.pinned,
        # a 0 says something, and equals False
        settings={name: value for name, value in settings.items() if value not in (None, ()) and value is not False},
        num_in_flight=status.num_in_flight,
        num_waiting=status.num_waiting,
        num_uses=status.num_uses,
        idle_s=status.idle_s,
        loaded_for_s=status.loaded_for_s,
        planned_bytes=status.planned_bytes,
        measured_bytes=status.measured_bytes,
        is_trimmed=status.is_trimmed,
        size_bytes=entry.size_bytes,
        kv_budget_bytes=report.kv_budget_bytes if report else None,
        path=report.path if report else None,
        worker_pid=status.worker_pid,
        num_worker_deaths=status.num_worker_deaths,
        num_by_fault=status.num_by_fault,
        num_failures_in_row=status.num_failures_in_row,
        is_given_up=status.is_given_up,
        error=status.error,
        retry_in_s=status.retry_in_s,
    )
