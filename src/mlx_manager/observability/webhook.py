"""Posts JSON to an address of the operator's, one message after the other, again while it fails."""

from __future__ import annotations

import asyncio
import logging
from collections import deque

import httpx

_logger = logging.getLogger("mlx_manager.alerts")
_MAX_ATTEMPTS = 6
_MAX_WAITING = 100
_TIMEOUT_S = 10.0
_GRACE_S = 3.0


class Webhook:
    """Lives in one event loop. A message is given up after six attempts, over about a minute."""

    def __init__(self, url: str, *, backoff_s: float = 2.0) -> None:
        self.url = url
        self._backoff_s = backoff_s
        self._waiting: deque[bytes] = deque(maxlen=_MAX_WAITING)
        self._task: asyncio.Task[None] | None = None

    def put(self, body: bytes) -> None:
        """Post this, in its turn. The oldest goes when a hundred wait."""
        self._waiting.append(body)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Send what waits, for a few seconds at most."""
        if self._task is not None:
            await asyncio.wait((self._task,), timeout=_GRACE_S)
            self._task.cancel()
            await asyncio.wait((self._task,))

    async def _run(self) -> None:
        async with httpx.AsyncClient(timeout=_TIMEOUT_S) as client:
            while self._waiting:
                await self._post(client, self._waiting.popleft())

    async def _post(self, client: httpx.AsyncClient, body: bytes) -> None:
        for attempt in range(_MAX_ATTEMPTS):
            if attempt:
                await asyncio.sleep(self._backoff_s * 2 ** (attempt - 1))
            try:
                answer = await client.post(self.url, content=body, headers={"content-type": "application/json"})
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                reason = type(error).__name__
            else:
                if answer.is_success:
                    return
                reason = f"status {answer.status_code}"
        _logger.error("An alert could not be posted to the webhook: %s", reason)
