"""From a request to the events of its answer: admit, plan, attempt the targets in order, account."""

from mlx_manager.gateway.account import CLIENT_CLOSED_STATUS, log_record
from mlx_manager.gateway.asker import FALLBACK_NOTE, Asker
from mlx_manager.gateway.background import BackgroundWork
from mlx_manager.gateway.budget import Budgets
from mlx_manager.gateway.desk import Desk
from mlx_manager.gateway.gateway import Gateway
from mlx_manager.gateway.limits import PromptLimits
from mlx_manager.gateway.live_settings import LiveSettings
from mlx_manager.gateway.merge import merge
from mlx_manager.gateway.offers import Offer, find_offers
from mlx_manager.gateway.responses import KeptResponses, MemoryResponses, OwnResponses, ResponseStore
from mlx_manager.gateway.router import Router, Target
from mlx_manager.gateway.tool_desk import ToolDesk
from mlx_manager.gateway.traits import Traits
from mlx_manager.gateway.truncation import truncated

__all__ = [
    "CLIENT_CLOSED_STATUS",
    "FALLBACK_NOTE",
    "Asker",
    "BackgroundWork",
    "Budgets",
    "Desk",
    "Gateway",
    "KeptResponses",
    "LiveSettings",
    "MemoryResponses",
    "Offer",
    "OwnResponses",
    "PromptLimits",
    "ResponseStore",
    "Router",
    "Target",
    "ToolDesk",
    "Traits",
    "find_offers",
    "log_record",
    "merge",
    "truncated",
]
