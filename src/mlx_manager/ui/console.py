"""What the pages of one app's console work with: the same objects that the HTTP faces call, never over HTTP."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from starlette.requests import HTTPConnection, Request

from mlx_manager.auth import Credentials, Door, Keys, People
from mlx_manager.errors import NotAuthenticated, Unavailable
from mlx_manager.gateway import Desk, Gateway, LiveSettings, Offer, ToolDesk
from mlx_manager.hub.desk import HubDesk
from mlx_manager.ir import Caller
from mlx_manager.observability.alerts import Alert
from mlx_manager.observability.log_tail import LogTail
from mlx_manager.observability.span_store import SpanReader
from mlx_manager.pool import ModelDirectory, ModelPool
from mlx_manager.storage.audit import AuditLog
from mlx_manager.storage.configuration import Configuration
from mlx_manager.storage.conversations import ConversationStore
from mlx_manager.storage.store import Change, RecordedChange
from mlx_manager.tools import Toolbox
from mlx_manager.ui.chats import Chats
from mlx_manager.ui.found_requests import FoundRequests
from mlx_manager.ui.imports import Imports
from mlx_manager.ui.mount import ConsoleSite
from mlx_manager.ui.pulse import Pulse
from mlx_manager.ui.recent import RecentRequests


@dataclass
class Console:
    """One per app, in the state of its lifespan."""

    gateway: Gateway
    models: ModelDirectory
    pool: ModelPool | None
    """The same as `models`, where models can be loaded and unloaded."""
    hub: HubDesk | None
    """None on a server that has no models of its own."""
    door: Door
    people: People
    keys: Keys
    desk: Desk
    """Where providers and routes are changed."""
    find_configuration: Callable[[], Configuration]
    """All that is configured in the database, as it holds now."""
    live_settings: LiveSettings
    session_cookie: str
    """The name of the cookie that a session is in."""
    recent: RecentRequests
    audit: AuditLog
    log: LogTail
    spans: SpanReader
    version: str
    home: Path
    conversations: ConversationStore
    toolbox: Toolbox
    tool_desk: ToolDesk
    find_offers: Callable[[Caller], Sequence[Offer]]
    """What somebody may ask for through routes."""
    find_alerts: Callable[[], Sequence[Alert]]
    """Those that are on, and those that were lately."""
    find_changes: Callable[[int], Awaitable[Sequence[RecordedChange]]]
    """The last so many changes of the configuration, the last first."""
    note_change: Callable[[Change], Awaitable[None]]
    """Records one more."""
    find_api_paths: Callable[[], Collection[str]]
    """What the app serves: a snippet is shown only for what a client can reach."""
    started_s: float = field(default_factory=time.monotonic)
    """On the monotonic clock."""
    site: ConsoleSite = field(default_factory=ConsoleSite)
    imports: Imports = field(default_factory=Imports)
    pulse: Pulse = field(init=False)
    requests: FoundRequests = field(init=False)
    chats: Chats = field(init=False)

    def __post_init__(self) -> None:
        self.pulse = Pulse(self.models, self.pool)
        self.requests = FoundRequests(self.audit)
        self.chats = Chats(self.gateway, self.conversations, self.toolbox)

    async def close(self) -> None:
        """Stop what runs."""
        await self.chats.close()
        await self.site.close()

    async def find_viewer(self, request: HTTPConnection) -> Caller | None:
        """Whose session the cookie of `request` is; None where there is none, or it is over."""
        session = request.cookies.get(self.session_cookie)
        try:
            return await self.door.admit_person(Credentials(session=session))
        except NotAuthenticated:
            return None

    def key_labels(self) -> list[str]:
        """Every API key as USER/NAME."""
        users = self.find_configuration().users_by_id
        return [f"{users[key.user_id].name}/{key.name}" for key in self.keys.all()]

    def need_pool(self) -> ModelPool:
        """Raises `Unavailable` on a server without models of its own."""
        if self.pool is None:
            raise Unavailable("This server keeps no models of its own: there is nothing to load or unload.")
        return self.pool

    def need_hub(self) -> HubDesk:
        """Raises `Unavailable` on a server without models of its own."""
        if self.hub is None:
            raise Unavailable("This server keeps no models, and so has nothing to do with the model hub.")
        return self.hub


def console_of(request: Request) -> Console:
    """The console of the app that `request` came in through."""
    return cast(Console, request.state.console)


def viewer_of(request: Request) -> Caller:
    """Who looks at the page: nobody comes this far without a session."""
    return cast(Caller, request.state.viewer)
