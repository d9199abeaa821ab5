"""What is done to loaded models of some families, so that the paged path can run them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlx_manager.models.families import gemma2, gpt_bigcode

_ADAPTERS: dict[str, Callable[[Any], None]] = {"gemma2": gemma2.adapt, "gpt_bigcode": gpt_bigcode.adapt}
"""By `model_type` of the config."""


def adapt(model: Any, model_type: str) -> None:
    """Do to a loaded model what the paged path needs of its family; most families need nothing."""
    adapter = _ADAPTERS.get(model_type)
    if adapter is not None:
        adapter(model)
