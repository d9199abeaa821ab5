"""The index arrays of one pass: which slots its rows write, and which blocks each of them reads.

Decode rows that begin with the same physical blocks, as requests with one system prompt do, read those once for all of
them; what each has behind them is read on its own, and the two parts are merged (see `attention`). The split is that of
Hydragen (Juravsky et al. 2024) and of cascade inference in FlashInfer.
"""

from __future__ import annotations

from collections.abc import Sequence as AbstractSequence
from dataclasses import dataclass, field
from functools import cached_property

import mlx.core as mx
import numpy as np

from mlx_manager.engine.batch import Segment
from mlx_manager.engine.blocks import BLOCK_SIZE, num_blocks_for
from mlx_manager.engine.planes import Places

_MASKED = -1e30
_MAX_GROUP_WASTE = 0.6
"""Rows share a padded group while the shorter one's blocks are at least this part of the longer one's."""
_SMALL_NUM_BLOCKS = 4
"""Rows of at most this many blocks are not worth a group of their own."""
MIN_SHARED_BLOCKS = 8
"""Fewer blocks in common are not worth merging two parts for."""


@dataclass(frozen=True)
class ReadPlan:
    """How the rows of a pass read the arena, for all layers of one window."""

    shared: list[SharedPrefix]
    groups: list[DecodeGroup]
    prefills: list[PrefillSegment]
    restore: mx.array | None
    """Where each row's attention is found when the parts are put one behind the other; None: already in order."""


class PassPlan:
    """The index arrays of one pass, built once on the host and used by every layer."""

    def __init__(
        self, segments: AbstractSequence[Segment], *, is_sequence: bool = False, min_shared_blocks: int | None = None
    ) -> None:
        self._segments = segments
        self._min_shared_blocks = min_shared_blocks
        """Decode rows with so many first blocks in common read them together; None: they never do."""
        self.is_sequence = is_sequence
        """The model is given one segment as a sequence, [1, length], and not as rows, [rows, 1]."""
        positions: list[int] = []
        self.last_rows: list[int] = []
        """The row of each segment's last token."""
        for segment in segments:
            positions.extend(range(segment.start, segment.end))
            self.last_rows.append(len(positions) - 1)
        self.num_rows = len(positions)
        self.first_position = positions[0]
        self.end = positions[-1] + 1
        """One past the last position; of a sequence."""
        self.positions = mx.array(np.array(positions, dtype=np.int32))
        slots = mx.array(np.array(positions, dtype=np.int32) % BLOCK_SIZE)
        self._places = Places(_blocks_written([segment.block_table for segment in segments], segments), slots)
        slot_tables = [segment.slot_table for segment in segments if segment.slot_table is not None]
        self._window_places = Places(_blocks_written(slot_tables, segments), slots) if slot_tables else self._places
        self._reads: dict[int | None, ReadPlan] = {}

    def places(self, window: int | None) -> Places:
        """Where layers with this window, or without one, write the rows."""
        return self._places if window is None else self._window_places

    @cached_property
    def sequence_table(self) -> mx.array:
        """[1, N] the blocks of a sequence; only latent attention beside recurrent layers asks for them."""
        return mx.array(np.array([self._segments[-1].block_table], dtype=np.int32))

    def reads(self, window: int | None) -> ReadPlan:
        """How layers that see the last `window` positions read; None sees all."""
        if window not in self._reads:
            self._reads[window] = self._read_plan(window)
        return self._reads[window]

    def _read_plan(self, window: int | None) -> ReadPlan:
        decodes: list[tuple[int, Reach]] = []
        prefills: list[PrefillSegment] = []
        for last_row, segment in zip(self.last_rows, self._segments, strict=True):
            if segment.is_decode:
                first_row = last_row + 1 - segment.num_tokens
                decodes += [
                    (first_row + index, Reach.of(segment.table(window), segment.start + index + 1, window))
                    for index in range(segment.num_tokens)
                ]
            else:
                prefills.append(_prefill_segment(last_row + 1 - segment.num_tokens, segment, window))
        clusters, single = share_prefixes(decodes, self._min_shared_blocks)
        shared = [_shared_prefix(prefix, tails) for prefix, tails in clusters]
        members = group_by_length(single)
        order = [row for part in shared for row in part.members]
        order += [row for group in members for row, _ in group]
        order += [row for part in prefills for row in range(part.first, part.last)]
        is_in_order = order == list(range(self.num_rows))
        return ReadPlan(
            shared=shared,
            groups=[_decode_group(group) for group in members],
            prefills=prefills,
            restore=None if is_in_order else mx.array(np.argsort(np.array(order)).astype(np.int32)),
        )


@dataclass(frozen=True)
class HeadIndex:
    """Where `gather_mm` finds its matrices for one number of KV heads, [R, num_kv_heads, N] each."""

    queries: mx.array
    """Row of the queries, [R * num_kv_heads, …]."""
    blocks: mx.array
    """Row of the arena, [num_blocks * num_kv_heads, …]."""
    weights: mx.array
    """Row of the weights, [R * num_kv_heads * N, …]."""


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
    num_rows: int
    num_blocks: int
    _indices: dict[int, HeadIndex] = field(default_factory=dict)

    def index(self, num_kv_heads: int) -> HeadIndex:
        """The indices for layers of so many KV heads; made once a pass, since most layers are alike."""
        if num_kv_heads not in self._indices:
            shape = (self.num_rows, num_kv_heads, self.num_blocks)
            heads = mx.arange(num_kv_heads)[None, :, None]
            rows = mx.arange(self.num_rows)[:, None, None]
            self._indices[num_kv_heads] = HeadIndex(
                queries=mx.broadcast_to(rows * num_kv_heads + heads, shape),
                blocks=self.tables[:, None, :] * num_kv_heads + heads,
                weights=mx.arange(self.num_rows * num_kv_heads * self.num_blocks).reshape(shape),
            )
        return self._indices[num_kv_heads]


@dataclass(frozen=True)
class SharedIndex:
    """Where `gather_mm` finds its matrices for one number of KV heads, [N, num_kv_heads] each."""

    queries: mx.array
    """Row of the queries of all rows of one head, [num_kv_heads, …]."""
    blocks: mx.array
    """Row of the arena, [num_blocks * num_kv_heads, …]."""
    weights: mx.array
    """Row of the weights, [N * num_kv_heads, …]."""


@dataclass(frozen=True)
class SharedPrefix:
    """Decode rows that begin with the same full blocks. Every one of them sees every slot of these: no mask."""

    table: mx.array
    """[N] the physical blocks that they have in common."""
    num_blocks: int
    members: list[int]
    """The rows of the pass, in the order of `tails`."""
    rows: mx.array
    """[R] the same."""
    tails: list[DecodeGroup]
    """What each row reads behind them; `rows` of each count within this cluster."""
    _indices: dict[int, SharedIndex] = field(default_factory=dict)

    def index(self, num_kv_heads: int) -> SharedIndex:
        """The indices for layers of so many KV heads; made once a pass."""
        if num_kv_heads not in self._indices:
            shape = (self.num_blocks, num_kv_heads)
            heads = mx.arange(num_kv_heads)[None]
            self._indices[num_kv_heads] = SharedIndex(
                queries=mx.broadcast_to(heads, shape),
                blocks=self.table[:, None] * num_kv_heads + heads,
                weights=mx.arange(self.num_blocks * num_kv_heads).reshape(shape),
            )
        return self._indices[num_kv_heads]


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
class Reach:
    """What one decode row reads: the slots from `first` to before `end` of the blocks of `table`."""

    table: tuple[int, ...]
    first: int
    end: int

    @staticmethod
    def of(block_table: tuple[int, ...], end: int, window: int | None) -> Reach:
        """What a row at position `end - 1` reads when it sees the last `window` positions, itself included."""
        lowest = 0 if window is None else max(0, end - window)
        num_skipped = lowest // BLOCK_SIZE
        table = block_table[num_skipped : num_blocks_for(end)]
        return Reach(table, lowest - num_skipped * BLOCK_SIZE, end - num_skipped * BLOCK_SIZE)


def share_prefixes(
    decodes: AbstractSequence[tuple[int, Reach]], min_blocks: int | None
) -> tuple[list[tuple[tuple[int, ...], list[tuple[int, Reach]]]], list[tuple[int, Reach]]]:
    """Split (row, reach) pairs into clusters with one beginning, and those that read alone.

    A cluster is (the blocks in common, (row, what it reads behind them) pairs): at least two rows and `min_blocks`
    blocks. Of rows that begin alike, those with more in common make a cluster of their own where that saves reads.
    A row's last block is never common: it holds the token that the row is about to write.
    """
    if min_blocks is None or len(decodes) < 2:
        return [], list(decodes)
    alike: dict[tuple[int, ...], list[tuple[int, Reach]]] = {}
    single: list[tuple[int, Reach]] = []
    for row, reach in decodes:
        # Where a window hides a part of the first block, the rows do not all see the same of it.
        is_open = reach.first == 0 and len(reach.table) > min_blocks
        (alike.setdefault(reach.table[:min_blocks], []) if is_open else single).append((row, reach))
    clusters = []
    for rows in alike.values():
        shared, alone = _divide(rows, 0, min_blocks)
        single += alone
        for length, members in shared:
            tails = [(row, Reach(reach.table[length:], 0, reach.end - length * BLOCK_SIZE)) for row, reach in members]
            clusters.append((members[0][1].table[:length], tails))
    return clusters, sorted(single, key=lambda item: item[0])


_Rows = list[tuple[int, Reach]]


def _divide(rows: _Rows, num_known: int, min_blocks: int) -> tuple[list[tuple[int, _Rows]], _Rows]:
    """Divide rows with `num_known` or more first blocks in common into (blocks in common, rows), and rows alone.

    All of them are one cluster, or are divided by the block in which they part: whichever saves more.
    """
    if len(rows) < 2:
        return [], rows
    length = num_known + _num_common([reach.table[num_known:-1] for _, reach in rows])
    parts: dict[int, _Rows] = {}
    alone: _Rows = []
    for row, reach in rows:
        # where a row has no more to share, it goes with those whose further blocks are not worth it
        part = parts.setdefault(reach.table[length], []) if length < len(reach.table) - 1 else alone
        part.append((row, reach))
    clusters = []
    for part in parts.values():
        shared, left = _divide(part, length, min_blocks)
        clusters += shared
        alone += left
    if len(alone) > 1:
        clusters, alone = [*clusters, (length, alone)], []
    whole = [(length, rows)]
    return (whole, []) if _worth(whole, min_blocks) >= _worth(clusters, min_blocks) else (clusters, alone)


def _worth(clusters: list[tuple[int, _Rows]], min_blocks: int) -> int:
    """How many reads of a block clusters save; merging two parts costs each as much as `min_blocks` of them."""
    return sum(length * (len(rows) - 1) - min_blocks for length, rows in clusters)


def _num_common(tables: AbstractSequence[tuple[int, ...]]) -> int:
    """How many first blocks are the same in all."""
    first, last = min(tables), max(tables)
    pairs = enumerate(zip(first, last, strict=False))
    return next((i for i, (one, other) in pairs if one != other), min(len(first), len(last)))


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
        num_rows=len(members),
        num_blocks=width,
    )


def _shared_prefix(prefix: tuple[int, ...], tails: AbstractSequence[tuple[int, Reach]]) -> SharedPrefix:
    groups = group_by_length(tails)
    members = [row for group in groups for row, _ in group]
    places = {row: place for place, row in enumerate(members)}
    return SharedPrefix(
        table=mx.array(np.array(prefix, dtype=np.int32)),
        num_blocks=len(prefix),
        members=members,
        rows=mx.array(np.array(members, dtype=np.int32)),
        tails=[_decode_group([(places[row], reach) for row, reach in group]) for group in groups],
    )


def _prefill_segment(first: int, segment: Segment, window: int | None) -> PrefillSegment:
    last = first + segment.num_tokens
    is_windowed = window is not None and segment.end > window
    # The first row of the segment sees the furthest back.
    num_skipped = max(0, segment.start + 1 - window) // BLOCK_SIZE if is_windowed and window is not None else 0
    table = segment.table(window)[num_skipped : num_blocks_for(segment.end)]
    context_start = num_skipped * BLOCK_SIZE
    return PrefillSegment(
        first=first,
        last=last,
        table=mx.array(np.array(table, dtype=np.int32)),
        is_whole=segment.start == 0,
        num_context_tokens=segment.end - context_start,
        mask=_window_mask(segment, context_start, window) if is_windowed else None,
    )


def _blocks_written(tables: AbstractSequence[tuple[int, ...]], segments: AbstractSequence[Segment]) -> mx.array:
    """[rows] the block of `tables`, one for each segment, that each row is written to."""
    pairs = zip(tables, segments, strict=True)
    blocks = [table[p // BLOCK_SIZE] for table, segment in pairs for p in range(segment.start, segment.end)]
    return mx.array(np.array(blocks, dtype=np.int32))


def _window_mask(segment: Segment, context_start: int, window: int | None) -> mx.array:
    """[tokens of the segment, positions from `context_start` to its end]: which positions each token sees."""
    rows = np.arange(segment.start, segment.end)[:, None]
    columns = np.arange(context_start, segment.end)[None]
    sees = columns <= rows
    if window is not None:
        sees &= columns > rows - window
    return mx.array(sees)
