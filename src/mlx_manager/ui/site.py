"""NiceGUI with the pages of the console: what it keeps for the whole process is set up here, once.

Imported at the first visit only: it takes half a second.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache

from fastapi import FastAPI
from nicegui import app as nicegui_app
from nicegui import ui
from starlette.types import ASGIApp

from mlx_manager.ui.chat import chat_page
from mlx_manager.ui.home import home_page
from mlx_manager.ui.models import models_page
from mlx_manager.ui.paths import (
    CHAT,
    HOME,
    MODELS,
    POOL,
    PROFILE,
    PROVIDERS,
    REQUESTS,
    ROUTES,
    SETTINGS,
    SYSTEM,
    TOOLS,
    USERS,
    PagePlace,
)
from mlx_manager.ui.pool import pool_page
from mlx_manager.ui.profile_page import profile_page
from mlx_manager.ui.providers import providers_page
from mlx_manager.ui.requests_page import requests_page
from mlx_manager.ui.routes import routes_page
from mlx_manager.ui.settings_page import settings_page
from mlx_manager.ui.system import system_page
from mlx_manager.ui.tools_page import tools_page
from mlx_manager.ui.users import users_page

_PAGES: tuple[tuple[PagePlace, Callable[..., object]], ...] = (
    (HOME, home_page),
    (CHAT, chat_page),
    (MODELS, models_page),
    (POOL, pool_page),
    (PROVIDERS, providers_page),
    (ROUTES, routes_page),
    (REQUESTS, requests_page),
    (TOOLS, tools_page),
    (SETTINGS, settings_page),
    (USERS, users_page),
    (SYSTEM, system_page),
    (PROFILE, profile_page),
)
_FAVICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" rx="8" fill="#3554c8"/>'
    '<g fill="#fff"><rect x="7" y="7" width="8" height="8" rx="2"/><rect x="17" y="7" width="8" height="8" rx="2"/>'
    '<rect x="7" y="17" width="8" height="8" rx="2" opacity=".55"/><rect x="17" y="17" width="8" height="8" rx="2"/>'
    "</g></svg>"
)


@asynccontextmanager
async def running() -> AsyncIterator[ASGIApp | None]:
    """The site as an ASGI app while the context lasts; None while another event loop of this process runs it."""
    if not nicegui_app.is_stopped:
        yield None
        return
    holder = _holder()
    async with holder.router.lifespan_context(holder):
        yield holder


@cache
def _holder() -> FastAPI:
    """NiceGUI configured, and mounted on an app that does nothing else. It can be configured once in a process."""
    for place, build in _PAGES:
        ui.page(place.path, title=f"{place.title} · MLX Manager")(build)
    # its bar for requests of Quasar's own has no name for screen readers, and there are no such requests
    nicegui_app.config.quasar_config["loadingBar"]["skipHijack"] = True
    holder = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    ui.run_with(
        holder,
        title="MLX Manager",
        favicon=_FAVICON,
        dark=None,
        language="en-US",
        binding_refresh_interval=None,
        reconnect_timeout=10.0,
        tailwind=False,
        show_welcome_message=False,
    )
    return holder
