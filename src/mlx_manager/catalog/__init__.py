"""What the operator configured: the settings table, the models to serve, and how to serve them."""

from mlx_manager.catalog.context import find_context, served_context
from mlx_manager.catalog.isolation import PrefixIsolation
from mlx_manager.catalog.kv_split import KvSplit, split_kv_budget
from mlx_manager.catalog.memory import MemoryAmount
from mlx_manager.catalog.model import LoadOptions, ModelEntry, ModelKind
from mlx_manager.catalog.overrides import (
    MODEL_SETTINGS,
    ModelOverrides,
    ModelSetting,
    OverrideError,
    model_setting,
    override,
    render_override,
)
from mlx_manager.catalog.people import ApiKey, KeyLimits, Scope, User, UserRole, UserState
from mlx_manager.catalog.provider import DEFAULT_BASE_URLS, Price, Provider, ProviderKind, ProviderSecret, Timeouts
from mlx_manager.catalog.route import PatternKind, Route, RouteConditions, RouteTarget, Spill, TargetOrder
from mlx_manager.catalog.settings import (
    GROUPS,
    SETTINGS,
    Effect,
    Origin,
    Setting,
    SettingGroup,
    Settings,
    SettingsError,
    Source,
    changeable_settings,
    load_settings,
    unknown_variables,
    usable_changes,
    with_changes,
)
from mlx_manager.catalog.tool_server import BUILT_IN_TOOL_SERVERS, ToolServer, ToolServerKind, ToolServerSecret
from mlx_manager.catalog.values import render_size

__all__ = [
    "BUILT_IN_TOOL_SERVERS",
    "DEFAULT_BASE_URLS",
    "GROUPS",
    "MODEL_SETTINGS",
    "SETTINGS",
    "ApiKey",
    "Effect",
    "KeyLimits",
    "KvSplit",
    "LoadOptions",
    "MemoryAmount",
    "ModelEntry",
    "ModelKind",
    "ModelOverrides",
    "ModelSetting",
    "Origin",
    "OverrideError",
    "PatternKind",
    "PrefixIsolation",
    "Price",
    "Provider",
    "ProviderKind",
    "ProviderSecret",
    "Route",
    "RouteConditions",
    "RouteTarget",
    "Scope",
    "Setting",
    "SettingGroup",
    "Settings",
    "SettingsError",
    "Source",
    "Spill",
    "TargetOrder",
    "Timeouts",
    "ToolServer",
    "ToolServerKind",
    "ToolServerSecret",
    "User",
    "UserRole",
    "UserState",
    "changeable_settings",
    "find_context",
    "load_settings",
    "model_setting",
    "override",
    "render_override",
    "render_size",
    "served_context",
    "split_kv_budget",
    "unknown_variables",
    "usable_changes",
    "with_changes",
]
