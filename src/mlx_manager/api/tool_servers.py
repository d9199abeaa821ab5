"""Tool servers under /admin: the MCP servers whose tools models may call in the console. Secrets never come out."""

from __future__ import annotations

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from mlx_manager.api.body import read_struct
from mlx_manager.api.state import HttpOptionsDep, ToolDeskDep
from mlx_manager.api.who import AdminDep
from mlx_manager.catalog import BUILT_IN_TOOL_SERVERS, ToolServer, ToolServerKind, ToolServerSecret

router = APIRouter(prefix="/admin/tool-servers", tags=["tool servers"])


class NewToolServer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of POST /admin/tool-servers."""

    name: str
    kind: ToolServerKind
    command: tuple[str, ...] = ()
    url: str = ""
    variables: dict[str, str] = {}
    headers: dict[str, str] = {}
    is_on: bool = True
    allows_private_address: bool = False
    timeout_s: float = 30.0


class ToolServerChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of PATCH /admin/tool-servers/{name}: what is not named stays."""

    command: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET
    url: str | msgspec.UnsetType = msgspec.UNSET
    variables: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    headers: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    is_on: bool | msgspec.UnsetType = msgspec.UNSET
    allows_private_address: bool | msgspec.UnsetType = msgspec.UNSET
    timeout_s: float | msgspec.UnsetType = msgspec.UNSET


class ToolServerList(msgspec.Struct, frozen=True, kw_only=True):
    """The body of GET /admin/tool-servers: those that ship first."""

    tool_servers: list[ToolServer]


@router.get("")
async def list_tool_servers(desk: ToolDeskDep, _: AdminDep) -> Response:
    """Every tool server, without its secrets."""
    return _answer(ToolServerList(tool_servers=[*BUILT_IN_TOOL_SERVERS, *desk.servers]))


@router.post("")
async def add_tool_server(request: Request, desk: ToolDeskDep, http: HttpOptionsDep, admin: AdminDep) -> Response:
    """Add a tool server."""
    body = await read_struct(request, http.max_body_bytes, NewToolServer)
    server = ToolServer(
        id=0,
        name=body.name,
        kind=body.kind,
        command=body.command,
        url=body.url,
        is_on=body.is_on,
        allows_private_address=body.allows_private_address,
        timeout_s=body.timeout_s,
    )
    secret = ToolServerSecret(variables=body.variables, headers=body.headers)
    return _answer(await desk.add(server, secret, actor=admin.label), 201)


@router.patch("/{name}")
async def change_tool_server(
    name: str, request: Request, desk: ToolDeskDep, http: HttpOptionsDep, admin: AdminDep
) -> Response:
    """Change a tool server; variables and headers replace those that are kept."""
    body = await read_struct(request, http.max_body_bytes, ToolServerChange)
    changed = {field: value for field, value in msgspec.structs.asdict(body).items() if value is not msgspec.UNSET}
    kept = msgspec.structs.asdict(desk.secret_of(name))
    secret = ToolServerSecret(**{field: changed.pop(field, value) for field, value in kept.items()})
    server = msgspec.structs.replace(desk.find(name), **changed)
    return _answer(await desk.change(server, secret, actor=admin.label))


@router.delete("/{name}")
async def remove_tool_server(name: str, desk: ToolDeskDep, admin: AdminDep) -> Response:
    """Delete a tool server."""
    await desk.remove(name, actor=admin.label)
    return Response(status_code=204)


@router.post("/{name}/tools")
async def list_tools(name: str, desk: ToolDeskDep, _: AdminDep) -> Response:
    """Start or reach a tool server, and list its tools."""
    return _answer(list(await desk.try_out(desk.find(name), desk.secret_of(name))))


def _answer(body: msgspec.Struct | list[object], status: int = 200) -> Response:
    return Response(
        msgspec.json.encode(body), status, headers={"cache-control": "no-store"}, media_type="application/json"
    )
