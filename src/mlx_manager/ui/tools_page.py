"""Tools: the MCP servers whose tools models may call in the chat; added, tried, switched off, and deleted by admins."""

from __future__ import annotations

import shlex
from functools import partial

import msgspec
from nicegui import ui
from starlette.requests import Request

from mlx_manager.catalog import BUILT_IN_TOOL_SERVERS, ToolServer, ToolServerKind
from mlx_manager.errors import MlxManagerError
from mlx_manager.tools import ServerTool
from mlx_manager.ui.console import Console, console_of, viewer_of
from mlx_manager.ui.elements import ask, badge, box, button, complaining, dialog, note, tell, text
from mlx_manager.ui.frame import frame
from mlx_manager.ui.paths import TOOLS
from mlx_manager.ui.tool_server_dialog import ToolServerDialog

_PERIOD_S = 2.0


def tools_page(request: Request) -> None:
    """Builds the page."""
    console = console_of(request)
    with frame(console, request, TOOLS):
        view = _ToolsView(console, request)
    view.update()
    ui.timer(_PERIOD_S, view.update)


class _ToolsView:
    def __init__(self, console: Console, request: Request) -> None:
        self._console = console
        self._desk = console.tool_desk
        self._actor = viewer_of(request).label
        self._drawn: tuple[ToolServer, ...] | None = None
        with box("page-head"):
            text("Tools", "grow", "h1")
            button("Add a tool server", self._add, icon="add", look="main")
        text(
            "MCP servers whose tools models may call in the chat. Whoever chats chooses among those that are on, and "
            "is asked before each call. A command runs with the rights of this server.",
            "soft",
            "p",
        )
        self._list = box("list").props('role="list" aria-label="Tool servers"')

    def update(self) -> None:
        """Show the servers that there are now."""
        servers = (*BUILT_IN_TOOL_SERVERS, *self._desk.servers)
        if servers == self._drawn:
            return
        self._drawn = servers
        self._list.clear()
        with self._list:
            for server in servers:
                self._row(server)

    def _row(self, server: ToolServer) -> None:
        is_ours = server.kind is ToolServerKind.BUILT_IN
        with box("row-item").props('role="listitem"'):
            with box("grow"):
                with box("row-line"):
                    text(server.name, "strong")
                    badge(server.kind.value)
                    badge("on" if server.is_on else "off", "good" if server.is_on else "")
                text(_describe(server), "soft small wrap", "div")
            button("Try it", partial(self._try, server), icon="play_arrow", name=f"Try {server.name}")
            if not is_ours:
                verb = "Switch off" if server.is_on else "Switch on"
                button(verb, partial(self._switch, server), name=f"{verb} {server.name}")
                button("", partial(self._edit, server), icon="edit", look="bare", name=f"Change {server.name}")
                button("", partial(self._ask_remove, server), icon="delete", look="bare", name=f"Delete {server.name}")

    def _add(self) -> None:
        ToolServerDialog(self._desk, self._actor, None, self.update)

    def _edit(self, server: ToolServer) -> None:
        ToolServerDialog(self._desk, self._actor, server, self.update)

    async def _switch(self, server: ToolServer) -> None:
        with complaining():
            changed = msgspec.structs.replace(server, is_on=not server.is_on)
            await self._desk.change(changed, self._desk.secret_of(server.name), actor=self._actor)
        self.update()

    def _ask_remove(self, server: ToolServer) -> None:
        async def remove() -> None:
            await self._desk.remove(server.name, actor=self._actor)
            self.update()

        ask(f"Delete {server.name}?", "Conversations that use it have to choose another.", "Delete it", remove)

    async def _try(self, server: ToolServer) -> None:
        tell(f"Asking {server.name} …")
        tools: list[ServerTool] = []
        problem = ""
        try:
            if server.kind is ToolServerKind.BUILT_IN:
                offered = await self._console.toolbox.offer([server.name])
                tools = [
                    ServerTool(name=one.name, description=one.tool.description, parameters=one.tool.parameters)
                    for one in offered
                ]
            else:
                tools = list(await self._desk.try_out(server, self._desk.secret_of(server.name)))
        except MlxManagerError as error:
            problem = error.message
        with self._list, dialog(f"The tools of {server.name}", is_wide=True) as opened:
            show_tools(tools, problem)
            with box("dialog-foot"):
                button("Close", opened.close, look="main")


def show_tools(tools: list[ServerTool], problem: str) -> None:
    """What a server offers, or what is wrong with it."""
    if problem:
        note(problem, "bad")
        return
    if not tools:
        note("It answers, and offers no tools.", "warn")
    for tool in tools:
        with box():
            text(tool.name, "strong", "h3")
            text(tool.description or "It has no description.", "soft wrap", "p")


def _describe(server: ToolServer) -> str:
    match server.kind:
        case ToolServerKind.STDIO:
            return shlex.join(server.command)
        case ToolServerKind.HTTP:
            return server.url
        case ToolServerKind.BUILT_IN:
            return "It ships with this server and asks no network."
