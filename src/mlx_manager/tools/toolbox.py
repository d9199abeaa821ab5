"""The tool servers that are on, each connected when it is first needed, and let go when its settings change."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol, cast

import msgspec

from mlx_manager.catalog import BUILT_IN_TOOL_SERVERS, ToolServer, ToolServerSecret
from mlx_manager.errors import NotFound, Unavailable
from mlx_manager.ir import Tool

_MOST_TOOLS = 128
_MOST_NAME_CHARS = 64


class ToolServerFailed(Unavailable):
    """A tool server cannot be started or reached, or does not do what it should."""

    status = 502
    code = "tool_server_failed"


class ToolReply(msgspec.Struct, frozen=True, kw_only=True):
    """What a call gave, as text for the model."""

    text: str
    is_error: bool = False


class ServerTool(msgspec.Struct, frozen=True, kw_only=True):
    """A tool as its server describes it. `parameters` is the text of a JSON schema."""

    name: str
    description: str
    parameters: str


@dataclass(frozen=True)
class OfferedTool:
    """A tool of a server, under the name that the model knows it by: its own, where no other has that."""

    server: str
    name: str
    tool: Tool


class ServerConnection(Protocol):
    """A connection to one tool server."""

    async def tools(self) -> Sequence[ServerTool]:
        """What it offers. Raises `ToolServerFailed`."""
        ...

    async def call(self, name: str, arguments: Mapping[str, Any]) -> ToolReply:
        """Call a tool. Raises `ToolServerFailed`; what the tool itself says went wrong is a reply."""
        ...

    async def close(self) -> None:
        """End it, and the process that it started."""
        ...


@dataclass(frozen=True)
class _Entry:
    server: ToolServer
    sealed: str | None
    """What its connection was made with: another ciphertext is another secret."""
    connection: ServerConnection


class Toolbox:
    """Inside one event loop. Servers are named; the built-in ones are always there."""

    def __init__(self) -> None:
        self._servers: dict[str, ToolServer] = {}
        self._sealed_of: Callable[[str], str | None] = lambda _: None
        self._unseal: Callable[[str | None], ToolServerSecret] = lambda _: ToolServerSecret()
        self._entries: dict[str, _Entry] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self.update((), self._sealed_of, self._unseal)

    @property
    def servers(self) -> Sequence[ToolServer]:
        """Those that can be used, the built-in ones first."""
        return tuple(self._servers.values())

    def update(
        self,
        servers: Sequence[ToolServer],
        sealed_of: Callable[[str], str | None],
        unseal: Callable[[str | None], ToolServerSecret],
    ) -> None:
        """From now on these servers can be used, as far as they are on."""
        self._servers = {server.name: server for server in (*BUILT_IN_TOOL_SERVERS, *servers) if server.is_on}
        self._sealed_of, self._unseal = sealed_of, unseal
        for name, entry in list(self._entries.items()):
            if self._servers.get(name) != entry.server or sealed_of(name) != entry.sealed:
                del self._entries[name]
                self._close_later(entry.connection)

    async def offer(self, names: Sequence[str]) -> list[OfferedTool]:
        """The tools of these servers. Raises `NotFound` and `ToolServerFailed`."""
        connections = [(name, await self._connection(name)) for name in dict.fromkeys(names)]
        listed = await asyncio.gather(*(connection.tools() for _, connection in connections))
        found = [(name, tool) for (name, _), tools in zip(connections, listed, strict=True) for tool in tools]
        if len(found) > _MOST_TOOLS:
            raise ToolServerFailed(
                f"Together they have {len(found)} tools, and a model is given {_MOST_TOOLS} at most."
            )
        times = [tool.name for _, tool in found]
        return [_offer(server, tool, is_unique=times.count(tool.name) == 1) for server, tool in found]

    async def call(self, server: str, name: str, arguments: Mapping[str, Any]) -> ToolReply:
        """Call a tool of a server. Raises `NotFound` and `ToolServerFailed`."""
        return await (await self._connection(server)).call(name, arguments)

    async def close(self) -> None:
        """End all connections, and the processes that they started."""
        connections = [entry.connection for entry in self._entries.values()]
        self._entries.clear()
        await asyncio.gather(*(connection.close() for connection in connections), *self._closing)

    async def _connection(self, name: str) -> ServerConnection:
        if name not in self._servers:
            raise NotFound(f"There is no tool server {name!r}, or it is off: take it out of the conversation's tools.")
        # most of a second of imports, off the event loop
        module = await asyncio.to_thread(import_module, "mlx_manager.tools.connection")
        server = self._servers.get(name)
        if server is None:
            raise NotFound(f"The tool server {name!r} is gone.")
        entry = self._entries.get(name)
        if entry is None:
            sealed = self._sealed_of(name)
            connection = cast(ServerConnection, module.Connection(server, self._unseal(sealed)))
            entry = self._entries[name] = _Entry(server, sealed, connection)
        return entry.connection

    def _close_later(self, connection: ServerConnection) -> None:
        task = asyncio.create_task(connection.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


async def try_server(server: ToolServer, secret: ToolServerSecret) -> Sequence[ServerTool]:
    """The tools of a server that nobody uses yet. Raises `ToolServerFailed`."""
    module = await asyncio.to_thread(import_module, "mlx_manager.tools.connection")
    connection = cast(ServerConnection, module.Connection(server, secret))
    try:
        return await connection.tools()
    finally:
        await connection.close()


def _offer(server: str, tool: ServerTool, *, is_unique: bool) -> OfferedTool:
    name = tool.name if is_unique else f"{server}__{tool.name}"
    # what every dialect takes
    name = "".join(char if char.isascii() and (char.isalnum() or char in "_-") else "_" for char in name)
    return OfferedTool(
        server, tool.name, Tool(name=name[:_MOST_NAME_CHARS], description=tool.description, parameters=tool.parameters)
    )
