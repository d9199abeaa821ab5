"""What serving a model will take of memory, told from its files before anything is loaded."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
import psutil

from mlx_manager.catalog import LoadOptions, ModelEntry, ModelKind, render_size, served_context
from mlx_manager.errors import InvalidRequest
from mlx_manager.hub.footprint import BLOCK_TOKENS, Footprint, num_blocks_for
from mlx_manager.hub.layer_memory import (
    UNKNOWN_CACHES,
    LayerMemory,
    head_dim,
    layer_memories,
    num_attention_heads,
)
from mlx_manager.hub.safetensors_header import read_tensors
from mlx_manager.hub.weights import ResidentWeights, loaded_tensors, resident_weights, seeing_tensors

MEMORY_SHARE = 0.75
"""Part of a machine's memory that models may take."""
PROCESS_BYTES = 130 * 1024**2
"""A worker without model and tokenizer: PSS less MLX's active memory, on Linux with the CPU backend. Between 114 and
153 MiB were measured with SmolLM2, by how many other processes share its libraries. Not measured on macOS, where it is
taken as it is."""
_TOKENIZER_GROWTH = 10
"""Memory of a tokenizer, and of the copy of it that grammars are compiled for, by the size of its tokenizer.json.
Measured on Linux with all of it ready and the heap trimmed: what is no weights and no arena comes to 133 MiB with
SmolLM2's 3.4, and to 442 with Gemma 3's 31.8. Until then a load's own leavings make up for the copy: 180 and 590."""
_CHECKPOINT_SHARE = 0.25
"""As `worker.load` has it: copies of recurrent states, as part of the KV budget."""
_FLOAT32_BYTES = 4
_NUM_LOGITS_COPIES = 4
"""Arrays of the size of the logits, float32, that the sampler holds at once: scaled, weights, cumulative, a filter."""
_NUM_SEEN = 2
"""As `worker.gaze` has it: requests whose pictures are decoded at once."""
_PICTURE_BYTES = 4
"""Of one pixel of a decoded picture, as Pillow keeps it."""
_NUM_LARGE_COPIES = 2
"""Pictures as large as are accepted, of which one at a time is decoded: the file's own, and one to be made smaller."""
_GROUP_SIZES = (64, 32)
"""As the engine's `planes` have them."""
_NUM_MLP_COPIES = 3
"""Gate, up and their product."""


def predict_footprint(
    entry: ModelEntry, options: LoadOptions, *, is_cpu_backend: bool, available_bytes: int | None = None
) -> Footprint:
    """What the worker of `entry` will take of memory when it is loaded with `options`.

    `available_bytes` decides on a CPU whether quantized weights are dequantized; by default what this machine has free.
    Raises `InvalidRequest` where the files cannot be read, or hold what cannot be.
    """
    try:
        own = _predict(entry, options, is_cpu_backend=is_cpu_backend, available_bytes=available_bytes)
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
        raise InvalidRequest(
            f"The config.json of {entry.name} holds what cannot be: {error}. Download the model again."
        ) from error
    if options.draft_entry is None:
        return own
    alone = msgspec.structs.replace(options, draft_entry=None, kv_cache_bits=0)
    draft = predict_footprint(
        options.draft_entry, alone, is_cpu_backend=is_cpu_backend, available_bytes=available_bytes
    )
    said = f"Its draft model {options.draft_entry.name} is counted in: {render_size(draft.weights_bytes)} of weights, "
    note = f"{said}{render_size(draft.kv_bytes_per_token)} of keys and values per token."
    together = own.with_draft(draft)
    return msgspec.structs.replace(together, notes=(*together.notes, note))


def _predict(
    entry: ModelEntry, options: LoadOptions, *, is_cpu_backend: bool, available_bytes: int | None
) -> Footprint:
    folder = Path(entry.path)
    config = _read_config(folder)
    nested = config.get("text_config")
    text = {**config, **nested} if isinstance(nested, dict) else config
    quantization = config.get("quantization") or config.get("quantization_config") or {}
    sees = entry.kind is ModelKind.VISION
    on_disk = read_tensors(folder)
    tensors = loaded_tensors(on_disk, text)
    weights = resident_weights(
        tensors | (seeing_tensors(on_disk) if sees else {}),
        quantization,
        options.dtype,
        is_cpu_backend=is_cpu_backend,
        available_bytes=psutil.virtual_memory().available if available_bytes is None else available_bytes,
    )
    layers = layer_memories(tensors, text)
    kept = _Kept.of(layers, weights, _QuantizedKv.of(text, weights, options))
    step = _Step.of(text, weights, options, is_cpu_backend=is_cpu_backend, layer_kv_bytes=kept.largest_layer_bytes)
    notes = _notes(text, quantization, kept, options)
    held = _held_tokens(kept, options)
    return Footprint(
        weights_bytes=weights.nbytes,
        kv_bytes_per_token=kept.kv_bytes,
        sliding_bytes_per_token=kept.sliding_bytes,
        window_tokens=kept.window,
        held_tokens=held if kept.sliding_bytes == kept.kv_bytes else None,
        windowed_tokens=held if kept.sliding_bytes < kept.kv_bytes and not options.disk_cache_bytes else None,
        state_bytes_per_sequence=kept.state_bytes,
        checkpoint_share=_CHECKPOINT_SHARE if kept.state_bytes else 0.0,
        activation_bytes=step.fixed_bytes,
        activation_bytes_per_context_token=step.bytes_per_context_token,
        process_bytes=PROCESS_BYTES
        + _TOKENIZER_GROWTH * _size(folder / "tokenizer.json")
        + (_seeing_bytes(options) if sees else 0),
        max_context=served_context(config, options.max_context),
        dtype=_describe(weights),
        is_known=_is_known(text, kept),
        notes=notes,
    )


@dataclass(frozen=True)
class _QuantizedKv:
    """Keys and values in few bits, as the engine's `Quantization` keeps them."""

    entry_bytes: Fraction
    """Of one entry, with its part of the scale and the bias of its group."""

    @classmethod
    def of(cls, config: Mapping[str, Any], weights: ResidentWeights, options: LoadOptions) -> _QuantizedKv | None:
        """None where they are kept as they are computed: none were asked for, or no group divides a head's vector."""
        group_size = next((size for size in _GROUP_SIZES if head_dim(config) % size == 0), None)
        if not options.kv_cache_bits or group_size is None:
            return None
        return cls(Fraction(options.kv_cache_bits, 8) + Fraction(2 * weights.dtype_bytes, group_size))


@dataclass(frozen=True)
class _Kept:
    """What stays between steps, summed over the layers, in bytes."""

    kv_bytes: int
    sliding_bytes: int
    window: int | None
    state_bytes: int
    largest_layer_bytes: int
    """Keys and values of one token in the layer that keeps most."""

    @classmethod
    def of(cls, layers: Sequence[LayerMemory], weights: ResidentWeights, kv: _QuantizedKv | None) -> _Kept:
        size = weights.dtype_bytes
        kv_size = Fraction(size) if kv is None else kv.entry_bytes
        return cls(
            kv_bytes=int(sum(layer.kv_elements for layer in layers) * kv_size),
            sliding_bytes=int(sum(layer.kv_elements for layer in layers if layer.window) * kv_size),
            window=max((layer.window for layer in layers if layer.window), default=None),
            state_bytes=sum(
                layer.conv_elements * size + layer.state_elements * (_FLOAT32_BYTES if layer.is_state_float32 else size)
                for layer in layers
            ),
            largest_layer_bytes=max((layer.kv_elements for layer in layers), default=0) * size,
        )


@dataclass(frozen=True)
class _Step:
    """What one step needs for itself, in bytes. A simple model: the largest of its stages, not their course."""

    fixed_bytes: int
    bytes_per_context_token: int

    @classmethod
    def of(
        cls,
        config: Mapping[str, Any],
        weights: ResidentWeights,
        options: LoadOptions,
        *,
        is_cpu_backend: bool,
        layer_kv_bytes: int,
    ) -> _Step:
        """The MLP of a full step, or the logits of a full batch, and attention over the longest context.

        MLX's CPU backend writes out the scores of every head; the fused kernel of Metal keeps none. Both read a
        gathered copy of the context's keys and values in one layer at a time.
        """
        num_tokens = options.max_step_tokens
        mlp = num_tokens * _mlp_width(config) * weights.dtype_bytes * _NUM_MLP_COPIES
        logits = options.max_batch_size * int(config.get("vocab_size", 0)) * _FLOAT32_BYTES * _NUM_LOGITS_COPIES
        has_scores = is_cpu_backend and bool(layer_kv_bytes)
        scores = num_tokens * num_attention_heads(config) * weights.dtype_bytes if has_scores else 0
        hidden = num_tokens * int(config.get("hidden_size", 0)) * weights.dtype_bytes
        queries = num_tokens * num_attention_heads(config) * head_dim(config) * weights.dtype_bytes
        return cls(
            fixed_bytes=2 * hidden + max(mlp, logits, 2 * queries),
            bytes_per_context_token=scores + 2 * layer_kv_bytes,
        )


def _mlp_width(config: Mapping[str, Any]) -> int:
    """Numbers between the two halves of a layer's MLP for one token: of the chosen experts, where there are some."""
    dense = next((config[k] for k in ("intermediate_size", "block_ff_dim", "n_inner") if config.get(k)), 0)
    num_chosen = config.get("num_experts_per_tok") or config.get("top_k_experts") or 0
    shared = config.get("shared_expert_intermediate_size") or 0
    expert = config.get("moe_intermediate_size") or dense
    return max(int(dense), int(num_chosen) * int(expert) + int(shared))


def _held_tokens(kept: _Kept, options: LoadOptions) -> int | None:
    """As the engine's `Window.max_held_blocks` has it; None where no layer has a window."""
    if kept.window is None:
        return None
    return BLOCK_TOKENS * (num_blocks_for(kept.window) + num_blocks_for(options.max_step_tokens) + 2)


def _is_known(config: Mapping[str, Any], kept: _Kept) -> bool:
    return config.get("model_type") not in UNKNOWN_CACHES and bool(kept.kv_bytes or kept.state_bytes)


def _notes(
    config: Mapping[str, Any], quantization: Mapping[str, Any], kept: _Kept, options: LoadOptions
) -> tuple[str, ...]:
    notes = []
    model_type = config.get("model_type")
    if not _is_known(config, kept):
        notes.append(f"What {model_type} keeps per token and per sequence is not known here: those rows are a guess.")
    if 0 < kept.sliding_bytes < kept.kv_bytes:
        part = f"{render_size(kept.sliding_bytes)} of the {render_size(kept.kv_bytes)} per token"
        billed = "a window and a chunk of each request"
        if options.disk_cache_bytes:
            billed = "the whole length: with a disk cache their keys and values are kept as long as the other layers'"
        notes.append(f"Sliding-window layers ({part}, window {kept.window:,}) are billed for {billed}.")
    if kept.state_bytes:
        notes.append(
            f"Copies of recurrent states for prefix hits take up to {_CHECKPOINT_SHARE:.0%} of the KV budget beside it."
        )
    method = quantization.get("quant_method")
    if method and "bits" not in quantization and method not in ("mxfp4", "mxfp8", "fp8"):
        notes.append(f"Weights quantized by {method} are billed as they are on disk; mlx-lm may convert them.")
    return tuple(notes)


def _describe(weights: ResidentWeights) -> str:
    name = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}.get(weights.dtype, weights.dtype)
    return f"{name}, quantized" if weights.is_quantized else name


def _seeing_bytes(options: LoadOptions) -> int:
    """What a model that sees takes of pictures: what it keeps of those it saw, those of the requests that come next,
    those that its processor makes numbers of (red, green and blue of each pixel), and the largest of all while it is
    decoded."""
    waiting = _NUM_SEEN * options.max_request_pixels * _PICTURE_BYTES
    numbers = options.max_request_pixels * 3 * _FLOAT32_BYTES
    return options.image_cache_bytes + waiting + numbers + _NUM_LARGE_COPIES * options.max_image_pixels * _PICTURE_BYTES


def _size(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"{folder / 'config.json'} cannot be read: {error}. Download the model again.") from None
    if not isinstance(config, dict):
        raise InvalidRequest(f"{folder / 'config.json'} is not the config of a model.")
    return config
