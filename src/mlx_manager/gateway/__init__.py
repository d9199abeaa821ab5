"""From a request to the events of its answer: admit, plan, attempt the targets in order, account."""

from mlx_manager.gateway.account import CLIENT_CLOSED_STATUS, log_record
from mlx_manager.gateway.asker import Asker
from mlx_manager.gateway.background import BackgroundWork
from mlx_manager.gateway.gateway import Gateway, Target
from mlx_manager.gateway.merge import merge
from mlx_manager.gateway.responses import MemoryResponses, OwnResponses, ResponseStore
from mlx_manager.gateway.truncation import truncated

__all__ = [
    "CLIENT_CLOSED_STATUS",
    "Asker",
    "BackgroundWork",
    "Gateway",
    "MemoryResponses",
    "OwnResponses",
    "ResponseStore",
    "Target",
    "log_record",
    "merge",
    "truncated",
]
