"""What answers requests, built from the settings and closed again: the pool of local models and its backend."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec

from mlx_manager.backends import Backend
from mlx_manager.backends.local import LocalBackend
from mlx_manager.backends.pictures import FetchLimits, PictureFetcher
from mlx_manager.catalog import LoadOptions
from mlx_manager.catalog.settings import Settings
from mlx_manager.hub import Inventory
from mlx_manager.hub.access import default_access
from mlx_manager.hub.desk import HubDesk
from mlx_manager.hub.downloads import Downloads
from mlx_manager.pool import EvictionPolicy, ModelDirectory, ModelPool, PoolLimits, PoolOptions, runs_on_linux_cpu

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parts:
    """What the routes work with. `backends` in the order in which they are asked."""

    backends: Sequence[Backend]
    models: ModelDirectory
    pool: ModelPool | None = None
    hub: HubDesk | None = None
    """None where no models are kept."""
    follow: Callable[[Settings], None] = lambda settings: None
    """Takes over settings that were read again, as far as that can be done while it runs."""


PartsFactory = Callable[[Settings], AbstractAsyncContextManager[Parts]]


@asynccontextmanager
async def local_parts(settings: Settings) -> AsyncIterator[Parts]:
    """The models on this machine. The default model loads in the background: this does not wait for it."""
    access = default_access(settings.hf_token)
    also = (settings.model,) if settings.model else ()
    inventory = Inventory(settings.home, also, cache=access.cache_folder, scan=settings.scan_folders or ())
    default_model = inventory.find(settings.model).name if settings.model else None
    options = _load_options(settings)
    if not options.disk_cache_bytes:
        await asyncio.to_thread(_clear, options.disk_cache_folder)
    pool = ModelPool(
        inventory.entries,
        default_model=default_model,
        options=options,
        pool_options=_pool_options(settings),
        use_spare=settings.use_spare,
    )
    downloads = Downloads(access, state_file=settings.home / "state" / "downloads.json")
    hub = HubDesk(access, inventory, downloads, options=options, is_cpu_backend=runs_on_linux_cpu())
    pictures = PictureFetcher(
        FetchLimits(
            max_image_bytes=options.max_image_bytes,
            max_images=options.max_images,
            max_video_bytes=options.max_video_bytes,
            max_video_frames=options.max_video_frames,
            timeout_s=settings.image_timeout_s,
            hosts=frozenset(settings.image_hosts),
        )
    )

    await pool.start()
    await downloads.start()
    try:
        backends = (LocalBackend(pool, pictures),)
        yield Parts(backends=backends, models=pool, pool=pool, hub=hub, follow=partial(follow_in_pool, pool))
    finally:
        await downloads.close()
        await pool.close()


def follow_in_pool(pool: ModelPool, settings: Settings) -> None:
    """Have a running pool go by other settings."""
    wanted = _pool_options(settings)
    pool.reconfigure(_load_options(settings), wanted)
    limits = PoolLimits(
        memory_budget=wanted.memory_budget, policy=wanted.policy, drain_timeout_s=wanted.drain_timeout_s
    )
    pool.set_limits(limits)


def _clear(folder: Path | None) -> None:
    """Remove prefixes that an earlier start kept on disk, and this one is to keep none of."""
    if folder is None or not folder.exists():
        return
    try:
        shutil.rmtree(folder)
    except OSError as error:
        _log.warning("disk_cache is 0, and yet the prefixes on disk could not be removed: %s", error)


def _load_options(settings: Settings) -> LoadOptions:
    return msgspec.structs.replace(settings.load, state_folder=str(settings.home / "state"))


def _pool_options(settings: Settings) -> PoolOptions:
    return PoolOptions(
        memory_budget=settings.memory_budget,
        memory_floor=settings.memory_floor,
        policy=EvictionPolicy(settings.eviction),
        drain_timeout_s=settings.drain_timeout_s,
        hang_timeout_s=settings.hang_timeout_s,
        load_timeout_s=settings.load_timeout_s,
        leak_limit=settings.leak_limit,
        cooldown_s=settings.failure_cooldown_s,
        ttl_s=settings.model_ttl_s,
        preload=settings.preload,
        models=settings.models,
        state_file=settings.home / "state" / "pool.json",
    )
