"""Where the console hangs on the app: its paths, and no others, go to NiceGUI, which is loaded at the first visit."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from contextlib import AsyncExitStack
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mlx_manager.ui.chat_files import PATH as CHAT_FILES
from mlx_manager.ui.chat_files import chat_file
from mlx_manager.ui.login import login_page
from mlx_manager.ui.paths import LOGIN, PLACES, REGISTER

if TYPE_CHECKING:
    from mlx_manager.ui.console import Console

_STATIC = Path(__file__).parent / "static"
_OF_THE_PARENT = ("endpoint", "path_params", "router", "route")
"""What the parent app's router leaves in the scope: NiceGUI's own has to find its way anew."""
_HEADERS = {
    # NiceGUI compiles its templates in the browser, which takes eval; nothing is loaded from elsewhere
    "content-security-policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; media-src 'self' data: blob:; connect-src 'self' ws: wss:; object-src 'none'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "x-frame-options": "DENY",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


class ConsoleSite:
    """NiceGUI as one app runs it. There is one NiceGUI in a process, so one app at a time can show its console."""

    def __init__(self) -> None:
        self._site: ASGIApp | None = None
        self._starting = asyncio.Lock()
        self._stack = AsyncExitStack()

    async def open(self) -> ASGIApp | None:
        """The site, started if need be; None while another app of this process runs it."""
        async with self._starting:
            if self._site is None:
                # half a second of imports, off the event loop
                site = await asyncio.to_thread(import_module, "mlx_manager.ui.site")
                self._site = await self._stack.enter_async_context(site.running())
            return self._site

    async def close(self) -> None:
        """Stop it. Open pages lose their connection."""
        await self._stack.aclose()


def console_routes(allowed_hosts: Collection[str] | None) -> list[BaseRoute]:
    """The routes of the console. `allowed_hosts` as the edge of the app has them: it looks at no WebSocket."""
    door = _Door(allowed_hosts)
    return [
        *(Route(place.path, door, methods=["GET"], include_in_schema=False) for place in PLACES),
        Route(CHAT_FILES, chat_file, methods=["GET"], include_in_schema=False),
        Route(LOGIN, login_page, methods=["GET"], include_in_schema=False),
        Route(REGISTER, login_page, methods=["GET"], include_in_schema=False),
        Route("/_nicegui/{rest:path}", door, include_in_schema=False),
        Route("/_nicegui_ws/{rest:path}", door, include_in_schema=False),
        WebSocketRoute("/_nicegui_ws/{rest:path}", door),
        Mount("/_console", StaticFiles(directory=_STATIC)),
    ]


class _Door:
    """Hands a connection to the site of the app it came in through: for whoever has a session, and no other site.

    Files of NiceGUI's package are nobody's secret.
    """

    def __init__(self, allowed_hosts: Collection[str] | None) -> None:
        self._allowed_hosts = None if allowed_hosts is None else frozenset(allowed_hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        is_safe = scope["type"] == "http" and scope["method"] in ("GET", "HEAD") and "_nicegui_ws" not in scope["path"]
        if not is_safe and not self._is_own_page(headers):
            await _refuse(scope, receive, send, "This is for this server's own pages.", 403)
            return
        console: Console = scope["state"]["console"]
        if not scope["path"].startswith("/_nicegui/") or not is_safe:
            viewer = await console.find_viewer(HTTPConnection(scope))
            if viewer is None and is_safe:
                await _to_login(scope["path"])(scope, receive, send)
                return
            if viewer is None or (scope["path"] in _FOR_ADMINS and not viewer.is_admin):
                await _refuse(scope, receive, send, "This is for admins." if viewer else "Log in first.", 403)
                return
            scope["state"]["viewer"] = viewer
        site = await console.site.open()
        if site is None:
            await _refuse(scope, receive, send, "Another server of this process shows its console.", 503)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        await site(
            {key: value for key, value in scope.items() if key not in _OF_THE_PARENT}, receive, send_with_headers
        )

    def _is_own_page(self, headers: Headers) -> bool:
        """Browsers say which page opens a WebSocket or sends a form; whoever is no browser says nothing."""
        host = headers.get("host", "")
        name = host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]
        if self._allowed_hosts is not None and name.lower() not in self._allowed_hosts:
            return False
        origin = headers.get("origin")
        return origin is None or origin.partition("://")[2] == host


_FOR_ADMINS = frozenset(place.path for place in PLACES if place.is_for_admins)


def _to_login(path: str) -> RedirectResponse:
    return RedirectResponse(f"{LOGIN}?next={quote(path, safe='')}", 303, headers={"cache-control": "no-store"})


async def _refuse(scope: Scope, receive: Receive, send: Send, message: str, status: int) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": message})
    else:
        await PlainTextResponse(message, status)(scope, receive, send)
