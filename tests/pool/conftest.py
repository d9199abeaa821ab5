"""Pools of real processes that count instead of generating."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from mlx_manager.catalog import LoadOptions, ModelEntry
from mlx_manager.pool import ModelPool

PROTOCOL_WORKER = (sys.executable, str(Path(__file__).parent / "protocol_worker.py"))

MakePool = Callable[..., Awaitable[ModelPool]]


@pytest.fixture
def models(tmp_path: Path) -> list[ModelEntry]:
    """Two model folders that load well, named counter and other."""
    entries = []
    for name in ("counter", "other"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "mode").write_text("good")
        entries.append(
            ModelEntry(
                name=name,
                path=str(folder),
                created_unix_s=0,
                size_bytes=0,
                architecture="none",
                quantization="none",
                max_context=None,
            )
        )
    return entries


@pytest.fixture
async def make_pool(models: Sequence[ModelEntry]) -> AsyncGenerator[MakePool, None]:
    """Start a pool over `models`; it is closed with the test."""
    pools = []

    async def make(
        default_model: str | None = None,
        use_spare: bool = False,
        spare_delay_s: float = 0.0,
        command: tuple[str, ...] = PROTOCOL_WORKER,
    ) -> ModelPool:
        pool = ModelPool(
            lambda: models,
            default_model=default_model,
            options=LoadOptions(),
            use_spare=use_spare,
            spare_delay_s=spare_delay_s,
            command=command,
        )
        pools.append(pool)
        await pool.start()
        return pool

    yield make
    for pool in pools:
        await pool.close()
