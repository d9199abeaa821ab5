"""The predicted footprint against the memory that a real worker of the starter model takes."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil
import pytest

from mlx_manager.backends.local import LocalBackend
from mlx_manager.catalog import LoadOptions
from mlx_manager.hub import STARTER_NAME, Inventory, predict_footprint
from mlx_manager.ir import ChatPrompt, GenerationRequest, Message, Role, Sampling, TextContent, fold
from mlx_manager.pool import ModelPool, runs_on_linux_cpu
from tests.pool.counting_pool import status_of

_MIB = 1024**2
FIT_OPTIONS = LoadOptions(kv_budget_bytes=48 * _MIB)


def pss_bytes(pid: int) -> int:
    """Private memory, and the worker's part of what it shares with the spare."""
    return int(psutil.Process(pid).memory_full_info().pss)


def most_rss_bytes(pid: int) -> int:
    """The most the process ever had resident; shared pages count in full."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


async def ask_long(pool: ModelPool, name: str) -> int:
    """Have a prompt of a thousand words answered; its tokens."""
    prompt = ChatPrompt(messages=(Message(role=Role.USER, content=(TextContent("word " * 1000),)),))
    sampling = Sampling(temperature=0.0, max_tokens=8)
    request = GenerationRequest(request_id="long", model=name, prompt=prompt, sampling=sampling)
    return (await fold(LocalBackend(pool).generate(request), 1)).usage.num_prompt_tokens


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc; the process constant is Linux's")
async def test_the_worker_takes_what_was_predicted(starter_home: Path) -> None:
    entry = Inventory(starter_home).find(STARTER_NAME)
    told = predict_footprint(entry, FIT_OPTIONS, is_cpu_backend=runs_on_linux_cpu())
    pool = ModelPool(lambda: [entry], default_model=STARTER_NAME, options=FIT_OPTIONS, spare_delay_s=0.0)
    try:
        await pool.start()
        async with pool.lease(STARTER_NAME) as worker:
            pid = worker.pid
        report = status_of(pool, STARTER_NAME).report
        assert report is not None
        assert (report.weights_bytes, report.kv_bytes_per_token) == (told.weights_bytes, told.kv_bytes_per_token)
        # A loaded model has the weights, the process and the arena's first blocks.
        loaded_bytes = told.fixed_bytes + told.arena_bytes(0, FIT_OPTIONS.kv_budget_bytes)
        assert pss_bytes(pid) == pytest.approx(loaded_bytes, rel=0.1)

        num_tokens = await ask_long(pool, STARTER_NAME)
        assert num_tokens > 1000
        stats = status_of(pool, STARTER_NAME).stats
        assert stats is not None
        arena_bytes = told.arena_bytes(num_tokens, FIT_OPTIONS.kv_budget_bytes)
        assert stats.arena_bytes == arena_bytes
        assert stats.active_memory_bytes == pytest.approx(told.weights_bytes + arena_bytes, rel=0.02)
        assert most_rss_bytes(pid) == pytest.approx(told.total_bytes(1, num_tokens), rel=0.1)
    finally:
        await pool.close()
