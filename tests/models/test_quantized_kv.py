"""Quantized keys and values in every kind of cache: windows, sinks, latent attention, beside recurrent layers."""

from __future__ import annotations

import mlx.core as mx
import pytest

from mlx_manager.engine.arena import Arena, LayerShape
from mlx_manager.engine.attach import wrap_attention
from mlx_manager.engine.attention import DecodeAttention
from mlx_manager.engine.planes import Places
from mlx_manager.engine.probe import probe_caches
from mlx_manager.engine.runner import PagedRunner
from mlx_manager.engine.verify import check_quantized
from tests.models.zoo import VOCABULARY_SIZE, build

_WIDE = {"head_dim": 32}
"""MLX quantizes in groups of 32 entries and more."""


@pytest.mark.parametrize(
    ("model_type", "changed"),
    [
        ("llama", _WIDE),
        ("gemma3_text", _WIDE),
        ("gpt_oss", {"head_dim": 64}),
        ("deepseek_v3", {"kv_lora_rank": 32, "qk_rope_head_dim": 32}),
        ("lfm2", {"num_attention_heads": 2, "num_key_value_heads": 1}),
        ("qwen3_next", _WIDE),
    ],
)
def test_rows_are_read_alike_alone_and_mixed(model_type: str, changed: dict[str, object]) -> None:
    model = build(model_type, **changed)
    wrap_attention(model)
    caches = probe_caches(model)
    runner = PagedRunner(model, caches, 64, DecodeAttention.GATHER_MM)
    for bits, attention in ((8, DecodeAttention.GATHER_MM), (4, DecodeAttention.GATHERED_SDPA)):
        runner.lay_out(caches.quantized(bits), 64)
        runner.attention.decode_attention = attention
        verdict = check_quantized(runner, VOCABULARY_SIZE)
        assert verdict.is_equal, verdict.reason
        assert verdict.worst < 0.05


def test_blocks_go_to_the_host_and_back() -> None:
    layers = [LayerShape(num_kv_heads=2, key_dim=64, value_dim=32, dtype=mx.float32).quantized(4)] * 2
    one, other = Arena(layers, 8), Arena(layers, 8)
    rows = mx.random.normal((5, 2, 64))
    places = Places(mx.array([3, 3, 3, 6, 6]), mx.array([0, 1, 31, 4, 5]))
    for layer in range(2):
        one.write(layer, places, rows, rows[..., :32])
    other.load(dict(zip((1, 2), one.read((3, 6)), strict=True)))
    other.copy(((2, 7),))
    for plane, loaded in zip((*one.keys, *one.values), (*other.keys, *other.values), strict=True):
        kept = plane.gathered(mx.array([[3, 6]]))
        assert mx.abs(kept).max() > 0
        assert mx.array_equal(loaded.gathered(mx.array([[1, 7]])), kept)
    other.scrub((1,))
    assert mx.abs(other.keys[0].gathered(mx.array([[1]]))).max() == 0


def test_vectors_that_no_group_divides_are_refused() -> None:
    model = build("llama", head_dim=48)
    wrap_attention(model)
    with pytest.raises(ValueError, match="vectors of 48 entries"):
        probe_caches(model).quantized(8)
