"""Model families: what is particular to each, as data and small adapters. The only place that names families.

Which family a model is of is found out without MLX, so that it can be told of models that are not loaded.
"""

from __future__ import annotations

from mlx_manager.models.families.family import GENERIC, Family, ThinkingSwitch
from mlx_manager.models.families.find import find_family
from mlx_manager.models.families.table import FAMILIES

__all__ = ["FAMILIES", "GENERIC", "Family", "ThinkingSwitch", "find_family"]
