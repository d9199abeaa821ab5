"""The models in memory: leased by name, each loaded once, several side by side."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager

import msgspec
import psutil

from mlx_manager.catalog import LoadOptions, ModelEntry, ModelOverrides, render_size
from mlx_manager.errors import MlxManagerError, ModelNotFound, ShuttingDown
from mlx_manager.pool.blas import worker_environment
from mlx_manager.pool.draft_entry import check_draft, find_draft_entry
from mlx_manager.pool.keeper import MemoryKeeper
from mlx_manager.pool.load_errors import Backoff
from mlx_manager.pool.memory import SPARE_BYTES
from mlx_manager.pool.names import ModelNames
from mlx_manager.pool.options import PoolLimits, PoolOptions
from mlx_manager.pool.room import MemoryRoom
from mlx_manager.pool.signal import Signal
from mlx_manager.pool.slot import ModelSlot
from mlx_manager.pool.spare import WorkerSource
from mlx_manager.pool.status import Eviction, EvictionReason, ModelState, ModelStatus, PoolStats, WorkerFault
from mlx_manager.pool.watchdog import Watchdog
from mlx_manager.pool.worker_client import WorkerClient
from mlx_manager.pool.worker_process import DEFAULT_COMMAND, WorkerLaunch

logger = logging.getLogger(__name__)

_DRAFT_SETTINGS = {"draft_model", "max_draft_tokens"}
_LEAST_LEAK_BYTES = 1024**3
"""Of a small model, a share says little: one busy step can take as much as all that it was planned to."""


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
        pool_options: PoolOptions | None = None,
        use_spare: bool = True,
        spare_delay_s: float = 5.0,
        command: tuple[str, ...] = DEFAULT_COMMAND,
    ) -> None:
        shared = pool_options or PoolOptions()
        self.default_model = default_model
        self._find_models = find_models
        self._options = options
        self._shared = shared
        self._names = ModelNames(shared.models, shared.state_file)
        launch = WorkerLaunch(command, worker_environment(os.environ))
        self._workers = WorkerSource(
            launch, use_spare=use_spare, spare_delay_s=spare_delay_s, has_room=self._has_room_for_spare
        )
        self._slots: dict[str, ModelSlot] = {}
        self._changed = Signal()
        self._limits = PoolLimits(
            memory_budget=shared.memory_budget, policy=shared.policy, drain_timeout_s=shared.drain_timeout_s
        )
        self._recommended_bytes: int | None = None
        """What the device recommends to use. Asked for where the budget is a share of it."""
        self._room = MemoryRoom(
            self._slots,
            self._find_budget,
            self._changed,
            load_options=self._load_options,
            predict=shared.predict,
            limits=lambda: self._limits,
            measure=shared.measure,
            fit_spare=self._workers.fit_spare,
        )
        self._keeper = MemoryKeeper(
            self._slots,
            self._room,
            ttl_s=lambda: self._shared.ttl_s,
            floor_bytes=lambda: self._shared.memory_floor.of(int(psutil.virtual_memory().total)),
            on_measured=self._replace_if_leaking,
            period_s=shared.check_period_s,
            measure=shared.measure,
            available=shared.available,
        )
        self._watchdog = Watchdog(
            lambda: self._workers.workers,
            hang_timeout_s=lambda: self._shared.hang_timeout_s,
            load_timeout_s=lambda: self._shared.load_timeout_s,
        )
        self._background: set[asyncio.Task[None]] = set()
        self._is_closing = False

    async def start(self) -> None:
        """Begin to load the default model and those to be preloaded, or to start the spare worker where there are
        none, and return at once.

        Raises `ModelNotFound` for a default model that is not among the models; of the others the log tells.
        """
        self._warn_of_unknown_names()
        if self.default_model is not None:
            self._slot(self.default_model).begin_load()
        else:
            self._workers.replenish_later(delay_s=0.0)
        if self._shared.preload:
            self._spawn(self._preload(self._shared.preload))
        self._keeper.start()
        self._watchdog.start()

    async def close(self) -> None:
        """Stop all workers; requests in flight and loads under way end with `ShuttingDown`. Bounded in time."""
        self._is_closing = True
        await self._keeper.close()
        await self._watchdog.close()
        for task in self._background:
            task.cancel()
        await self._workers.close()
        for slot in self._slots.values():
            await slot.wait_idle()

    @asynccontextmanager
    async def lease(self, name: str, *, computes: bool = True) -> AsyncIterator[WorkerClient]:
        """The worker that serves the model `name`, or that of the alias `name`, for as long as the context lasts; a
        cold model is loaded first. Without `computes` it is asked for nothing that needs its caches.

        The worker may die while it is leased; what it is asked then raises `WorkerDied`, and a new lease starts a new
        one. Raises `ModelNotFound`, `ModelLoadFailed`, `InsufficientMemory` or `ShuttingDown`.
        """
        if self._is_closing:
            raise ShuttingDown("The server is stopping.")
        async with self._slot(name).lease(computes=computes) as worker:
            yield worker

    def entry(self, name: str) -> ModelEntry:
        """The model `name`, loaded or not. Raises `ModelNotFound`."""
        return self._slot(name).entry

    def overrides(self, name: str) -> ModelOverrides:
        """What holds for the model `name` alone. Raises `ModelNotFound`."""
        return self._slot(name).overrides

    def statuses(self) -> list[ModelStatus]:
        """Every model that can be served, and those in memory that are no longer found, by name."""
        entries = {entry.name: entry for entry in self._find_models()}
        by_name = {
            name: ModelStatus(entry=entry, state=ModelState.COLD, overrides=self._names.overrides(name))
            for name, entry in entries.items()
            if name not in self._slots
        }
        for name, slot in self._slots.items():
            if name in entries or not slot.is_cold:
                by_name[name] = slot.status(is_closing=self._is_closing)
        return [by_name[name] for name in sorted(by_name)]

    def progress(self, name: str) -> str | None:
        """What a request to `name` waits for, in a line for people; None where it waits for no load."""
        slot = self._slots.get(name) or self._slots.get(self._names.resolve(name, ()))
        if slot is None:
            return None
        status = slot.status(is_closing=self._is_closing)
        if status.state is ModelState.LOADING:
            return f"loading {status.entry.name}: {status.stage} ({status.fraction:.0%})"
        return f"making room for the context of {status.entry.name}: {status.stage}" if status.stage else None

    def begin_load(self, name: str) -> ModelStatus:
        """Load the model in the background, unless it is in memory. Raises `ModelNotFound` or `ShuttingDown`."""
        if self._is_closing:
            raise ShuttingDown("The server is stopping.")
        slot = self._slot(name)
        if slot.is_cold:
            slot.forgive()
            slot.begin_load()
        return slot.status(is_closing=False)

    async def unload(self, name: str) -> ModelStatus:
        """Unload the model: at once when nobody uses it, else in the background once its requests are answered.

        After the drain timeout those that are left end with `ShuttingDown`. The failure of one that failed is put away,
        and the next request tries again at once. Raises `ModelNotFound`.
        """
        slot = self._slot(name)
        slot.stay_cold()
        slot.put_failure_away()
        if slot.is_idle:
            await self._room.evict(slot, EvictionReason.ADMIN)
        elif not slot.is_cold and not slot.is_draining:
            slot.is_draining = True
            self._spawn(self._drain(slot))
        return slot.status(is_closing=self._is_closing)

    def change(self, name: str, values: Mapping[str, object]) -> ModelStatus:
        """Change settings of one model, by name; null goes back to what the config says. Kept beyond the server's end.

        Raises `ModelNotFound` or `InvalidRequest`.
        """
        slot = self._slot(name)
        if _DRAFT_SETTINGS & values.keys():
            options = self._names.changed(slot.entry.name, values).load_options(self._options)
            check_draft(options, lambda said: self._find_draft(said, slot))
        if "aliases" in values:
            changed = self._names.changed(slot.entry.name, values)
            self._names.check_free(changed, {entry.name for entry in self._find_models()})
        self._names.change(slot.entry.name, values)
        for other, its_slot in self._slots.items():
            its_slot.overrides = self._names.overrides(other)
        return slot.status(is_closing=self._is_closing)

    def reconfigure(self, options: LoadOptions, pool_options: PoolOptions) -> None:
        """Follow settings that were changed: models are loaded with `options` from their next load on.

        What `set_limits` sets, and the pauses after failures, stay as they are.
        """
        self._options = options
        self._shared = pool_options
        self._names.configure(pool_options.models)
        for name, slot in self._slots.items():
            slot.overrides = self._names.overrides(name)

    def set_limits(self, limits: PoolLimits) -> None:
        """Go by other limits from now on, also for loads that wait for room.

        Where less memory is allowed than is held, idle models give way at once, and busy ones once they are idle.
        """
        if limits == self._limits or self._is_closing:
            return
        self._limits = limits
        self._changed.notify()
        if any(slot.planned_bytes for slot in self._slots.values()):
            self._spawn(self._relieve())

    def evictions(self) -> list[Eviction]:
        """What was unloaded lately, the last first."""
        return list(reversed(self._room.evictions))

    def stats(self) -> PoolStats:
        """The pool's books."""
        slots = self._slots.values()
        return PoolStats(
            budget_bytes=self._budget_bytes(),
            planned_bytes=sum(slot.planned_bytes for slot in slots),
            spare_bytes=SPARE_BYTES if self._workers.spare is not None else 0,
            measured_bytes=sum(slot.reservation.measured_bytes for slot in slots),
            system_available_bytes=self._shared.available(),
            memory_floor_bytes=self._keeper.floor_bytes,
            num_loads=sum(slot.num_loads for slot in slots),
            num_failed_loads=sum(slot.num_failed_loads for slot in slots),
            num_evictions=self._room.num_evictions,
            num_trims=self._room.num_trims,
            num_refused=self._room.num_refused,
        )

    def _load_options(self, slot: ModelSlot) -> LoadOptions:
        """What `slot` is to be loaded with. Raises `ModelLoadFailed` for a draft model that is not there."""
        options = slot.overrides.load_options(self._options)
        if options.draft_model is None:
            return options
        return msgspec.structs.replace(options, draft_entry=self._find_draft(options.draft_model, slot))

    def _find_draft(self, said: str, slot: ModelSlot) -> ModelEntry:
        entries = {entry.name: entry for entry in self._find_models()}
        return find_draft_entry(said, slot.entry, self._names.resolve(said, entries), entries)

    def _budget_bytes(self) -> int | None:
        """None while nobody has asked what it is a share of."""
        budget = self._limits.memory_budget
        return budget.num_bytes if self._recommended_bytes is None else budget.of(self._recommended_bytes)

    async def _find_budget(self, name: str) -> int:
        while (num_bytes := self._budget_bytes()) is None:
            self._recommended_bytes = await self._workers.recommended_bytes(name)
        return num_bytes

    def _has_room_for_spare(self) -> bool:
        budget_bytes = self._budget_bytes()
        planned_bytes = sum(slot.planned_bytes for slot in self._slots.values())
        return budget_bytes is None or planned_bytes + SPARE_BYTES <= budget_bytes

    async def _relieve(self) -> None:
        try:
            await self._room.relieve()
        except (MlxManagerError, OSError) as error:
            logger.warning("The memory budget cannot be told: %s", error)

    async def _preload(self, names: Sequence[str]) -> None:
        """One after the other, as long as nobody has to go for it."""
        if self.default_model is not None:
            await asyncio.wait((self._slot(self.default_model).begin_load(),))
        for name in names:
            try:
                slot = self._slot(name)
                if not slot.is_cold:
                    continue
                if not await self._room.fits(slot):
                    logger.warning("'%s' is not preloaded: the memory budget leaves no room for it", name)
                    continue
            except MlxManagerError as error:
                logger.warning("'%s' is not preloaded: %s", name, error.message)
                continue
            await asyncio.wait((slot.begin_load(),))

    async def _drain(self, slot: ModelSlot) -> None:
        await self._wait_idle(slot)
        if slot.is_draining:
            await self._room.evict(slot, EvictionReason.ADMIN)

    def _replace_if_leaking(self, slot: ModelSlot) -> None:
        limit = self._shared.leak_limit
        limit_bytes = limit.of(slot.reservation.planned_bytes)
        if limit.share:
            limit_bytes = max(limit_bytes, _LEAST_LEAK_BYTES)
        if 0 < limit_bytes < slot.reservation.unplanned_bytes and not slot.is_draining:
            slot.is_draining = True
            self._spawn(self._replace_leaking(slot))

    async def _replace_leaking(self, slot: ModelSlot) -> None:
        """Another worker for the model, once what this one answers is answered."""
        unplanned = render_size(slot.reservation.unplanned_bytes)
        logger.error("The worker of '%s' takes %s more than planned: it is replaced", slot.entry.name, unplanned)
        await self._wait_idle(slot)
        if slot.is_draining:
            slot.condemn(WorkerFault.LEAKED, f"took {unplanned} of memory more than planned and was ended")

    async def _wait_idle(self, slot: ModelSlot) -> None:
        """Until a draining model has answered its requests, or the drain timeout has passed."""

        async def until_idle() -> None:
            while slot.is_draining and not slot.resident().is_idle:
                await self._changed.wait()

        try:
            await asyncio.wait_for(until_idle(), self._limits.drain_timeout_s)
        except TimeoutError:
            logger.warning("'%s' is unloaded before its last requests were answered", slot.entry.name)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def _warn_of_unknown_names(self) -> None:
        names = {entry.name for entry in self._find_models()}
        for name in self._names.mentioned():
            if name not in names:
                logger.warning("There are settings for the model %r, which is not on this machine", name)
            for alias in set(self._names.overrides(name).aliases) & names:
                logger.warning("The alias %r of %r is the name of a model, which it leads to", alias, name)

    def _slot(self, name: str) -> ModelSlot:
        slot = self._slots.get(name)
        if slot is not None and not slot.is_cold:
            return slot
        entries = {entry.name: entry for entry in self._find_models()}
        name = self._names.resolve(name, entries)
        entry = entries.get(name)
        if entry is None:
            raise ModelNotFound(
                f"There is no model {name!r}. Models here: {', '.join(sorted(entries)) or 'none'}.", param="model"
            )
        slot = self._slots.get(name)
        if slot is not None and not slot.is_cold:
            return slot
        if slot is None:
            backoff = Backoff(self._shared.backoff_s, self._shared.cooldown_s)
            slot = ModelSlot(entry, self._workers, self._room, self._changed, backoff=backoff)
            slot.overrides = self._names.overrides(name)
            self._slots[name] = slot
        slot.entry = entry
        return slot
