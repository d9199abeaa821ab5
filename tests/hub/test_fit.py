"""The footprint that is told from a model's files, against what mlx-lm's models and the engine then keep."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import mlx.core as mx
import msgspec
import pytest
from mlx import nn
from mlx.utils import tree_flatten
from mlx_lm.utils import dequantize_model

from mlx_manager.catalog import LoadOptions, ModelEntry
from mlx_manager.engine.arena import Arena
from mlx_manager.engine.attach import wrap_attention
from mlx_manager.engine.attention import DecodeAttention
from mlx_manager.engine.batch import Batch, Segment
from mlx_manager.engine.blocks import BLOCK_SIZE
from mlx_manager.engine.probe import ModelCaches, probe_caches
from mlx_manager.engine.runner import PagedRunner
from mlx_manager.engine.windows import Window, longest_window
from mlx_manager.errors import InvalidRequest
from mlx_manager.hub import Footprint, predict_footprint
from mlx_manager.hub.footprint import BLOCK_TOKENS
from mlx_manager.hub.model_folder import read_entry
from tests.models.zoo import build, config_of

FAMILIES = (
    "llama",
    "qwen2",
    "qwen3",
    "qwen3_moe",
    "phi3",
    "mixtral",
    "gemma2",
    "gemma3_text",
    "gemma4_text",
    "gpt_oss",
    "cohere2",
    "deepseek_v2",
    "deepseek_v3",
    "glm4_moe_lite",
    "minicpm3",
    "mamba",
    "mamba2",
    "qwen3_next",
    "qwen3_5",
    "lfm2",
    "granitemoehybrid",
    "falcon_h1",
    "nemotron_h",
    "jamba",
    "recurrent_gemma",
)


def written(folder: Path, model: nn.Module, config: dict[str, object]) -> ModelEntry:
    folder.mkdir(parents=True, exist_ok=True)
    mx.save_safetensors(str(folder / "model.safetensors"), dict(tree_flatten(model.parameters())))
    (folder / "config.json").write_text(json.dumps(config))
    return read_entry(folder, folder.name)


def predicted(entry: ModelEntry, **options: object) -> Footprint:
    return predict_footprint(entry, LoadOptions(**options), is_cpu_backend=True)  # type: ignore[arg-type]


def kept_by(model: nn.Module) -> ModelCaches:
    """What the engine finds by running the model."""
    wrap_attention(model)
    return probe_caches(model)


def weights_of(model: nn.Module) -> int:
    arrays: list[tuple[str, mx.array]] = tree_flatten(model.parameters())  # type: ignore[assignment]
    return sum(array.nbytes for _, array in arrays)


def quantized(model: nn.Module) -> dict[str, object]:
    """Quantize `model`, its first layer's down projection with more bits, and return what config.json says of it."""
    own = {"model.layers.0.mlp.down_proj": {"group_size": 32, "bits": 8}}
    nn.quantize(
        model,
        group_size=32,
        bits=4,
        class_predicate=lambda path, module: own.get(path, hasattr(module, "to_quantized")),
    )
    return {"group_size": 32, "bits": 4, **own}


@pytest.mark.parametrize("model_type", FAMILIES)
def test_what_a_family_keeps_is_told_exactly(tmp_path: Path, model_type: str) -> None:
    model = build(model_type)
    told = predicted(written(tmp_path / model_type, model, config_of(model_type)))
    caches = kept_by(model)
    assert told.is_known
    assert told.weights_bytes == weights_of(model)
    assert told.kv_bytes_per_token == caches.bytes_per_token
    assert told.state_bytes_per_sequence == caches.state_bytes


@pytest.mark.parametrize("model_type", ["gemma3_text", "falcon_h1"])
@pytest.mark.parametrize("num_tokens", [1, 64 * BLOCK_SIZE, 70 * BLOCK_SIZE, 5000])
def test_the_arena_grows_as_told(tmp_path: Path, model_type: str, num_tokens: int) -> None:
    model = build(model_type)
    told = predicted(written(tmp_path / model_type, model, config_of(model_type)))
    budget_bytes = 100 * told.block_bytes + 1
    arena = Arena(kept_by(model).layers, budget_bytes // told.block_bytes)
    arena.reserve(min(-(-num_tokens // BLOCK_SIZE), 100))
    assert told.arena_bytes(num_tokens, budget_bytes) == arena.nbytes
    assert BLOCK_TOKENS == BLOCK_SIZE


@pytest.mark.parametrize("model_type", ["llama", "qwen3_moe"])
def test_quantized_weights_are_billed_as_they_are_loaded(tmp_path: Path, model_type: str) -> None:
    model = build(model_type)
    config = {**config_of(model_type), "quantization": quantized(model)}
    model.set_dtype(mx.bfloat16)
    entry = written(tmp_path / "quantized", model, config)
    on_metal = predict_footprint(entry, LoadOptions(), is_cpu_backend=False)
    assert (on_metal.weights_bytes, on_metal.dtype) == (weights_of(model), "bfloat16, quantized")
    model.set_dtype(mx.float32)
    kept = predicted(entry, dtype="float32")
    assert (kept.weights_bytes, kept.dtype) == (weights_of(model), "float32, quantized")
    tight = predict_footprint(entry, LoadOptions(), is_cpu_backend=True, available_bytes=1000)
    assert tight.weights_bytes == kept.weights_bytes
    dequantized = predicted(entry)
    assert (dequantized.weights_bytes, dequantized.dtype) == (weights_of(dequantize_model(model)), "float32")
    assert dequantized.kv_bytes_per_token == 2 * on_metal.kv_bytes_per_token


@pytest.mark.parametrize("bits", [4, 8])
def test_quantized_keys_and_values_are_billed_as_they_are_kept(tmp_path: Path, bits: int) -> None:
    model = build("llama", head_dim=32)
    entry = written(tmp_path / "llama", model, {**config_of("llama"), "head_dim": 32})
    layers = kept_by(model).quantized(bits)
    assert predicted(entry, kv_cache_bits=bits).kv_bytes_per_token == sum(layer.bytes_per_token for layer in layers)


def test_sliding_layers_are_billed_for_a_window_and_a_chunk(tmp_path: Path) -> None:
    model = build("gpt_oss")
    entry = written(tmp_path / "gpt_oss", model, config_of("gpt_oss"))
    told = predicted(entry, max_step_tokens=64)
    layers = kept_by(model).layers
    assert told.sliding_bytes_per_token == sum(layer.bytes_per_token for layer in layers if layer.window)
    assert 0 < told.sliding_bytes_per_token < told.kv_bytes_per_token
    assert told.window_tokens == max(layer.window or 0 for layer in layers)
    held_tokens = Window(told.window_tokens or 0, 64).max_held_blocks * BLOCK_SIZE
    assert held_tokens < 1000
    full_bytes = told.kv_bytes_per_token - told.sliding_bytes_per_token
    assert told.cache_bytes(3, 1000) == 3 * (1024 * full_bytes + held_tokens * told.sliding_bytes_per_token)
    in_full = predicted(entry, max_step_tokens=64, disk_cache_bytes=1 << 30)
    assert in_full.cache_bytes(3, 1000) == 3 * 1024 * told.kv_bytes_per_token
    assert any("whole length" in note for note in in_full.notes)


def test_windows_in_every_layer_are_billed_for_what_they_hold(tmp_path: Path) -> None:
    model = build("recurrent_gemma")
    entry = written(tmp_path / "recurrent_gemma", model, config_of("recurrent_gemma"))
    told = predicted(entry, max_step_tokens=64)
    window = longest_window(kept_by(model).layout.windows)
    assert window is not None
    held_tokens = Window(window, 64).max_held_blocks * BLOCK_SIZE
    assert told.held_tokens == held_tokens
    assert told.cache_bytes(2, 100_000) == told.cache_bytes(2, held_tokens) > told.cache_bytes(2, held_tokens // 2)
    assert not any("whole length" in note for note in told.notes)


def test_a_family_with_caches_of_its_own_is_called_a_guess(tmp_path: Path) -> None:
    told = predicted(written(tmp_path / "rwkv7", build("rwkv7"), config_of("rwkv7")))
    assert not told.is_known
    assert any("rwkv7" in note and "guess" in note for note in told.notes)


FOOTPRINT = Footprint(
    weights_bytes=1_000_000,
    kv_bytes_per_token=100,
    sliding_bytes_per_token=0,
    window_tokens=None,
    state_bytes_per_sequence=1000,
    checkpoint_share=0.25,
    activation_bytes=5000,
    activation_bytes_per_context_token=7,
    process_bytes=50_000,
    max_context=4096,
    dtype="float32",
    is_known=True,
)


@pytest.mark.parametrize("num_requests", [1, 2, 4, 16])
@pytest.mark.parametrize("memory_bytes", [1_060_000, 1_100_000, 1_500_000, 2_000_000, 10**9])
def test_the_largest_context_fits_and_one_more_token_does_not(num_requests: int, memory_bytes: int) -> None:
    context = FOOTPRINT.largest_context(memory_bytes, num_requests)
    assert 0 <= context <= FOOTPRINT.max_context
    if context:
        assert FOOTPRINT.total_bytes(num_requests, context) <= memory_bytes
    if context < FOOTPRINT.max_context:
        assert FOOTPRINT.total_bytes(num_requests, context + 1) > memory_bytes


@pytest.mark.parametrize("context", [1, 100, 4096])
def test_as_many_requests_as_are_told_fit_and_one_more_does_not(context: int) -> None:
    num_requests = FOOTPRINT.most_requests(3_000_000, context)
    assert FOOTPRINT.total_bytes(num_requests, context) <= 3_000_000 < FOOTPRINT.total_bytes(num_requests + 1, context)


def test_a_full_step_counts_logits_experts_and_scores(tmp_path: Path) -> None:
    entry = written(tmp_path / "llama", build("llama"), config_of("llama"))
    small, large = predicted(entry, max_step_tokens=64), predicted(entry, max_step_tokens=4096)
    assert small.activation_bytes < large.activation_bytes
    on_metal = predict_footprint(entry, LoadOptions(), is_cpu_backend=False)
    assert on_metal.activation_bytes_per_context_token < predicted(entry).activation_bytes_per_context_token


@pytest.mark.parametrize(("model_type", "start"), [("llama", 1536), ("llama", 3584), ("qwen3", 3584)])
def test_the_step_of_a_long_prefill_takes_about_what_is_told(tmp_path: Path, model_type: str, start: int) -> None:
    config = {**config_of(model_type), "max_position_embeddings": 8192}
    model = build(model_type)
    told = predicted(written(tmp_path / model_type, model, config), max_step_tokens=512)
    caches = kept_by(model)
    runner = PagedRunner(model, caches, 128, DecodeAttention.GATHERED_SDPA)
    table = tuple(range((start + 512) // BLOCK_SIZE))
    segment = Segment(1, start, (7,) * 512, None, table)
    batch = Batch((segment,), (), (), (), (), (), (), (), num_blocks=len(table))
    mx.eval(runner.logits(batch))
    before_bytes = mx.get_active_memory()
    mx.reset_peak_memory()
    mx.eval(runner.logits(batch))
    assert mx.get_peak_memory() - before_bytes == pytest.approx(told.step_bytes(start + 512), rel=0.3)


@pytest.mark.parametrize(
    "content", [b"", b"\x05", struct.pack("<Q", 2**60), struct.pack("<Q", 2) + b"[]", struct.pack("<Q", 4) + b"nope"]
)
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    entry = written(tmp_path / "llama", build("llama"), config_of("llama"))
    (tmp_path / "llama" / "model.safetensors").write_bytes(content)
    with pytest.raises(InvalidRequest, match=r"model\.safetensors is not a safetensors file"):
        predicted(entry)


def test_the_context_is_lowered_by_the_options(tmp_path: Path) -> None:
    entry = written(tmp_path / "llama", build("llama"), config_of("llama"))
    assert predicted(entry).max_context == 1024
    assert predicted(entry, max_context=100).max_context == 100
    assert msgspec.json.decode(msgspec.json.encode(predicted(entry)), type=Footprint) == predicted(entry)
