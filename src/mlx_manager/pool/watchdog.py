"""Ends workers that hang: that owe an answer to what they were told, and say nothing for too long."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection

from mlx_manager.pool.status import WorkerFault
from mlx_manager.pool.worker_client import WorkerClient

_LONGEST_PERIOD_S = 2.0


class Watchdog:
    """Looks at `workers()` again and again, from `start` to `close`. A timeout of 0 is none; they may change.

    A worker says something after each step of its engine and each stage of a load. That is what is looked at, and not
    whether its process can still run: one that waits for ever for a device can.
    """

    def __init__(
        self,
        workers: Callable[[], Collection[WorkerClient]],
        *,
        hang_timeout_s: Callable[[], float],
        load_timeout_s: Callable[[], float],
    ) -> None:
        self._workers = workers
        self._hang_timeout_s = hang_timeout_s
        self._load_timeout_s = load_timeout_s
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look."""
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Stop looking."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))

    async def _run(self) -> None:
        while True:
            before_s = time.monotonic()
            timeouts_s = [timeout_s for timeout_s in (self._hang_timeout_s(), self._load_timeout_s()) if timeout_s]
            period_s = min([_LONGEST_PERIOD_S, *(timeout_s / 4 for timeout_s in timeouts_s)])
            await asyncio.sleep(period_s)
            if time.monotonic() - before_s > 2 * period_s:
                # this process did not run, or had no time to: what the workers said meanwhile is not read yet
                continue
            self._look()

    def _look(self) -> None:
        for worker in self._workers():
            timeout_s = self._hang_timeout_s() if worker.is_serving else self._load_timeout_s()
            if timeout_s and worker.silent_s > timeout_s:
                worker.condemn(WorkerFault.HUNG, f"did not react for {timeout_s:g} s and was ended")
