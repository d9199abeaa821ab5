"""Workers that hang or leak are ended and replaced; a model that keeps failing is left alone until it is loaded."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from mlx_manager.backends.local import LocalBackend
from mlx_manager.catalog import MemoryAmount
from mlx_manager.errors import ModelLoadFailed, WorkerDied
from mlx_manager.observability.alerts import AlertLimits, AlertWatch
from mlx_manager.observability.metrics import Metrics
from mlx_manager.pool import ModelPool, ModelState, WorkerFault
from tests.pool.counting_pool import (
    MODEL_BYTES,
    answer,
    counting_pool,
    num_loads,
    request,
    set_mode,
    status_of,
    wait_for,
)
from tests.pool.pool_server import pool_server

QUICK: dict[str, Any] = {"hang_timeout_s": 0.7, "load_timeout_s": 5.0, "backoff_s": 0.05}


def stop_worker(pool: ModelPool) -> int:
    """Let the worker of counter hang: it still runs, as far as the system is concerned."""
    pid = status_of(pool).worker_pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    return pid


async def test_a_worker_that_hangs_is_ended_and_replaced(tmp_path: Path) -> None:
    async with counting_pool(tmp_path, **QUICK) as pool:
        async with aclosing(LocalBackend(pool).generate(request("a", "1000000 0.01"))) as events:
            await anext(events)
            hung = stop_worker(pool)
            with pytest.raises(WorkerDied, match=r"'counter' did not react for 0\.7 s and was ended"):
                async for _ in events:
                    pass
        # nobody has to ask for it
        await wait_for(lambda: status_of(pool).state is ModelState.READY)
        status = status_of(pool)
        assert status.worker_pid != hung
        assert (status.num_by_fault, status.num_failures_in_row) == ({WorkerFault.HUNG: 1}, 1)
        assert await answer(pool, "b", "1 0") == "b-0 "


async def test_a_worker_that_hangs_is_found_although_its_clients_go(tmp_path: Path) -> None:
    async with counting_pool(tmp_path, **QUICK) as pool:
        await answer(pool, "a", "1 0")
        stop_worker(pool)
        for number in range(30):
            with pytest.raises((TimeoutError, WorkerDied)):
                await asyncio.wait_for(answer(pool, f"b{number}", "1 0"), 0.1)
            if status_of(pool).num_worker_deaths:
                break
        assert status_of(pool).num_by_fault == {WorkerFault.HUNG: 1}


async def test_a_worker_that_is_idle_or_slow_or_a_small_one_s_is_left_alone(tmp_path: Path) -> None:
    # thrice the plan, and less than a GiB above it
    taking: dict[str, Any] = {"measure": lambda pid: 3 * MODEL_BYTES, "check_period_s": 0.02}
    async with counting_pool(tmp_path, hang_timeout_s=1.2, load_timeout_s=0.0, **taking) as pool:
        assert await answer(pool, "a", "4 0.45") == "a-0 a-1 a-2 a-3 "
        await asyncio.sleep(1.3)
        assert await answer(pool, "b", "1 0") == "b-0 "
        assert status_of(pool).num_worker_deaths == 0


async def test_a_load_that_hangs_is_ended(tmp_path: Path) -> None:
    async with counting_pool(tmp_path, load_timeout_s=0.6) as pool:
        set_mode(tmp_path, "slow")
        with pytest.raises(ModelLoadFailed, match=r"its worker did not react for 0\.6 s and was ended"):
            await answer(pool, "a", "1 0")
        assert status_of(pool).state is ModelState.FAILED


async def test_a_worker_that_leaks_is_replaced_once_it_has_answered(tmp_path: Path) -> None:
    measured: dict[int, int] = {}
    options: dict[str, Any] = {"measure": lambda pid: measured.get(pid, 0), "check_period_s": 0.02, "backoff_s": 0.05}
    async with counting_pool(tmp_path, leak_limit=MemoryAmount(num_bytes=MODEL_BYTES // 2), **options) as pool:
        await answer(pool, "a", "1 0")
        leaking = status_of(pool).worker_pid
        assert leaking is not None
        measured[leaking] = int(MODEL_BYTES * 1.4)
        running = asyncio.create_task(answer(pool, "b", "30 0.01"))
        await asyncio.sleep(0.1)
        assert status_of(pool).worker_pid == leaking
        measured[leaking] = int(MODEL_BYTES * 1.6)
        assert len((await running).split()) == 30
        await wait_for(lambda: status_of(pool).worker_pid not in (None, leaking))
        await wait_for(lambda: status_of(pool).state is ModelState.READY)
        status = status_of(pool)
        assert status.num_by_fault == {WorkerFault.LEAKED: 1}
        # what was a fault is not reserved for the next one
        assert status.planned_bytes < MODEL_BYTES * 1.3


async def test_three_failures_in_a_row_are_enough_until_somebody_loads_it(tmp_path: Path) -> None:
    async with counting_pool(tmp_path, cooldown_s=60.0, **QUICK) as pool:
        watch = AlertWatch(
            AlertLimits(error_share=0, ttft_s=0, num_worker_restarts=0, disk_free_bytes=0),
            tmp_path,
            pool.statuses,
            pool.stats,
        )
        for number in range(3):
            await answer(pool, f"a{number}", "1 0")
            stop_worker(pool)
            with pytest.raises(WorkerDied):
                await answer(pool, f"b{number}", "1 0")
            state = ModelState.FAILED if number == 2 else ModelState.READY
            await wait_for(lambda state=state: status_of(pool).state is state)  # type: ignore[misc]
            watch.look()
            assert bool(watch.firing) == (number == 2)
        num_before = num_loads(tmp_path)
        assert list(watch.firing) == ["model_failed:counter"]
        assert "did not react" in watch.firing["model_failed:counter"].message
        with pytest.raises(
            WorkerDied, match=r"did not react.*failed 3 times in a row.*try again in \d+\.\d s"
        ) as refused:
            await answer(pool, "c", "1 0")
        assert refused.value.retry_after_s == pytest.approx(60, abs=2)
        metrics = Metrics("0", pool.statuses, pool.stats).render().decode()
        assert 'mlx_manager_model_given_up{model="counter"} 1.0' in metrics
        assert 'mlx_manager_worker_faults_total{fault="hung",model="counter"} 3.0' in metrics
        assert num_loads(tmp_path) == num_before
        pool.begin_load("counter")
        assert await answer(pool, "d", "1 0") == "d-0 "
        watch.look()
        assert (status_of(pool).num_failures_in_row, watch.firing) == (0, {})


def test_a_failure_is_put_away_by_unloading(tmp_path: Path) -> None:
    question = {"model": "counter", "messages": [{"role": "user", "content": "a"}]}
    with pool_server(tmp_path) as client:
        set_mode(tmp_path, "broken")
        assert client.post("/v1/chat/completions", json=question).status_code == 503
        assert client.get("/admin/models/counter").json()["state"] == "failed"
        put_away = client.post("/admin/models/counter/unload").json()
        assert (put_away["state"], put_away["error"], put_away["num_failures_in_row"]) == ("cold", None, 0)
        set_mode(tmp_path, "good")
        assert client.post("/v1/chat/completions", json=question).status_code == 200
        assert client.get("/admin/models/counter").json()["loaded_for_s"] < 60


def test_the_admin_sees_why_a_model_is_given_up_until_the_pause_ends(tmp_path: Path) -> None:
    question = {"model": "counter", "messages": [{"role": "user", "content": "a"}]}
    with pool_server(tmp_path, cooldown_s=1.5) as client:
        set_mode(tmp_path, "broken")
        for _ in range(3):
            refused = client.post("/v1/chat/completions", json=question)
            assert refused.status_code == 503
        assert "load it to try at once" in refused.json()["error"]["message"]
        model = client.get("/admin/models/counter").json()
        assert (model["state"], model["is_given_up"], model["num_failures_in_row"]) == ("failed", True, 3)
        assert "names no model" in model["error"]["message"]
        set_mode(tmp_path, "good")
        assert client.post("/v1/chat/completions", json=question).status_code == 503
        deadline_s = time.monotonic() + 20
        while client.post("/v1/chat/completions", json=question).status_code != 200:
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
