"""Leasing models from a pool: loads are shared, failures are told and tried again, aborts arrive."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path

import pytest

from mlx_manager.backends.local import LocalBackend
from mlx_manager.errors import ContextLengthExceeded, ModelLoadFailed, ModelNotFound, ShuttingDown
from mlx_manager.pool import ModelState
from tests.pool.counting_pool import (
    answer,
    counting_pool,
    num_aborted,
    num_loads,
    num_running,
    request,
    set_mode,
    status_of,
    wait_for,
)


async def test_concurrent_leases_of_a_cold_model_share_one_load(tmp_path: Path) -> None:
    async with counting_pool(tmp_path) as pool:
        assert status_of(pool).state is ModelState.COLD

        async def lease_pid() -> int:
            async with pool.lease("counter") as worker:
                return worker.pid

        pids = await asyncio.gather(*(lease_pid() for _ in range(10)))
        status = status_of(pool)
        assert len(set(pids)) == 1
        assert num_loads(tmp_path) == 1
        assert (status.state, status.worker_pid) == (ModelState.READY, pids[0])
        assert status.report is not None
        assert status.report.reason == "there is no model"


async def test_models_are_loaded_side_by_side(tmp_path: Path) -> None:
    async with counting_pool(tmp_path) as pool:
        texts = await asyncio.gather(answer(pool, "a", "2 0"), answer(pool, "b", "3 0", model="other"))
        assert list(texts) == ["a-0 a-1 ", "b-0 b-1 b-2 "]
        assert status_of(pool).worker_pid != status_of(pool, "other").worker_pid


async def test_start_loads_the_default_model_in_the_background(tmp_path: Path) -> None:
    async with counting_pool(tmp_path, default_model="counter") as pool:
        assert status_of(pool).state is ModelState.LOADING
        await wait_for(lambda: status_of(pool).fraction == 0.5)
        assert status_of(pool).stage == "counting to three"
        await wait_for(lambda: status_of(pool).state is ModelState.READY)
        assert status_of(pool, "other").state is ModelState.COLD


async def test_unknown_models_are_refused(tmp_path: Path) -> None:
    async with counting_pool(tmp_path) as pool:
        with pytest.raises(ModelNotFound, match="nothing-of-the-kind"):
            await answer(pool, "a", "1 0", model="nothing-of-the-kind")


async def test_an_unknown_default_model_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound):
        async with counting_pool(tmp_path, default_model="nothing-of-the-kind"):
            pass


async def test_a_failed_load_reaches_all_who_wait_and_the_next_lease_tries_again(tmp_path: Path) -> None:
    async with counting_pool(tmp_path) as pool:
        set_mode(tmp_path, "broken")
        outcomes = await asyncio.gather(*(answer(pool, f"r{i}", "1 0") for i in range(3)), return_exceptions=True)
        status = status_of(pool)
        assert [type(outcome) for outcome in outcomes] == [ModelLoadFailed] * 3
        assert "its config.json names no model" in str(outcomes[0])
        assert num_loads(tmp_path) == 1
        assert status.state is ModelState.FAILED
        assert status.error is not None
        assert status.error.message == "its config.json names no model"

        set_mode(tmp_path, "good")
        assert await answer(pool, "again", "1 0") == "again-0 "
        assert status_of(pool).error is None


async def test_a_reason_of_many_lines_is_told_in_one_that_can_be_read(tmp_path: Path) -> None:
    async with counting_pool(tmp_path, backoff_s=5.0) as pool:
        set_mode(tmp_path, "wordy")
        with pytest.raises(ModelLoadFailed, match=r"^Missing parameters: layer\.0\.weight, .* …\. A request"):
            await answer(pool, "r", "1 0")
        status = status_of(pool)
        assert status.error is not None
        assert len(status.error.message) < 700
        assert "\n" not in status.error.message


async def test_a_program_that_ends_at_once_fails_the_lease_with_its_last_words(tmp_path: Path) -> None:
    command = ("/bin/sh", "-c", "echo no such library >&2; exit 3")
    async with counting_pool(tmp_path, command=command) as pool:
        with pytest.raises(ModelLoadFailed, match=r"exit code 3 \(no such library\)"):
            await answer(pool, "a", "1 0")


async def test_a_program_that_does_not_exist_fails_the_lease(tmp_path: Path) -> None:
    async with counting_pool(tmp_path, command=("/nonexistent/worker",)) as pool:
        with pytest.raises(ModelLoadFailed, match="No worker could be started"):
            await answer(pool, "a", "1 0")


async def test_what_the_worker_refuses_is_raised(tmp_path: Path) -> None:
    async with counting_pool(tmp_path) as pool:
        with pytest.raises(ContextLengthExceeded, match="too long") as caught:
            await answer(pool, "a", "refuse")
        assert caught.value.param == "messages"


async def test_closing_the_stream_aborts_the_request(tmp_path: Path) -> None:
    async with counting_pool(tmp_path) as pool:
        async with aclosing(LocalBackend(pool).generate(request("a", "1000000 0.001"))) as events:
            for _ in range(5):
                await anext(events)
        await wait_for(lambda: num_aborted(pool) == 1)


async def test_cancelling_the_reader_aborts_the_request(tmp_path: Path) -> None:
    async with counting_pool(tmp_path) as pool:
        reader = asyncio.create_task(answer(pool, "a", "1000000 0.001"))
        await wait_for(lambda: num_running(pool) == 1)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        await wait_for(lambda: num_aborted(pool) == 1)


async def test_a_lease_cancelled_while_the_model_loads_leaves_the_load_to_the_others(tmp_path: Path) -> None:
    async with counting_pool(tmp_path) as pool:
        impatient = asyncio.create_task(answer(pool, "a", "1 0"))
        patient = asyncio.create_task(answer(pool, "b", "1 0"))
        await wait_for(lambda: status_of(pool).fraction == 0.5)
        impatient.cancel()
        assert await patient == "b-0 "
        assert num_loads(tmp_path) == 1


async def test_many_concurrent_requests_each_get_their_own_events(tmp_path: Path) -> None:
    async with counting_pool(tmp_path) as pool:
        texts = await asyncio.gather(*(answer(pool, f"r{i}", f"{20 + i % 7} 0.001") for i in range(200)))
        for i, text in enumerate(texts):
            assert text == "".join(f"r{i}-{token} " for token in range(20 + i % 7))
        async with pool.lease("counter") as worker:
            assert worker.num_in_flight == 0


async def test_a_request_id_in_flight_cannot_be_used_twice(tmp_path: Path) -> None:
    async with counting_pool(tmp_path) as pool, pool.lease("counter") as worker:
        first = worker.generate(request("a", "1000000 0.001"))
        await anext(first)
        with pytest.raises(ValueError, match="'a' is already in flight"):
            await anext(worker.generate(request("a", "1 0")))
        assert worker.num_in_flight == 1
        await first.aclose()


async def test_close_ends_streams_and_loads_with_shutting_down(tmp_path: Path) -> None:
    async with counting_pool(tmp_path) as pool:
        stream = asyncio.create_task(answer(pool, "a", "1000000 0.001"))
        await wait_for(lambda: num_running(pool) == 1)
        load = asyncio.create_task(answer(pool, "b", "1 0", model="other"))
        await wait_for(lambda: status_of(pool, "other").state is ModelState.LOADING)
        await pool.close()
        for task in (stream, load):
            with pytest.raises(ShuttingDown):
                await task
        with pytest.raises(ShuttingDown):
            await answer(pool, "c", "1 0")
