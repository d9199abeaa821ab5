"""What the pool says about a model, as plain values."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from mlx_manager.catalog import ModelEntry
from mlx_manager.errors import ErrorInfo
from mlx_manager.ipc import EngineStats, ServingReport


class ModelState(StrEnum):
    """Where a model stands between disk and memory."""

    COLD = "cold"
    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"


class ModelStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One model of the pool at one moment."""

    entry: ModelEntry
    state: ModelState
    stage: str = ""
    """While loading: what is being done, for people."""
    fraction: float = 0.0
    """While loading: 0 to 1."""
    report: ServingReport | None = None
    stats: EngineStats | None = None
    worker_pid: int | None = None
    num_worker_deaths: int = 0
    error: ErrorInfo | None = None
    """Why it is FAILED."""
