"""The states of recurrent layers: one per sequence, batched for decode, copied at block boundaries.

A state is a list of leaves (recurrent layers), a leaf a list of arrays, an array [1, …] for one sequence or [rows, …]
for a batch. As long as the same sequences decode together, their batch is passed on from step to step untouched.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np

from mlx_manager.engine.block_store import StoredState
from mlx_manager.engine.caches import CacheLayout

State = list[list[mx.array | None]]


@dataclass(frozen=True)
class _Row:
    """Where a sequence's state is: row `row` of the arrays of `batch`, which hold `num_rows`."""

    batch: State
    row: int
    num_rows: int


class StateStore:
    """Owns the states of all live sequences and the kept copies."""

    def __init__(self, layout: CacheLayout) -> None:
        self._layout = layout
        self._rows: dict[int, _Row] = {}
        self._checkpoints: dict[int, State] = {}

    @property
    def nbytes(self) -> int:
        """Bytes of the states of live sequences and of the kept copies."""
        states = list({id(row.batch): row.batch for row in self._rows.values()}.values())
        return sum(_nbytes(state) for state in [*states, *self._checkpoints.values()])

    def __contains__(self, seq_id: int) -> bool:
        return seq_id in self._rows

    def arrays(self) -> list[mx.array]:
        """Every array, to be evaluated with the step that made it."""
        states = [row.batch for row in self._rows.values()] + list(self._checkpoints.values())
        return [array for state in states for leaf in state for array in leaf if array is not None]

    def shapes(self, seq_id: int) -> tuple[tuple[int, ...] | None, ...]:
        """The shape of each array of a sequence's state: only those of like shape can be batched."""
        leaves = self._rows[seq_id].batch
        return tuple(None if array is None else array.shape[1:] for leaf in leaves for array in leaf)

    def load(self, seq_ids: list[int]) -> list[Any]:
        """The states of `seq_ids` as the model takes them; empty ones for a single sequence that has none yet."""
        caches = self._layout.new_states()
        if len(seq_ids) == 1 and seq_ids[0] not in self._rows:
            return caches
        for cache, leaf in zip(caches, self._batched(seq_ids), strict=True):
            cache.cache = list(leaf)
        return caches

    def store(self, seq_ids: list[int], caches: list[Any]) -> None:
        """Take the states back from the model after a pass."""
        batch: State = [list(cache.cache) for cache in caches]
        for row, seq_id in enumerate(seq_ids):
            self._rows[seq_id] = _Row(batch, row, len(seq_ids))

    def fork(self, seq_id: int, leader: int) -> None:
        """Let `seq_id` go on from the state of `leader`. Arrays are never written in place, so they can be shared."""
        self._rows[seq_id] = self._rows[leader]

    def forget(self, seq_id: int) -> None:
        """Drop a sequence's state."""
        self._rows.pop(seq_id, None)

    def save(self, seq_id: int, checkpoint: int) -> None:
        """Keep a copy of a sequence's state."""
        row = self._rows[seq_id]
        self._checkpoints[checkpoint] = [[_own(array, row) for array in leaf] for leaf in row.batch]

    def restore(self, seq_id: int, checkpoint: int) -> None:
        """Let a sequence go on from a kept copy."""
        self._rows[seq_id] = _Row(self._checkpoints[checkpoint], 0, 1)

    def drop(self, checkpoint: int) -> None:
        """Forget a kept copy; sequences that went on from it are not touched."""
        self._checkpoints.pop(checkpoint, None)

    def read(self, checkpoint: int) -> StoredState | None:
        """A kept copy on the host, after waiting for the step that makes it; None where there is none."""
        state = self._checkpoints.get(checkpoint)
        if state is None:
            return None
        arrays = [array for leaf in state for array in leaf]
        flat = [mx.contiguous(array).reshape(-1).view(mx.uint8) for array in arrays if array is not None]
        mx.eval(*flat)
        described = [None if array is None else [_name(array.dtype), *array.shape] for array in arrays]
        return (json.dumps(described).encode(), *(np.array(array).tobytes() for array in flat))

    def put(self, checkpoint: int, stored: StoredState) -> None:
        """Keep what `read` gave as a copy."""
        parts = iter(stored[1:])
        arrays = iter([None if one is None else _array(next(parts), *one) for one in json.loads(stored[0])])
        self._checkpoints[checkpoint] = [[next(arrays) for _ in range(size)] for size in self._layout.state_sizes]

    def _batched(self, seq_ids: list[int]) -> State:
        rows = [self._rows[seq_id] for seq_id in seq_ids]
        first = rows[0]
        is_same_batch = first.num_rows == len(rows) and all(
            row.batch is first.batch and row.row == index for index, row in enumerate(rows)
        )
        if is_same_batch:
            return first.batch
        return [
            [_joined([row.batch[leaf][index] for row in rows], rows) for index in range(size)]
            for leaf, size in enumerate(self._layout.state_sizes)
        ]


def _joined(arrays: list[mx.array | None], rows: list[_Row]) -> mx.array | None:
    present = [array[row.row : row.row + 1] for array, row in zip(arrays, rows, strict=True) if array is not None]
    return mx.concatenate(present) if present else None


def _own(array: mx.array | None, row: _Row) -> mx.array | None:
    """The row's part, as an array that does not keep the whole batch in memory."""
    if array is None or row.num_rows == 1:
        return array
    return array[mx.array([row.row])]


def _name(dtype: mx.Dtype) -> str:
    return str(dtype).rpartition(".")[2]


def _array(part: bytes, dtype_name: str, *shape: int) -> mx.array:
    dtype: mx.Dtype = getattr(mx, dtype_name)
    if math.prod(shape) == 0:
        return mx.zeros(shape, dtype)
    return mx.array(np.frombuffer(part, dtype=np.uint8)).view(dtype).reshape(shape)


def _nbytes(state: State) -> int:
    return sum(array.nbytes for leaf in state for array in leaf if array is not None)
