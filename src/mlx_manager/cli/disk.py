"""The inventory as the settings want it: home, the shared cache of the hub, the folders to scan."""

from __future__ import annotations

from collections.abc import Sequence

from mlx_manager.catalog import Settings
from mlx_manager.hub import Inventory
from mlx_manager.hub.access import default_access


def local_inventory(settings: Settings, also: Sequence[str] = ()) -> Inventory:
    """Every model that a server with these settings could serve."""
    return Inventory(
        settings.home,
        also,
        cache=default_access(settings.hf_token).cache_folder,
        scan=settings.scan_folders or (),
    )
