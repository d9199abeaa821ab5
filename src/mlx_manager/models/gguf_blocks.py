"""The quantized blocks of GGUF files as MLX keeps them: groups of 32 numbers q, each worth scale · q + bias.

Block layouts: https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h. Those whose groups are of 32 keep
every number as it is, but for rounding products of two scales to float16; Q6_K, whose groups are of 16, becomes 8 bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from mlx_manager.models.gguf_file import BLOCK_LAYOUTS, GgufHeader, TensorHeader

GROUP_SIZE = 32
BITS: Mapping[str, int] = {
    "Q4_0": 4,
    "Q4_1": 4,
    "Q5_0": 5,
    "Q5_1": 5,
    "Q8_0": 8,
    "Q4_K": 4,
    "Q5_K": 5,
    "Q6_K": 8,
}
"""Bits of a weight in MLX, by the block's type in ggml."""
_MOST_ELEMENTS = 1 << 24
"""How many are unpacked at a time, so that a large embedding takes no gigabytes of scratch room."""

_Bytes = NDArray[np.uint8]
_Reals = NDArray[np.float32]
_Groups = tuple[_Bytes, _Reals, _Reals]
"""Numbers [groups, 32], scales [groups] and biases [groups]."""


def read_tensor(source: Path, header: GgufHeader, tensor: TensorHeader) -> dict[str, mx.array]:
    """A tensor by what MLX calls its parts: weight, and scales and biases of a quantized one."""
    shape = tuple(reversed(tensor.shape))
    start = header.data_start + tensor.offset
    raw = np.memmap(source, dtype=np.uint8, mode="r", offset=start, shape=(tensor.num_bytes,))
    match tensor.type:
        case "F32":
            return {"weight": mx.array(raw.view(np.float32).reshape(shape))}
        case "F16":
            return {"weight": mx.array(raw.view(np.float16).reshape(shape))}
        case "BF16":
            return {"weight": mx.array(raw.view(np.uint16).reshape(shape)).view(mx.bfloat16)}
    return _read_blocks(raw, tensor, num_rows=shape[0], num_columns=shape[1])


def _read_blocks(raw: _Bytes, tensor: TensorHeader, *, num_rows: int, num_columns: int) -> dict[str, mx.array]:
    block_bytes = BLOCK_LAYOUTS[tensor.type][1]
    blocks = raw.reshape(num_rows, -1, block_bytes)
    bits, unpack = BITS[tensor.type], _UNPACKERS[tensor.type]
    step = max(1, _MOST_ELEMENTS // num_columns)
    weights, scales, biases = [], [], []
    for first in range(0, num_rows, step):
        rows = np.ascontiguousarray(blocks[first : first + step])
        numbers, scale, bias = unpack(rows.reshape(-1, block_bytes))
        weights.append(_pack(numbers, bits).reshape(len(rows), -1))
        scales.append(scale.astype(np.float16).reshape(len(rows), -1))
        biases.append(bias.astype(np.float16).reshape(len(rows), -1))
    return {
        "weight": mx.array(np.concatenate(weights)),
        "scales": mx.array(np.concatenate(scales)),
        "biases": mx.array(np.concatenate(biases)),
    }


def _pack(numbers: _Bytes, bits: int) -> NDArray[np.uint32]:
    """Numbers one after the other in a stream of bits, the lowest bit first, as MLX packs them."""
    if bits == 8:
        stream = np.ascontiguousarray(numbers)
    elif bits == 4:
        stream = _bytes(numbers[:, 0::2] | (numbers[:, 1::2] << 4))
    else:
        each = np.unpackbits(numbers[..., None], axis=-1, count=bits, bitorder="little")
        stream = np.packbits(each.reshape(len(numbers), -1), axis=-1, bitorder="little")
    return stream.reshape(-1).view(np.uint32)


def _reals(blocks: _Bytes, at: int) -> _Reals:
    """The float16 at byte `at` of every block."""
    return np.ascontiguousarray(blocks[:, at : at + 2]).view(np.float16)[:, 0].astype(np.float32)


def _bytes(numbers: NDArray[Any]) -> _Bytes:
    return numbers.astype(np.uint8, copy=False)


def _nibbles(packed: _Bytes) -> _Bytes:
    """The low halves of the bytes, then the high ones."""
    return np.concatenate([packed & 0x0F, packed >> 4], axis=-1)


def _q4_0(blocks: _Bytes) -> _Groups:
    scale = _reals(blocks, 0)
    return _nibbles(blocks[:, 2:]), scale, -8 * scale


def _q4_1(blocks: _Bytes) -> _Groups:
    return _nibbles(blocks[:, 4:]), _reals(blocks, 0), _reals(blocks, 2)


def _q5_0(blocks: _Bytes) -> _Groups:
    scale = _reals(blocks, 0)
    return _nibbles(blocks[:, 6:]) | _fifth_bits(blocks[:, 2:6]), scale, -16 * scale


def _q5_1(blocks: _Bytes) -> _Groups:
    return _nibbles(blocks[:, 8:]) | _fifth_bits(blocks[:, 4:8]), _reals(blocks, 0), _reals(blocks, 2)


def _fifth_bits(packed: _Bytes) -> _Bytes:
    return _bytes(np.unpackbits(np.ascontiguousarray(packed), axis=-1, bitorder="little") << 4)


def _q8_0(blocks: _Bytes) -> _Groups:
    scale = _reals(blocks, 0)
    # a signed byte and 128 more
    return _bytes(blocks[:, 2:] ^ 0x80), scale, -128 * scale


def _q4_k(blocks: _Bytes) -> _Groups:
    """Blocks of 256: 8 groups, their scales and minima in 6 bits each; numbers in chunks of 64, low halves first."""
    scale, bias = _k_scales(blocks)
    return _nibbles(blocks[:, 16:].reshape(-1, 4, 32)).reshape(-1, GROUP_SIZE), scale, bias


def _q5_k(blocks: _Bytes) -> _Groups:
    """As Q4_K, with the fifth bit of group g at bit g of 32 bytes that come before."""
    scale, bias = _k_scales(blocks)
    fifth = (blocks[:, None, 16:48] >> np.arange(8, dtype=np.uint8)[:, None]) & 1
    low = _nibbles(blocks[:, 48:].reshape(-1, 4, 32)).reshape(-1, 8, GROUP_SIZE)
    return _bytes(low | (fifth << 4)).reshape(-1, GROUP_SIZE), scale, bias


def _k_scales(blocks: _Bytes) -> tuple[_Reals, _Reals]:
    packed = blocks[:, 4:16]
    low, middle, high = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = np.concatenate([low & 63, (high & 0x0F) | ((low >> 6) << 4)], axis=1).astype(np.float32)
    minima = np.concatenate([middle & 63, (high >> 4) | ((middle >> 6) << 4)], axis=1).astype(np.float32)
    return (
        (_reals(blocks, 0)[:, None] * scales).reshape(-1),
        (-_reals(blocks, 2)[:, None] * minima).reshape(-1),
    )


def _q6_k(blocks: _Bytes) -> _Groups:
    """Blocks of 256: 16 groups of 16 with a signed scale each; the nearest of 256 steps for each 32 together."""
    low, high = blocks[:, :128].reshape(-1, 2, 64), blocks[:, 128:192].reshape(-1, 2, 32)
    scales = np.ascontiguousarray(blocks[:, 192:208]).view(np.int8).astype(np.float32)
    upper = np.stack([(high >> shift) & 3 for shift in (0, 2, 4, 6)], axis=2)
    numbers = _nibbles(low).reshape(-1, 2, 4, 32) | (upper << 4)
    values = (numbers.reshape(-1, 16, 16).astype(np.float32) - 32) * scales[:, :, None]
    values = (values * _reals(blocks, 208)[:, None, None]).reshape(-1, GROUP_SIZE)
    bias = values.min(axis=1)
    # the rounding of scale and bias to float16 is a part of what is rounded here
    bias = bias.astype(np.float16).astype(np.float32)
    scale = ((values.max(axis=1) - bias) / 255).astype(np.float16).astype(np.float32)
    steps = (values - bias[:, None]) / np.where(scale == 0, 1, scale)[:, None]
    return np.clip(np.rint(steps), 0, 255).astype(np.uint8), scale, bias


_UNPACKERS: Mapping[str, Callable[[_Bytes], _Groups]] = {
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q5_0": _q5_0,
    "Q5_1": _q5_1,
    "Q8_0": _q8_0,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
}
