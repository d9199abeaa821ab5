"""Notices that a client has gone while its answer is being made."""

from __future__ import annotations

import asyncio
from types import TracebackType

from starlette.types import Receive


class UntilDisconnect:
    """Runs the code inside until it ends or the client goes; then the code is cancelled and `is_gone` is true.

    The request's body must have been read to its end. Works as `asyncio.timeout` does: the cancellation is swallowed
    here when it was ours, and let through when it came from elsewhere.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._task: asyncio.Task[object] | None = None
        self.is_gone = False

    @property
    def is_cut_off_by_us(self) -> bool:
        """Whether the code inside is being cancelled although the client is still there: the server stops."""
        return not self.is_gone and self._task is not None and self._task.cancelling() > self._num_cancellations

    async def __aenter__(self) -> UntilDisconnect:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._num_cancellations = task.cancelling()
        self._watcher = asyncio.create_task(self._watch())
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        self._watcher.cancel()
        if not self.is_gone or self._task is None:
            return False
        is_only_ours = self._task.uncancel() <= self._num_cancellations
        return is_only_ours and exc_type is asyncio.CancelledError

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.is_gone = True
        if self._task is not None:
            self._task.cancel()
