"""How the engine enters mlx-lm's models: the one place that touches their code, once, at load.

Two hooks. Attention: the model's module calls a module-level `scaled_dot_product_attention`; it is wrapped to let a
paged cache view attend itself. Rows: the backbone (the model without its output head) returns only the rows that are
sampled, so that prefill does not pay for logits nobody reads.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import mlx.core as mx
from mlx import nn

from mlx_manager.engine.attention import PagedLayerView

_ATTENTION = "scaled_dot_product_attention"


class RowSelection:
    """Which rows the backbone returns. Set by the runner before each pass."""

    def __init__(self) -> None:
        self.pick: tuple[mx.array, bool] | None = None
        """(rows, whether they count along a sequence, [1, length, …], and not along the batch); None returns all."""


def wrap_attention(model: nn.Module) -> None:
    """Wrap the attention call of every module that defines a part of `model`. Calling it twice changes nothing."""
    names = {type(module).__module__ for module in model.modules()}
    for name in names:
        module = sys.modules.get(name)
        if module is not None:
            _wrap_module(module)


def select_rows(model: nn.Module) -> RowSelection | None:
    """Make the backbone of `model` return only selected rows. None where the model has no backbone to hook."""
    backbone = getattr(model, "model", None)
    if not isinstance(backbone, nn.Module):
        return None
    selection = RowSelection()
    plain_class = type(backbone)

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        hidden = plain_class.__call__(self, *args, **kwargs)
        if selection.pick is None or not isinstance(hidden, mx.array):
            return hidden
        rows, is_sequence = selection.pick
        return hidden[:, rows] if is_sequence else hidden[rows]

    # Python looks `__call__` up on the class, so the instance gets a class of its own.
    backbone.__class__ = type(plain_class.__name__, (plain_class,), {"__call__": call})
    return selection


def _wrap_module(module: ModuleType) -> None:
    plain = getattr(module, _ATTENTION, None)
    if plain is None or getattr(plain, "is_paged_aware", False):
        return

    def attention(queries: mx.array, keys: mx.array, values: mx.array, *args: Any, **kwargs: Any) -> mx.array:
        cache = kwargs["cache"] if "cache" in kwargs else args[0] if args else None
        if isinstance(cache, PagedLayerView):
            scale = kwargs["scale"] if "scale" in kwargs else args[1]
            return cache.attend((queries, keys, values), scale, kwargs.get("sinks"))
        attended: mx.array = plain(queries, keys, values, *args, **kwargs)
        return attended

    attention.is_paged_aware = True  # type: ignore[attr-defined]
    setattr(module, _ATTENTION, attention)
