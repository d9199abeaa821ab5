"""The cache views: what each attention layer of a model takes for its cache, and through which it reaches the arena."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
from mlx_lm.models.base import create_causal_mask

from mlx_manager.engine.attention import PagedAttention, Score, as_rows


class PagedViews:
    """The views of all attention layers of a model, in the order of the arena's layers."""

    def __init__(self, attention: PagedAttention) -> None:
        self.layers = [PagedLayerView(attention, layer) for layer in range(len(attention.arena.layers))]

    def that_returned(self, keys: mx.array) -> PagedLayerView | None:
        """The view that returned just this array of keys in this pass, for layers that attend to another's keys."""
        return next((view for view in self.layers if view.latest is not None and view.latest[0] is keys), None)

    def clear(self) -> None:
        """The pass is built: forget what the layers handed in."""
        for view in self.layers:
            view.latest = None


class PagedLayerView:
    """What a layer of the model takes for its cache. mlx-lm's layers call `update_and_fetch` and read `offset`."""

    def __init__(self, attention: PagedAttention, layer: int) -> None:
        self._attention = attention
        self._layer = layer
        self.latest: tuple[mx.array, mx.array] | None = None
        """What `update_and_fetch` returned in this pass."""

    @property
    def offset(self) -> mx.array | int:
        """For the rotary embedding: [rows] the position of each row, or the first position of a sequence."""
        plan = self._attention.plan
        return plan.first_position if plan.is_sequence else plan.positions

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Write this pass's keys and values to the arena, and return what the layer hands to its attention.

        [rows, num_kv_heads, 1, head_dim], or [1, num_kv_heads, length, head_dim] of a sequence. Of MLA they are the
        latent and the rotary part of the key. The layer multiplies its rotary queries with the latter before it calls
        attention; it gets the identity back, so that what reaches `attend` is the rotary query itself.
        """
        plan, shape = self._attention.plan, self._attention.arena.layers[self._layer]
        new_keys, new_values = (as_rows(array) if plan.is_sequence else array for array in (keys, values))
        if shape.latent_dim is not None:
            new_keys, new_values = mx.concatenate([new_keys, new_values], axis=-1), new_values[..., :0]
            values = mx.eye(values.shape[-1], dtype=values.dtype)[None, None]
        self._attention.arena.write(self._layer, plan.places(shape.window), new_keys[:, :, 0], new_values[:, :, 0])
        if shape.latent_dim is not None and plan.is_sequence:
            # The layer unfolds the latents itself when it has more than one query: it gets the whole past.
            past = self._attention.arena.keys[self._layer].gathered(plan.sequence_table)[:, :, : plan.end]
            keys, values = past[..., : shape.latent_dim], past[..., shape.latent_dim :]
        self.latest = keys, values
        return keys, values

    def keys_and_values(self) -> tuple[mx.array, mx.array]:
        """What `update_and_fetch` returned in this pass, for layers that share this one's. Raises `RuntimeError`."""
        if self.latest is None:
            raise RuntimeError("a layer asked for another's keys and values before that one had any")
        return self.latest

    def make_mask(self, num_tokens: int, *, return_array: bool = False, **kwargs: Any) -> mx.array | None:
        """No mask, since `attend` knows what each row may see; except for MLA that computes scores of a sequence."""
        plan = self._attention.plan
        if not (return_array and plan.is_sequence and num_tokens > 1):
            return None
        mask: mx.array = create_causal_mask(num_tokens, plan.first_position)
        return mask

    def attend(
        self, rows: tuple[mx.array, mx.array, mx.array], score: Score, *, mask: mx.array | None = None
    ) -> mx.array:
        """See `PagedAttention.attend`; of a sequence all arrays are [1, heads, length, dim].

        `mask` is what the layer passes for one. Only MLA's means anything here: its rotary queries, scaled.
        """
        if self._attention.arena.layers[self._layer].latent_dim is not None:
            return self._attend_latent(rows, score, mask)
        if not self._attention.plan.is_sequence:
            return self._attention.attend(self._layer, rows, score)
        queries, keys, values = (as_rows(array) for array in rows)
        return as_rows(self._attention.attend(self._layer, (queries, keys, values), score))

    def _attend_latent(
        self, rows: tuple[mx.array, mx.array, mx.array], score: Score, rotary: mx.array | None
    ) -> mx.array:
        """Queries [rows, num_heads, 1, latent_dim] against the stored latents, and `rotary` queries, scaled already.

        Of a sequence `rows` are whole and `rotary` are the finished scores of the rotary part: the layer got its past.
        """
        queries, latents, values = rows
        if self._attention.plan.is_sequence:
            return mx.fast.scaled_dot_product_attention(queries, latents, values, scale=score.scale, mask=rotary)
        if rotary is None:
            raise ValueError("latent attention came without its rotary part")
        whole = mx.concatenate([queries * score.scale, rotary], axis=-1)
        padding = mx.zeros((*latents.shape[:-1], rotary.shape[-1]), dtype=latents.dtype)
        # A pass's own rows are read back from the arena: the layer does not hand on the rotary part of their keys.
        return self._attention.attend(
            self._layer, (whole, mx.concatenate([latents, padding], axis=-1), latents), Score(1.0)
        )
