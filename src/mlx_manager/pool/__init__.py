"""The models in memory: leased by name, each loaded once, each in a worker process of its own."""

from mlx_manager.pool.status import ModelState, ModelStatus

__all__ = ["ModelState", "ModelStatus"]
