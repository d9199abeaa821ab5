"""The inventory and the hub as the settings want them: home, the shared cache of the hub, the folders to scan."""

from __future__ import annotations

from collections.abc import Sequence

from mlx_manager.catalog import Settings
from mlx_manager.hub import Inventory
from mlx_manager.hub.access import default_access
from mlx_manager.hub.desk import HubDesk
from mlx_manager.hub.downloads import Downloads
from mlx_manager.pool import runs_on_linux_cpu


def local_inventory(settings: Settings, also: Sequence[str] = ()) -> Inventory:
    """Every model that a server with these settings could serve."""
    cache = default_access(settings.hf_token).cache_folder
    return Inventory(settings.home, also, cache=cache, scan=settings.scan_folders or ())


def hub_desk(settings: Settings) -> HubDesk:
    """The hub as a server with these settings would ask it; its downloads are this process's own."""
    access = default_access(settings.hf_token)
    return HubDesk(
        access,
        local_inventory(settings),
        Downloads(access, state_file=None),
        options=settings.load,
        is_cpu_backend=runs_on_linux_cpu(),
    )
