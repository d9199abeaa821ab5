"""Several models under one memory budget: who is loaded, who goes, who waits and who is refused."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest

from mlx_manager.catalog import MemoryAmount, ModelOverrides
from mlx_manager.errors import InsufficientMemory, InvalidRequest, ModelLoadFailed
from mlx_manager.pool import EvictionPolicy, EvictionReason, ModelPool, ModelState, PoolLimits
from mlx_manager.pool.memory import SPARE_BYTES
from tests.pool.counting_pool import (
    MODEL_BYTES,
    PROTOCOL_WORKER,
    answer,
    budget_for,
    counting_pool,
    num_loads,
    set_mode,
    status_of,
    wait_for,
    workers_of,
)

ABC = ("a", "b", "c")


def hot(pool: ModelPool) -> set[str]:
    return {status.entry.name for status in pool.statuses() if status.state is ModelState.READY}


def gone(pool: ModelPool) -> list[tuple[str, EvictionReason, str | None]]:
    """What was unloaded, the first first."""
    return [(eviction.model, eviction.reason, eviction.for_model) for eviction in reversed(pool.evictions())]


async def ask(pool: ModelPool, *names: str) -> None:
    for name in names:
        assert await answer(pool, f"{name}-1", "1 0", model=name) == f"{name}-1-0 "


async def test_the_least_recently_used_model_goes(tmp_path: Path) -> None:
    async with counting_pool(tmp_path, names=ABC, memory_budget=budget_for(2)) as pool:
        await ask(pool, "a", "b", "a", "c", "b")
        assert gone(pool) == [("b", EvictionReason.ROOM, "c"), ("a", EvictionReason.ROOM, "b")]
        assert hot(pool) == {"b", "c"}
        stats = pool.stats()
        assert (stats.planned_bytes, stats.num_loads, stats.num_evictions) == (2 * MODEL_BYTES, 4, 2)


async def test_the_least_often_used_model_goes_where_the_policy_says_so(tmp_path: Path) -> None:
    options: dict[str, Any] = {"memory_budget": budget_for(2), "policy": EvictionPolicy.LFU}
    async with counting_pool(tmp_path, names=ABC, **options) as pool:
        await ask(pool, "a", "a", "b", "c")
        assert hot(pool) == {"a", "c"}


async def test_pinned_models_stay_and_what_cannot_fit_beside_them_is_refused(tmp_path: Path) -> None:
    pinned = {name: ModelOverrides(pinned=True) for name in ("a", "b")}
    async with counting_pool(tmp_path, names=ABC, memory_budget=budget_for(2), models=pinned) as pool:
        await ask(pool, "a", "b")
        with pytest.raises(InsufficientMemory, match=r"a 100\.0 MiB \(pinned\), b 100\.0 MiB \(pinned\)") as refusal:
            await ask(pool, "c")
        assert refusal.value.retry_after_s
        assert status_of(pool, "c").state is ModelState.COLD
        pool.change("a", {"pinned": False})
        await ask(pool, "c")
        assert hot(pool) == {"b", "c"}


async def test_a_busy_model_is_drained_and_nothing_of_it_is_lost(tmp_path: Path) -> None:
    async with counting_pool(tmp_path, names=ABC, memory_budget=budget_for(1)) as pool:
        running = asyncio.create_task(answer(pool, "long", "40 0.01", model="a"))
        await wait_for(lambda: status_of(pool, "a").num_in_flight == 1)
        waiting = asyncio.create_task(answer(pool, "next", "1 0", model="b"))
        await wait_for(lambda: status_of(pool, "a").state is ModelState.DRAINING)
        assert pool.progress("b") == "loading b: waiting for the requests of a (0%)"
        late = asyncio.create_task(answer(pool, "late", "1 0", model="a"))
        assert len((await running).split()) == 40
        assert await waiting == "next-0 "
        assert await late == "late-0 "
        assert [name for name, _, _ in gone(pool)] == ["a", "b"]


async def test_a_drain_is_bounded_and_what_was_busy_goes_on(tmp_path: Path) -> None:
    async with counting_pool(tmp_path, names=ABC, memory_budget=budget_for(1), drain_timeout_s=0.2) as pool:
        running = asyncio.create_task(answer(pool, "long", "60 0.02", model="a"))
        await wait_for(lambda: status_of(pool, "a").num_in_flight == 1)
        with pytest.raises(
            InsufficientMemory, match=r"a 100\.0 MiB \(1 requests\).*drain_timeout of 0\.2 s"
        ) as refusal:
            await ask(pool, "b")
        assert refusal.value.retry_after_s == 5.0
        await ask(pool, "a")
        assert len((await running).split()) == 60
        assert gone(pool) == []


async def test_a_model_larger_than_the_budget_is_refused_for_good(tmp_path: Path) -> None:
    async with counting_pool(tmp_path, memory_budget=MemoryAmount(num_bytes=MODEL_BYTES - 1)) as pool:
        with pytest.raises(InsufficientMemory, match=r"held by others: nothing\. Lower its kv_budget"):
            await ask(pool, "counter")


async def test_many_clients_of_more_models_than_fit_are_all_answered(tmp_path: Path) -> None:
    async with counting_pool(tmp_path, names=ABC, memory_budget=budget_for(2), use_spare=True) as pool:
        names = [ABC[index * index % 7 % 3] for index in range(60)]
        highest = 0

        async def watch() -> None:
            nonlocal highest
            while True:
                highest = max(highest, pool.stats().planned_bytes)
                await asyncio.sleep(0.005)

        watcher = asyncio.create_task(watch())
        texts = await asyncio.gather(
            *(answer(pool, f"r{index}", "3 0.005", model=name) for index, name in enumerate(names))
        )
        watcher.cancel()
        assert texts == [f"r{index}-0 r{index}-1 r{index}-2 " for index in range(60)]
        assert set(names) == set(ABC)
        assert highest == 2 * MODEL_BYTES


async def test_the_spare_worker_has_what_the_models_leave(tmp_path: Path) -> None:
    budget = MemoryAmount(num_bytes=2 * MODEL_BYTES + SPARE_BYTES - 1)
    options: dict[str, Any] = {"memory_budget": budget, "use_spare": True, "check_period_s": 0.02}
    async with counting_pool(tmp_path, names=ABC, **options) as pool:
        await ask(pool, "a")
        await wait_for(lambda: pool.stats().spare_bytes == SPARE_BYTES)
        await ask(pool, "b")
        for _ in range(20):
            await asyncio.sleep(0.02)
            stats = pool.stats()
            assert stats.planned_bytes + stats.spare_bytes <= 2 * MODEL_BYTES
        await pool.unload("b")
        await wait_for(lambda: pool.stats().spare_bytes == SPARE_BYTES)
        pool.set_limits(PoolLimits(memory_budget=budget_for(1)))
        await wait_for(lambda: pool.stats().spare_bytes == 0)
        await wait_for(lambda: len(workers_of(psutil.Process())) == 1)
        assert hot(pool) == {"a"}


async def test_a_worker_killed_during_its_load_leaves_the_memory_to_others(tmp_path: Path) -> None:
    async with counting_pool(tmp_path, names=ABC, memory_budget=budget_for(1)) as pool:
        doomed = asyncio.create_task(answer(pool, "r", "1 0", model="a"))
        await wait_for(lambda: status_of(pool, "a").fraction == 0.5)
        pid = status_of(pool, "a").worker_pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(ModelLoadFailed, match="SIGKILL"):
            await doomed
        assert pool.stats().planned_bytes == 0
        await ask(pool, "b", "a")


async def test_a_failed_model_is_tried_again_after_a_growing_pause(tmp_path: Path) -> None:
    async with counting_pool(tmp_path, backoff_s=0.5) as pool:
        set_mode(tmp_path, "broken")
        with pytest.raises(ModelLoadFailed, match=r"A request will try again in 0\.5 s\.") as first:
            await ask(pool, "counter")
        with pytest.raises(ModelLoadFailed, match=r"its config\.json names no model"):
            await ask(pool, "counter")
        assert num_loads(tmp_path) == 1
        assert first.value.retry_after_s == pytest.approx(0.5)
        assert status_of(pool).retry_in_s
        await ask(pool, "other")
        await asyncio.sleep(0.51)
        with pytest.raises(ModelLoadFailed, match=r"again in 1\.0 s"):
            await ask(pool, "counter")
        set_mode(tmp_path, "good")
        await asyncio.sleep(1.01)
        await ask(pool, "counter")


async def test_idle_models_go_after_their_time(tmp_path: Path) -> None:
    models = {"a": ModelOverrides(ttl_s=0.1), "b": ModelOverrides(ttl_s=0.0), "c": ModelOverrides(pinned=True)}
    async with counting_pool(tmp_path, names=ABC, models=models, ttl_s=0.1, check_period_s=0.02) as pool:
        await ask(pool, *ABC)
        await wait_for(lambda: hot(pool) == {"b", "c"})
        assert gone(pool) == [("a", EvictionReason.TTL, None)]


async def test_memory_is_looked_after_again_when_workers_that_have_to_be_asked_ended(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken, started = tmp_path / "broken", tmp_path / "started"
    worker = shlex.join(PROTOCOL_WORKER)
    command = ("/bin/sh", "-c", f'echo >>{started}; [ -e {broken} ] && exit 3; exec {worker} "$@"', "worker")
    options: dict[str, Any] = {"command": command, "memory_budget": MemoryAmount(share=0.5), "check_period_s": 0.02}
    async with counting_pool(tmp_path, names=ABC, **options) as pool:
        await asyncio.sleep(0.1)
        assert not started.exists(), "nothing is held, so nobody has to be asked what there is"
        broken.touch()
        with pytest.raises(ModelLoadFailed, match="The model 'a' could not be loaded"):
            await ask(pool, "a")
        pool.set_limits(PoolLimits(memory_budget=budget_for(2)))
        broken.unlink()
        await ask(pool, "a")
        broken.touch()
        pool.set_limits(PoolLimits(memory_budget=MemoryAmount(share=0.5)))
        await wait_for(lambda: "The memory could not be looked after" in caplog.text)
        pool.change("a", {"ttl": 0.01})
        await wait_for(lambda: not hot(pool), timeout_s=5)
        assert gone(pool) == [("a", EvictionReason.TTL, None)]


async def test_idle_models_go_when_the_system_runs_short(tmp_path: Path) -> None:
    floor = MemoryAmount(num_bytes=1000)
    available = [2000]
    async with counting_pool(
        tmp_path, names=ABC, memory_floor=floor, available=lambda: available[0], check_period_s=0.05
    ) as pool:
        await ask(pool, *ABC)
        available[0] = 500
        await wait_for(lambda: len(gone(pool)) >= 1)
        assert gone(pool)[0] == ("a", EvictionReason.PRESSURE, None)


async def test_a_worker_that_outgrows_its_plan_is_billed_for_it(tmp_path: Path) -> None:
    measured = [0]
    options: dict[str, Any] = {"measure": lambda pid: measured[0], "check_period_s": 0.02}
    async with counting_pool(tmp_path, names=ABC, memory_budget=budget_for(2), **options) as pool:
        await ask(pool, "a", "b")
        measured[0] = MODEL_BYTES + 10 * 1024**2
        await wait_for(lambda: bool(gone(pool)))
        assert gone(pool)[0] == ("a", EvictionReason.BUDGET, None)
        await wait_for(lambda: status_of(pool, "b").planned_bytes == MODEL_BYTES + 10 * 1024**2)


async def test_the_peak_of_a_moment_is_not_billed(tmp_path: Path) -> None:
    looks: Counter[int] = Counter()

    def measure(pid: int) -> int:
        looks[pid] += 1
        return MODEL_BYTES + (10 * 1024**2 if looks[pid] % 3 else 0)

    async with counting_pool(
        tmp_path, names=ABC, memory_budget=budget_for(2), measure=measure, check_period_s=0.02
    ) as pool:
        await ask(pool, "a", "b")
        seen = looks.copy()
        await wait_for(lambda: all(looks[pid] > seen[pid] + 6 for pid in looks))
        assert not gone(pool)
        assert hot(pool) == {"a", "b"}


async def test_models_are_preloaded_as_far_as_they_fit(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    preload = ("b", "nobody", "c")
    async with counting_pool(
        tmp_path, names=ABC, default_model="a", preload=preload, memory_budget=budget_for(2)
    ) as pool:
        await wait_for(lambda: "'c' is not preloaded" in caplog.text)
        assert hot(pool) == {"a", "b"}
        assert "'nobody' is not preloaded: There is no model" in caplog.text


async def test_aliases_lead_to_their_model_and_changes_outlive_the_pool(tmp_path: Path) -> None:
    state = tmp_path / "state" / "pool.json"
    async with counting_pool(tmp_path, state_file=state) as pool:
        pool.change("counter", {"aliases": ["gpt-4o", "mine"], "pinned": True, "temperature": 0.5})
        await ask(pool, "gpt-4o")
        assert num_loads(tmp_path) == 1
        with pytest.raises(InvalidRequest, match="'other' is the name of a model"):
            pool.change("counter", {"aliases": ["other"]})
        with pytest.raises(InvalidRequest, match="'gpt-4o' is one of 'counter' already"):
            pool.change("other", {"aliases": ["gpt-4o"]})
        with pytest.raises(InvalidRequest, match=r"no setting 'pined'. Did you mean pinned\?") as refusal:
            pool.change("other", {"pined": None, "ttl": 3})
        assert refusal.value.param == "pined"
        pool.change("counter", {"temperature": None})
    for folder in (tmp_path / "counter", tmp_path / "other"):
        folder.rename(folder.with_name(f"old-{folder.name}"))
    async with counting_pool(tmp_path, state_file=state) as pool:
        assert pool.overrides("gpt-4o") == ModelOverrides(aliases=("gpt-4o", "mine"), pinned=True)


async def test_a_broken_state_file_is_left_out_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = tmp_path / "pool.json"
    state.write_text('{"models": {"counter": {"pinned": "perhaps"}}}')
    async with counting_pool(tmp_path, state_file=state) as pool:
        assert pool.overrides("counter") == ModelOverrides()
    assert re.search(r"pool\.json cannot be read: pinned cannot be 'perhaps'", caplog.text)


async def test_unloading_waits_for_requests_and_loads_begin_without_one(tmp_path: Path) -> None:
    async with counting_pool(tmp_path) as pool:
        assert pool.begin_load("counter").state is ModelState.LOADING
        await wait_for(lambda: hot(pool) == {"counter"})
        running = asyncio.create_task(answer(pool, "long", "20 0.01"))
        await wait_for(lambda: status_of(pool).num_in_flight == 1)
        assert (await pool.unload("counter")).state is ModelState.DRAINING
        assert len((await running).split()) == 20
        await wait_for(lambda: status_of(pool).state is ModelState.COLD)
        assert gone(pool) == [("counter", EvictionReason.ADMIN, None)]
        assert pool.stats().planned_bytes == 0
