"""Model families: what is particular to each, as data and small adapters. The only place that names families."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlx_manager.models.families import gemma2
from mlx_manager.models.families.family import GENERIC, Family, ThinkingSwitch
from mlx_manager.models.families.find import find_family
from mlx_manager.models.families.table import FAMILIES

__all__ = ["FAMILIES", "GENERIC", "Family", "ThinkingSwitch", "adapt", "find_family"]

_ADAPTERS: dict[str, Callable[[Any], None]] = {"gemma2": gemma2.adapt}
"""By `model_type` of the config."""


def adapt(model: Any, model_type: str) -> None:
    """Do to a loaded model what the paged path needs of its family; most families need nothing."""
    adapter = _ADAPTERS.get(model_type)
    if adapter is not None:
        adapter(model)
