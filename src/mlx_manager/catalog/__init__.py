"""What the operator configured: the settings table, the models to serve, and how to serve them."""

from mlx_manager.catalog.memory import MemoryAmount
from mlx_manager.catalog.model import LoadOptions, ModelEntry, ModelKind
from mlx_manager.catalog.overrides import (
    MODEL_SETTINGS,
    ModelOverrides,
    ModelSetting,
    OverrideError,
    model_setting,
    override,
)
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
    "MODEL_SETTINGS",
    "SETTINGS",
    "LoadOptions",
    "MemoryAmount",
    "ModelEntry",
    "ModelKind",
    "ModelOverrides",
    "ModelSetting",
    "OverrideError",
    "Setting",
    "Settings",
    "SettingsError",
    "load_settings",
    "model_setting",
    "override",
    "render_size",
    "unknown_variables",
]
