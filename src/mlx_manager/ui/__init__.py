"""The console: pages in the browser over the gateway, the pool and the hub. NiceGUI is loaded at the first visit."""

from mlx_manager.ui.console import Console
from mlx_manager.ui.mount import ConsoleSite, console_routes
from mlx_manager.ui.recent import RECENT_WINDOW_S, RecentRequests

__all__ = ["RECENT_WINDOW_S", "Console", "ConsoleSite", "RecentRequests", "console_routes"]
