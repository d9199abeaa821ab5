"""Tool servers under /admin: the MCP servers whose tools models may call in the console. Secrets never come out."""

from __future__ import annotations

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from mlx_manager.api.body import given_fields, read_struct, take_fields
from mlx_manager.api.json_answer import unkept_answer
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
    return unkept_answer(ToolServerList(tool_servers=[*BUILT_IN_TOOL_SERVERS, *desk.servers]))


@router.post("")
async def add_tool_server(request: Request, desk: ToolDeskDep, http: HttpOptionsDep, admin: AdminDep) -> Response:
    """Add a tool server."""
    fields = msgspec.structs.asdict(await read_struct(request, http.max_body_bytes, NewToolServer))
    secret = take_fields(fields, ToolServerSecret)
    return unkept_answer(await desk.add(ToolServer(id=0, **fields), secret, actor=admin.label), 201)


@router.patch("/{name}")
async def change_tool_server(
    name: str, request: Request, desk: ToolDeskDep, http: HttpOptionsDep, admin: AdminDep
) -> Response:
    """Change a tool server; variables and headers replace those that are kept."""
    change = await read_struct(request, http.max_body_bytes, ToolServerChange)
    fields = msgspec.structs.asdict(desk.secret_of(name)) | given_fields(change)
    secret = take_fields(fields, ToolServerSecret)
    server = msgspec.structs.replace(desk.find(name), **fields)
    return unkept_answer(await desk.change(server, secret, actor=admin.label))


@router.delete("/{name}")
async def remove_tool_server(name: str, desk: ToolDeskDep, admin: AdminDep) -> Response:
    """Delete a tool server."""
    await desk.remove(name, actor=admin.label)
    return Response(status_code=204)


@router.post("/{name}/tools")
async def list_tools(name: str, desk: ToolDeskDep, _: AdminDep) -> Response:
    """Start or reach a tool server, and list its tools."""
    return unkept_answer(list(await desk.try_out(desk.find(name), desk.secret_of(name))))
