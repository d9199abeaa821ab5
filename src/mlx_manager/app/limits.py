"""How the memory settings that admins change reach the pool: at once, and with whatever another process changes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from mlx_manager.catalog.settings import SettingsError, parse_setting
from mlx_manager.pool import EvictionPolicy, ModelPool, PoolLimits
from mlx_manager.storage.store import Store

logger = logging.getLogger(__name__)


def follow_limits(pool: ModelPool, store: Store, live: Callable[[], Mapping[str, Any]]) -> Callable[[], None]:
    """Let `pool` go by what `live` says, now, after every change that `store` tells of, and at a call of the result."""

    def follow(_: object = None) -> None:
        try:
            pool.set_limits(_limits_of(live()))
        except SettingsError as error:
            # kept by another version of this server
            logger.warning("The pool goes on with the limits that it has: %s", error)

    follow()
    store.subscribe(follow)
    return follow


def _limits_of(said: Mapping[str, Any]) -> PoolLimits:
    given: dict[str, Any] = {
        name: parse_setting(name, said[name]) for name in ("memory_budget", "eviction", "drain_timeout")
    }
    return PoolLimits(
        memory_budget=given["memory_budget"],
        policy=EvictionPolicy(given["eviction"]),
        drain_timeout_s=given["drain_timeout"],
    )
