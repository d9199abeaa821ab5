"""Makes room for models under the one memory budget: who may load, who has to go, and who is refused."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence

from mlx_manager.catalog import LoadOptions, render_size
from mlx_manager.errors import InsufficientMemory, MlxManagerError
from mlx_manager.pool.evict import Resident, RoomPlan, eviction_order, plan_room
from mlx_manager.pool.memory import MemoryPlan, Predictor
from mlx_manager.pool.options import PoolLimits
from mlx_manager.pool.signal import Signal
from mlx_manager.pool.slot import ModelSlot
from mlx_manager.pool.status import Eviction, EvictionReason

logger = logging.getLogger(__name__)

_MAX_KEPT_EVICTIONS = 500
_RETRY_NEVER_FITS_S = 60.0
_RETRY_BUSY_S = 5.0


class MemoryRoom:
    """Admits one load after the other, in the order in which they were asked for.

    `slots` are the pool's, live. `budget_bytes` and `limits` are asked anew at each step, because they may change; the
    budget with the model that it is asked for, which errors name.
    `fit_spare` ends the spare worker where models leave no room for it, and starts it again.
    Slots are written to only through what they offer: `reserve`, `unload` and `is_draining`.
    """

    def __init__(
        self,
        slots: Mapping[str, ModelSlot],
        budget_bytes: Callable[[str], Awaitable[int]],
        changed: Signal,
        *,
        load_options: Callable[[ModelSlot], LoadOptions],
        predict: Predictor,
        limits: Callable[[], PoolLimits],
        measure: Callable[[int], int],
        fit_spare: Callable[[], Awaitable[None]],
    ) -> None:
        self.evictions: deque[Eviction] = deque(maxlen=_MAX_KEPT_EVICTIONS)
        self.num_evictions = 0
        self.num_trims = 0
        self.num_refused = 0
        self._slots = slots
        self._budget_bytes = budget_bytes
        self._changed = changed
        self._load_options = load_options
        self._predict = predict
        self._limits = limits
        self._measure = measure
        self._fit_spare = fit_spare
        self._turn = asyncio.Lock()

    async def admit(self, slot: ModelSlot) -> LoadOptions:
        """Make room for `slot` and reserve it; what it is to be loaded with. Raises `InsufficientMemory`,
        `InvalidRequest` for a folder that cannot be read, or `ModelLoadFailed` for a draft model that is not there.

        Idle models go at once. Where that is not enough, busy ones take no new requests until those they have are
        answered, for as long as the drain timeout; then they go on as before, and this load is refused.
        """
        async with self._turn:
            budget_bytes = await self._budget_bytes(slot.entry.name)
            options = self._load_options(slot)
            footprint = await asyncio.to_thread(self._predict, slot.entry, options)
            excess_bytes = slot.reservation.excess_bytes
            room_bytes = budget_bytes - self._pinned_bytes(slot) - excess_bytes
            plan = MemoryPlan(options, footprint).within(room_bytes)
            if plan.options.kv_budget_bytes < options.kv_budget_bytes:
                logger.warning(
                    "'%s' is loaded with a KV budget of %s instead of %s: the memory budget leaves no more",
                    slot.entry.name,
                    render_size(plan.options.kv_budget_bytes),
                    render_size(options.kv_budget_bytes),
                )
            await self._make_room(slot, plan.num_bytes + excess_bytes)
            slot.reserve(plan)
            return plan.options

    async def regain(self, slot: ModelSlot) -> None:
        """Let a trimmed model have its caches again, in its turn among the loads. Raises `InsufficientMemory`.

        Where models that were pinned meanwhile leave no room for them, it is unloaded: a load takes what they leave.
        """
        async with self._turn:
            if slot.worker is None or not slot.reservation.is_trimmed:
                return
            budget_bytes = await self._budget_bytes(slot.entry.name)
            needed_bytes = slot.reservation.full_bytes
            if needed_bytes > budget_bytes - self._pinned_bytes(slot):
                await self.evict(slot, EvictionReason.ROOM, slot.entry.name)
                return
            await self._make_room(slot, needed_bytes)
            slot.reservation.regain()
        await self._fit_spare()

    async def fits(self, slot: ModelSlot) -> bool:
        """Whether `slot` could be loaded now with nobody going. Raises `InvalidRequest` as `admit` does."""
        budget_bytes = await self._budget_bytes(slot.entry.name)
        options = self._load_options(slot)
        footprint = await asyncio.to_thread(self._predict, slot.entry, options)
        held_bytes = sum(other.planned_bytes for other in self._others(slot))
        return MemoryPlan(options, footprint).within(budget_bytes - held_bytes).num_bytes <= budget_bytes - held_bytes

    async def relieve(self) -> None:
        """Let idle models give way while more is held than the budget allows: workers took more than planned."""
        await self._fit_spare()
        async with self._turn:
            residents = self._residents()
            if not residents:
                return
            budget_bytes = await self._budget_bytes(residents[0].name)
            plan = plan_room(0, budget_bytes, residents, self._limits().policy)
            evictions = plan.evictions
            if plan.drains or not plan.is_possible:
                # they cannot do it alone, and what they can is better than nothing
                evictions = tuple(one.name for one in eviction_order(residents, self._limits().policy) if one.is_idle)
            await self._give_way(plan.trims, evictions, EvictionReason.BUDGET)

    async def shed(self) -> None:
        """Trim the idle models, because the system runs short of memory. Where all are, unload the first to go."""
        async with self._turn:
            idle = [one for one in eviction_order(self._residents(), self._limits().policy) if one.is_idle]
            trims = tuple(one.name for one in idle if one.cache_bytes)
            evictions = () if trims else tuple(one.name for one in idle[:1])
            await self._give_way(trims, evictions, EvictionReason.PRESSURE)

    async def evict(self, slot: ModelSlot, reason: EvictionReason, for_model: str | None = None) -> None:
        """Unload `slot` and write it down; returns once its memory is given back."""
        logger.info("The model '%s' is unloaded (%s)", slot.entry.name, reason.value)
        self.num_evictions += 1
        self._write_down(slot, reason, for_model, freed_bytes=slot.planned_bytes)
        await slot.unload()

    async def _give_way(
        self, trims: Sequence[str], evictions: Sequence[str], reason: EvictionReason, for_model: str | None = None
    ) -> None:
        """Trim and unload idle models; returns once their memory is given back."""
        slots = [self._slots[name] for name in trims]
        for slot in slots:
            # before anything is awaited, so that no request finds them as they were
            slot.reservation.begin_trim()
        for name in evictions:
            self._slots[name].begin_unload()
        await asyncio.gather(
            *(self._trim(slot, reason, for_model) for slot in slots),
            *(self.evict(self._slots[name], reason, for_model) for name in evictions),
        )

    async def _trim(self, slot: ModelSlot, reason: EvictionReason, for_model: str | None) -> None:
        """Finish what `begin_trim` began, and write it down. A worker that does not give its caches back is ended."""
        held_bytes = slot.planned_bytes
        try:
            await slot.trim(self._measure, self._limits().drain_timeout_s)
        except TimeoutError:
            logger.warning("The worker of '%s' does not give its caches back", slot.entry.name)
            await self.evict(slot, reason, for_model)
        except MlxManagerError:
            await slot.unload()  # it ended, and why is told already
        else:
            freed_bytes = held_bytes - slot.planned_bytes
            logger.info("The caches of '%s' are given back (%s)", slot.entry.name, reason.value)
            self.num_trims += 1
            self._write_down(slot, reason, for_model, freed_bytes=freed_bytes, is_trim=True)

    def _write_down(
        self,
        slot: ModelSlot,
        reason: EvictionReason,
        for_model: str | None,
        *,
        freed_bytes: int,
        is_trim: bool = False,
    ) -> None:
        eviction = Eviction(
            unix_s=time.time(),
            model=slot.entry.name,
            reason=reason,
            for_model=for_model,
            freed_bytes=freed_bytes,
            idle_s=round(slot.idle_s, 3),
            is_trim=is_trim,
        )
        self.evictions.append(eviction)

    async def _make_room(self, slot: ModelSlot, needed_bytes: int) -> None:
        started_s = time.monotonic()
        draining: set[str] = set()
        try:
            while True:
                budget_bytes, limits = await self._budget_bytes(slot.entry.name), self._limits()
                others = self._others(slot)
                plan = plan_room(needed_bytes, budget_bytes, [other.resident() for other in others], limits.policy)
                wait_s = started_s + limits.drain_timeout_s - time.monotonic()
                if not plan.is_possible or (plan.drains and wait_s <= 0):
                    self.num_refused += 1
                    raise self._refusal(slot, needed_bytes, budget_bytes, others, is_busy=plan.is_possible)
                if plan.drains:
                    for name in plan.drains:
                        draining.add(name)
                        self._slots[name].is_draining = True
                    slot.tell_progress(f"waiting for the requests of {', '.join(plan.drains)}")
                    await self._changed.wait(wait_s)
                    continue
                if not (plan.trims or plan.evictions):
                    return
                slot.tell_progress(_describe(plan))
                await self._give_way(plan.trims, plan.evictions, EvictionReason.ROOM, slot.entry.name)
        finally:
            for name in draining:
                self._slots[name].is_draining = False
            self._changed.notify()

    def _others(self, slot: ModelSlot) -> list[ModelSlot]:
        return [other for other in self._slots.values() if other is not slot and other.planned_bytes]

    def _residents(self) -> list[Resident]:
        return [slot.resident() for slot in self._slots.values() if slot.planned_bytes]

    def _pinned_bytes(self, slot: ModelSlot) -> int:
        """What nobody but their owners can have."""
        return sum(other.reservation.full_bytes for other in self._others(slot) if other.overrides.pinned)

    def _refusal(
        self,
        slot: ModelSlot,
        needed_bytes: int,
        budget_bytes: int,
        others: Sequence[ModelSlot],
        *,
        is_busy: bool,
    ) -> InsufficientMemory:
        held = ", ".join(
            f"{other.entry.name} {render_size(other.planned_bytes)} ({_why(other)})"
            for other in sorted(others, key=lambda other: other.entry.name)
        )
        fix = "Lower its kv_budget or max_context, or raise memory_budget."
        if is_busy:
            fix = (
                f"They were not idle within the drain_timeout of {self._limits().drain_timeout_s:g} s: try again later."
            )
        elif needed_bytes <= budget_bytes:
            fix = "Unload or unpin one of them, or raise memory_budget."
        return InsufficientMemory(
            f"The model '{slot.entry.name}' needs {render_size(needed_bytes)} of the memory budget of "
            f"{render_size(budget_bytes)}; held by others: {held or 'nothing'}. {fix}",
            retry_after_s=_RETRY_BUSY_S if is_busy else _RETRY_NEVER_FITS_S,
        )


def _describe(plan: RoomPlan) -> str:
    """What is being done to make room, for those who wait."""
    unloading = f"unloading {', '.join(plan.evictions)}" if plan.evictions else ""
    trimming = f"taking back the cache of {', '.join(plan.trims)}" if plan.trims else ""
    return " and ".join(filter(None, (trimming, unloading)))


def _why(slot: ModelSlot) -> str:
    if slot.overrides.pinned:
        return "pinned"
    status = slot.status(is_closing=False)
    return f"{status.num_in_flight} requests" if status.num_in_flight else status.state.value
