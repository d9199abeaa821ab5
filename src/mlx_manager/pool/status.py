"""What the pool says about its models, as plain values."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from mlx_manager.catalog import ModelEntry, ModelOverrides
from mlx_manager.errors import ErrorInfo
from mlx_manager.ipc import BatchRow, EngineStats, ServingReport


class ModelState(StrEnum):
    """Where a model stands between disk and memory."""

    COLD = "cold"
    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    """It goes once its requests are answered; new ones wait, and load it again."""
    FAILED = "failed"


class WorkerFault(StrEnum):
    """Why a worker ended unasked."""

    DIED = "died"
    HUNG = "hung"
    """It said nothing although it had something to do, and was ended."""
    LEAKED = "leaked"
    """It took far more memory than was planned for it, and was ended."""


class ModelStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One model of the pool at one moment."""

    entry: ModelEntry
    state: ModelState
    stage: str = ""
    """While loading, or while it waits to get the memory of its caches back: what is being done, for people."""
    fraction: float = 0.0
    """While loading: 0 to 1."""
    report: ServingReport | None = None
    stats: EngineStats | None = None
    rows: tuple[BatchRow, ...] = ()
    """The sequences that run, then those that wait, about half a second ago."""
    worker_pid: int | None = None
    num_worker_deaths: int = 0
    """Workers that ended unasked, for whichever fault."""
    num_by_fault: dict[WorkerFault, int] = {}
    num_failures_in_row: int = 0
    """Failed loads, and workers that ended unasked soon after a load."""
    is_given_up: bool = False
    """Whether it failed so often in a row that it is left alone for a while, or until somebody loads it."""
    error: ErrorInfo | None = None
    """Why it is FAILED, or why there was no room when it was to be loaded last."""
    retry_in_s: float | None = None
    """While FAILED: when a request will try again."""
    overrides: ModelOverrides = ModelOverrides()
    num_in_flight: int = 0
    """Requests that it is answering."""
    num_waiting: int = 0
    """Requests that wait for it to be loaded."""
    num_uses: int = 0
    idle_s: float | None = None
    """Since its last request; None while there is one, and out of memory."""
    loaded_for_s: float | None = None
    """How long it has been in memory; None out of it."""
    planned_bytes: int = 0
    """What the budget counts for it."""
    measured_bytes: int = 0
    """What its process took when it was last looked at."""
    is_trimmed: bool = False
    """Whether its caches were given back; the next request waits until there is room for them again."""


class EvictionReason(StrEnum):
    """Why a model was unloaded, or its cache given back."""

    ROOM = "room"
    """Another model was to be loaded."""
    TTL = "ttl"
    PRESSURE = "pressure"
    """The system ran short of memory."""
    BUDGET = "budget"
    """Workers took more than planned."""
    ADMIN = "admin"


class Eviction(msgspec.Struct, frozen=True, kw_only=True):
    """One model that was unloaded, or with `is_trim` only its idle cache given back."""

    unix_s: float
    model: str
    reason: EvictionReason
    for_model: str | None = None
    freed_bytes: int
    idle_s: float
    is_trim: bool = False


class PoolStats(msgspec.Struct, frozen=True, kw_only=True):
    """The pool's books."""

    budget_bytes: int | None
    """None until the first worker has said what its device recommends."""
    planned_bytes: int
    """Of the models."""
    spare_bytes: int
    """What the spare worker is counted with beside them; 0 while there is none."""
    measured_bytes: int
    system_available_bytes: int
    memory_floor_bytes: int
    num_loads: int
    num_failed_loads: int
    num_evictions: int
    num_trims: int
    """Idle models whose caches were given back."""
    num_refused: int
    """Loads, and returns of caches, for which no room could be made."""
