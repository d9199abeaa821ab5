"""The models in memory: leased by name, each loaded once, each in a worker process of its own."""

from mlx_manager.pool.blas import find_openblas, runs_on_linux_cpu, worker_environment
from mlx_manager.pool.pool import ModelPool
from mlx_manager.pool.status import ModelState, ModelStatus
from mlx_manager.pool.worker_client import WorkerClient

__all__ = [
    "ModelPool",
    "ModelState",
    "ModelStatus",
    "WorkerClient",
    "find_openblas",
    "runs_on_linux_cpu",
    "worker_environment",
]
