"""From a request to the events of its answer: admit, plan, attempt the targets in order, account."""

from mlx_manager.gateway.account import RequestRecord, log_record
from mlx_manager.gateway.gateway import Gateway, Target
from mlx_manager.gateway.merge import merge

__all__ = ["Gateway", "RequestRecord", "Target", "log_record", "merge"]
