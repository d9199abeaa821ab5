"""The models in memory: leased by name, each loaded once, several side by side."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from mlx_manager.catalog import LoadOptions, ModelEntry
from mlx_manager.errors import ModelNotFound, ShuttingDown
from mlx_manager.pool.blas import worker_environment
from mlx_manager.pool.slot import ModelSlot
from mlx_manager.pool.spare import WorkerSource
from mlx_manager.pool.status import ModelState, ModelStatus
from mlx_manager.pool.worker_client import WorkerClient
from mlx_manager.pool.worker_process import DEFAULT_COMMAND, WorkerLaunch


class ModelPool:
    """Worker processes by model name. Make it, `start` and `close` it inside one running event loop.

    `find_models` returns the models that can be served now; it is called from the event loop for every list of
    statuses and before every load, so it must be quick. `command` is the worker's program, for tests.
    """

    def __init__(
        self,
        find_models: Callable[[], Sequence[ModelEntry]],
        *,
        default_model: str | None,
        options: LoadOptions,
        use_spare: bool = True,
        spare_delay_s: float = 5.0,
        command: tuple[str, ...] = DEFAULT_COMMAND,
    ) -> None:
        self.default_model = default_model
        self._find_models = find_models
        self._options = options
        launch = WorkerLaunch(command, worker_environment(os.environ))
        self._workers = WorkerSource(launch, use_spare=use_spare, spare_delay_s=spare_delay_s)
        self._slots: dict[str, ModelSlot] = {}
        self._is_closing = False

    async def start(self) -> None:
        """Begin to load the default model, or to start the spare worker where there is none, and return at once.

        Raises `ModelNotFound` for a default model that is not among the models.
        """
        if self.default_model is not None:
            self._slot(self.default_model).begin_load()
        else:
            self._workers.replenish_later(delay_s=0.0)

    async def close(self) -> None:
        """Stop all workers; requests in flight and loads under way end with `ShuttingDown`. Bounded in time."""
        self._is_closing = True
        await self._workers.close()
        for slot in self._slots.values():
            await slot.wait_idle()

    @asynccontextmanager
    async def lease(self, name: str) -> AsyncIterator[WorkerClient]:
        """The worker that serves the model `name`, for as long as the context lasts; a cold model is loaded first.

        The worker may die while it is leased; what it is asked then raises `WorkerDied`, and a new lease starts a new
        one. Raises `ModelNotFound`, `ModelLoadFailed` or `ShuttingDown`.
        """
        if self._is_closing:
            raise ShuttingDown("The server is stopping.")
        slot = self._slot(name)
        slot.num_leases += 1
        try:
            yield await slot.worker()
        finally:
            slot.num_leases -= 1

    def entry(self, name: str) -> ModelEntry:
        """The model `name`, loaded or not. Raises `ModelNotFound`."""
        return self._slot(name).entry

    def statuses(self) -> list[ModelStatus]:
        """Every model that can be served, and those in memory that are no longer found, by name."""
        entries = {entry.name: entry for entry in self._find_models()}
        by_name = {
            name: ModelStatus(entry=entry, state=ModelState.COLD)
            for name, entry in entries.items()
            if name not in self._slots
        }
        for name, slot in self._slots.items():
            if name in entries or not slot.is_cold:
                by_name[name] = slot.status(is_closing=self._is_closing)
        return [by_name[name] for name in sorted(by_name)]

    def _slot(self, name: str) -> ModelSlot:
        slot = self._slots.get(name)
        if slot is not None and not slot.is_cold:
            return slot
        entries = {entry.name: entry for entry in self._find_models()}
        entry = entries.get(name)
        if entry is None:
            raise ModelNotFound(
                f"There is no model {name!r}. Models here: {', '.join(sorted(entries)) or 'none'}.", param="model"
            )
        if slot is None:
            slot = self._slots[name] = ModelSlot(entry, self._options, self._workers)
        slot.entry = entry
        return slot
