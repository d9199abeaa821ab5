"""Leasing models from a pool: loads are shared, failures are told and tried again, deaths stay with their model."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path

import pytest

from mlx_manager.backends.local import LocalBackend
from mlx_manager.catalog import ModelEntry
from mlx_manager.errors import ContextLengthExceeded, ModelLoadFailed, ModelNotFound, ShuttingDown, WorkerDied
from mlx_manager.ir import GenerationRequest, PartDelta, TextPrompt, fold
from mlx_manager.pool import ModelPool, ModelState, ModelStatus


def request(request_id: str, prompt: str, model: str = "counter") -> GenerationRequest:
    return GenerationRequest(request_id=request_id, model=model, prompt=TextPrompt(text=prompt))


def status_of(pool: ModelPool, name: str = "counter") -> ModelStatus:
    return next(status for status in pool.statuses() if status.entry.name == name)


def num_loads(entry: ModelEntry) -> int:
    return len(list(Path(entry.path).glob("load-*")))


def set_mode(entry: ModelEntry, mode: str) -> None:
    (Path(entry.path) / "mode").write_text(mode)


async def answer(pool: ModelPool, request_id: str, prompt: str, model: str = "counter") -> str:
    folded = await fold(LocalBackend(pool).generate(request(request_id, prompt, model)), 1)
    return folded.choices[0].parts[0].text


async def wait_for(condition: object, timeout_s: float = 5.0) -> None:
    assert callable(condition)
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.01)


async def test_concurrent_leases_of_a_cold_model_share_one_load(make_pool, models: Sequence[ModelEntry]) -> None:
    pool = await make_pool()
    assert status_of(pool).state is ModelState.COLD

    async def lease_pid() -> int:
        async with pool.lease("counter") as worker:
            return worker.pid

    pids = await asyncio.gather(*(lease_pid() for _ in range(10)))
    assert len(set(pids)) == 1
    assert num_loads(models[0]) == 1
    status = status_of(pool)
    assert (status.state, status.worker_pid) == (ModelState.READY, pids[0])
    assert status.report is not None
    assert status.report.reason == "there is no model"


async def test_models_are_loaded_side_by_side(make_pool) -> None:
    pool = await make_pool()
    texts = await asyncio.gather(answer(pool, "a", "2 0"), answer(pool, "b", "3 0", model="other"))
    assert texts == ["a-0 a-1 ", "b-0 b-1 b-2 "]
    assert status_of(pool).worker_pid != status_of(pool, "other").worker_pid


async def test_start_loads_the_default_model_in_the_background(make_pool) -> None:
    pool = await make_pool(default_model="counter")
    assert status_of(pool).state is ModelState.LOADING
    await wait_for(lambda: status_of(pool).fraction == 0.5)
    assert status_of(pool).stage == "counting to three"
    await wait_for(lambda: status_of(pool).state is ModelState.READY)
    assert status_of(pool, "other").state is ModelState.COLD


async def test_unknown_models_are_refused(make_pool) -> None:
    pool = await make_pool()
    with pytest.raises(ModelNotFound, match="nothing-of-the-kind"):
        await answer(pool, "a", "1 0", model="nothing-of-the-kind")
    with pytest.raises(ModelNotFound):
        await make_pool(default_model="nothing-of-the-kind")


async def test_a_failed_load_reaches_all_who_wait_and_the_next_lease_tries_again(
    make_pool, models: Sequence[ModelEntry]
) -> None:
    pool = await make_pool()
    set_mode(models[0], "broken")
    outcomes = await asyncio.gather(*(answer(pool, f"r{i}", "1 0") for i in range(3)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [ModelLoadFailed] * 3
    assert "its config.json names no model" in str(outcomes[0])
    assert num_loads(models[0]) == 1
    status = status_of(pool)
    assert status.state is ModelState.FAILED
    assert status.error is not None
    assert status.error.message == "its config.json names no model"
    assert status.num_worker_deaths == 0

    set_mode(models[0], "good")
    assert await answer(pool, "again", "1 0") == "again-0 "
    assert status_of(pool).error is None


async def test_a_worker_that_dies_of_a_load_fails_the_lease_once(make_pool, models: Sequence[ModelEntry]) -> None:
    pool = await make_pool()
    set_mode(models[0], "dies")
    with pytest.raises(ModelLoadFailed, match="SIGKILL"):
        await answer(pool, "a", "1 0")
    assert num_loads(models[0]) == 1
    assert status_of(pool).num_worker_deaths == 1
    assert status_of(pool).state is ModelState.FAILED


async def test_a_program_that_ends_at_once_fails_the_lease_with_its_last_words(make_pool) -> None:
    pool = await make_pool(command=("/bin/sh", "-c", "echo no such library >&2; exit 3"))
    with pytest.raises(ModelLoadFailed, match=r"exit code 3 \(no such library\)"):
        await answer(pool, "a", "1 0")


async def test_a_program_that_does_not_exist_fails_the_lease(make_pool) -> None:
    pool = await make_pool(command=("/nonexistent/worker",))
    with pytest.raises(ModelLoadFailed, match="No worker could be started"):
        await answer(pool, "a", "1 0")


async def test_a_killed_worker_ends_its_streams_only_and_the_next_lease_starts_another(make_pool) -> None:
    pool = await make_pool()
    backend = LocalBackend(pool)
    other = asyncio.create_task(answer(pool, "other", "100 0.01", model="other"))
    async with aclosing(backend.generate(request("a", "1000000 0.01"))) as events:
        received = [await anext(events) for _ in range(5)]
        assert any(isinstance(event, PartDelta) for event in received)
        victim = status_of(pool).worker_pid
        assert victim is not None
        os.kill(victim, signal.SIGKILL)
        with pytest.raises(WorkerDied, match="'counter' was ended by SIGKILL"):
            async for _ in events:
                pass
    status = status_of(pool)
    assert (status.state, status.num_worker_deaths, status.worker_pid) == (ModelState.FAILED, 1, None)
    assert await answer(pool, "b", "1 0") == "b-0 "
    assert status_of(pool).state is ModelState.READY
    assert status_of(pool).worker_pid != victim
    assert len((await other).split()) == 100


async def test_what_the_worker_refuses_is_raised(make_pool) -> None:
    pool = await make_pool()
    with pytest.raises(ContextLengthExceeded, match="too long") as caught:
        await answer(pool, "a", "refuse")
    assert caught.value.param == "messages"


async def test_closing_the_stream_aborts_the_request(make_pool) -> None:
    pool = await make_pool()
    async with aclosing(LocalBackend(pool).generate(request("a", "1000000 0.001"))) as events:
        for _ in range(5):
            await anext(events)
    await wait_for(lambda: (stats := status_of(pool).stats) and stats.num_aborted_requests == 1)


async def test_cancelling_the_reader_aborts_the_request(make_pool) -> None:
    pool = await make_pool()
    reader = asyncio.create_task(answer(pool, "a", "1000000 0.001"))
    await wait_for(lambda: (stats := status_of(pool).stats) and stats.num_running == 1)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    await wait_for(lambda: (stats := status_of(pool).stats) and stats.num_aborted_requests == 1)


async def test_a_lease_cancelled_while_the_model_loads_leaves_the_load_to_the_others(
    make_pool, models: Sequence[ModelEntry]
) -> None:
    pool = await make_pool()
    impatient = asyncio.create_task(answer(pool, "a", "1 0"))
    patient = asyncio.create_task(answer(pool, "b", "1 0"))
    await wait_for(lambda: status_of(pool).fraction == 0.5)
    impatient.cancel()
    assert await patient == "b-0 "
    assert num_loads(models[0]) == 1


async def test_many_concurrent_requests_each_get_their_own_events(make_pool) -> None:
    pool = await make_pool()
    texts = await asyncio.gather(*(answer(pool, f"r{i}", f"{20 + i % 7} 0.001") for i in range(200)))
    for i, text in enumerate(texts):
        assert text == "".join(f"r{i}-{token} " for token in range(20 + i % 7))
    async with pool.lease("counter") as worker:
        assert worker.num_in_flight == 0


async def test_close_ends_streams_and_loads_with_shutting_down(make_pool) -> None:
    pool = await make_pool()
    stream = asyncio.create_task(answer(pool, "a", "1000000 0.001"))
    await wait_for(lambda: (stats := status_of(pool).stats) and stats.num_running == 1)
    load = asyncio.create_task(answer(pool, "b", "1 0", model="other"))
    await wait_for(lambda: status_of(pool, "other").state is ModelState.LOADING)
    await pool.close()
    for task in (stream, load):
        with pytest.raises(ShuttingDown):
            await task
    with pytest.raises(ShuttingDown):
        await answer(pool, "c", "1 0")
