"""The caches of idle models give way before a model goes, and come back before it answers again."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from mlx_manager.catalog import MemoryAmount, ModelOverrides
from mlx_manager.errors import InsufficientMemory
from mlx_manager.pool import EvictionPolicy, EvictionReason, ModelPool, ModelState
from tests.pool.counting_pool import (
    KV_BYTES,
    MODEL_BYTES,
    answer,
    counting_pool,
    num_loads,
    num_trims,
    set_mode,
    status_of,
    wait_for,
)

AB = ("a", "b")
MIB = 1024**2


def room_for(num_models: int, num_caches: int, more_bytes: int = 0) -> MemoryAmount:
    return MemoryAmount(num_bytes=num_models * MODEL_BYTES + num_caches * KV_BYTES + more_bytes)


def log_of(pool: ModelPool) -> list[tuple[str, str, EvictionReason]]:
    """What gave way, the first first."""
    return [("trim" if one.is_trim else "evict", one.model, one.reason) for one in reversed(pool.evictions())]


def trimmed(pool: ModelPool) -> set[str]:
    return {status.entry.name for status in pool.statuses() if status.is_trimmed}


async def ask(pool: ModelPool, *names: str) -> None:
    for name in names:
        assert await answer(pool, f"{name}-1", "1 0", model=name) == f"{name}-1-0 "


async def test_an_idle_model_gives_its_caches_and_stays(tmp_path: Path) -> None:
    async with counting_pool(tmp_path, names=AB, has_caches=True, memory_budget=room_for(2, 1)) as pool:
        await ask(pool, "a", "b")
        assert trimmed(pool) == {"a"}
        assert (status_of(pool, "a").state, status_of(pool, "a").planned_bytes) == (ModelState.READY, MODEL_BYTES)
        assert status_of(pool, "b").planned_bytes == MODEL_BYTES + KV_BYTES
        await ask(pool, "a", "a", "b")
        assert log_of(pool) == [("trim", name, EvictionReason.ROOM) for name in ("a", "b", "a")]
        last = pool.evictions()[0]
        assert (last.for_model, last.freed_bytes) == ("b", KV_BYTES)
        assert (num_loads(tmp_path, "a"), num_loads(tmp_path, "b")) == (1, 1)
        assert (num_trims(tmp_path, "a"), num_trims(tmp_path, "b")) == (2, 1)
        stats = pool.stats()
        assert (stats.num_evictions, stats.num_trims) == (0, 3)
        assert stats.planned_bytes == stats.budget_bytes


@pytest.mark.parametrize(("budget", "has_evictions"), [(room_for(3, 2), False), (room_for(2, 1), True)])
async def test_many_clients_of_more_models_than_caches_fit_are_all_answered(
    tmp_path: Path, budget: MemoryAmount, has_evictions: bool
) -> None:
    names = ("a", "b", "c")
    async with counting_pool(tmp_path, names=names, has_caches=True, memory_budget=budget) as pool:
        highest = 0

        async def watch() -> None:
            nonlocal highest
            while True:
                highest = max(highest, pool.stats().planned_bytes)
                await asyncio.sleep(0.002)

        watcher = asyncio.create_task(watch())
        asked = [names[index * index % 7 % 3] for index in range(60)]

        async def one(index: int) -> str:
            await asyncio.sleep(index * 0.01)
            return await answer(pool, f"r{index}", "3 0.005", model=asked[index])

        texts = await asyncio.gather(*(one(index) for index in range(60)))
        watcher.cancel()
        assert texts == [f"r{index}-0 r{index}-1 r{index}-2 " for index in range(60)]
        assert highest == budget.num_bytes
        stats = pool.stats()
        assert stats.num_trims >= 1
        assert (stats.num_evictions > 0) == has_evictions


async def test_a_request_to_a_trimmed_model_waits_for_the_busy_one(tmp_path: Path) -> None:
    async with counting_pool(tmp_path, names=AB, has_caches=True, memory_budget=room_for(2, 1)) as pool:
        await ask(pool, "a")
        running = asyncio.create_task(answer(pool, "long", "40 0.01", model="b"))
        await wait_for(lambda: status_of(pool, "b").num_in_flight == 1)
        waiting = asyncio.create_task(answer(pool, "next", "1 0", model="a"))
        await wait_for(lambda: status_of(pool, "b").state is ModelState.DRAINING)
        assert pool.progress("a") == "making room for the context of a: waiting for the requests of b"
        late = asyncio.create_task(answer(pool, "late", "1 0", model="b"))
        assert len((await running).split()) == 40
        assert await waiting == "next-0 "
        assert await late == "late-0 "
        assert pool.progress("a") is None
        assert [name for _, name, _ in log_of(pool)] == ["a", "b", "a"]
        assert pool.stats().num_evictions == 0


async def test_what_needs_no_caches_does_not_wait_for_them(tmp_path: Path) -> None:
    async with counting_pool(tmp_path, names=AB, has_caches=True, memory_budget=room_for(2, 1)) as pool:
        await ask(pool, "a")
        running = asyncio.create_task(answer(pool, "long", "1000 0.01", model="b"))
        await wait_for(lambda: status_of(pool, "b").num_in_flight == 1)
        async with asyncio.timeout(5), pool.lease("a", computes=False) as worker:
            assert worker.pid == status_of(pool, "a").worker_pid
            assert trimmed(pool) == {"a"}
        running.cancel()


async def test_the_wait_is_bounded_and_says_what_holds_the_memory(tmp_path: Path) -> None:
    options: dict[str, Any] = {"memory_budget": room_for(2, 1), "drain_timeout_s": 0.2}
    async with counting_pool(tmp_path, names=AB, has_caches=True, **options) as pool:
        await ask(pool, "a")
        running = asyncio.create_task(answer(pool, "long", "60 0.02", model="b"))
        await wait_for(lambda: status_of(pool, "b").num_in_flight == 1)
        with pytest.raises(InsufficientMemory, match=r"'a' needs 116\.0 MiB .*b 116\.0 MiB \(1 requests\)") as refusal:
            await ask(pool, "a")
        assert refusal.value.retry_after_s
        assert status_of(pool, "a").error is not None
        assert len((await running).split()) == 60
        await ask(pool, "a")
        assert status_of(pool, "a").error is None


async def test_a_pinned_model_keeps_its_caches(tmp_path: Path) -> None:
    models = {"a": ModelOverrides(pinned=True)}
    async with counting_pool(tmp_path, names=AB, has_caches=True, memory_budget=room_for(2, 1), models=models) as pool:
        await ask(pool, "a")
        with pytest.raises(InsufficientMemory, match="pinned"):
            await ask(pool, "b")
        assert log_of(pool) == []


async def test_where_a_model_pinned_meanwhile_leaves_less_it_is_loaded_with_less(tmp_path: Path) -> None:
    async with counting_pool(tmp_path, names=AB, has_caches=True, memory_budget=room_for(2, 1, 8 * MIB)) as pool:
        await ask(pool, "a", "b")
        pool.change("b", {"pinned": True})
        await ask(pool, "a")
        assert num_loads(tmp_path, "a") == 2
        planned = status_of(pool, "a").planned_bytes
        assert MODEL_BYTES + 6 * MIB < planned <= MODEL_BYTES + 8 * MIB
        assert not trimmed(pool)


async def test_without_a_policy_nobody_is_trimmed(tmp_path: Path) -> None:
    options: dict[str, Any] = {"memory_budget": room_for(2, 1), "policy": EvictionPolicy.NONE}
    async with counting_pool(tmp_path, names=AB, has_caches=True, **options) as pool:
        await ask(pool, "a")
        with pytest.raises(InsufficientMemory):
            await ask(pool, "b")
        assert log_of(pool) == []


@pytest.mark.parametrize("mode", ["stuck", "mortal"])
async def test_a_worker_that_cannot_trim_is_ended(tmp_path: Path, mode: str) -> None:
    options: dict[str, Any] = {"memory_budget": room_for(2, 1), "drain_timeout_s": 0.3}
    async with counting_pool(tmp_path, names=AB, has_caches=True, **options) as pool:
        await ask(pool, "a")
        set_mode(tmp_path, mode, "a")
        await ask(pool, "b")
        await wait_for(lambda: status_of(pool, "a").planned_bytes == 0)
        assert log_of(pool) == ([("evict", "a", EvictionReason.ROOM)] if mode == "stuck" else [])
        set_mode(tmp_path, "good", "a")
        await ask(pool, "a")
        assert num_loads(tmp_path, "a") == 2


async def test_a_trimmed_worker_that_dies_is_loaded_again(tmp_path: Path) -> None:
    async with counting_pool(tmp_path, names=AB, has_caches=True, memory_budget=room_for(2, 1)) as pool:
        await ask(pool, "a", "b")
        pid = status_of(pool, "a").worker_pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await wait_for(lambda: status_of(pool, "a").planned_bytes == 0)
        assert not trimmed(pool)
        await ask(pool, "a")
        assert num_loads(tmp_path, "a") == 2


async def test_a_trimmed_model_can_be_unloaded(tmp_path: Path) -> None:
    async with counting_pool(tmp_path, names=AB, has_caches=True, memory_budget=room_for(2, 1)) as pool:
        await ask(pool, "a", "b")
        assert (await pool.unload("a")).state is ModelState.COLD
        assert status_of(pool, "a").planned_bytes == 0


async def test_under_pressure_caches_go_before_models(tmp_path: Path) -> None:
    available = [2000]
    options: dict[str, Any] = {"memory_floor": MemoryAmount(num_bytes=1000), "available": lambda: available[0]}
    async with counting_pool(tmp_path, names=AB, has_caches=True, check_period_s=0.02, **options) as pool:
        await ask(pool, "a", "b")
        available[0] = 500
        await wait_for(lambda: len(log_of(pool)) >= 3)
        assert sorted(log_of(pool)[:2]) == [("trim", name, EvictionReason.PRESSURE) for name in AB]
        assert log_of(pool)[2] == ("evict", "a", EvictionReason.PRESSURE)


async def test_caches_go_before_models_when_a_worker_outgrew_its_plan(tmp_path: Path) -> None:
    measured = [0]

    def measure(pid: int) -> int:
        return MODEL_BYTES if num_trims(tmp_path, "a") else measured[0]

    options: dict[str, Any] = {"memory_budget": room_for(2, 2), "measure": measure, "check_period_s": 0.02}
    async with counting_pool(tmp_path, names=AB, has_caches=True, **options) as pool:
        await ask(pool, "a", "b")
        measured[0] = MODEL_BYTES + KV_BYTES + 5 * MIB
        await wait_for(lambda: bool(log_of(pool)))
        await asyncio.sleep(0.1)
        assert log_of(pool) == [("trim", "a", EvictionReason.BUDGET)]
        assert status_of(pool, "a").planned_bytes == MODEL_BYTES


async def test_what_a_trim_does_not_bring_is_not_counted_as_brought(tmp_path: Path) -> None:
    measured = MODEL_BYTES + 10 * MIB
    options: dict[str, Any] = {"memory_budget": room_for(2, 1), "measure": lambda pid: measured}
    async with counting_pool(tmp_path, names=AB, has_caches=True, check_period_s=60.0, **options) as pool:
        await ask(pool, "a", "b")
        assert log_of(pool) == [("trim", "a", EvictionReason.ROOM), ("evict", "a", EvictionReason.ROOM)]
        assert [one.freed_bytes for one in reversed(pool.evictions())] == [KV_BYTES - 10 * MIB, measured]
