"""GPT-BigCode (StarCoder): mlx-lm counts its learned positions in NumPy, from one number for the whole batch."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
from mlx_lm.models.base import create_attention_mask


def adapt(model: Any) -> None:
    """Let the model count positions as its sister GPT-2 does: each row of a batch has its own."""
    backbone = model.transformer
    backbone.__class__ = type(type(backbone).__name__, (type(backbone),), {"__call__": _call})


def _call(self: Any, inputs: mx.array, cache: Any = None) -> mx.array:
    caches = [None] * len(self.h) if cache is None else cache
    first = mx.array(0 if caches[0] is None else caches[0].offset)
    hidden = self.wte(inputs) + self.wpe(mx.arange(inputs.shape[1]) + first[..., None])
    mask = create_attention_mask(hidden, caches[0])
    for layer, kept in zip(self.h, caches, strict=True):
        hidden = layer(hidden, mask, cache=kept)
    found: mx.array = self.ln_f(hidden)
    return found
