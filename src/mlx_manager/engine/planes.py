"""How the arena keeps the keys, or the values, of one layer: as they were computed, or quantized.

A plane is a few arrays of [num_blocks, num_kv_heads, BLOCK_SIZE, …]. Attention asks it for products with whole blocks,
read where they lie, or for a gathered copy; it does not know which kind of plane answers.

Quantized planes hold what `mx.quantize` gives: packed integers, and a scale and a bias for each group of entries of one
head's vector. A token's vector is quantized on its own, so what is stored for it does not depend on its neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import mlx.core as mx

from mlx_manager.engine.blocks import BLOCK_SIZE

_GROUP_SIZES = (64, 32)
"""Entries that share a scale and a bias, the first that divides a vector; mlx-lm's own quantized cache takes 64."""
_BITS_PER_WORD = 32


@dataclass(frozen=True)
class Places:
    """Where the rows of a pass are written: row i into slot `slots[i]` of block `blocks[i]`, [rows] each."""

    blocks: mx.array
    slots: mx.array
    _flat: dict[int, mx.array] = field(default_factory=dict)

    def flat(self, num_kv_heads: int) -> mx.array:
        """[rows * num_kv_heads] the same in an arena seen as rows of one head; made once a pass."""
        if num_kv_heads not in self._flat:
            heads = self.blocks[:, None] * num_kv_heads + mx.arange(num_kv_heads)
            self._flat[num_kv_heads] = (heads * BLOCK_SIZE + self.slots[:, None]).reshape(-1)
        return self._flat[num_kv_heads]


@dataclass(frozen=True)
class Quantization:
    """How a vector of `group_size` times some entries is quantized, by `mx.quantize` in its affine mode."""

    bits: int
    group_size: int

    @staticmethod
    def of(dim: int, bits: int) -> Quantization:
        """For vectors of `dim` entries. Raises `ValueError` where no group of MLX's divides them."""
        for group_size in _GROUP_SIZES:
            if dim % group_size == 0:
                return Quantization(bits, group_size)
        raise ValueError(f"vectors of {dim} entries cannot be quantized in groups of {_GROUP_SIZES[-1]}")

    def nbytes(self, dim: int, dtype: mx.Dtype) -> int:
        """Bytes of one vector: the packed entries, and a scale and a bias of `dtype` for each group."""
        return dim * self.bits // 8 + 2 * dtype.size * (dim // self.group_size)


class Plane(Protocol):
    """The keys or values of one layer."""

    arrays: list[mx.array]
    """[num_blocks, num_kv_heads, BLOCK_SIZE, …] each."""
    num_kv_heads: int
    dim: int
    """Entries of one head's vector."""
    dtype: mx.Dtype
    """Of what is handed in and comes back."""

    def zeros(self, num_blocks: int) -> list[mx.array]:
        """Arrays like these of other blocks, which hold nothing."""
        ...

    def put(self, places: Places, rows: mx.array) -> None:
        """Write row i of `rows`, [rows, num_kv_heads, dim], into its place."""
        ...

    def gathered(self, tables: mx.array) -> mx.array:
        """The blocks of each table put together: [R, N] tables → [R, num_kv_heads, N * BLOCK_SIZE, dim], a copy."""
        ...

    def scores(self, queries: mx.array, query_index: mx.array, block_index: mx.array) -> mx.array:
        """Products of queries, [Q, repeats, dim], with the vectors of blocks: [*index, repeats, BLOCK_SIZE].

        The indices are of one shape, into the queries and into the blocks seen as [num_blocks * num_kv_heads].
        """
        ...

    def mixed(self, weights: mx.array, weight_index: mx.array, block_index: mx.array) -> mx.array:
        """The vectors of blocks, weighted by [W, repeats, BLOCK_SIZE]: [*index, repeats, dim]."""
        ...


class PlainPlane:
    """Keeps them as they were computed."""

    def __init__(self, num_kv_heads: int, dim: int, dtype: mx.Dtype, num_blocks: int) -> None:
        self.num_kv_heads = num_kv_heads
        self.dim = dim
        self.dtype = dtype
        self.arrays = self.zeros(num_blocks)

    def zeros(self, num_blocks: int) -> list[mx.array]:
        """See `Plane`."""
        return [mx.zeros((num_blocks, self.num_kv_heads, BLOCK_SIZE, self.dim), dtype=self.dtype)]

    def put(self, places: Places, rows: mx.array) -> None:
        """See `Plane`."""
        _scatter(self.arrays, 0, places.flat(self.num_kv_heads), rows.reshape(-1, self.dim))

    def gathered(self, tables: mx.array) -> mx.array:
        """See `Plane`."""
        return _side_by_side(self.arrays[0][tables])

    def scores(self, queries: mx.array, query_index: mx.array, block_index: mx.array) -> mx.array:
        """See `Plane`."""
        return mx.gather_mm(queries, self._blocks().swapaxes(-1, -2), query_index, block_index)

    def mixed(self, weights: mx.array, weight_index: mx.array, block_index: mx.array) -> mx.array:
        """See `Plane`."""
        return mx.gather_mm(weights, self._blocks(), weight_index, block_index)

    def _blocks(self) -> mx.array:
        return self.arrays[0].reshape(-1, BLOCK_SIZE, self.dim)


class QuantizedPlane:
    """Keeps them as packed integers, scales and biases; products read these in place (`mx.gather_qmm`)."""

    def __init__(
        self, num_kv_heads: int, dim: int, dtype: mx.Dtype, num_blocks: int, quantization: Quantization
    ) -> None:
        self.num_kv_heads = num_kv_heads
        self.dim = dim
        self.dtype = dtype
        self._bits = quantization.bits
        self._group_size = quantization.group_size
        self.arrays = self.zeros(num_blocks)

    def zeros(self, num_blocks: int) -> list[mx.array]:
        """See `Plane`."""
        shape = (num_blocks, self.num_kv_heads, BLOCK_SIZE)
        num_groups = self.dim // self._group_size
        return [
            mx.zeros((*shape, self.dim * self._bits // _BITS_PER_WORD), dtype=mx.uint32),
            mx.zeros((*shape, num_groups), dtype=self.dtype),
            mx.zeros((*shape, num_groups), dtype=self.dtype),
        ]

    def put(self, places: Places, rows: mx.array) -> None:
        """See `Plane`."""
        parts = mx.quantize(rows.reshape(-1, self.dim), group_size=self._group_size, bits=self._bits)
        index = places.flat(self.num_kv_heads)
        for place, part in enumerate(parts):
            _scatter(self.arrays, place, index, part)

    def gathered(self, tables: mx.array) -> mx.array:
        """See `Plane`."""
        packed, scales, biases = (_side_by_side(array[tables]) for array in self.arrays)
        return mx.dequantize(packed, scales, biases, group_size=self._group_size, bits=self._bits)

    def scores(self, queries: mx.array, query_index: mx.array, block_index: mx.array) -> mx.array:
        """See `Plane`."""
        return self._product(queries, query_index, block_index, transpose=True)

    def mixed(self, weights: mx.array, weight_index: mx.array, block_index: mx.array) -> mx.array:
        """See `Plane`."""
        return self._product(weights, weight_index, block_index, transpose=False)

    def _product(self, rows: mx.array, row_index: mx.array, block_index: mx.array, *, transpose: bool) -> mx.array:
        packed, scales, biases = (array.reshape(-1, BLOCK_SIZE, array.shape[-1]) for array in self.arrays)
        return mx.gather_qmm(
            rows,
            packed,
            scales,
            biases,
            row_index,
            block_index,
            transpose=transpose,
            group_size=self._group_size,
            bits=self._bits,
        )


def _side_by_side(picked: mx.array) -> mx.array:
    """Blocks by table, [R, N, num_kv_heads, BLOCK_SIZE, x], as [R, num_kv_heads, N * BLOCK_SIZE, x]."""
    rows, width, num_kv_heads, _, last = picked.shape
    return picked.transpose(0, 2, 1, 3, 4).reshape(rows, num_kv_heads, width * BLOCK_SIZE, last)


def _scatter(arrays: list[mx.array], place: int, index: mx.array, rows: mx.array) -> None:
    """Write `rows` at `index` of an array seen as [rows, x]: MLX's scatter is far slower over more axes.

    In place: when it is evaluated, nothing holds the array as it was.
    """
    shape = arrays[place].shape
    flat = arrays[place].reshape(-1, shape[-1])
    arrays[place] = flat
    flat[index] = rows
    arrays[place] = flat.reshape(shape)
