"""The HTTP faces. No decisions here: requests are parsed by `protocols`, answered by `gateway`."""

from mlx_manager.api.admin import router as admin_router
from mlx_manager.api.alerts import router as alerts_router
from mlx_manager.api.anthropic import router as anthropic_router
from mlx_manager.api.audit import router as audit_router
from mlx_manager.api.auth import router as auth_router
from mlx_manager.api.documented import DocumentedApp
from mlx_manager.api.edge import RequestEdge
from mlx_manager.api.errors import EXCEPTION_HANDLERS
from mlx_manager.api.health import router as health_router
from mlx_manager.api.hub import router as hub_router
from mlx_manager.api.metrics import router as metrics_router
from mlx_manager.api.models import router as models_router
from mlx_manager.api.openai import router as openai_router
from mlx_manager.api.openai import tokens_router
from mlx_manager.api.people import router as people_router
from mlx_manager.api.providers import router as providers_router
from mlx_manager.api.routes import router as routes_router
from mlx_manager.api.state import ApiState, HttpOptions
from mlx_manager.api.tool_servers import router as tool_servers_router
from mlx_manager.api.traces import router as traces_router
from mlx_manager.api.who import Access

__all__ = [
    "EXCEPTION_HANDLERS",
    "Access",
    "ApiState",
    "DocumentedApp",
    "HttpOptions",
    "RequestEdge",
    "admin_router",
    "alerts_router",
    "anthropic_router",
    "audit_router",
    "auth_router",
    "health_router",
    "hub_router",
    "metrics_router",
    "models_router",
    "openai_router",
    "people_router",
    "providers_router",
    "routes_router",
    "tokens_router",
    "tool_servers_router",
    "traces_router",
]
