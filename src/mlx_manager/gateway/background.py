"""Responses that are made while nobody waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace

from mlx_manager.ir import current_origin, enter_origin


class BackgroundWork:
    """Runs work by the id of the response that it makes, until it is done, cancelled, or the server ends."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def start(self, response_id: str, work: Coroutine[None, None, None]) -> None:
        """Begin `work`, which accounts for itself: the HTTP request that brought it is over before."""
        origin = current_origin()
        enter_origin(replace(origin))
        task = asyncio.create_task(work)
        enter_origin(origin)
        origin.num_records += 1
        self._tasks[response_id] = task
        task.add_done_callback(lambda _: self._tasks.pop(response_id, None))

    async def cancel(self, response_id: str) -> bool:
        """End the work and wait for that; whether there was any."""
        task = self._tasks.get(response_id)
        if task is None:
            return False
        task.cancel()
        await asyncio.wait([task])
        return True

    async def close(self) -> None:
        """End all work."""
        for response_id in tuple(self._tasks):
            await self.cancel(response_id)
