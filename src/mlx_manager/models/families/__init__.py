"""Model families: what is particular to each, as data and small adapters. The only place that names families."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlx_manager.models.families import gemma2

ADAPTERS: dict[str, Callable[[Any], None]] = {"gemma2": gemma2.adapt}
"""By `model_type` of the config: what has to be done to a loaded model before the paged path can carry it."""
