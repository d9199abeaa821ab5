"""The app in its server: uvicorn on uvloop, with what that needs to be told."""

from __future__ import annotations

import uvicorn
from fastapi import FastAPI

from mlx_manager.catalog.settings import Settings

_GRACE_S = 5
"""How long running answers may take to end once the server has been told to stop."""


def build_server(app: FastAPI, settings: Settings) -> uvicorn.Server:
    """A server for `app` on the address of `settings`; `run()` it, or `await serve()` inside a loop.

    Requests are logged by the gateway's account, one line each, not by uvicorn.
    """
    return uvicorn.Server(
        uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            loop="uvloop",
            lifespan="on",
            access_log=False,
            server_header=False,
            log_config=None,
            timeout_graceful_shutdown=_GRACE_S,
        )
    )
