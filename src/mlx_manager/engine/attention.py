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
    """How decode rows read the arena; which is faster depends on the device, see `engine.timing`."""

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
    """Consecutive rows `first` to `last - 1` of the pass, which end a context of `num_context_tokens` positions."""

    first: int
    last: int
    table: mx.array
    """[N] physical blocks that begin with the context."""
    is_whole: bool
    """Whether the context is these rows alone, so that nothing has to be read back."""
    num_context_tokens: int
    mask: mx.array | None
    """[rows, context] what each row sees, where a window hides something; None: all before it."""


@dataclass(frozen=True)
class ReadPlan:
    """How the rows of a pass read the arena, for all layers of one window."""

    groups: list[DecodeGroup]
    prefills: list[PrefillSegment]
    restore: mx.array | None
    """Where each row's attention is found when the parts are put one behind the other; None: already in order."""


class PassPlan:
    """The index arrays of one pass, built once on the host and used by every layer."""

    def __init__(self, segments: AbstractSequence[Segment], *, is_sequence: bool = False) -> None:
        self._segments = segments
        self.is_sequence = is_sequence
        """The model is given one segment as a sequence, [1, length], and not as rows, [rows, 1]."""
        positions: list[int] = []
        blocks: list[int] = []
        self.last_rows: list[int] = []
        """The row of each segment's last token."""
        for segment in segments:
            positions.extend(range(segment.start, segment.end))
            blocks.extend(segment.block_table[p // BLOCK_SIZE] for p in range(segment.start, segment.end))
            self.last_rows.append(len(positions) - 1)
        self.num_rows = len(positions)
        self.first_position = positions[0]
        self.positions = mx.array(np.array(positions, dtype=np.int32))
        self.blocks = mx.array(np.array(blocks, dtype=np.int32))
        self.slots = mx.array(np.array(positions, dtype=np.int32) % BLOCK_SIZE)
        self._reads: dict[int | None, ReadPlan] = {}

    def reads(self, window: int | None) -> ReadPlan:
        """How layers that see the last `window` positions read; None sees all."""
        if window not in self._reads:
            self._reads[window] = self._read_plan(window)
        return self._reads[window]

    def _read_plan(self, window: int | None) -> ReadPlan:
        decodes: list[tuple[int, Reach]] = []
        prefills: list[PrefillSegment] = []
        for last_row, segment in zip(self.last_rows, self._segments, strict=True):
            if segment.num_tokens == 1:
                decodes.append((last_row, Reach.of(segment, window)))
            else:
                prefills.append(_prefill_segment(last_row + 1 - segment.num_tokens, segment, window))
        members = group_by_length(decodes)
        order = [row for group in members for row, _ in group]
        order += [row for part in prefills for row in range(part.first, part.last)]
        is_in_order = order == list(range(self.num_rows))
        return ReadPlan(
            groups=[_decode_group(group) for group in members],
            prefills=prefills,
            restore=None if is_in_order else mx.array(np.argsort(np.array(order)).astype(np.int32)),
        )


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
        for view in self.views:
            view.latest = None

    def view_that_returned(self, keys: mx.array) -> PagedLayerView | None:
        """The view that returned just this array of keys in this pass, for layers that attend to another's keys."""
        if self._plan is None:
            return None
        return next((view for view in self.views if view.latest is not None and view.latest[0] is keys), None)

    def attend(
        self, layer: int, rows: tuple[mx.array, mx.array, mx.array], scale: float, sinks: mx.array | None = None
    ) -> mx.array:
        """Attention of every row to its own past and itself.

        `rows` are queries [rows, num_heads, 1, key_dim] and these rows' own keys and values [rows, num_kv_heads, 1, …],
        which are in the arena already. `sinks` [num_heads] join each softmax as a logit without a value (gpt-oss).
        Returns [rows, num_heads, 1, value_dim].
        """
        queries, _, _ = rows
        reads = self.plan.reads(self.arena.layers[layer].window)
        decode = self._decode_gather_mm if self.decode_attention is DecodeAttention.GATHER_MM else self._decode_sdpa
        parts = []
        for group in reads.groups:
            is_all = group.num_rows == self.plan.num_rows and reads.restore is None
            parts.append(decode(layer, queries if is_all else queries[group.rows], group, scale, sinks))
        parts += [self._prefill(layer, rows, part, scale, sinks) for part in reads.prefills]
        joined = parts[0] if len(parts) == 1 else mx.concatenate(parts)
        return joined if reads.restore is None else joined[reads.restore]

    def _decode_gather_mm(
        self, layer: int, queries: mx.array, group: DecodeGroup, scale: float, sinks: mx.array | None
    ) -> mx.array:
        keys, values, value_dim = self._stored(layer)
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
        weights = _softmax(scores + group.mask.astype(scores.dtype), sinks)
        weights = weights.reshape(rows, num_kv_heads, repeats, width, BLOCK_SIZE).swapaxes(2, 3)
        mixed = mx.gather_mm(
            weights.reshape(rows * num_kv_heads * width, repeats, BLOCK_SIZE),
            values.reshape(num_blocks * num_kv_heads, BLOCK_SIZE, values.shape[-1]),
            mx.arange(rows * num_kv_heads * width).reshape(rows, num_kv_heads, width),
            right,
        )
        mixed = mixed.sum(axis=2).reshape(rows, num_kv_heads * repeats, 1, values.shape[-1])
        return mixed[..., :value_dim]

    def _stored(self, layer: int) -> tuple[mx.array, mx.array, int]:
        """(keys, values, width of a value) in the arena; MLA reads its values off the beginning of its keys."""
        shape = self.arena.layers[layer]
        keys = self.arena.keys[layer]
        if shape.latent_dim is not None:
            return keys, keys, shape.latent_dim
        return keys, self.arena.values[layer], shape.value_dim

    def _decode_sdpa(
        self, layer: int, queries: mx.array, group: DecodeGroup, scale: float, sinks: mx.array | None
    ) -> mx.array:
        stored_keys, stored_values, value_dim = self._stored(layer)
        keys = _gathered(stored_keys, group.tables)
        values = keys if stored_values is stored_keys else _gathered(stored_values, group.tables)
        values = values[..., :value_dim]
        mask = group.mask.astype(queries.dtype)
        return mx.fast.scaled_dot_product_attention(queries, keys, values, scale=scale, mask=mask, sinks=sinks)

    def _prefill(
        self,
        layer: int,
        rows: tuple[mx.array, mx.array, mx.array],
        part: PrefillSegment,
        scale: float,
        sinks: mx.array | None,
    ) -> mx.array:
        queries, keys, values = (_as_sequence(array, part) for array in rows)
        if not part.is_whole or self.arena.layers[layer].latent_dim is not None:
            stored_keys, stored_values, value_dim = self._stored(layer)
            end = part.num_context_tokens
            keys = _gathered(stored_keys, part.table[None])[:, :, :end]
            values = keys if stored_values is stored_keys else _gathered(stored_values, part.table[None])[:, :, :end]
            values = values[..., :value_dim]
        mask = "causal" if part.mask is None else part.mask
        mixed = mx.fast.scaled_dot_product_attention(queries, keys, values, scale=scale, mask=mask, sinks=sinks)
        return mixed.transpose(2, 1, 0, 3)


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
        new_keys, new_values = (_as_rows(array) if plan.is_sequence else array for array in (keys, values))
        if shape.latent_dim is not None:
            if plan.is_sequence:
                raise ValueError("latent attention is paged row by row only")
            new_keys, new_values = mx.concatenate([keys, values], axis=-1), values[..., :0]
            values = mx.eye(values.shape[-1], dtype=values.dtype)[None, None]
        self._attention.arena.write(self._layer, plan.blocks, plan.slots, new_keys[:, :, 0], new_values[:, :, 0])
        self.latest = keys, values
        return keys, values

    def keys_and_values(self) -> tuple[mx.array, mx.array]:
        """What `update_and_fetch` returned in this pass, for layers that share this one's. Raises `RuntimeError`."""
        if self.latest is None:
            raise RuntimeError("a layer asked for another's keys and values before that one had any")
        return self.latest

    def make_mask(self, *args: Any, **kwargs: Any) -> None:
        """No mask: `attend` knows what each row may see."""

    def attend(
        self,
        rows: tuple[mx.array, mx.array, mx.array],
        scale: float,
        *,
        sinks: mx.array | None = None,
        mask: mx.array | None = None,
    ) -> mx.array:
        """See `PagedAttention.attend`; of a sequence all arrays are [1, heads, length, dim].

        `mask` is what the layer passes for one. Only MLA's means anything here: its rotary queries, scaled.
        """
        if self._attention.arena.layers[self._layer].latent_dim is not None:
            return self._attend_latent(rows, scale, mask)
        if not self._attention.plan.is_sequence:
            return self._attention.attend(self._layer, rows, scale, sinks)
        queries, keys, values = (_as_rows(array) for array in rows)
        return _as_rows(self._attention.attend(self._layer, (queries, keys, values), scale, sinks))

    def _attend_latent(
        self, rows: tuple[mx.array, mx.array, mx.array], scale: float, rotary_queries: mx.array | None
    ) -> mx.array:
        """Queries [rows, num_heads, 1, latent_dim] against the stored latents, plus the rotary queries, scaled already."""
        if rotary_queries is None:
            raise ValueError("latent attention came without its rotary part")
        queries, latents, _ = rows
        whole = mx.concatenate([queries * scale, rotary_queries], axis=-1)
        padding = mx.zeros((*latents.shape[:-1], rotary_queries.shape[-1]), dtype=latents.dtype)
        # A pass's own rows are read back from the arena: the layer does not hand on the rotary part of their keys.
        return self._attention.attend(self._layer, (whole, mx.concatenate([latents, padding], axis=-1), latents), 1.0)


@dataclass(frozen=True)
class Reach:
    """What one decode row reads: the slots from `first` to before `end` of the blocks of `table`."""

    table: tuple[int, ...]
    first: int
    end: int

    @staticmethod
    def of(segment: Segment, window: int | None) -> Reach:
        """What the one row of `segment` reads when it sees the last `window` positions, itself included."""
        lowest = 0 if window is None else max(0, segment.end - window)
        num_skipped = lowest // BLOCK_SIZE
        table = segment.block_table[num_skipped : num_blocks_for(segment.end)]
        return Reach(table, lowest - num_skipped * BLOCK_SIZE, segment.end - num_skipped * BLOCK_SIZE)


def group_by_length(decodes: AbstractSequence[tuple[int, Reach]]) -> list[list[tuple[int, Reach]]]:
    """Split (row, reach) pairs into groups that waste little when padded to their longest, longest group first."""
    groups: list[list[tuple[int, Reach]]] = []
    longest = 0
    for row, reach in sorted(decodes, key=lambda item: (-len(item[1].table), item[0])):
        width = len(reach.table)
        is_alike = width >= longest * _MAX_GROUP_WASTE or longest <= _SMALL_NUM_BLOCKS
        if groups and is_alike:
            groups[-1].append((row, reach))
        else:
            groups.append([(row, reach)])
            longest = width
    return [sorted(group, key=lambda item: item[0]) for group in groups]


def _decode_group(members: AbstractSequence[tuple[int, Reach]]) -> DecodeGroup:
    width = max(len(reach.table) for _, reach in members)
    tables = np.empty((len(members), width), dtype=np.int32)
    mask = np.full((len(members), 1, 1, width * BLOCK_SIZE), _MASKED, dtype=np.float32)
    for index, (_, reach) in enumerate(members):
        tables[index, : len(reach.table)] = reach.table
        tables[index, len(reach.table) :] = reach.table[-1]
        mask[index, 0, 0, reach.first : reach.end] = 0.0
    return DecodeGroup(
        rows=mx.array(np.array([row for row, _ in members], dtype=np.int32)),
        tables=mx.array(tables),
        mask=mx.array(mask),
        query_index=mx.broadcast_to(mx.arange(len(members))[:, None, None], (len(members), 1, width)),
        num_rows=len(members),
        num_blocks=width,
    )


def _prefill_segment(first: int, segment: Segment, window: int | None) -> PrefillSegment:
    last = first + segment.num_tokens
    is_windowed = window is not None and segment.end > window
    # The first row of the segment sees the furthest back.
    num_skipped = max(0, segment.start + 1 - window) // BLOCK_SIZE if is_windowed and window is not None else 0
    table = segment.block_table[num_skipped : num_blocks_for(segment.end)]
    context_start = num_skipped * BLOCK_SIZE
    return PrefillSegment(
        first=first,
        last=last,
        table=mx.array(np.array(table, dtype=np.int32)),
        is_whole=segment.start == 0,
        num_context_tokens=segment.end - context_start,
        mask=_window_mask(segment, context_start, window) if is_windowed else None,
    )


def _window_mask(segment: Segment, context_start: int, window: int | None) -> mx.array:
    """[tokens of the segment, positions from `context_start` to its end]: which positions each token sees."""
    rows = np.arange(segment.start, segment.end)[:, None]
    columns = np.arange(context_start, segment.end)[None]
    sees = columns <= rows
    if window is not None:
        sees &= columns > rows - window
    return mx.array(sees)


def _softmax(scores: mx.array, sinks: mx.array | None) -> mx.array:
    """Softmax over the last axis of [rows, kv_heads, repeats, slots], with a sink per head if there are any."""
    if sinks is None:
        return mx.softmax(scores, axis=-1, precise=True)
    rows, num_kv_heads, repeats, _ = scores.shape
    column = mx.broadcast_to(sinks.reshape(1, num_kv_heads, repeats, 1), (rows, num_kv_heads, repeats, 1))
    weights = mx.softmax(mx.concatenate([scores, column.astype(scores.dtype)], axis=-1), axis=-1, precise=True)
    return weights[..., :-1]


def _gathered(arena: mx.array, tables: mx.array) -> mx.array:
    """The blocks of each table put together: [R, N] tables → [R, num_kv_heads, N * BLOCK_SIZE, head_dim], a copy."""
    rows, width = tables.shape
    picked = arena[tables].transpose(0, 2, 1, 3, 4)
    return picked.reshape(rows, arena.shape[1], width * BLOCK_SIZE, arena.shape[3])


def _as_rows(sequence: mx.array) -> mx.array:
    """A sequence, [1, heads, length, dim], as rows, [length, heads, 1, dim]; its own inverse."""
    return sequence.transpose(2, 1, 0, 3)


def _as_sequence(rows: mx.array, part: PrefillSegment) -> mx.array:
    """Rows of a pass, [rows, heads, 1, dim], as one sequence, [1, heads, length, dim]."""
    return rows[part.first : part.last].transpose(2, 1, 0, 3)
