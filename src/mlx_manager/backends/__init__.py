"""Whatever can answer a request: the local pool of workers, cloud providers, and a script played back."""

from mlx_manager.backends.base import Backend

__all__ = ["Backend"]
