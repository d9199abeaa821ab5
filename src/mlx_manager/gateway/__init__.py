"""From a request to the events of its answer: admit, plan, attempt the targets in order, account."""

from mlx_manager.gateway.account import CLIENT_CLOSED_STATUS, log_record
from mlx_manager.gateway.asker import Asker
from mlx_manager.gateway.gateway import Gateway, Target
from mlx_manager.gateway.merge import merge
from mlx_manager.gateway.responses import MemoryResponses, ResponseStore, earlier_items, stored_response

__all__ = [
    "CLIENT_CLOSED_STATUS",
    "Asker",
    "Gateway",
    "MemoryResponses",
    "ResponseStore",
    "Target",
    "earlier_items",
    "log_record",
    "merge",
    "stored_response",
]
