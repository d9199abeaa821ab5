"""The app in its server: uvicorn on uvloop, with what that needs to be told."""

from __future__ import annotations

import uvicorn
from fastapi import FastAPI

from mlx_manager.catalog.settings import Settings


def build_server(app: FastAPI, settings: Settings) -> uvicorn.Server:
    """A server for `app` on the address of `settings`; `run()` it, or `await serve()` inside a loop.

    Once told to stop it gives running answers `shutdown_timeout_s` to end, then ends them with an error. Requests are
    logged by the gateway's account, one line each, not by uvicorn.
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
            # whoever connects from this machine could else say that they are somebody else with every guess
            proxy_headers=False,
            log_config=None,
            timeout_graceful_shutdown=settings.shutdown_timeout_s,
        )
    )
