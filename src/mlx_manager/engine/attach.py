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

from mlx_manager.engine.attention import Score
from mlx_manager.engine.probe import AttentionProbe
from mlx_manager.engine.views import PagedLayerView, PagedViews

_ATTENTION = "scaled_dot_product_attention"


class RowSelection:
    """Which rows the backbone returns. Set by the runner before each pass."""

    def __init__(self) -> None:
        self.pick: tuple[mx.array, bool] | None = None
        """(rows, whether they count along a sequence, [1, length, …], and not along the batch); None returns all."""


class AttentionHook:
    """What a module's wrapped attention call consults; one per module, however many models of it there are."""

    def __init__(self) -> None:
        self.active: PagedViews | None = None
        """The views of the pass that is being built; set by the runner around each pass."""


def wrap_attention(model: nn.Module) -> list[AttentionHook]:
    """Wrap the attention call of every module that defines a part of `model`, once, and return the hooks."""
    modules = [sys.modules[name] for name in {type(module).__module__ for module in model.modules()}]
    return [_wrap_module(module) for module in modules if hasattr(module, _ATTENTION)]


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


def _wrap_module(module: ModuleType) -> AttentionHook:
    plain = getattr(module, _ATTENTION)
    known: AttentionHook | None = getattr(plain, "paged_hook", None)
    if known is not None:
        return known
    hook = AttentionHook()

    def attention(queries: mx.array, keys: mx.array, values: mx.array, *args: Any, **kwargs: Any) -> mx.array:
        named = dict(zip(("cache", "scale", "mask", "sinks"), args, strict=False)) | kwargs
        view = named.get("cache")
        if hook.active is not None and (view is None or view.latest is None or view.latest[0] is not keys):
            # A layer may attend to the keys of one before it, with or without a cache of its own.
            view = hook.active.that_returned(keys) or view
        if isinstance(view, PagedLayerView):
            score = Score(named["scale"], sinks=named.get("sinks"))
            return view.attend((queries, keys, values), score, mask=named.get("mask"))
        if isinstance(view, AttentionProbe):
            view.saw_attention(named.get("mask"))
        attended: mx.array = plain(queries, keys, values, *args, **kwargs)
        return attended

    attention.paged_hook = hook  # type: ignore[attr-defined]
    setattr(module, _ATTENTION, attention)
    return hook
