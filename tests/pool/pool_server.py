"""The real app over a pool of protocol workers, on a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx

from mlx_manager.app import Parts
from mlx_manager.backends.local import LocalBackend
from mlx_manager.catalog.settings import Settings, load_settings
from tests.http.scripted_server import running_app
from tests.pool.counting_pool import counting_pool


@contextmanager
def pool_server(folder: Path, *, keepalive: float = 5.0, **pool: Any) -> Iterator[httpx.Client]:
    """A client of a server over `counting_pool(folder, **pool)`."""

    @asynccontextmanager
    async def parts(_: Settings) -> AsyncIterator[Parts]:
        async with counting_pool(folder, **pool) as running:
            yield Parts(backends=(LocalBackend(running),), models=running, pool=running)

    settings = load_settings({}, {"home": str(folder / "home"), "port": 0, "keepalive": keepalive})
    with (
        running_app(settings, parts) as (port, _),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client,
    ):
        yield client
