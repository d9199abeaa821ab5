"""Routes under /admin, what would become of a request by them, and the settings that can be changed live."""

from __future__ import annotations

import json

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from mlx_manager.api.body import given_fields, read_json_body, read_struct
from mlx_manager.api.json_answer import json_answer, unkept_answer
from mlx_manager.api.state import DeskDep, HttpOptionsDep, LiveSettingsDep, PlainGatewayDep
from mlx_manager.api.who import AccessDep, AdminDep
from mlx_manager.catalog import (
    PatternKind,
    Route,
    RouteConditions,
    RouteTarget,
    Spill,
    TargetOrder,
)
from mlx_manager.errors import InvalidRequest
from mlx_manager.gateway import Asker, Traits

router = APIRouter(prefix="/admin", tags=["routes"])


class NewRoute(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of POST /admin/routes."""

    name: str
    pattern: str
    targets: tuple[RouteTarget, ...]
    pattern_kind: PatternKind = PatternKind.EXACT
    position: int = 0
    """0: behind all others."""
    conditions: RouteConditions = RouteConditions()
    spill: Spill = Spill()
    order: TargetOrder = TargetOrder.LISTED
    is_on: bool = True


class RouteChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of PATCH /admin/routes/{name}: what is not named stays."""

    pattern: str | msgspec.UnsetType = msgspec.UNSET
    targets: tuple[RouteTarget, ...] | msgspec.UnsetType = msgspec.UNSET
    pattern_kind: PatternKind | msgspec.UnsetType = msgspec.UNSET
    position: int | msgspec.UnsetType = msgspec.UNSET
    conditions: RouteConditions | msgspec.UnsetType = msgspec.UNSET
    spill: Spill | msgspec.UnsetType = msgspec.UNSET
    order: TargetOrder | msgspec.UnsetType = msgspec.UNSET
    is_on: bool | msgspec.UnsetType = msgspec.UNSET


class RouteQuestion(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of POST /admin/routes/test: a request, as far as routes look at it."""

    model: str
    num_tokens: int = 0
    has_images: bool = False
    needs_tools: bool = False
    user: str | None = None
    """Who asks: an account, by name."""
    key: str | None = None
    """The API key that is shown: USER/NAME, or the name of one of `user`'s."""
    is_local_only: bool = False


class PlannedTarget(msgspec.Struct, frozen=True, kw_only=True):
    """One target of a plan."""

    backend: str
    model: str
    is_local: bool
    has_model: bool | None
    """Whether this machine has the model; null of a provider's."""
    breaker: str
    """closed, open or half_open."""


class RouteExplanation(msgspec.Struct, frozen=True, kw_only=True):
    """What would become of the request."""

    route: str | None
    targets: list[PlannedTarget]
    """In the order in which they would be asked."""
    steps: tuple[str, ...]
    """How it came about."""


class RouteList(msgspec.Struct, frozen=True, kw_only=True):
    """The body of GET /admin/routes, in the order in which they are looked at."""

    routes: list[Route]


@router.get("/routes")
async def list_routes(access: AccessDep, _: AdminDep) -> Response:
    """Every route, in order."""
    return unkept_answer(RouteList(routes=list(access.store.current.routes)))


@router.post("/routes")
async def add_route(request: Request, desk: DeskDep, http: HttpOptionsDep, admin: AdminDep) -> Response:
    """Add a route."""
    body = await read_struct(request, http.max_body_bytes, NewRoute)
    return unkept_answer(await desk.add_route(Route(id=0, **msgspec.structs.asdict(body)), actor=admin.label), 201)


@router.post("/routes/test")
async def explain_route(
    request: Request, gateway: PlainGatewayDep, access: AccessDep, http: HttpOptionsDep, _: AdminDep
) -> Response:
    """Who would answer a request, and why; nobody is asked."""
    body = await read_struct(request, http.max_body_bytes, RouteQuestion)
    caller = access.door.stand_in(body.user, body.key)
    traits = Traits(body.num_tokens, body.has_images, body.needs_tools, caller.user_name, caller.key_label)
    asking = gateway.on_behalf_of(Asker(caller=caller, is_local_only=body.is_local_only))
    plan, breakers = asking.explain(body.model, traits)
    missing = gateway.missing(plan)
    targets = [
        PlannedTarget(
            backend=target.backend.name,
            model=target.model,
            is_local=target.remote is None,
            has_model=target.model not in missing if target.remote is None else None,
            breaker=breakers[target.label].value,
        )
        for target in plan.targets
    ]
    return unkept_answer(
        RouteExplanation(route=plan.route.name if plan.route else None, targets=targets, steps=plan.steps)
    )


@router.patch("/routes/{name}")
async def change_route(name: str, request: Request, desk: DeskDep, http: HttpOptionsDep, admin: AdminDep) -> Response:
    """Change a route."""
    values = given_fields(await read_struct(request, http.max_body_bytes, RouteChange))
    return unkept_answer(await desk.change_route(name, values, actor=admin.label))


@router.delete("/routes/{name}")
async def remove_route(name: str, desk: DeskDep, admin: AdminDep) -> Response:
    """Delete a route."""
    await desk.remove_route(name, actor=admin.label)
    return Response(status_code=204)


@router.get("/settings")
async def show_settings(live: LiveSettingsDep, _: AdminDep) -> Response:
    """The settings that can be changed while the server runs, as they were said last."""
    return json_answer(live.values())


@router.patch("/settings")
async def change_settings(request: Request, live: LiveSettingsDep, http: HttpOptionsDep, admin: AdminDep) -> Response:
    """Change settings by name; null goes back to what the server was started with."""
    try:
        values = json.loads(await read_json_body(request, http.max_body_bytes))
    except ValueError as error:
        raise InvalidRequest(f"The body is not JSON: {error}.") from None
    if not isinstance(values, dict):
        raise InvalidRequest('The body has to be an object of settings: {"use_cloud": false}.')
    await live.change(values, actor=admin.label)
    return json_answer(live.values())
