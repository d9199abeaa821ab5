"""The KV arena: where keys and values live on the device, and the only code that moves them.

Per layer one plane for keys and one for values:  [num_blocks, num_kv_heads, BLOCK_SIZE, head_dim]

    block 7, head 1:   slot 0  k0 k1 … k(head_dim-1)
                       slot 1  …
    a position p of a sequence is slot p % BLOCK_SIZE of physical block block_table[p // BLOCK_SIZE]

A plane may keep them quantized, in arrays of its own (see `planes`). Writes are MLX scatters. They happen in place as
long as nothing else holds the array, which is why nothing outside the planes keeps one across a write.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import mlx.core as mx
import numpy as np

from mlx_manager.engine.block_store import StoredBlock
from mlx_manager.engine.blocks import BLOCK_SIZE
from mlx_manager.engine.planes import Places, PlainPlane, Plane, Quantization, QuantizedPlane

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
    bits: int | None = None
    """Bits of an entry that is kept quantized; None keeps them in `dtype`."""

    @property
    def bytes_per_token(self) -> int:
        """Bytes of one token's keys and values in this layer."""
        return self.num_kv_heads * (self._nbytes(self.key_dim) + self._nbytes(self.value_dim))

    def quantized(self, bits: int) -> LayerShape:
        """The same, kept quantized. Raises `ValueError` where its vectors cannot be."""
        for dim in (self.key_dim, self.value_dim):
            Quantization.of(dim, bits)
        return replace(self, bits=bits)

    def plane(self, dim: int, num_blocks: int) -> Plane:
        """What keeps vectors of `dim` entries."""
        if self.bits is None or not dim:
            return PlainPlane(self.num_kv_heads, dim, self.dtype, num_blocks)
        return QuantizedPlane(self.num_kv_heads, dim, self.dtype, num_blocks, Quantization.of(dim, self.bits))

    def _nbytes(self, dim: int) -> int:
        if self.bits is None or not dim:
            return dim * self.dtype.size
        return Quantization.of(dim, self.bits).nbytes(dim, self.dtype)


class _Extent:
    """The layers whose planes have the same number of blocks, which grow together."""

    def __init__(self, layers: list[LayerShape], max_blocks: int) -> None:
        self._max_blocks = max_blocks
        self.num_blocks = min(_INITIAL_BLOCKS, max_blocks)
        self.planes = [
            (layer.plane(layer.key_dim, self.num_blocks), layer.plane(layer.value_dim, self.num_blocks))
            for layer in layers
        ]
        self._bytes_per_token = sum(layer.bytes_per_token for layer in layers)

    @property
    def nbytes(self) -> int:
        return self.num_blocks * BLOCK_SIZE * self._bytes_per_token

    def arrays(self) -> list[mx.array]:
        planes = (*(keys for keys, _ in self.planes), *(values for _, values in self.planes))
        return [array for plane in planes for array in plane.arrays if array.size]

    def reserve(self, num_blocks: int) -> None:
        """Make room for blocks 0 to `num_blocks - 1`. One layer at a time, so that only one is there twice."""
        if num_blocks <= self.num_blocks:
            return
        grown = max(self.num_blocks, _INITIAL_BLOCKS)
        while grown < num_blocks:
            grown *= 2
        grown = min(grown, self._max_blocks)
        num_new = grown - self.num_blocks
        for planes in self.planes:
            for plane in planes:
                plane.arrays = [
                    mx.concatenate([kept, new]) if kept.shape[-1] else kept
                    for kept, new in zip(plane.arrays, plane.zeros(num_new), strict=True)
                ]
            mx.eval([plane.arrays for plane in planes])
        self.num_blocks = grown

    def empty(self) -> None:
        self.num_blocks = 0
        for planes in self.planes:
            for plane in planes:
                plane.arrays = plane.zeros(0)


class Arena:
    """Keys and values of every block, layer by layer. Grows by doubling up to `max_blocks`, until it is emptied.

    With `max_slots`, layers with a window keep so many blocks of their own numbering instead (see `residency`).
    """

    def __init__(self, layers: list[LayerShape], max_blocks: int, max_slots: int | None = None) -> None:
        self.layers = layers
        has_slots = [max_slots is not None and layer.window is not None for layer in layers]
        of_blocks = [layer for layer, is_slotted in zip(layers, has_slots, strict=True) if not is_slotted]
        of_slots = [layer for layer, is_slotted in zip(layers, has_slots, strict=True) if is_slotted]
        self._blocks = _Extent(of_blocks, max_blocks)
        self._slots = None if max_slots is None else _Extent(of_slots, max_slots)
        in_blocks, in_slots = iter(self._blocks.planes), iter([] if self._slots is None else self._slots.planes)
        planes = [next(in_slots) if is_slotted else next(in_blocks) for is_slotted in has_slots]
        self.keys = [keys for keys, _ in planes]
        self.values = [values for _, values in planes]

    @property
    def num_blocks(self) -> int:
        """Blocks that there is room for now."""
        return self._blocks.num_blocks

    @property
    def nbytes(self) -> int:
        """Bytes held on the device."""
        return sum(extent.nbytes for extent in self._extents())

    def arrays(self) -> list[mx.array]:
        """Every array that holds anything, to be evaluated with the step that wrote them."""
        return [array for extent in self._extents() for array in extent.arrays()]

    def reserve(self, num_blocks: int, num_slots: int = 0) -> None:
        """Make room for blocks 0 to `num_blocks - 1`, and for as many slots."""
        for extent, num in zip(self._extents(), (num_blocks, num_slots), strict=False):
            extent.reserve(num)

    def empty(self) -> None:
        """Give everything back to the device, until blocks are reserved again."""
        for extent in self._extents():
            extent.empty()

    def write(self, layer: int, places: Places, keys: mx.array, values: mx.array) -> None:
        """Put row i of `keys` and `values`, [rows, num_kv_heads, head_dim], into its place."""
        self.keys[layer].put(places, keys)
        if values.shape[-1]:
            self.values[layer].put(places, values)

    def copy(self, pairs: tuple[tuple[int, int], ...], slot_pairs: tuple[tuple[int, int], ...] = ()) -> None:
        """Copy whole blocks, (from, to) each, and slots; all are read before any is written."""
        writes = []
        for extent, moves in zip(self._extents(), (pairs, slot_pairs), strict=False):
            if moves:
                sources, targets = (mx.array(list(column)) for column in zip(*moves, strict=True))
                writes += [(array, targets, array[sources]) for array in extent.arrays()]
        # A read that is still to come holds the array, and the write would copy all of it instead of these blocks.
        mx.eval(*(picked for _, _, picked in writes))
        for array, targets, picked in writes:
            array[targets] = picked

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

    def scrub(self, blocks: tuple[int, ...], slots: tuple[int, ...] = ()) -> None:
        """Zero whole blocks, and slots."""
        for extent, zeroed in zip(self._extents(), (blocks, slots), strict=False):
            if zeroed:
                targets = mx.array(zeroed)
                for array in extent.arrays():
                    array[targets] = mx.array(0, dtype=array.dtype)

    def _extents(self) -> list[_Extent]:
        return [self._blocks] if self._slots is None else [self._blocks, self._slots]
