"""One model of the pool: where it stands, its worker, and the load that everyone who waits for it shares."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Protocol, TypeVar

from mlx_manager.catalog import LoadOptions, ModelEntry, ModelOverrides
from mlx_manager.errors import ErrorInfo, InsufficientMemory, MlxManagerError
from mlx_manager.ipc import LoadProgress, ServingReport
from mlx_manager.pool.evict import Resident
from mlx_manager.pool.load_errors import Backoff, as_load_error
from mlx_manager.pool.memory import MemoryPlan
from mlx_manager.pool.reservation import Reservation
from mlx_manager.pool.signal import Signal
from mlx_manager.pool.spare import WorkerSource
from mlx_manager.pool.status import ModelState, ModelStatus, WorkerFault
from mlx_manager.pool.troubles import Troubles
from mlx_manager.pool.worker_client import WorkerClient

logger = logging.getLogger(__name__)


_Result = TypeVar("_Result")


class Room(Protocol):
    """Who gives out the memory."""

    async def admit(self, slot: ModelSlot) -> LoadOptions:
        """Make room for a load of `slot` and call its `reserve`. Raises `InsufficientMemory` or `InvalidRequest`."""
        ...

    async def regain(self, slot: ModelSlot) -> None:
        """Make room for the caches of `slot`, which is trimmed, or unload it. Raises `InsufficientMemory`."""
        ...


class ModelSlot:
    """A model by name: cold until somebody asks for its worker, and again after that worker's end.

    `room` is asked at the beginning of each load, and before a trimmed model answers again. `changed` is told whenever
    a model became idle or its memory was given back.
    """

    def __init__(
        self, entry: ModelEntry, workers: WorkerSource, room: Room, changed: Signal, *, backoff: Backoff
    ) -> None:
        self.entry = entry
        """Refreshed by the pool before a load."""
        self.overrides = ModelOverrides()
        """Written by the pool."""
        self.is_draining = False
        """Written by who wants it gone: requests that come now wait until it is."""
        self.reservation = Reservation()
        """Written by the room, and measured by the keeper."""
        self.last_used_s = time.monotonic()
        self.num_uses = 0
        self.num_loads = 0
        self._workers = workers
        self._room = room
        self._changed = changed
        self._troubles = Troubles(entry.name, backoff)
        self._num_active = 0
        self._num_waiting = 0
        self._worker: WorkerClient | None = None
        self._holder: WorkerClient | None = None
        """Whose memory `reservation` is about."""
        self._loading: asyncio.Task[WorkerClient | ErrorInfo] | None = None
        self._unloading: asyncio.Task[None] | None = None
        self._regaining: asyncio.Task[ErrorInfo | None] | None = None
        self._progress = LoadProgress(stage="", fraction=0.0)
        self._report: ServingReport | None = None
        self._loaded_s = 0.0
        self._restarting: asyncio.Task[None] | None = None

    @property
    def is_cold(self) -> bool:
        """Whether the next lease starts a load."""
        return self._loading is None and not self.is_ready

    @property
    def is_ready(self) -> bool:
        """Whether it is in memory and can answer."""
        return self._report is not None and self._worker is not None and self._worker.is_usable

    @property
    def is_idle(self) -> bool:
        """Whether it is in memory and nobody uses it or is about to: it can go at once.

        Those who wait for a trimmed one wait for their turn, and are as well served by a load.
        """
        is_awaited = self._num_waiting > 0 and not self.reservation.is_trimmed
        return self.is_ready and self._loading is None and not self._num_active and not is_awaited

    @property
    def planned_bytes(self) -> int:
        """What the budget counts for it now."""
        return self.reservation.num_bytes

    @property
    def num_failed_loads(self) -> int:
        """Those that failed by the model's fault."""
        return self._troubles.num_failed_loads

    @property
    def idle_s(self) -> float:
        """Seconds since its last request ended, or since it was loaded."""
        return time.monotonic() - self.last_used_s

    @property
    def worker(self) -> WorkerClient | None:
        """The worker that can answer now."""
        return self._worker if self.is_ready else None

    def resident(self) -> Resident:
        """Its part of the books."""
        return Resident(
            name=self.entry.name,
            num_bytes=self.planned_bytes,
            trimmed_bytes=self.reservation.least_bytes,
            last_used_s=self.last_used_s,
            num_uses=self.num_uses,
            is_pinned=self.overrides.pinned,
            is_idle=self.is_idle,
        )

    @asynccontextmanager
    async def lease(self, *, computes: bool = True) -> AsyncIterator[WorkerClient]:
        """The worker, loaded first where needed; all who wait share one load and its failure.

        A trimmed model gets its caches again first, unless nothing is to be computed.

        A caller that is cancelled leaves the load running. Raises `ModelLoadFailed`, `InsufficientMemory` or
        `ShuttingDown`.
        """
        self.num_uses += 1
        self.last_used_s = time.monotonic()
        worker = await self._ready_worker(computes=computes)
        # nothing is awaited between here and there, so that nobody can find it idle
        self._num_active += 1
        try:
            yield worker
        finally:
            self._num_active -= 1
            self.last_used_s = time.monotonic()
            if not self._num_active:
                self._changed.notify()

    def begin_load(self) -> asyncio.Task[WorkerClient | ErrorInfo]:
        """Load in the background, or join the load that is under way."""
        if self._loading is None:
            self.stay_cold()
            self._troubles.begin_load()
            self._report = None
            previous, self._worker = self._worker, None
            self.is_draining = False
            self._progress = LoadProgress(stage="waiting for memory", fraction=0.0)
            self._loading = asyncio.create_task(self._load(previous))
        return self._loading

    def forgive(self) -> None:
        """Forget earlier failures: somebody wants to see whether it works now."""
        self._troubles.forgive()

    def put_failure_away(self) -> None:
        """Where it is out of memory: be as if it had never failed. The faults stay counted."""
        if self.is_cold and self._unloading is None:
            self._troubles.forgive()
            self._troubles.begin_load()

    def stay_cold(self) -> None:
        """Do not load it by itself after a failure."""
        if self._restarting is not None and self._restarting is not asyncio.current_task():
            self._restarting.cancel()
        self._restarting = None

    def condemn(self, fault: WorkerFault, how: str) -> None:
        """End the worker for what it does: `how`, to be read after "the worker". Another one follows, after a pause."""
        if self._worker is not None:
            self._worker.condemn(fault, how)

    def reserve(self, plan: MemoryPlan) -> None:
        """Note what the load that was admitted is going to take."""
        self.reservation.make(plan)
        self._progress = LoadProgress(stage="starting a worker", fraction=0.0)

    def tell_progress(self, stage: str) -> None:
        """Say what the load waits for."""
        self._progress = LoadProgress(stage=stage, fraction=0.0)

    def begin_unload(self) -> None:
        """Begin to end the worker: requests that come now wait for another one."""
        if self._unloading is None and self._worker is not None:
            self._unloading = asyncio.create_task(self._stop_worker(self._worker))

    async def unload(self) -> None:
        """End the worker, and return once its memory is given back. What it still answers ends with `ShuttingDown`."""
        self.begin_unload()
        if self._unloading is not None:
            await asyncio.shield(self._unloading)

    async def trim(self, measure: Callable[[int], int], timeout_s: float) -> None:
        """Let the worker of an idle model, for which `reservation.begin_trim` was called, give its caches back.

        `measure` tells what a process takes. Raises `TimeoutError`, or `MlxManagerError` where the worker ended.
        """
        worker = self.worker
        if worker is None:
            return
        stats = await asyncio.wait_for(worker.trim(), timeout_s)
        measured_bytes = await asyncio.to_thread(measure, worker.pid)
        if worker is self.worker:
            self.reservation.end_trim(max(measured_bytes, stats.active_memory_bytes))

    async def wait_idle(self) -> None:
        """Return once it is neither loaded, unloaded nor given memory. Used by the pool's end, when workers stopped."""
        self.stay_cold()
        tasks = [task for task in (self._loading, self._unloading, self._regaining) if task is not None]
        if tasks:
            await asyncio.wait(tasks)

    def status(self, *, is_closing: bool) -> ModelStatus:
        """Where the model stands now."""
        worker, troubles = self.worker, self._troubles
        state = self._state(is_closing=is_closing)
        is_loading = state is ModelState.LOADING
        is_under_way = is_loading or self._regaining is not None
        return ModelStatus(
            entry=self.entry,
            state=state,
            stage=self._progress.stage if is_under_way else "",
            fraction=self._progress.fraction if is_loading else 0.0,
            report=self._report if worker else None,
            stats=worker.stats if worker else None,
            rows=worker.rows if worker else (),
            worker_pid=self._worker.pid if self._worker is not None and self._worker.is_usable else None,
            num_worker_deaths=sum(troubles.num_by_fault.values()),
            num_by_fault=troubles.num_by_fault,
            num_failures_in_row=troubles.num_failures_in_row,
            is_given_up=state is ModelState.FAILED and troubles.is_given_up,
            error=troubles.error or troubles.refusal,
            retry_in_s=troubles.wait_s if state is ModelState.FAILED else None,
            overrides=self.overrides,
            num_in_flight=self._num_active,
            num_waiting=self._num_waiting,
            num_uses=self.num_uses,
            idle_s=self.idle_s if self.is_idle and not self._num_waiting else None,
            loaded_for_s=time.monotonic() - self._loaded_s if worker else None,
            planned_bytes=self.planned_bytes,
            measured_bytes=self.reservation.measured_bytes,
            is_trimmed=self.reservation.is_trimmed,
        )

    def _state(self, *, is_closing: bool) -> ModelState:
        if self.is_ready:
            return ModelState.DRAINING if is_closing or self.is_draining else ModelState.READY
        if self._unloading is not None:
            return ModelState.DRAINING
        if self._loading is not None:
            return ModelState.LOADING
        return ModelState.FAILED if self._troubles.error is not None else ModelState.COLD

    async def _ready_worker(self, *, computes: bool) -> WorkerClient:
        while True:
            if self._unloading is not None:
                await asyncio.wait((self._unloading,))
            elif computes and self.is_ready and self._loading is None and self.reservation.is_trimmed:
                await self._join(self._begin_regain())
                if self._unloading is None and self.worker is not None and not self.reservation.is_trimmed:
                    # even while it drains: who waited has a turn, or two models could take theirs from each other
                    return self.worker
            elif self._worker is not None and self.is_ready and not self.is_draining:
                return self._worker
            elif self.is_ready and self._loading is None:
                await self._changed.wait()
            else:
                worker = await self._join_load()
                if self._unloading is None:
                    return worker

    async def _join_load(self) -> WorkerClient:
        if self._loading is None:
            self._troubles.check()
        return await self._join(self.begin_load())

    async def _join(self, shared: asyncio.Task[_Result | ErrorInfo]) -> _Result:
        """Wait for what is done for all who wait, and share its failure."""
        self._num_waiting += 1
        try:
            done = await asyncio.shield(shared)
        finally:
            self._num_waiting -= 1
            self._changed.notify()
        if isinstance(done, ErrorInfo):
            raise MlxManagerError.from_info(done)
        return done

    def _begin_regain(self) -> asyncio.Task[ErrorInfo | None]:
        if self._regaining is None:
            self._troubles.begin_regain()
            self.tell_progress("waiting for memory")
            self._regaining = asyncio.create_task(self._regain())
        return self._regaining

    async def _regain(self) -> ErrorInfo | None:
        try:
            await self._room.regain(self)
        except InsufficientMemory as error:
            return self._troubles.fail_regain(error.as_info())
        finally:
            self._regaining = None
        return None

    async def _load(self, previous: WorkerClient | None) -> WorkerClient | ErrorInfo:
        name = self.entry.name
        worker: WorkerClient | None = None
        try:
            if previous is not None:
                # it died: its memory has to be back before somebody counts
                refusal = self._troubles.blame(await asyncio.shield(previous.ended))
                if refusal is not None:
                    return refusal
            options = await self._room.admit(self)
            worker = self._worker = self._workers.take(name)
            taken = self._holder = worker
            taken.ended.add_done_callback(lambda _: self._on_ended(taken))
            report = await worker.load(
                self.entry,
                options,
                on_progress=self._on_progress,
                on_death=lambda reason: self._on_worker_death(taken, reason),
            )
        except (MlxManagerError, OSError) as error:
            if worker is not None:
                await worker.stop()
            self.reservation.release()
            return self._troubles.fail_load(as_load_error(name, error))
        else:
            self._report = report
            self.reservation.correct(report)
            self.num_loads += 1
            self.last_used_s = self._loaded_s = time.monotonic()
            logger.info("The model '%s' is loaded in %.1f s", name, report.load_s)
            return worker
        finally:
            self._loading = None
            self._changed.notify()
            self._workers.replenish_later()

    async def _stop_worker(self, worker: WorkerClient) -> None:
        try:
            await worker.stop()
        finally:
            self.forgive()
            if worker is self._worker:
                self._worker = None
                self._report = None
            self.is_draining = False
            self._unloading = None
            self._changed.notify()

    def _on_ended(self, worker: WorkerClient) -> None:
        """Its process is over, so its memory is given back."""
        if worker is self._holder:
            self._holder = None
            self.reservation.release()
            self.is_draining = False
        self._changed.notify()

    def _on_progress(self, progress: LoadProgress) -> None:
        if progress.stage != self._progress.stage:
            logger.info("Loading '%s': %s (%.0f %%)", self.entry.name, progress.stage, progress.fraction * 100)
        self._progress = progress

    def _on_worker_death(self, worker: WorkerClient, reason: ErrorInfo) -> None:
        self._troubles.count_end(worker.fault, reason)
        if worker.fault is WorkerFault.LEAKED:
            self.reservation.forget_excess()
        if worker is self._worker and self._loading is not None:
            return  # its load tells
        self._troubles.fail_serving(reason, time.monotonic() - self._loaded_s)
        if worker is not self._worker:
            return  # a load has begun that waits for this end
        self._troubles.stand_still(reason)
        if worker.fault is not WorkerFault.DIED and not self._troubles.is_given_up:
            self._restarting = asyncio.create_task(self._restart(self._troubles.wait_s))

    async def _restart(self, wait_s: float) -> None:
        await asyncio.sleep(wait_s)
        if self.is_cold:
            self.begin_load()
