"""Attention of one packed pass over the arena.

A pass is packed: every token of every segment is a row of its own, [rows, 1], whatever sequence it belongs to, so that
decode and prefill share one reading of the weights and nothing is padded. Only attention looks across rows. Segments
of one token (decode) read the arena in place; longer ones (prefill) gather their own blocks once. Where the arena is
quantized, every row reads back what was stored of it: a prompt then gives the same answers in one piece, in chunks, and
after a prefix hit.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import mlx.core as mx
from mlx_lm.models.base import create_causal_mask

from mlx_manager.engine.arena import Arena, LayerShape
from mlx_manager.engine.blocks import BLOCK_SIZE
from mlx_manager.engine.partial import Partial, exponentiated, joined
from mlx_manager.engine.plan import DecodeGroup, PassPlan, PrefillSegment, SharedPrefix
from mlx_manager.engine.planes import Plane

_MASKED = -1e30


@dataclass(frozen=True)
class Score:
    """How a score becomes a weight, beyond softmax."""

    scale: float
    sinks: mx.array | None = None
    """[num_heads] a logit without a value that joins each softmax (gpt-oss)."""
    softcap: float | None = None
    """Scores are bent to ±softcap by a tanh before the mask (Gemma 2)."""

    def bend(self, scores: mx.array) -> mx.array:
        """Apply the cap, if there is one."""
        return scores if self.softcap is None else mx.tanh(scores / self.softcap) * self.softcap


class DecodeAttention(StrEnum):
    """How decode rows read the arena; which is faster depends on the device, see `engine.timing`."""

    GATHER_MM = "gather_mm"
    GATHERED_SDPA = "gathered_sdpa"


def candidates_for(layer: LayerShape) -> tuple[DecodeAttention, ...]:
    """The decode attentions that run here on such a layer: MLX's CPU backend has `gather_mm` in float32 only."""
    is_on_cpu = mx.default_device() == mx.Device(mx.DeviceType.cpu)
    if layer.bits is None and layer.dtype != mx.float32 and is_on_cpu:
        return (DecodeAttention.GATHERED_SDPA,)
    return tuple(DecodeAttention)


class PagedAttention:
    """Attends for the rows of one pass: holds the arena, and the plan while a pass is being built."""

    def __init__(self, arena: Arena, decode_attention: DecodeAttention) -> None:
        self.arena = arena
        self.decode_attention = decode_attention
        self.min_shared_blocks: int | None = None
        """Decode rows with so many first blocks in common read them once for all; None: each reads its own."""
        self._plan: PassPlan | None = None

    @property
    def can_share(self) -> bool:
        """Whether common blocks can be read for several rows at once: that needs `gather_mm`."""
        kept = [layer for layer in self.arena.layers if layer.num_kv_heads]
        return bool(kept) and all(DecodeAttention.GATHER_MM in candidates_for(layer) for layer in kept)

    @property
    def plan(self) -> PassPlan:
        """The plan of the pass being built. Raises `RuntimeError` outside one."""
        if self._plan is None:
            raise RuntimeError("a paged cache view was used outside a pass")
        return self._plan

    def begin(self, plan: PassPlan) -> None:
        """Begin a pass."""
        self._plan = plan

    def end(self) -> None:
        """End the pass: nothing may attend until the next one begins."""
        self._plan = None

    def attend(self, layer: int, rows: tuple[mx.array, mx.array, mx.array], score: Score) -> mx.array:
        """Attention of every row to its own past and itself.

        `rows` are queries [rows, num_heads, 1, key_dim] and these rows' own keys and values [rows, num_kv_heads, 1, …],
        which are in the arena already. Returns [rows, num_heads, 1, value_dim].
        """
        queries, _, _ = rows
        reads = self.plan.reads(self.arena.layers[layer].window)
        is_in_place = self.decode_attention is DecodeAttention.GATHER_MM or score.softcap is not None
        decode = self._decode_gather_mm if is_in_place else self._decode_sdpa
        parts = [self._decode_shared(layer, queries[part.rows], part, score) for part in reads.shared]
        for group in reads.groups:
            is_all = group.num_rows == self.plan.num_rows and reads.restore is None
            parts.append(decode(layer, queries if is_all else queries[group.rows], group, score))
        parts += [self._prefill(layer, rows, part, score) for part in reads.prefills]
        joined = parts[0] if len(parts) == 1 else mx.concatenate(parts)
        return joined if reads.restore is None else joined[reads.restore]

    def _decode_gather_mm(self, layer: int, queries: mx.array, group: DecodeGroup, score: Score) -> mx.array:
        weights = _softmax(self._row_scores(layer, queries, group, score), score.sinks)
        return self._as_heads(self._mix_rows(layer, weights, group))

    def _decode_shared(self, layer: int, queries: mx.array, part: SharedPrefix, score: Score) -> mx.array:
        """Rows that begin alike: the common blocks once for all of them, merged with what each has behind them."""
        tails = []
        for group in part.tails:
            own = queries if len(part.tails) == 1 else queries[group.rows]
            weights, peak, total = exponentiated(self._row_scores(layer, own, group, score))
            tails.append(Partial(self._mix_rows(layer, weights, group), peak, total))
        whole = joined(tails).with_sinks(score.sinks).merged(self._common_part(layer, queries, part, score))
        return self._as_heads(whole.astype(queries.dtype))

    def _row_scores(self, layer: int, queries: mx.array, group: DecodeGroup, score: Score) -> mx.array:
        """[rows, num_kv_heads, repeats, width * BLOCK_SIZE] masked scores of each row against its own blocks."""
        keys, _, _ = self._stored(layer)
        num_kv_heads = keys.num_kv_heads
        rows, width = group.num_rows, group.num_blocks
        repeats = queries.shape[1] // num_kv_heads
        index = group.index(num_kv_heads)
        scaled = (queries * score.scale).reshape(rows * num_kv_heads, repeats, keys.dim)
        scores = keys.scores(scaled, index.queries, index.blocks)
        # [rows, kv_heads, width, repeats, BLOCK_SIZE] → a row of all slots per head
        scores = scores.swapaxes(2, 3).reshape(rows, num_kv_heads, repeats, width * BLOCK_SIZE)
        return score.bend(scores) + group.mask.astype(scores.dtype)

    def _mix_rows(self, layer: int, weights: mx.array, group: DecodeGroup) -> mx.array:
        """The values of each row's blocks, weighted: [rows, num_kv_heads, repeats, value_dim]."""
        _, values, value_dim = self._stored(layer)
        rows, num_kv_heads, repeats, _ = weights.shape
        width = group.num_blocks
        index = group.index(num_kv_heads)
        weights = weights.astype(values.dtype).reshape(rows, num_kv_heads, repeats, width, BLOCK_SIZE).swapaxes(2, 3)
        by_block = weights.reshape(rows * num_kv_heads * width, repeats, BLOCK_SIZE)
        mixed = values.mixed(by_block, index.weights, index.blocks)
        return mixed.sum(axis=2)[..., :value_dim]

    def _common_part(self, layer: int, queries: mx.array, part: SharedPrefix, score: Score) -> Partial:
        """What the common blocks contribute: every block is read once, by the queries of all rows together."""
        keys, values, value_dim = self._stored(layer)
        num_kv_heads = keys.num_kv_heads
        num_rows, num_heads = queries.shape[:2]
        repeats, width = num_heads // num_kv_heads, part.num_blocks
        index = part.index(num_kv_heads)
        together = (queries * score.scale).reshape(num_rows, num_kv_heads, repeats, keys.dim).swapaxes(0, 1)
        together = together.reshape(num_kv_heads, num_rows * repeats, keys.dim)
        scores = keys.scores(together, index.queries, index.blocks)
        # [width, kv_heads, rows * repeats, BLOCK_SIZE] → a row of all slots per head and query
        scores = scores.transpose(1, 2, 0, 3).reshape(num_kv_heads, num_rows * repeats, width * BLOCK_SIZE)
        weights, peak, total = exponentiated(score.bend(scores))
        weights = weights.astype(values.dtype).reshape(num_kv_heads, num_rows * repeats, width, BLOCK_SIZE)
        by_block = weights.transpose(2, 0, 1, 3).reshape(width * num_kv_heads, num_rows * repeats, BLOCK_SIZE)
        mixed = values.mixed(by_block, index.weights, index.blocks)

        def by_row(array: mx.array) -> mx.array:
            return array.reshape(num_kv_heads, num_rows, repeats, -1).swapaxes(0, 1)

        return Partial(by_row(mixed.sum(axis=0)[..., :value_dim]), by_row(peak), by_row(total))

    @staticmethod
    def _as_heads(mixed: mx.array) -> mx.array:
        """[rows, num_kv_heads, repeats, value_dim] as [rows, num_heads, 1, value_dim]."""
        rows, num_kv_heads, repeats, value_dim = mixed.shape
        return mixed.reshape(rows, num_kv_heads * repeats, 1, value_dim)

    def _stored(self, layer: int) -> tuple[Plane, Plane, int]:
        """(keys, values, width of a value) in the arena; MLA reads its values off the beginning of its keys."""
        shape = self.arena.layers[layer]
        keys = self.arena.keys[layer]
        if shape.latent_dim is not None:
            return keys, keys, shape.latent_dim
        return keys, self.arena.values[layer], shape.value_dim

    def _decode_sdpa(self, layer: int, queries: mx.array, group: DecodeGroup, score: Score) -> mx.array:
        stored_keys, stored_values, value_dim = self._stored(layer)
        keys = stored_keys.gathered(group.tables)
        values = keys if stored_values is stored_keys else stored_values.gathered(group.tables)
        values = values[..., :value_dim]
        mask = group.mask.astype(queries.dtype)
        return mx.fast.scaled_dot_product_attention(
            queries, keys, values, scale=score.scale, mask=mask, sinks=score.sinks
        )

    def _prefill(
        self, layer: int, rows: tuple[mx.array, mx.array, mx.array], part: PrefillSegment, score: Score
    ) -> mx.array:
        queries, keys, values = (_as_sequence(array, part) for array in rows)
        shape = self.arena.layers[layer]
        if not part.is_whole or shape.latent_dim is not None or shape.bits is not None:
            stored_keys, stored_values, value_dim = self._stored(layer)
            end = part.num_context_tokens
            keys = stored_keys.gathered(part.table[None])[:, :, :end]
            is_latent = stored_values is stored_keys
            values = (keys if is_latent else stored_values.gathered(part.table[None])[:, :, :end])[..., :value_dim]
        if score.softcap is not None:
            return _capped_attention(queries, keys, values, part.mask, score).transpose(2, 1, 0, 3)
        mixed = mx.fast.scaled_dot_product_attention(
            queries,
            keys,
            values,
            scale=score.scale,
            mask="causal" if part.mask is None else part.mask,
            sinks=score.sinks,
        )
        return mixed.transpose(2, 1, 0, 3)


def _capped_attention(
    queries: mx.array, keys: mx.array, values: mx.array, mask: mx.array | None, score: Score
) -> mx.array:
    """Attention of one sequence, [1, heads, length, dim] each, with capped scores, which no fused attention has."""
    _, num_heads, length, dim = queries.shape
    num_kv_heads, num_context = keys.shape[1], keys.shape[2]
    grouped = (queries * score.scale).reshape(1, num_kv_heads, num_heads // num_kv_heads, length, dim)
    scores = score.bend(grouped @ keys[:, :, None].swapaxes(-1, -2))
    sees = create_causal_mask(length, num_context - length) if mask is None else mask
    weights = mx.softmax(mx.where(sees, scores, mx.array(_MASKED, scores.dtype)), axis=-1, precise=True)
    return (weights @ values[:, :, None]).reshape(1, num_heads, length, values.shape[-1])


def _softmax(scores: mx.array, sinks: mx.array | None) -> mx.array:
    """Softmax over the last axis of [rows, kv_heads, repeats, slots], with a sink per head if there are any."""
    if sinks is None:
        return mx.softmax(scores, axis=-1, precise=True)
    rows, num_kv_heads, repeats, _ = scores.shape
    column = mx.broadcast_to(sinks.reshape(1, num_kv_heads, repeats, 1), (rows, num_kv_heads, repeats, 1))
    weights = mx.softmax(mx.concatenate([scores, column.astype(scores.dtype)], axis=-1), axis=-1, precise=True)
    return weights[..., :-1]


def as_rows(sequence: mx.array) -> mx.array:
    """A sequence, [1, heads, length, dim], as rows, [length, heads, 1, dim]; its own inverse."""
    return sequence.transpose(2, 1, 0, 3)


def _as_sequence(rows: mx.array, part: PrefillSegment) -> mx.array:
    """Rows of a pass, [rows, heads, 1, dim], as one sequence, [1, heads, length, dim]."""
    return rows[part.first : part.last].transpose(2, 1, 0, 3)
