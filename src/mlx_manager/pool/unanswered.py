"""What one worker was asked and has not answered yet: streams of events, replies of one message, and a trim."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from mlx_manager.errors import ErrorInfo
from mlx_manager.ipc import EngineStats, RequestEvents
from mlx_manager.ir import Finished, Tokens, Vectors
from mlx_manager.pool.event_queue import EventQueue

_Value = TypeVar("_Value")
Reply = Vectors | Tokens


class Unanswered:
    """By the ids of requests. Lives in one event loop; whoever asks waits for what is returned here."""

    def __init__(self) -> None:
        self._streams: dict[str, EventQueue] = {}
        self._replies: dict[str, asyncio.Future[Reply | ErrorInfo]] = {}
        self._trim: asyncio.Future[EngineStats | ErrorInfo] | None = None

    @property
    def num_requests(self) -> int:
        """Requests, trims apart."""
        return len(self._streams) + len(self._replies)

    @property
    def is_empty(self) -> bool:
        """Whether no answer is owed."""
        return not self.num_requests and (self._trim is None or self._trim.done())

    def check_free(self, request_id: str) -> None:
        """Raises `ValueError` for an id that is in use."""
        if request_id in self._streams or request_id in self._replies:
            raise ValueError(f"a request of the id {request_id!r} is already in flight")

    def add_stream(self, request_id: str) -> EventQueue:
        """A request that is answered by events."""
        queue = self._streams[request_id] = EventQueue()
        return queue

    def add_reply(self, request_id: str) -> asyncio.Future[Reply | ErrorInfo]:
        """A request that is answered by one message."""
        reply = self._replies[request_id] = asyncio.get_running_loop().create_future()
        return reply

    def add_trim(self) -> asyncio.Future[EngineStats | ErrorInfo]:
        """A trim, of which there is one at a time."""
        self._trim = asyncio.get_running_loop().create_future()
        return self._trim

    def drop(self, request_id: str) -> bool:
        """Forget a request that nobody waits for any more; whether its answer was still owed."""
        stream, reply = self._streams.pop(request_id, None), self._replies.pop(request_id, None)
        return stream is not None or reply is not None

    def pass_on(self, delta: RequestEvents) -> None:
        """Events of a stream, which is answered with the last of them."""
        queue = self._streams.get(delta.request_id)
        if queue is not None:
            queue.put(delta.events)
            if delta.events and isinstance(delta.events[-1], Finished):
                del self._streams[delta.request_id]

    def answer(self, request_id: str, answer: Reply | ErrorInfo) -> None:
        """The one message."""
        reply = self._replies.pop(request_id, None)
        if reply is not None:
            settle(reply, answer)

    def end_trim(self, answer: EngineStats | ErrorInfo) -> None:
        """The trim is over."""
        if self._trim is not None:
            settle(self._trim, answer)

    def fail(self, request_id: str, error: ErrorInfo) -> None:
        """A request failed, of whichever kind it is."""
        failed = self._streams.pop(request_id, None)
        if failed is not None:
            failed.fail(error)
        self.answer(request_id, error)

    def fail_all(self, reason: ErrorInfo) -> None:
        """No answer will come any more."""
        self.end_trim(reason)
        for request_id in [*self._replies, *self._streams]:
            self.fail(request_id, reason)


def settle(future: asyncio.Future[_Value], value: _Value) -> None:
    """Give a future its value, unless it has one or nobody waits any more."""
    if not future.done():
        future.set_result(value)
