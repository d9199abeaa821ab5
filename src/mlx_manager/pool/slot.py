"""One model of the pool: where it stands, its worker, and the load that everyone who waits for it shares."""

from __future__ import annotations

import asyncio
import logging

from mlx_manager.catalog import LoadOptions, ModelEntry
from mlx_manager.errors import ErrorInfo, MlxManagerError, ModelLoadFailed
from mlx_manager.ipc import LoadProgress, ServingReport
from mlx_manager.pool.spare import WorkerSource
from mlx_manager.pool.status import ModelState, ModelStatus
from mlx_manager.pool.worker_client import WorkerClient

logger = logging.getLogger(__name__)


class ModelSlot:
    """A model by name: cold until somebody asks for its worker, and again after that worker's end."""

    def __init__(self, entry: ModelEntry, options: LoadOptions, workers: WorkerSource) -> None:
        self.entry = entry
        """Refreshed by the pool before a load."""
        self.num_leases = 0
        """Leases that are held now; written by the pool."""
        self._options = options
        self._workers = workers
        self._worker: WorkerClient | None = None
        self._loading: asyncio.Task[WorkerClient | ErrorInfo] | None = None
        self._progress = LoadProgress(stage="", fraction=0.0)
        self._report: ServingReport | None = None
        self._error: ErrorInfo | None = None
        self._num_worker_deaths = 0

    @property
    def is_cold(self) -> bool:
        """Whether the next `worker()` starts a load."""
        return self._loading is None and not self._is_ready

    async def worker(self) -> WorkerClient:
        """The worker that serves this model, loaded first where needed; all who wait share one load and its failure.

        A caller that is cancelled leaves the load running. Raises `ModelLoadFailed` or `ShuttingDown`.
        """
        if self._worker is not None and self._is_ready:
            return self._worker
        loaded = await asyncio.shield(self.begin_load())
        if isinstance(loaded, ErrorInfo):
            raise MlxManagerError.from_info(loaded)
        return loaded

    def begin_load(self) -> asyncio.Task[WorkerClient | ErrorInfo]:
        """Load in the background, or join the load that is under way."""
        if self._loading is None:
            self._error = None
            self._report = None
            self._worker = None
            self._progress = LoadProgress(stage="starting a worker", fraction=0.0)
            self._loading = asyncio.create_task(self._load())
        return self._loading

    async def wait_idle(self) -> None:
        """Return once no load is under way. Used by the pool's end, after the workers were stopped."""
        if self._loading is not None:
            await asyncio.wait((self._loading,))

    def status(self, *, is_closing: bool) -> ModelStatus:
        """Where the model stands now."""
        ready_worker = self._worker if self._is_ready else None
        if ready_worker is not None:
            state = ModelState.DRAINING if is_closing else ModelState.READY
        elif self._loading is not None:
            state = ModelState.LOADING
        else:
            state = ModelState.FAILED if self._error is not None else ModelState.COLD
        return ModelStatus(
            entry=self.entry,
            state=state,
            stage=self._progress.stage if state is ModelState.LOADING else "",
            fraction=self._progress.fraction if state is ModelState.LOADING else 0.0,
            report=self._report if ready_worker else None,
            stats=ready_worker.stats if ready_worker else None,
            worker_pid=self._worker.pid if self._worker is not None and self._worker.is_usable else None,
            num_worker_deaths=self._num_worker_deaths,
            error=self._error,
        )

    @property
    def _is_ready(self) -> bool:
        return self._report is not None and self._worker is not None and self._worker.is_usable

    async def _load(self) -> WorkerClient | ErrorInfo:
        name = self.entry.name
        try:
            worker = self._workers.take(name)
            self._worker = worker
            self._report = await worker.load(
                self.entry,
                self._options,
                on_progress=self._on_progress,
                on_death=lambda reason: self._on_worker_death(worker, reason),
            )
        except (MlxManagerError, OSError) as error:
            self._error = _as_load_error(name, error)
            logger.warning("%s", self._error.message)
            if self._worker is not None:
                await self._worker.stop()
            return self._error
        else:
            logger.info("The model '%s' is loaded in %.1f s", name, self._report.load_s)
            return worker
        finally:
            self._loading = None
            self._workers.replenish_later()

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
    if isinstance(error, MlxManagerError):
        return error.as_info()
    return ModelLoadFailed(f"No worker could be started for the model '{name}': {error}").as_info()
