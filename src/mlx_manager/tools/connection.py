"""A connection to one MCP server by the official SDK: a process of this machine, an address, or one that ships."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, TextIO

import httpx2

# the SDK loads it at the first result that has a schema, and would hold up the event loop
import jsonschema  # noqa: F401
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.types import CONNECTION_CLOSED, REQUEST_TIMEOUT

from mlx_manager.catalog import ToolServer, ToolServerKind, ToolServerSecret
from mlx_manager.errors import MlxManagerError
from mlx_manager.tools.built_in import build_server
from mlx_manager.tools.guarded_http import guarded_client
from mlx_manager.tools.replies import render_reply
from mlx_manager.tools.toolbox import ServerTool, ToolReply, ToolServerFailed

_CONNECT_S = 20.0
_IDLE_S = 600.0
"""Unused for longer, a server is let go; the next call starts it again."""
_MOST_PAGES = 20
_MOST_SAID_CHARS = 300
_FAILURES = (OSError, ValueError, RuntimeError, MCPError, httpx2.HTTPError, MlxManagerError, ExceptionGroup)
"""What the SDK and what is below it raise where a server does not do what it should."""


@dataclass(frozen=True)
class _Live:
    client: Client
    tools: tuple[ServerTool, ...]


class Connection:
    """Connects at its first use, and again after the server has ended. `secret` goes to the server alone."""

    def __init__(self, server: ToolServer, secret: ToolServerSecret) -> None:
        self._server = server
        self._secret = secret
        self._life: asyncio.Task[None] | None = None
        self._live: asyncio.Future[_Live] | None = None
        self._leaving = asyncio.Event()
        self._num_calls = 0
        self._stderr: TextIO | None = None

    async def tools(self) -> Sequence[ServerTool]:
        """What the server offers. Raises `ToolServerFailed`."""
        return (await self._connect()).tools

    async def call(self, name: str, arguments: Mapping[str, Any]) -> ToolReply:
        """Call a tool. Raises `ToolServerFailed`, also when it takes too long."""
        live = await self._connect()
        self._num_calls += 1
        try:
            # the SDK's own limit is for one message; a call may take several
            async with asyncio.timeout(self._server.timeout_s):
                result = await live.client.call_tool(name, dict(arguments), self._server.timeout_s)
        except TimeoutError:
            raise self._too_long(name) from None
        except _FAILURES as error:
            if isinstance(error, MCPError) and error.code == REQUEST_TIMEOUT:
                raise self._too_long(name) from None
            if not isinstance(error, MCPError) or error.code == CONNECTION_CLOSED:
                # the next call connects anew
                self._leaving.set()
            raise ToolServerFailed(f"{self._server.name}: {self._explain(error)}") from error
        return render_reply(result)

    async def close(self) -> None:
        """End the connection, and the process that it started."""
        self._leaving.set()
        if self._life is not None:
            await asyncio.gather(self._life, return_exceptions=True)

    async def _connect(self) -> _Live:
        if self._life is None or self._life.done() or self._leaving.is_set():
            if self._life is not None:
                await asyncio.gather(self._life, return_exceptions=True)
            if self._life is None or self._life.done():
                self._leaving = asyncio.Event()
                self._live = asyncio.get_running_loop().create_future()
                # the SDK's connections end in the task that they began in
                self._life = asyncio.create_task(self._stay(self._live, self._leaving))
        assert self._live is not None
        return await asyncio.shield(self._live)

    async def _stay(self, live: asyncio.Future[_Live], leaving: asyncio.Event) -> None:
        """Be connected until somebody ends it or nobody calls."""
        # what a command complains about is told when it cannot be used
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as self._stderr:
            try:
                async with AsyncExitStack() as stack:
                    async with asyncio.timeout(_CONNECT_S):
                        client = await stack.enter_async_context(await self._client(stack, self._stderr))
                        tools = await _list_tools(client)
                    live.set_result(_Live(client, tools))
                    await self._wait(leaving)
            except (TimeoutError, *_FAILURES) as error:
                if not live.done():
                    said = f"no answer within {_CONNECT_S:.0f} s" if isinstance(error, TimeoutError) else None
                    failed = ToolServerFailed(f"{self._server.name} cannot be used: {said or self._explain(error)}")
                    live.set_exception(failed)
                    # nobody may be waiting any longer
                    live.exception()
            finally:
                live.cancel()

    async def _wait(self, leaving: asyncio.Event) -> None:
        while True:
            num_calls = self._num_calls
            try:
                async with asyncio.timeout(max(_IDLE_S, 2 * self._server.timeout_s)):
                    await leaving.wait()
                return
            except TimeoutError:
                if num_calls == self._num_calls:
                    leaving.set()
                    return

    async def _client(self, stack: AsyncExitStack, stderr: TextIO) -> Client:
        server = self._server
        if server.kind is ToolServerKind.BUILT_IN:
            return Client(build_server(server.name))
        if server.kind is ToolServerKind.STDIO:
            program, *arguments = server.command
            asked = StdioServerParameters(command=program, args=arguments, env=self._secret.variables)
            return Client(stdio_client(asked, stderr))
        http = await stack.enter_async_context(guarded_client(server, self._secret))
        return Client(streamable_http_client(server.url, http_client=http))

    def _too_long(self, name: str) -> ToolServerFailed:
        return ToolServerFailed(f"{self._server.name}: {name} took longer than {self._server.timeout_s:g} s.")

    def _explain(self, error: BaseException) -> str:
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        said = error.message if isinstance(error, MlxManagerError) else str(error) or type(error).__name__
        complaint = self._last_complaint()
        return said[:_MOST_SAID_CHARS] + (f" It said: {complaint}" if complaint else "")

    def _last_complaint(self) -> str:
        if self._stderr is None or self._stderr.closed:
            return ""
        self._stderr.flush()
        size = self._stderr.seek(0, 2)
        self._stderr.seek(max(0, size - 4_000))
        lines = [line.strip() for line in self._stderr.read().splitlines() if line.strip()]
        return lines[-1][:_MOST_SAID_CHARS] if lines else ""


async def _list_tools(client: Client) -> tuple[ServerTool, ...]:
    tools: list[ServerTool] = []
    cursor: str | None = None
    for _ in range(_MOST_PAGES):
        page = await client.list_tools(cursor=cursor)
        tools += (
            ServerTool(
                name=tool.name,
                description=(tool.description or "")[:4_000],
                parameters=json.dumps(tool.input_schema),
            )
            for tool in page.tools
        )
        cursor = page.next_cursor
        if cursor is None:
            return tuple(tools)
    raise ValueError(f"its list of tools has more than {_MOST_PAGES} pages")
