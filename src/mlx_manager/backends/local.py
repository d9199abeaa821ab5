"""The backend that answers with models on this machine."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from mlx_manager.ir import Event, GenerationRequest
from mlx_manager.pool import ModelPool


class LocalBackend:
    """Leases the request's model from the pool and passes its worker's events on."""

    name = "local"

    def __init__(self, pool: ModelPool) -> None:
        self._pool = pool

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        """Answer `request` as `Backend` says; the lease is held until the stream ends or is closed."""
        async with self._pool.lease(request.model) as worker, aclosing(worker.generate(request)) as events:
            async for event in events:
                yield event
