"""The settings: one table, from which validation, variables, flags, help and the documentation come.

A value is looked for among what admins changed, then among the flags, then in the MLX_MANAGER_* environment, then in
config.toml in the home folder.
"""

from mlx_manager.catalog.settings.chosen import Settings
from mlx_manager.catalog.settings.read import (
    changeable_settings,
    load_settings,
    unknown_variables,
    usable_changes,
    with_changes,
)
from mlx_manager.catalog.settings.setting import Effect, Origin, Setting, SettingsError, Source
from mlx_manager.catalog.settings.table import GROUPS, ROWS, SETTINGS, SettingGroup

__all__ = [
    "GROUPS",
    "ROWS",
    "SETTINGS",
    "Effect",
    "Origin",
    "Setting",
    "SettingGroup",
    "Settings",
    "SettingsError",
    "Source",
    "changeable_settings",
    "load_settings",
    "unknown_variables",
    "usable_changes",
    "with_changes",
]
