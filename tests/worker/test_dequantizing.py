"""Quantized weights become plain ones on a CPU, and a load takes little more memory than the model will."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import pytest
from mlx import nn

from mlx_manager.models.loading import is_cpu_backend, with_dtype

ROWS, COLUMNS = 20_000, 512


class Pair(nn.Module):
    """A large embedding, and a large head that is no multiple of the pieces."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # mlx has no types
        self.embedding = nn.QuantizedEmbedding(ROWS, COLUMNS, group_size=32, bits=8)
        self.head = nn.QuantizedLinear(COLUMNS, ROWS - 37, bias=True, group_size=64, bits=4)
        self.small = nn.QuantizedLinear(COLUMNS, 64, bias=False)


@pytest.mark.skipif(not is_cpu_backend(), reason="a GPU computes with quantized weights as they are")
def test_large_matrices_are_dequantized_within_little_more_than_they_take() -> None:
    mx.random.seed(3)
    model: Any = Pair()
    mx.eval(model.parameters())
    parts = {
        name: mx.dequantize(part.weight[-50:], part.scales[-50:], part.biases[-50:], part.group_size, part.bits)
        for name, part in (("embedding", model.embedding), ("head", model.head), ("small", model.small))
    }
    bias = model.head.bias
    mx.eval(parts, bias)
    held_bytes = mx.get_active_memory()
    mx.reset_peak_memory()
    plain, dtype = with_dtype(model, "auto")
    mx.eval(plain.parameters())
    assert dtype == "float32"
    assert isinstance(plain.embedding, nn.Embedding)
    assert isinstance(plain.head, nn.Linear)
    assert plain.head.weight.shape == (ROWS - 37, COLUMNS)
    for name, part in parts.items():
        assert mx.array_equal(getattr(plain, name).weight[-50:], part)
    assert mx.array_equal(plain.head.bias, bias)
    plain_bytes = plain.embedding.weight.nbytes + plain.head.weight.nbytes
    # in one piece each, it would be almost as much again
    assert mx.get_peak_memory() - held_bytes < 1.4 * plain_bytes
