"""Attention of one packed pass over the arena, and the cache views through which a model reaches it.

A pass is packed: every token of every segment is a row of its own, [rows, 1], whatever sequence it belongs to, so that
decode and prefill share one reading of the weights and nothing is padded. Only attention looks across rows. Segments
of one token (decode) read the arena in place; longer ones (prefill) gather their own blocks once.
"""

from __future__ import annotations

from collections.abc import Sequence as AbstractSequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import mlx.core as mx
import numpy as np

from mlx_manager.engine.arena import Arena
from mlx_manager.engine.batch import Segment
from mlx_manager.engine.blocks import BLOCK_SIZE, num_blocks_for

_MASKED = -1e30
_MAX_GROUP_WASTE = 0.6
"""Rows share a padded group while the shorter one's blocks are at least this part of the longer one's."""
_SMALL_NUM_BLOCKS = 4
"""Rows of at most this many blocks are not worth a group of their own."""


class DecodeAttention(StrEnum):
    """How decode rows read the arena; which is faster depends on the device, see `engine.verify`."""

    GATHER_MM = "gather_mm"
    GATHERED_SDPA = "gathered_sdpa"


@dataclass(frozen=True)
class DecodeGroup:
    """Decode rows of similar length, padded to the longest in blocks.

    A padding entry repeats the row's own last block, masked, so that a row never reads a block of another.
    """

    rows: mx.array
    """[R] indices into the pass's rows."""
    tables: mx.array
    """[R, N] physical blocks."""
    mask: mx.array
    """[R, 1, 1, N * BLOCK_SIZE] float32: 0 where a slot is the row's own past, else very negative."""
    query_index: mx.array
    """[R, 1, N] the row of each table entry."""
    num_rows: int
    num_blocks: int


@dataclass(frozen=True)
class PrefillSegment:
    """Consecutive rows `first` to `last - 1` of the pass, which end a context of `num_context_tokens`."""

    first: int
    last: int
    table: mx.array | None
    """[N] physical blocks; None when the context is these rows alone."""
    num_context_tokens: int


class PassPlan:
    """The index arrays of one pass, built once on the host and used by every layer."""

    def __init__(self, segments: AbstractSequence[Segment]) -> None:
        positions: list[int] = []
        blocks: list[int] = []
        decodes: list[tuple[int, Segment]] = []
        self.prefills: list[PrefillSegment] = []
        for segment in segments:
            first = len(positions)
            positions.extend(range(segment.start, segment.end))
            blocks.extend(segment.block_table[p // BLOCK_SIZE] for p in range(segment.start, segment.end))
            if segment.num_tokens == 1:
                decodes.append((first, segment))
            else:
                self.prefills.append(_prefill_segment(first, segment))
        self.num_rows = len(positions)
        self.last_rows = _last_rows(segments)
        self.positions = mx.array(np.array(positions, dtype=np.int32))
        self.blocks = mx.array(np.array(blocks, dtype=np.int32))
        self.slots = mx.array(np.array(positions, dtype=np.int32) % BLOCK_SIZE)
        self.groups = [_decode_group(members) for members in group_by_length(decodes)]
        # Where each row's attention is found when the parts are put one behind the other; None: already in order.
        order = [row for group in self.groups for row in np.array(group.rows).tolist()]
        order += [row for part in self.prefills for row in range(part.first, part.last)]
        is_in_order = order == list(range(self.num_rows))
        self.restore = None if is_in_order else mx.array(np.argsort(np.array(order)).astype(np.int32))


class PagedAttention:
    """Attends for the rows of one pass: holds the arena, and the plan while a pass is being built."""

    def __init__(self, arena: Arena, decode_attention: DecodeAttention) -> None:
        self.arena = arena
        self.decode_attention = decode_attention
        self._plan: PassPlan | None = None
        self.views = [PagedLayerView(self, layer) for layer in range(len(arena.keys))]

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
        """End the pass: the views may not be used until the next one begins."""
        self._plan = None

    def attend(self, layer: int, queries: mx.array, keys: mx.array, values: mx.array, scale: float) -> mx.array:
        """Attention of every row to its own past and itself.

        queries [rows, num_heads, 1, key_dim]; keys and values [rows, num_kv_heads, 1, …] of these rows, which are in
        the arena already. Returns [rows, num_heads, 1, value_dim].
        """
        plan = self.plan
        decode = self._decode_gather_mm if self.decode_attention is DecodeAttention.GATHER_MM else self._decode_sdpa
        parts = []
        for group in plan.groups:
            is_all = group.num_rows == plan.num_rows and plan.restore is None
            parts.append(decode(layer, queries if is_all else queries[group.rows], group, scale))
        for part in plan.prefills:
            parts.append(self._prefill(layer, (queries, keys, values), part, scale))
        joined = parts[0] if len(parts) == 1 else mx.concatenate(parts)
        return joined if plan.restore is None else joined[plan.restore]

    def _decode_gather_mm(self, layer: int, queries: mx.array, group: DecodeGroup, scale: float) -> mx.array:
        keys, values = self.arena.keys[layer], self.arena.values[layer]
        num_blocks, num_kv_heads, _, key_dim = keys.shape
        rows, width = group.num_rows, group.num_blocks
        repeats = queries.shape[1] // num_kv_heads
        heads = mx.arange(num_kv_heads)[None, :, None]
        right = group.tables[:, None, :] * num_kv_heads + heads
        left = group.query_index * num_kv_heads + heads
        scores = mx.gather_mm(
            (queries * scale).reshape(rows * num_kv_heads, repeats, key_dim),
            keys.reshape(num_blocks * num_kv_heads, BLOCK_SIZE, key_dim).swapaxes(-1, -2),
            left,
            right,
        )
        # [rows, kv_heads, width, repeats, BLOCK_SIZE] → a row of all slots per head
        scores = scores.swapaxes(2, 3).reshape(rows, num_kv_heads, repeats, width * BLOCK_SIZE)
        weights = mx.softmax(scores + group.mask.astype(scores.dtype), axis=-1, precise=True)
        weights = weights.reshape(rows, num_kv_heads, repeats, width, BLOCK_SIZE).swapaxes(2, 3)
        mixed = mx.gather_mm(
            weights.reshape(rows * num_kv_heads * width, repeats, BLOCK_SIZE),
            values.reshape(num_blocks * num_kv_heads, BLOCK_SIZE, values.shape[-1]),
            mx.arange(rows * num_kv_heads * width).reshape(rows, num_kv_heads, width),
            right,
        )
        return mixed.sum(axis=2).reshape(rows, num_kv_heads * repeats, 1, values.shape[-1])

    def _decode_sdpa(self, layer: int, queries: mx.array, group: DecodeGroup, scale: float) -> mx.array:
        keys = _gathered(self.arena.keys[layer], group.tables)
        values = _gathered(self.arena.values[layer], group.tables)
        return mx.fast.scaled_dot_product_attention(
            queries, keys, values, scale=scale, mask=group.mask.astype(queries.dtype)
        )

    def _prefill(
        self, layer: int, rows: tuple[mx.array, mx.array, mx.array], part: PrefillSegment, scale: float
    ) -> mx.array:
        queries, keys, values = rows
        own = _as_sequence(queries, part)
        if part.table is None:
            context_keys, context_values = _as_sequence(keys, part), _as_sequence(values, part)
        else:
            end = part.num_context_tokens
            context_keys = _gathered(self.arena.keys[layer], part.table[None])[:, :, :end]
            context_values = _gathered(self.arena.values[layer], part.table[None])[:, :, :end]
        mixed = mx.fast.scaled_dot_product_attention(own, context_keys, context_values, scale=scale, mask="causal")
        return mixed.transpose(2, 1, 0, 3)


class PagedLayerView:
    """What a layer of the model takes for its cache. mlx-lm's layers call `update_and_fetch` and read `offset`."""

    def __init__(self, attention: PagedAttention, layer: int) -> None:
        self._attention = attention
        self._layer = layer

    @property
    def offset(self) -> mx.array:
        """[rows] the position of each row, for the rotary embedding."""
        return self._attention.plan.positions

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Write this pass's keys and values, [rows, num_kv_heads, 1, head_dim], to the arena, and return them."""
        plan = self._attention.plan
        self._attention.arena.write(self._layer, plan.blocks, plan.slots, keys[:, :, 0], values[:, :, 0])
        return keys, values

    def make_mask(self, *args: Any, **kwargs: Any) -> None:
        """No mask: `attend` knows what each row may see."""

    def attend(self, queries: mx.array, keys: mx.array, values: mx.array, scale: float) -> mx.array:
        """See `PagedAttention.attend`."""
        return self._attention.attend(self._layer, queries, keys, values, scale)


def group_by_length(decodes: AbstractSequence[tuple[int, Segment]]) -> list[list[tuple[int, Segment]]]:
    """Split (row, segment) pairs into groups that waste little when padded to their longest, longest group first."""
    groups: list[list[tuple[int, Segment]]] = []
    longest = 0
    for row, segment in sorted(decodes, key=lambda item: (-len(item[1].block_table), item[0])):
        width = len(segment.block_table)
        is_alike = width >= longest * _MAX_GROUP_WASTE or longest <= _SMALL_NUM_BLOCKS
        if groups and is_alike:
            groups[-1].append((row, segment))
        else:
            groups.append([(row, segment)])
            longest = width
    return [sorted(group, key=lambda item: item[0]) for group in groups]


def _decode_group(members: AbstractSequence[tuple[int, Segment]]) -> DecodeGroup:
    width = max(num_blocks_for(segment.end) for _, segment in members)
    tables = np.empty((len(members), width), dtype=np.int32)
    mask = np.full((len(members), 1, 1, width * BLOCK_SIZE), _MASKED, dtype=np.float32)
    for index, (_, segment) in enumerate(members):
        table = segment.block_table
        tables[index, : len(table)] = table
        tables[index, len(table) :] = table[-1]
        mask[index, 0, 0, : segment.end] = 0.0
    return DecodeGroup(
        rows=mx.array(np.array([row for row, _ in members], dtype=np.int32)),
        tables=mx.array(tables),
        mask=mx.array(mask),
        query_index=mx.broadcast_to(mx.arange(len(members))[:, None, None], (len(members), 1, width)),
        num_rows=len(members),
        num_blocks=width,
    )


def _prefill_segment(first: int, segment: Segment) -> PrefillSegment:
    is_whole = segment.start == 0
    return PrefillSegment(
        first=first,
        last=first + segment.num_tokens,
        table=None if is_whole else mx.array(np.array(segment.block_table, dtype=np.int32)),
        num_context_tokens=segment.end,
    )


def _last_rows(segments: AbstractSequence[Segment]) -> list[int]:
    rows, row = [], -1
    for segment in segments:
        row += segment.num_tokens
        rows.append(row)
    return rows


def _gathered(arena: mx.array, tables: mx.array) -> mx.array:
    """The blocks of each table put together: [R, N] tables → [R, num_kv_heads, N * BLOCK_SIZE, head_dim], a copy."""
    rows, width = tables.shape
    picked = arena[tables].transpose(0, 2, 1, 3, 4)
    return picked.reshape(rows, arena.shape[1], width * BLOCK_SIZE, arena.shape[3])


def _as_sequence(rows: mx.array, part: PrefillSegment) -> mx.array:
    """Rows of a pass, [rows, heads, 1, dim], as one sequence, [1, heads, length, dim]."""
    return rows[part.first : part.last].transpose(2, 1, 0, 3)
