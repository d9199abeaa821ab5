"""How routes and providers reach the gateway: the providers' clients, the routes, the month's budget."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from mlx_manager.app.access import Opened
from mlx_manager.backends import Backend
from mlx_manager.backends.clouds import Clouds
from mlx_manager.errors import MlxManagerError, NotPermitted
from mlx_manager.gateway import Budgets, Desk, LiveSettings, Router
from mlx_manager.ir import Caller
from mlx_manager.pool import ModelDirectory
from mlx_manager.storage.configuration import Configuration


@dataclass(frozen=True)
class Routing:
    """What the app needs of it."""

    router: Router
    budgets: Budgets
    desk: Desk


@asynccontextmanager
async def open_routing(
    live: LiveSettings, opened: Opened, local: Sequence[Backend], models: ModelDirectory
) -> AsyncIterator[Routing]:
    """Build the clients of all providers, and follow every change of providers and routes."""
    store = opened.access.store
    budgets = Budgets(opened.ledger, lambda: live.current.cloud_budget_usd, lambda: store.current)
    desk = Desk(store)
    clouds = Clouds()

    def refusal(caller: Caller) -> MlxManagerError | None:
        if not live.current.use_cloud:
            return NotPermitted("No provider may be asked: use_cloud is off.", param="model")
        return budgets.refusal(caller)

    def names() -> list[str]:
        statuses = models.statuses()
        return [name for status in statuses for name in (status.entry.name, *status.overrides.aliases)]

    router = Router(
        local,
        find_remote=clouds.find,
        cloud_refusal=refusal,
        local_timeout_s=lambda: live.current.local_timeout_s,
        names=names,
    )

    def follow(current: Configuration) -> None:
        clouds.update(current.providers, current.sealed.get, desk.secret)
        router.update(current.routes)

    follow(store.current)
    store.subscribe(follow)
    try:
        yield Routing(router, budgets, desk)
    finally:
        await clouds.close()
