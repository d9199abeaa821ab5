"""Looks after memory while nobody asks: measures workers, unloads what is idle too long, and sheds under pressure."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from mlx_manager.errors import MlxManagerError
from mlx_manager.pool.memory import available_bytes, measure_process
from mlx_manager.pool.room import MemoryRoom
from mlx_manager.pool.slot import ModelSlot
from mlx_manager.pool.status import EvictionReason

logger = logging.getLogger(__name__)


class MemoryKeeper:
    """One check each `period_s`, from `start` to `close`; after one that fails, the next follows all the same.

    `measure` and `available` are the system's, but in tests.

    `on_measured` is called after each look at what the worker of a model takes.
    """

    def __init__(
        self,
        slots: Mapping[str, ModelSlot],
        room: MemoryRoom,
        *,
        ttl_s: Callable[[], float],
        floor_bytes: Callable[[], int],
        on_measured: Callable[[ModelSlot], None],
        period_s: float,
        measure: Callable[[int], int] = measure_process,
        available: Callable[[], int] = available_bytes,
    ) -> None:
        self._slots = slots
        self._room = room
        self._ttl_s = ttl_s
        self._floor_bytes = floor_bytes
        self._on_measured = on_measured
        self._period_s = period_s
        self._measure = measure
        self.available = available
        self._task: asyncio.Task[None] | None = None

    @property
    def floor_bytes(self) -> int:
        """Below so much available memory, idle models give way."""
        return self._floor_bytes()

    def start(self) -> None:
        """Begin to check."""
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Stop checking."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))

    async def check(self) -> None:
        """One round. Raises `MlxManagerError` or `OSError` where workers cannot be asked or started."""
        await self._measure_workers()
        await self._unload_idle()
        await self._room.relieve()
        if self.available() < self.floor_bytes:
            await self._room.shed()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._period_s)
            try:
                await self.check()
            except (MlxManagerError, OSError) as error:
                # a worker that had to be asked ended, or none can be started: the next round may find it otherwise
                logger.warning("The memory could not be looked after: %s", error)

    async def _measure_workers(self) -> None:
        for slot in list(self._slots.values()):
            worker = slot.worker
            if worker is None:
                continue
            measured = await asyncio.to_thread(self._measure, worker.pid)
            if worker is not slot.worker:
                continue
            reported = worker.stats.active_memory_bytes if worker.stats else 0
            planned = slot.planned_bytes
            if slot.reservation.measure(max(measured, reported)):
                excess = slot.planned_bytes - planned
                logger.warning("The worker of '%s' takes %d bytes more than planned", slot.entry.name, excess)
            self._on_measured(slot)

    async def _unload_idle(self) -> None:
        for slot in list(self._slots.values()):
            ttl_s = self._ttl_s() if slot.overrides.ttl_s is None else slot.overrides.ttl_s
            if ttl_s and slot.is_idle and slot.idle_s >= ttl_s and not slot.overrides.pinned:
                await self._room.evict(slot, EvictionReason.TTL)
