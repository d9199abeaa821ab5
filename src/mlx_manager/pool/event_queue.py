"""The events of one request, between the socket they arrive on and the stream that hands them out."""

from __future__ import annotations

import asyncio
from collections import deque

from mlx_manager.errors import ErrorInfo, MlxManagerError
from mlx_manager.ir import Event


class EventQueue:
    """Those that the reader has not taken yet; one writer, one reader, one event loop."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._error: ErrorInfo | None = None
        self._waiter: asyncio.Future[None] | None = None

    def put(self, events: tuple[Event, ...]) -> None:
        """Add events and wake the reader."""
        self._events.extend(events)
        self._wake()

    def fail(self, error: ErrorInfo) -> None:
        """Make the reader raise `error` once it has taken what stands before it."""
        self._error = error
        self._wake()

    async def take(self) -> list[Event]:
        """All events that are there, at least one. Raises the error when nothing stands before it."""
        while not self._events:
            if self._error is not None:
                raise MlxManagerError.from_info(self._error)
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        events = list(self._events)
        self._events.clear()
        return events

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
