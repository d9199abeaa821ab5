"""Gemma 2 caps its attention scores and computes them itself: its layers are told to ask the paged view instead."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
from mlx_lm.models.gemma2 import Attention

from mlx_manager.engine.attention import Score
from mlx_manager.engine.views import PagedLayerView


class PagedAttentionLayer(Attention):  # type: ignore[misc]  # mlx-lm has no types
    """mlx-lm's attention layer; with a paged view for its cache, the view attends."""

    def __call__(self, x: mx.array, mask: mx.array | None = None, cache: Any | None = None) -> mx.array:
        """Attention of `x`, [batch, length, hidden], as the library's layer gives it."""
        if not isinstance(cache, PagedLayerView):
            attended: mx.array = super().__call__(x, mask, cache)
            return attended
        batch, length, _ = x.shape

        def heads(projected: mx.array, num_heads: int) -> mx.array:
            return projected.reshape(batch, length, num_heads, -1).transpose(0, 2, 1, 3)

        queries = self.rope(heads(self.q_proj(x), self.n_heads), offset=cache.offset)
        keys = self.rope(heads(self.k_proj(x), self.n_kv_heads), offset=cache.offset)
        keys, values = cache.update_and_fetch(keys, heads(self.v_proj(x), self.n_kv_heads))
        mixed = cache.attend((queries, keys, values), Score(self.scale, softcap=self.attn_logit_softcapping))
        projected: mx.array = self.o_proj(mixed.transpose(0, 2, 1, 3).reshape(batch, length, -1))
        return projected


def adapt(model: Any) -> None:
    """Give every attention layer of `model` the class above. Calling it twice changes nothing."""
    for layer in model.layers:
        layer.self_attn.__class__ = PagedAttentionLayer
