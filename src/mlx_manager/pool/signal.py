"""Wakes everyone who waits for something to change in the pool."""

from __future__ import annotations

import asyncio


class Signal:
    """Those who wait look for themselves whether it was what they waited for. Lives in one event loop."""

    def __init__(self) -> None:
        self._next = asyncio.Event()

    def notify(self) -> None:
        """Wake all who wait now."""
        self._next.set()
        self._next = asyncio.Event()

    async def wait(self, timeout_s: float | None = None) -> bool:
        """Until the next change; False when `timeout_s` passed first."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._next.wait()
        except TimeoutError:
            return False
        return True
