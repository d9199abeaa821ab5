"""The predicted footprint of Gemma 3 270M, most of which is weights and tokenizer, against a real worker."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import pytest

from mlx_manager.hub import Inventory, predict_footprint
from mlx_manager.pool import ModelPool, runs_on_linux_cpu
from tests.gemma.conftest import NAME
from tests.hub.test_fit_measured import FIT_OPTIONS, ask_long, pss_bytes

_MOST_WAIT_S = 90.0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc; the process constant is Linux's")
async def test_the_worker_takes_what_was_predicted(gemma_folder: Path) -> None:
    """Right after its load, once it is ready for grammars, and behind a long prompt."""
    entry = Inventory(gemma_folder.parents[1]).find(NAME)
    told = predict_footprint(entry, FIT_OPTIONS, is_cpu_backend=runs_on_linux_cpu())
    pool = ModelPool(lambda: [entry], default_model=NAME, options=FIT_OPTIONS, spare_delay_s=0.0)
    loaded_bytes = told.fixed_bytes + told.arena_bytes(0, FIT_OPTIONS.kv_budget_bytes)
    try:
        await pool.start()
        async with pool.lease(NAME) as worker:
            pid = worker.pid
        assert pss_bytes(pid) == pytest.approx(loaded_bytes, rel=0.12)
        end_s = time.monotonic() + _MOST_WAIT_S
        while pss_bytes(pid) != pytest.approx(loaded_bytes, rel=0.05):
            assert time.monotonic() < end_s, (pss_bytes(pid), loaded_bytes)
            await asyncio.sleep(0.5)
        num_tokens = await ask_long(pool, NAME)
        assert pss_bytes(pid) == pytest.approx(told.total_bytes(1, num_tokens), rel=0.1)
    finally:
        await pool.close()
