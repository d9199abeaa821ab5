"""How tool servers reach the console: the connections to them, and the desk where they are changed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from mlx_manager.app.access import Opened
from mlx_manager.gateway import ToolDesk
from mlx_manager.storage.configuration import Configuration
from mlx_manager.tools import Toolbox


@dataclass(frozen=True)
class Tooling:
    """What the app needs of it."""

    toolbox: Toolbox
    desk: ToolDesk


@asynccontextmanager
async def open_tooling(opened: Opened) -> AsyncIterator[Tooling]:
    """Follow every change of the tool servers; at the end no process of theirs is left."""
    store = opened.access.store
    tooling = Tooling(Toolbox(), ToolDesk(store))

    def follow(current: Configuration) -> None:
        tooling.toolbox.update(current.tool_servers, current.sealed_of_tools.get, tooling.desk.secret)

    follow(store.current)
    store.subscribe(follow)
    try:
        yield tooling
    finally:
        await tooling.toolbox.close()
