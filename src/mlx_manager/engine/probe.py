"""Finds out what a model stores per token and per sequence, by passing one token through it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import mlx.core as mx
from mlx import nn

from mlx_manager.engine.arena import LayerShape
from mlx_manager.engine.caches import CacheLayout


@dataclass(frozen=True)
class ModelCaches:
    """What a model keeps per token and per sequence, as `probe_caches` found it."""

    layout: CacheLayout
    layers: list[LayerShape]
    """Attention, leaf by leaf."""
    state_bytes: int
    """Bytes of one sequence's recurrent state; 0 where there is none."""

    @property
    def bytes_per_token(self) -> int:
        """Bytes of the keys and values of one token."""
        return sum(layer.bytes_per_token for layer in self.layers)

    def quantized(self, bits: int) -> list[LayerShape]:
        """The layers with `bits` for each entry of keys and values. Raises `ValueError` where one cannot be."""
        return [layer.quantized(bits) if layer.num_kv_heads else layer for layer in self.layers]


class AttentionProbe:
    """A cache that stores nothing and remembers what it was asked to store."""

    offset = 0

    def __init__(self, window: int | None) -> None:
        self.shape: LayerShape | None = None
        self._window = window
        self._latest: tuple[mx.array, mx.array] | None = None

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Remember the shapes of one token's keys and values, [1, num_kv_heads, 1, head_dim]."""
        self.shape = LayerShape(keys.shape[1], keys.shape[-1], values.shape[-1], keys.dtype)
        self._latest = keys, values
        return keys, values

    def keys_and_values(self) -> tuple[mx.array, mx.array] | None:
        """What was stored, for layers that share it."""
        return self._latest

    def make_mask(self, num_tokens: int, *, window_size: int | None = None, **kwargs: Any) -> None:
        """One token sees itself: no mask. Raises `ValueError` for a window other than the cache's own."""
        if window_size is not None and window_size != self._window:
            raise ValueError(f"a layer asks for a mask of {window_size} positions over a cache of {self._window}")

    def saw_attention(self, mask: mx.array | None) -> None:
        """The layer called attention. One token needs no mask; one that comes all the same is MLA's rotary scores."""
        if self.shape is not None and mask is not None:
            latent_dim, rotary_dim = self.shape.key_dim, self.shape.value_dim
            self.shape = LayerShape(1, latent_dim + rotary_dim, 0, self.shape.dtype, latent_dim)


def probe_caches(model: nn.Module) -> ModelCaches:
    """What `model` stores per token and per sequence; its attention must be wrapped already (see `attach`).

    Raises `UnknownCache`, and whatever the model's own code raises when it wants more of a cache than to hand in keys
    and values.
    """
    layout = CacheLayout(model)
    probes = [AttentionProbe(window) for window in layout.windows]
    states = layout.new_states()
    # Shapes and types are known without computing anything.
    model(mx.array([[0]]), cache=layout.assemble(list(probes), states))
    # A layer that stores nothing (pruned, as in Nemotron-NAS) takes no room.
    nothing = LayerShape(0, 0, 0, mx.float32)
    layers = [
        replace(probe.shape or nothing, window=window) for probe, window in zip(probes, layout.windows, strict=True)
    ]
    return ModelCaches(layout, layers, sum(state.nbytes for state in states))
