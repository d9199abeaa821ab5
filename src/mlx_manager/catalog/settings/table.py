"""The table of settings, from which validation, variables, flags, help, the documentation and the console come."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

from mlx_manager.catalog.settings.cloud import CLOUD
from mlx_manager.catalog.settings.engine import ENGINE
from mlx_manager.catalog.settings.hub import HUB
from mlx_manager.catalog.settings.media import MEDIA
from mlx_manager.catalog.settings.observing import OBSERVING
from mlx_manager.catalog.settings.pool import POOL
from mlx_manager.catalog.settings.server import SERVER
from mlx_manager.catalog.settings.setting import Setting


@dataclass(frozen=True)
class SettingGroup:
    """Settings that belong together."""

    title: str
    settings: tuple[Setting, ...]


GROUPS = (
    SettingGroup("Server", SERVER),
    SettingGroup("Providers and waiting", CLOUD),
    SettingGroup("Memory and models", POOL),
    SettingGroup("Engine", ENGINE),
    SettingGroup("Pictures and videos", MEDIA),
    SettingGroup("Requests, traces and alerts", OBSERVING),
    SettingGroup("Model hub", HUB),
)
SETTINGS: tuple[Setting, ...] = tuple(row for group in GROUPS for row in group.settings)
ROWS = MappingProxyType({row.name: row for row in SETTINGS})
