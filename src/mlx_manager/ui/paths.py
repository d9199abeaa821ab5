"""The pages of the console: where each lies and what the navigation calls it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PagePlace:
    """One page. `icon` is a Material icon's name."""

    path: str
    title: str
    icon: str
    is_for_admins: bool = False


HOME = PagePlace("/", "Home", "space_dashboard")
MODELS = PagePlace("/models", "Models", "inventory_2", is_for_admins=True)
POOL = PagePlace("/pool", "Pool", "memory", is_for_admins=True)
REQUESTS = PagePlace("/requests", "Requests", "receipt_long", is_for_admins=True)
PROVIDERS = PagePlace("/providers", "Providers", "cloud", is_for_admins=True)
ROUTES = PagePlace("/routes", "Routes", "alt_route", is_for_admins=True)
SETTINGS = PagePlace("/settings", "Settings", "tune", is_for_admins=True)
USERS = PagePlace("/users", "Users", "group", is_for_admins=True)
CHAT = PagePlace("/chat", "Chat", "forum")
SYSTEM = PagePlace("/system", "System", "monitor_heart", is_for_admins=True)
TOOLS = PagePlace("/tools", "Tools", "build", is_for_admins=True)
PROFILE = PagePlace("/profile", "Profile", "account_circle")

LOGIN = "/login"
REGISTER = "/register"

PLACES = (HOME, CHAT, MODELS, POOL, PROVIDERS, ROUTES, REQUESTS, TOOLS, SETTINGS, USERS, SYSTEM, PROFILE)
"""In the order of the navigation."""
