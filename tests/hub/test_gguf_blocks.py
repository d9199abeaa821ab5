"""Quantized blocks of GGUF files mean in MLX what the reference reader makes of them."""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from gguf import GGMLQuantizationType
from gguf.quants import dequantize

from mlx_manager.models.gguf_blocks import BITS, GROUP_SIZE, read_tensor
from mlx_manager.models.gguf_file import BLOCK_LAYOUTS, GgufHeader, TensorHeader

ROWS, COLUMNS = 5, 768
SCALES_AT = {"Q4_0": (0,), "Q4_1": (0, 2), "Q5_0": (0,), "Q5_1": (0, 2), "Q8_0": (0,), "Q4_K": (0, 2), "Q5_K": (0, 2)}
"""Where a block has its float16 scales, in bytes."""
TOLERANCE = {"Q4_K": 1e-3, "Q5_K": 1e-3, "Q6_K": 5e-3}
"""As a part of the largest weight: products of two scales are rounded to float16; Q6_K is put on other steps."""


@pytest.mark.parametrize("kind", BITS)
def test_blocks_mean_the_same(tmp_path: Path, kind: str) -> None:
    """Random bytes, but for the scales, which are small numbers."""
    drawn = np.random.default_rng(3)
    block_elements, block_bytes = BLOCK_LAYOUTS[kind]
    num_blocks = ROWS * COLUMNS // block_elements
    raw = drawn.integers(0, 256, (num_blocks, block_bytes), dtype=np.uint8)
    for at in SCALES_AT.get(kind, (208,)):
        small = drawn.normal(0, 0.01, num_blocks).astype(np.float16)
        raw[:, at : at + 2] = small.view(np.uint8).reshape(num_blocks, 2)
    file = tmp_path / "tensor"
    file.write_bytes(b"before" + raw.tobytes())
    expected = dequantize(raw.reshape(ROWS, -1), GGMLQuantizationType[kind])

    header = GgufHeader({}, (), data_start=6)
    parts = read_tensor(file, header, TensorHeader("x.weight", kind, (COLUMNS, ROWS), 0))
    scales, biases = (parts[name].astype(mx.float32) for name in ("scales", "biases"))
    read = np.array(mx.dequantize(parts["weight"], scales, biases, group_size=GROUP_SIZE, bits=BITS[kind]))
    assert np.abs(read - expected).max() <= TOLERANCE.get(kind, 0.0) * np.abs(expected).max()
