"""Times the candidate decode attentions on the machine at hand."""

from __future__ import annotations

import time

import mlx.core as mx

from mlx_manager.engine.attention import DecodeAttention, PagedAttention, Score, candidates_for
from mlx_manager.engine.batch import Segment
from mlx_manager.engine.blocks import BLOCK_SIZE
from mlx_manager.engine.plan import MIN_SHARED_BLOCKS, PassPlan

_NUM_ROWS = 4
_NUM_ROW_BLOCKS = 4
NUM_TIMED_BLOCKS = _NUM_ROWS * _NUM_ROW_BLOCKS
"""Blocks of the arena that `time_candidates` reads: 0 to this - 1."""
_NUM_REPEATS = 5
_LAYERS_PER_REPEAT = 4


def time_candidates(attention: PagedAttention, num_heads: int) -> dict[DecodeAttention, float]:
    """Seconds that one layer's decode attention takes for a small ragged batch, best of a few, per candidate.

    Leaves `attention` as it was.
    """
    # Different lengths, as real batches have them.
    segments = [Segment(row, _NUM_ROW_BLOCKS * 32 - 1 - 7 * row, (0,), None, _table(row)) for row in range(_NUM_ROWS)]
    layer = next(index for index, shape in enumerate(attention.arena.layers) if shape.num_kv_heads)
    chosen = attention.decode_attention
    attention.begin(PassPlan(segments))
    try:
        found = {}
        for candidate in candidates_for(attention.arena.layers[layer]):
            attention.decode_attention = candidate
            found[candidate] = min(_time_once(attention, layer, num_heads) for _ in range(_NUM_REPEATS))
        return found
    finally:
        attention.decode_attention = chosen
        attention.end()


def is_sharing_faster(attention: PagedAttention, num_heads: int) -> bool:
    """Whether rows with one beginning attend faster when they read it together. Leaves `attention` as it was."""
    if not attention.can_share:
        return False
    layer = next(index for index, shape in enumerate(attention.arena.layers) if shape.num_kv_heads)
    common = tuple(range(NUM_TIMED_BLOCKS - _NUM_ROWS))
    segments = [
        Segment(row, (len(common) + 1) * BLOCK_SIZE - 1, (0,), None, (*common, len(common) + row))
        for row in range(_NUM_ROWS)
    ]
    times_s = []
    for min_shared_blocks in (None, MIN_SHARED_BLOCKS):
        attention.begin(PassPlan(segments, min_shared_blocks=min_shared_blocks))
        try:
            times_s.append(min(_time_once(attention, layer, num_heads) for _ in range(_NUM_REPEATS)))
        finally:
            attention.end()
    return times_s[1] < times_s[0]


def _time_once(attention: PagedAttention, layer: int, num_heads: int) -> float:
    keys = attention.arena.keys[layer]
    queries = mx.random.normal((_NUM_ROWS, num_heads, 1, keys.dim)).astype(keys.dtype)
    unused = mx.zeros((_NUM_ROWS, keys.num_kv_heads, 1, 1), dtype=keys.dtype)
    mx.eval(queries, unused)
    started_s = time.perf_counter()
    mx.eval([attention.attend(layer, (queries, unused, unused), Score(1.0)) for _ in range(_LAYERS_PER_REPEAT)])
    return (time.perf_counter() - started_s) / _LAYERS_PER_REPEAT


def _table(row: int) -> tuple[int, ...]:
    return tuple(range(row * _NUM_ROW_BLOCKS, (row + 1) * _NUM_ROW_BLOCKS))
