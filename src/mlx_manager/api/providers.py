"""Providers under /admin. A provider's key goes in and never comes out."""

from __future__ import annotations

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from mlx_manager.api.body import given_fields, read_struct, take_fields
from mlx_manager.api.json_answer import unkept_answer
from mlx_manager.api.state import DeskDep, HttpOptionsDep
from mlx_manager.api.who import AccessDep, AdminDep
from mlx_manager.catalog import Price, Provider, ProviderKind, ProviderSecret, Timeouts

router = APIRouter(prefix="/admin", tags=["providers"])


class NewProvider(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of POST /admin/providers."""

    name: str
    kind: ProviderKind
    base_url: str = ""
    """Empty: the kind's own, where it has one."""
    key: str | None = None
    headers: dict[str, str] = {}
    is_on: bool = True
    allows_private_address: bool = False
    max_retries: int = 2
    timeouts: Timeouts = Timeouts()
    prices: dict[str, Price] = {}


class ProviderChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The body of PATCH /admin/providers/{name}: what is not named stays."""

    base_url: str | msgspec.UnsetType = msgspec.UNSET
    key: str | msgspec.UnsetType | None = msgspec.UNSET
    headers: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    is_on: bool | msgspec.UnsetType = msgspec.UNSET
    allows_private_address: bool | msgspec.UnsetType = msgspec.UNSET
    max_retries: int | msgspec.UnsetType = msgspec.UNSET
    timeouts: Timeouts | msgspec.UnsetType = msgspec.UNSET
    prices: dict[str, Price] | msgspec.UnsetType = msgspec.UNSET


class ProviderList(msgspec.Struct, frozen=True, kw_only=True):
    """The body of GET /admin/providers."""

    providers: list[Provider]


@router.get("/providers")
async def list_providers(access: AccessDep, _: AdminDep) -> Response:
    """Every provider, without its key."""
    return unkept_answer(ProviderList(providers=list(access.store.current.providers)))


@router.post("/providers")
async def add_provider(request: Request, desk: DeskDep, http: HttpOptionsDep, admin: AdminDep) -> Response:
    """Add a provider."""
    fields = msgspec.structs.asdict(await read_struct(request, http.max_body_bytes, NewProvider))
    secret = take_fields(fields, ProviderSecret)
    return unkept_answer(await desk.add_provider(Provider(id=0, **fields), secret, actor=admin.label), 201)


@router.get("/providers/{name}")
async def show_provider(name: str, desk: DeskDep, _: AdminDep) -> Response:
    """One provider."""
    return unkept_answer(desk.provider(name))


@router.patch("/providers/{name}")
async def change_provider(
    name: str, request: Request, desk: DeskDep, http: HttpOptionsDep, admin: AdminDep
) -> Response:
    """Change a provider; null forgets its key."""
    values = given_fields(await read_struct(request, http.max_body_bytes, ProviderChange))
    key = values.pop("key", msgspec.UNSET)
    return unkept_answer(await desk.change_provider(name, values, key=key, actor=admin.label))


@router.delete("/providers/{name}")
async def remove_provider(name: str, desk: DeskDep, admin: AdminDep) -> Response:
    """Delete a provider that no route leads to."""
    await desk.remove_provider(name, actor=admin.label)
    return Response(status_code=204)


@router.post("/providers/{name}/models")
async def fetch_models(name: str, desk: DeskDep, admin: AdminDep) -> Response:
    """Ask the provider which models it has, and keep the list."""
    return unkept_answer(await desk.fetch_models(name, actor=admin.label))
