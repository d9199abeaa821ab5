"""One model of the pool: where it stands, its worker, and the load that everyone who waits for it shares."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from mlx_manager.catalog import LoadOptions, ModelEntry, ModelOverrides
from mlx_manager.errors import ErrorInfo, InsufficientMemory, MlxManagerError, ModelLoadFailed, ShuttingDown
from mlx_manager.ipc import LoadProgress, ServingReport
from mlx_manager.pool.evict import Resident
from mlx_manager.pool.memory import MemoryPlan
from mlx_manager.pool.signal import Signal
from mlx_manager.pool.spare import WorkerSource
from mlx_manager.pool.status import ModelState, ModelStatus
from mlx_manager.pool.worker_client import WorkerClient

logger = logging.getLogger(__name__)

_MAX_BACKOFF_S = 60.0
_BACKOFF_GROWTH = 2.0

Admit = Callable[["ModelSlot"], Awaitable[LoadOptions]]


class ModelSlot:
    """A model by name: cold until somebody asks for its worker, and again after that worker's end.

    `admit` makes room for it and calls `reserve`; it is awaited at the beginning of each load. `changed` is told
    whenever a model became idle or its memory was given back.
    """

    def __init__(
        self, entry: ModelEntry, workers: WorkerSource, admit: Admit, changed: Signal, *, backoff_s: float
    ) -> None:
        self.entry = entry
        """Refreshed by the pool before a load."""
        self.overrides = ModelOverrides()
        """Written by the pool."""
        self.is_draining = False
        """Written by who wants it gone: requests that come now wait until it is."""
        self.plan: MemoryPlan | None = None
        """What was reserved for it; None while it holds nothing."""
        self.measured_bytes = 0
        """Written by the keeper."""
        self.excess_bytes = 0
        """The most that was measured above the plan; the next load reserves it too."""
        self.last_used_s = time.monotonic()
        self.num_uses = 0
        self.num_loads = 0
        self.num_failed_loads = 0
        self._workers = workers
        self._admit = admit
        self._changed = changed
        self._backoff_s = backoff_s
        self._num_failures_in_row = 0
        self._retry_at_s = 0.0
        self._num_active = 0
        self._num_waiting = 0
        self._worker: WorkerClient | None = None
        self._holder: WorkerClient | None = None
        """Whose memory `plan` is about."""
        self._loading: asyncio.Task[WorkerClient | ErrorInfo] | None = None
        self._unloading: asyncio.Task[None] | None = None
        self._progress = LoadProgress(stage="", fraction=0.0)
        self._report: ServingReport | None = None
        self._error: ErrorInfo | None = None
        self._refusal: ErrorInfo | None = None
        """Why there was no room for it when it was to be loaded last."""
        self._num_worker_deaths = 0

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
        """Whether it is in memory and nobody uses it or is about to: it can go at once."""
        return self.is_ready and self._loading is None and not self._num_active and not self._num_waiting

    @property
    def planned_bytes(self) -> int:
        """What the budget counts for it now."""
        return 0 if self.plan is None else self.plan.num_bytes + self.excess_bytes

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
            last_used_s=self.last_used_s,
            num_uses=self.num_uses,
            is_pinned=self.overrides.pinned,
            is_idle=self.is_idle,
        )

    @asynccontextmanager
    async def lease(self) -> AsyncIterator[WorkerClient]:
        """The worker, loaded first where needed; all who wait share one load and its failure.

        A caller that is cancelled leaves the load running. Raises `ModelLoadFailed`, `InsufficientMemory` or
        `ShuttingDown`.
        """
        self.num_uses += 1
        self.last_used_s = time.monotonic()
        worker = await self._ready_worker()
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
            self._error = self._refusal = None
            self._report = None
            previous, self._worker = self._worker, None
            self.is_draining = False
            self._progress = LoadProgress(stage="waiting for memory", fraction=0.0)
            self._loading = asyncio.create_task(self._load(previous))
        return self._loading

    def reserve(self, plan: MemoryPlan) -> None:
        """Note what the load that was admitted is going to take."""
        self.plan = plan
        self._progress = LoadProgress(stage="starting a worker", fraction=0.0)

    def tell_progress(self, stage: str) -> None:
        """Say what the load waits for."""
        self._progress = LoadProgress(stage=stage, fraction=0.0)

    async def unload(self) -> None:
        """End the worker, and return once its memory is given back. What it still answers ends with `ShuttingDown`."""
        if self._unloading is None and self._worker is not None:
            self._unloading = asyncio.create_task(self._stop_worker(self._worker))
        if self._unloading is not None:
            await asyncio.shield(self._unloading)

    async def wait_idle(self) -> None:
        """Return once neither a load nor an unload is under way. Used by the pool's end, after the workers stopped."""
        tasks = [task for task in (self._loading, self._unloading) if task is not None]
        if tasks:
            await asyncio.wait(tasks)

    def status(self, *, is_closing: bool) -> ModelStatus:
        """Where the model stands now."""
        worker = self.worker
        state = self._state(is_closing=is_closing)
        is_loading = state is ModelState.LOADING
        return ModelStatus(
            entry=self.entry,
            state=state,
            stage=self._progress.stage if is_loading else "",
            fraction=self._progress.fraction if is_loading else 0.0,
            report=self._report if worker else None,
            stats=worker.stats if worker else None,
            worker_pid=self._worker.pid if self._worker is not None and self._worker.is_usable else None,
            num_worker_deaths=self._num_worker_deaths,
            error=self._error or self._refusal,
            retry_in_s=max(0.0, self._retry_at_s - time.monotonic()) if state is ModelState.FAILED else None,
            overrides=self.overrides,
            num_in_flight=self._num_active,
            num_waiting=self._num_waiting,
            num_uses=self.num_uses,
            idle_s=self.idle_s if self.is_idle else None,
            planned_bytes=self.planned_bytes,
            measured_bytes=self.measured_bytes,
        )

    def _state(self, *, is_closing: bool) -> ModelState:
        if self.is_ready:
            return ModelState.DRAINING if is_closing or self.is_draining else ModelState.READY
        if self._unloading is not None:
            return ModelState.DRAINING
        if self._loading is not None:
            return ModelState.LOADING
        return ModelState.FAILED if self._error is not None else ModelState.COLD

    async def _ready_worker(self) -> WorkerClient:
        while True:
            if self._unloading is not None:
                await asyncio.wait((self._unloading,))
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
            self._check_backoff()
        self._num_waiting += 1
        try:
            loaded = await asyncio.shield(self.begin_load())
        finally:
            self._num_waiting -= 1
            self._changed.notify()
        if isinstance(loaded, ErrorInfo):
            raise MlxManagerError.from_info(loaded)
        return loaded

    def _check_backoff(self) -> None:
        wait_s = self._retry_at_s - time.monotonic()
        if self._error is not None and wait_s > 0:
            raise MlxManagerError.from_info(_with_retry(self._error, wait_s))

    async def _load(self, previous: WorkerClient | None) -> WorkerClient | ErrorInfo:
        name = self.entry.name
        worker: WorkerClient | None = None
        try:
            if previous is not None:
                # it died: its memory has to be back before somebody counts
                await asyncio.wait((previous.ended,))
            options = await self._admit(self)
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
            self.plan = None
            return self._on_failed_load(_as_load_error(name, error))
        else:
            self._report = report
            if self.plan is not None:
                self.plan = self.plan.corrected(report)
            self.num_loads += 1
            self._num_failures_in_row = 0
            self.last_used_s = time.monotonic()
            logger.info("The model '%s' is loaded in %.1f s", name, report.load_s)
            return worker
        finally:
            self._loading = None
            self._changed.notify()
            self._workers.replenish_later()

    def _on_failed_load(self, error: ErrorInfo) -> ErrorInfo:
        """A load that found no room, or that the server's end cut short, says nothing against the model."""
        logger.warning("%s", error.message)
        if error.code in (InsufficientMemory.code, ShuttingDown.code):
            self._refusal = error
            return error
        self._error = error
        self.num_failed_loads += 1
        wait_s = min(self._backoff_s * _BACKOFF_GROWTH**self._num_failures_in_row, _MAX_BACKOFF_S)
        self._num_failures_in_row += 1
        self._retry_at_s = time.monotonic() + wait_s
        return _with_retry(error, wait_s)

    async def _stop_worker(self, worker: WorkerClient) -> None:
        try:
            await worker.stop()
        finally:
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
            self.plan = None
            self.measured_bytes = 0
            self.is_draining = False
        self._changed.notify()

    def _on_progress(self, progress: LoadProgress) -> None:
        if progress.stage != self._progress.stage:
            logger.info("Loading '%s': %s (%.0f %%)", self.entry.name, progress.stage, progress.fraction * 100)
        self._progress = progress

    def _on_worker_death(self, worker: WorkerClient, reason: ErrorInfo) -> None:
        self._num_worker_deaths += 1
        logger.error("%s", reason.message)
        if worker is self._worker and self._loading is None:
            self._error = reason


def _as_load_error(name: str, error: MlxManagerError | OSError) -> ErrorInfo:
    if isinstance(error, ModelLoadFailed | InsufficientMemory | ShuttingDown):
        return error.as_info()
    if isinstance(error, MlxManagerError):
        return ModelLoadFailed(f"The model '{name}' could not be loaded: {error.message}").as_info()
    return ModelLoadFailed(f"No worker could be started for the model '{name}': {error}").as_info()


def _with_retry(error: ErrorInfo, wait_s: float) -> ErrorInfo:
    """`error`, saying when the next request will try again."""
    sentence = error.message.rstrip()
    end = "" if sentence.endswith((".", "!", "?")) else "."
    return ErrorInfo(
        code=error.code,
        message=f"{sentence}{end} A request will try again in {wait_s:.1f} s.",
        param=error.param,
        retry_after_s=wait_s,
    )
