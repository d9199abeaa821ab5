"""The KV arena: where keys and values live on the device, and the only code that moves them.

Per layer one array for keys and one for values:  [num_blocks, num_kv_heads, BLOCK_SIZE, head_dim]

    block 7, head 1:   slot 0  k0 k1 … k(head_dim-1)
                       slot 1  …
    a position p of a sequence is slot p % BLOCK_SIZE of physical block block_table[p // BLOCK_SIZE]

Writes are MLX scatters. They happen in place as long as nothing else holds the array, which is why nothing outside
this class keeps one across a write.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import mlx.core as mx
import numpy as np

from mlx_manager.engine.block_store import StoredBlock
from mlx_manager.engine.blocks import BLOCK_SIZE

_INITIAL_BLOCKS = 64


@dataclass(frozen=True)
class LayerShape:
    """What one attention layer stores for one token; nothing at all where `num_kv_heads` is 0.

    Multi-head latent attention (MLA, DeepSeek-V2) stores one vector a token, the latent and behind it the rotary part
    of the key, as the keys of a single head; its values are the first `latent_dim` entries of the same vector.
    """

    num_kv_heads: int
    key_dim: int
    value_dim: int
    dtype: mx.Dtype
    latent_dim: int | None = None
    """Width of the latent of MLA; None for attention that stores keys and values."""
    window: int | None = None
    """Positions that a token sees, itself included; None: all before it."""

    @property
    def bytes_per_token(self) -> int:
        """Bytes of one token's keys and values in this layer."""
        return self.num_kv_heads * (self.key_dim + self.value_dim) * self.dtype.size


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


class Arena:
    """Keys and values of every block, layer by layer. Grows by doubling up to `max_blocks`, until it is emptied."""

    def __init__(self, layers: list[LayerShape], max_blocks: int) -> None:
        self.layers = layers
        self._max_blocks = max_blocks
        self.num_blocks = min(_INITIAL_BLOCKS, max_blocks)
        self.keys = [self._zeros(layer, layer.key_dim, self.num_blocks) for layer in layers]
        self.values = [self._zeros(layer, layer.value_dim, self.num_blocks) for layer in layers]

    @property
    def nbytes(self) -> int:
        """Bytes held on the device."""
        return self.num_blocks * BLOCK_SIZE * sum(layer.bytes_per_token for layer in self.layers)

    def arrays(self) -> list[mx.array]:
        """Every array that holds anything, to be evaluated with the step that wrote them."""
        return [array for array in (*self.keys, *self.values) if array.size]

    def reserve(self, num_blocks: int) -> None:
        """Make room for blocks 0 to `num_blocks - 1`. One layer at a time, so that only one is there twice."""
        if num_blocks <= self.num_blocks:
            return
        grown = max(self.num_blocks, _INITIAL_BLOCKS)
        while grown < num_blocks:
            grown *= 2
        grown = min(grown, self._max_blocks)
        num_new = grown - self.num_blocks
        for index, layer in enumerate(self.layers):
            if layer.key_dim:
                self.keys[index] = mx.concatenate([self.keys[index], self._zeros(layer, layer.key_dim, num_new)])
            if layer.value_dim:
                self.values[index] = mx.concatenate([self.values[index], self._zeros(layer, layer.value_dim, num_new)])
            mx.eval(self.keys[index], self.values[index])
        self.num_blocks = grown

    def empty(self) -> None:
        """Give everything back to the device, until blocks are reserved again."""
        self.num_blocks = 0
        self.keys = [self._zeros(layer, layer.key_dim, 0) for layer in self.layers]
        self.values = [self._zeros(layer, layer.value_dim, 0) for layer in self.layers]

    def write(self, layer: int, places: Places, keys: mx.array, values: mx.array) -> None:
        """Put row i of `keys` and `values`, [rows, num_kv_heads, head_dim], into its place."""
        index = places.flat(keys.shape[1])
        _put(self.keys, layer, index, keys)
        if values.shape[-1]:
            _put(self.values, layer, index, values)

    def copy(self, pairs: tuple[tuple[int, int], ...]) -> None:
        """Copy whole blocks, (from, to) each; all are read before any is written."""
        sources = mx.array([source for source, _ in pairs])
        targets = mx.array([target for _, target in pairs])
        arrays = self.arrays()
        picked = [array[sources] for array in arrays]
        # A read that is still to come holds the array, and the write would copy all of it instead of these blocks.
        mx.eval(*picked)
        for array, blocks in zip(arrays, picked, strict=True):
            array[targets] = blocks

    def read(self, blocks: Sequence[int]) -> list[StoredBlock]:
        """What is in whole blocks, on the host. Waits for what was written to them."""
        if not blocks:
            return []
        picked = [array[mx.array(list(blocks))].view(mx.uint8) for array in self.arrays()]
        mx.eval(*picked)
        hosts = [np.array(array) for array in picked]
        return [tuple(host[index].tobytes() for host in hosts) for index in range(len(blocks))]

    def load(self, blocks: Mapping[int, StoredBlock]) -> None:
        """Fill whole blocks with what `read` gave."""
        targets = mx.array(list(blocks))
        for index, array in enumerate(self.arrays()):
            heads, slots, dim = array.shape[1:]
            content = np.frombuffer(b"".join(block[index] for block in blocks.values()), dtype=np.uint8)
            content = content.reshape(len(blocks), heads, slots, dim * array.dtype.size)
            array[targets] = mx.array(content).view(array.dtype)

    def scrub(self, blocks: tuple[int, ...]) -> None:
        """Zero whole blocks."""
        targets = mx.array(blocks)
        for array in self.arrays():
            array[targets] = mx.array(0, dtype=array.dtype)

    @staticmethod
    def _zeros(layer: LayerShape, head_dim: int, num_blocks: int) -> mx.array:
        return mx.zeros((num_blocks, layer.num_kv_heads, BLOCK_SIZE, head_dim), dtype=layer.dtype)


def _put(arrays: list[mx.array], layer: int, index: mx.array, rows: mx.array) -> None:
    """Write `rows` at `index` of a layer's array seen as [rows, head_dim]: MLX's scatter is far slower over more axes.

    In place: when it is evaluated, nothing holds the array as it was.
    """
    shape = arrays[layer].shape
    flat = arrays[layer].reshape(-1, shape[-1])
    arrays[layer] = flat
    flat[index] = rows.reshape(-1, shape[-1])
    arrays[layer] = flat.reshape(shape)
