"""How routes and providers reach the gateway: the providers' clients, the live settings, the month's budget."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from mlx_manager.app.access import Opened
from mlx_manager.backends import Backend
from mlx_manager.backends.clouds import Clouds
from mlx_manager.catalog.settings import Settings
from mlx_manager.errors import MlxManagerError, NotPermitted
from mlx_manager.gateway import Budgets, Desk, Router
from mlx_manager.ir import Caller
from mlx_manager.pool import ModelDirectory
from mlx_manager.storage.configuration import Configuration


@dataclass
class LiveSettings:
    """The settings that can be changed while the server runs: what was changed wins over what it was started with."""

    settings: Settings
    """Replaced when they are read again."""
    opened: Opened

    def __call__(self) -> Mapping[str, Any]:
        """All of them, by name."""
        said = self.opened.access.store.current.overrides
        given = {
            "use_cloud": self.settings.use_cloud,
            "cloud_budget": self.settings.cloud_budget_usd,
            "memory_budget": self.settings.memory_budget.num_bytes or str(self.settings.memory_budget),
            "eviction": self.settings.eviction,
            "drain_timeout": self.settings.drain_timeout_s,
        }
        return {name: said.get(name, value) for name, value in given.items()}


@dataclass(frozen=True)
class Routing:
    """What the app needs of it."""

    router: Router
    budgets: Budgets
    desk: Desk
    live: LiveSettings


@asynccontextmanager
async def open_routing(
    settings: Settings, opened: Opened, local: Sequence[Backend], models: ModelDirectory
) -> AsyncIterator[Routing]:
    """Build the clients of all providers, and follow every change of providers and routes."""
    store = opened.access.store
    live = LiveSettings(settings, opened)
    budgets = Budgets(opened.ledger, lambda: live()["cloud_budget"])
    desk = Desk(store)
    clouds = Clouds()

    def refusal(caller: Caller) -> MlxManagerError | None:
        if not live()["use_cloud"]:
            return NotPermitted("No provider may be asked: use_cloud is off.", param="model")
        return budgets.refusal(caller)

    def names() -> list[str]:
        statuses = models.statuses()
        return [name for status in statuses for name in (status.entry.name, *status.overrides.aliases)]

    router = Router(
        local,
        find_remote=clouds.find,
        cloud_refusal=refusal,
        local_timeout_s=lambda: live.settings.local_timeout_s,
        names=names,
    )

    def follow(current: Configuration) -> None:
        clouds.update(current.providers, current.sealed.get, desk.secret)
        router.update(current.routes)

    follow(store.current)
    store.subscribe(follow)
    try:
        yield Routing(router, budgets, desk, live)
    finally:
        await clouds.close()
