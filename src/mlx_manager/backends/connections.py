"""Connections to one provider: pools of a few each, the first ones filled first.

httpcore looks at every connection of a pool, for every other one, whenever a request comes or ends: with 64 in one pool
that is a quarter of all that the gateway does.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import cast

import httpcore

MOST_IN_POOL = 4
"""Requests at a time; with HTTP/2 they share a connection."""


class Connections:
    """Sends each request through the first pool that has room. `make_pool` makes another, up to `most_pools`."""

    def __init__(self, make_pool: Callable[[], httpcore.AsyncConnectionPool], *, most_pools: int) -> None:
        self._make_pool = make_pool
        self._most_pools = most_pools
        self._pools: list[httpcore.AsyncConnectionPool] = []
        self._num_active: list[int] = []

    async def handle_async_request(self, request: httpcore.Request) -> httpcore.Response:
        """The provider's answer; its place is free again once the answer is closed."""
        index = self._find_room()
        self._num_active[index] += 1
        try:
            response = await self._pools[index].handle_async_request(request)
        except BaseException:
            self._num_active[index] -= 1
            raise
        stream = _Answer(cast(AsyncIterable[bytes], response.stream), lambda: self._leave(index))
        return httpcore.Response(
            response.status, headers=response.headers, content=stream, extensions=response.extensions
        )

    async def aclose(self) -> None:
        """Close all connections."""
        for pool in self._pools:
            await pool.aclose()

    def _find_room(self) -> int:
        """The pool to be asked: the first with room, else a new one, else the one with the fewest that wait."""
        for index, num_active in enumerate(self._num_active):
            if num_active < MOST_IN_POOL:
                return index
        if len(self._pools) < self._most_pools:
            self._pools.append(self._make_pool())
            self._num_active.append(0)
            return len(self._pools) - 1
        return min(range(len(self._pools)), key=self._num_active.__getitem__)

    def _leave(self, index: int) -> None:
        self._num_active[index] -= 1


class _Answer:
    """The body of an answer, which says once that it was closed."""

    def __init__(self, stream: AsyncIterable[bytes], closed: Callable[[], None]) -> None:
        self._stream = stream
        self._closed: Callable[[], None] | None = closed

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._stream.__aiter__()

    async def aclose(self) -> None:
        """Give the connection back."""
        closed, self._closed = self._closed, None
        try:
            if hasattr(self._stream, "aclose"):
                await self._stream.aclose()
        finally:
            # not before: in a pool that is full, httpcore lets those that come overtake those that wait, for ever
            if closed is not None:
                closed()
