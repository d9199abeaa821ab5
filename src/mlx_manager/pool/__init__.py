"""The models in memory: leased by name, each loaded once, each in a worker process of its own."""

from mlx_manager.pool.blas import find_openblas, runs_on_linux_cpu, worker_environment
from mlx_manager.pool.directory import ModelDirectory, refuse_loaded
from mlx_manager.pool.evict import EvictionPolicy
from mlx_manager.pool.options import PoolLimits, PoolOptions
from mlx_manager.pool.pool import ModelPool
from mlx_manager.pool.status import Eviction, EvictionReason, ModelState, ModelStatus, PoolStats, WorkerFault
from mlx_manager.pool.worker_client import WorkerClient

__all__ = [
    "Eviction",
    "EvictionPolicy",
    "EvictionReason",
    "ModelDirectory",
    "ModelPool",
    "ModelState",
    "ModelStatus",
    "PoolLimits",
    "PoolOptions",
    "PoolStats",
    "WorkerClient",
    "WorkerFault",
    "find_openblas",
    "refuse_loaded",
    "runs_on_linux_cpu",
    "worker_environment",
]
