"""How the pool shares memory among models, as plain values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mlx_manager.catalog import MemoryAmount, ModelOverrides
from mlx_manager.pool.evict import EvictionPolicy
from mlx_manager.pool.memory import Predictor, available_bytes, measure_process, predict_here


@dataclass(frozen=True, kw_only=True)
class PoolLimits:
    """What can be changed while the pool runs. The defaults are those of the settings."""

    memory_budget: MemoryAmount = field(default_factory=lambda: MemoryAmount(share=0.75))
    policy: EvictionPolicy = EvictionPolicy.LRU
    drain_timeout_s: float = 30.0


@dataclass(frozen=True, kw_only=True)
class PoolOptions(PoolLimits):
    """What a pool begins with. The defaults are those of the settings."""

    memory_floor: MemoryAmount = field(default_factory=lambda: MemoryAmount(share=0.05))
    ttl_s: float = 0.0
    preload: tuple[str, ...] = ()
    models: Mapping[str, ModelOverrides] = field(default_factory=dict)
    state_file: Path | None = None
    """Where changes that admins make are kept; None: nowhere."""
    backoff_s: float = 1.0
    """After a failed load; doubled with each failure in a row, up to a minute."""
    cooldown_s: float = 300.0
    """After too many failures in a row."""
    hang_timeout_s: float = 600.0
    """A worker that owes an answer and says nothing for so long is ended; 0: never."""
    load_timeout_s: float = 1800.0
    """The same for one that loads."""
    leak_limit: MemoryAmount = field(default_factory=lambda: MemoryAmount(share=1.0))
    """Beyond its plan and so much more a worker is ended; a share is one of the plan, at least a GiB; 0: never."""
    check_period_s: float = 2.0
    predict: Predictor = predict_here
    measure: Callable[[int], int] = measure_process
    """Bytes that a process takes."""
    available: Callable[[], int] = available_bytes
    """Bytes that the system can give out."""
