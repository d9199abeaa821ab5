"""The limits of a pool change while it runs: for models in memory, for loads that wait, and through the admin's API."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from mlx_manager.catalog import MemoryAmount
from mlx_manager.errors import InsufficientMemory
from mlx_manager.pool import EvictionPolicy, EvictionReason, PoolLimits
from tests.pool.counting_pool import MODEL_BYTES, answer, budget_for, counting_pool, status_of, wait_for
from tests.pool.test_budget import ABC, ask, gone, hot


async def test_less_memory_lets_idle_models_go_at_once_and_busy_ones_later(tmp_path: Path) -> None:
    async with counting_pool(tmp_path, names=ABC, memory_budget=budget_for(3), check_period_s=0.1) as pool:
        await ask(pool, "a", "b")
        running = asyncio.create_task(answer(pool, "long", "60 0.01", model="c"))
        await wait_for(lambda: status_of(pool, "c").num_in_flight == 1)
        pool.set_limits(PoolLimits(memory_budget=budget_for(2)))
        assert pool.stats().budget_bytes == 2 * MODEL_BYTES
        await wait_for(lambda: hot(pool) == {"b", "c"})
        pool.set_limits(PoolLimits(memory_budget=MemoryAmount(num_bytes=MODEL_BYTES - 1)))
        await wait_for(lambda: hot(pool) == {"c"})
        assert status_of(pool, "c").num_in_flight == 1
        assert len((await running).split()) == 60
        await wait_for(lambda: not hot(pool))
        assert gone(pool) == [(name, EvictionReason.BUDGET, None) for name in ABC]
        with pytest.raises(InsufficientMemory, match=r"needs 100\.0 MiB of the memory budget of 100\.0 MiB"):
            await ask(pool, "a")


async def test_more_memory_reaches_a_load_that_waits(tmp_path: Path) -> None:
    async with counting_pool(tmp_path, names=ABC, memory_budget=budget_for(1)) as pool:
        running = asyncio.create_task(answer(pool, "long", "40 0.02", model="a"))
        await wait_for(lambda: status_of(pool, "a").num_in_flight == 1)
        waiting = asyncio.create_task(answer(pool, "next", "1 0", model="b"))
        await wait_for(lambda: pool.progress("b") == "loading b: waiting for the requests of a (0%)")
        pool.set_limits(PoolLimits(memory_budget=budget_for(2)))
        assert await waiting == "next-0 "
        assert not running.done()
        assert len((await running).split()) == 40
        assert (gone(pool), hot(pool)) == ([], {"a", "b"})


async def test_a_shorter_drain_and_another_policy_reach_a_load_that_waits(tmp_path: Path) -> None:
    async with counting_pool(tmp_path, names=ABC, memory_budget=budget_for(1)) as pool:
        running = asyncio.create_task(answer(pool, "long", "40 0.02", model="a"))
        await wait_for(lambda: status_of(pool, "a").num_in_flight == 1)
        for number, changed in enumerate(({"drain_timeout_s": 0.05}, {"policy": EvictionPolicy.NONE})):
            pool.set_limits(PoolLimits(memory_budget=budget_for(1)))
            waiting = asyncio.create_task(answer(pool, f"next{number}", "1 0", model="b"))
            await wait_for(lambda: str(pool.progress("b")).endswith("waiting for the requests of a (0%)"))
            pool.set_limits(PoolLimits(memory_budget=budget_for(1), **changed))  # type: ignore[arg-type]
            with pytest.raises(InsufficientMemory):
                await asyncio.wait_for(waiting, 5)
            assert not running.done()
        await running
        # the policy holds for everybody who comes later
        with pytest.raises(InsufficientMemory):
            await ask(pool, "c")
        pool.set_limits(PoolLimits(memory_budget=budget_for(1)))
        await ask(pool, "c")
        assert hot(pool) == {"c"}
