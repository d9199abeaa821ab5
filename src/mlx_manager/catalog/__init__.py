"""What the operator configured: the settings table, the models to serve, and how to serve them."""

from mlx_manager.catalog.model import LoadOptions, ModelEntry, ModelKind
from mlx_manager.catalog.settings import (
    SETTINGS,
    Setting,
    Settings,
    SettingsError,
    load_settings,
    unknown_variables,
)
from mlx_manager.catalog.values import render_size

__all__ = [
    "SETTINGS",
    "LoadOptions",
    "ModelEntry",
    "ModelKind",
    "Setting",
    "Settings",
    "SettingsError",
    "load_settings",
    "render_size",
    "unknown_variables",
]
