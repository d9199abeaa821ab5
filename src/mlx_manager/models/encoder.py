"""Loads a text encoder of mlx-embeddings' classes: its weights without heads, its tokenizer, its limits."""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx import nn
from mlx.utils import tree_flatten
from transformers import AutoTokenizer

from mlx_manager.catalog import LoadOptions, ModelEntry
from mlx_manager.errors import ModelLoadFailed
from mlx_manager.models.families.encoders import EncoderFamily, encoder_config, encoder_families, find_encoder
from mlx_manager.models.loading import Report, with_dtype

_HEADS = ("classifier.", "score.", "lm_head.", "head.", "decoder.", "cls.")
"""Names of the weights that other tasks put after an encoder."""
_FALLBACK_MAX_TOKENS = 512


@dataclass(frozen=True)
class Item:
    """One tokenized text, or pair of texts."""

    token_ids: Sequence[int]
    segments: Sequence[int] | None = None
    num_unpooled: int = 0
    """Leading tokens that pooling leaves out."""


@dataclass(frozen=True)
class LoadedEncoder:
    """An encoder ready to run."""

    model: nn.Module
    family: EncoderFamily
    config: dict[str, Any]
    tokenizer: Any
    folder: Path
    heads: dict[str, mx.array]
    """Weights of the checkpoint that are not the encoder's, by their names there."""
    has_pooler: bool
    """Whether the checkpoint holds the layer between the first token and a classifier."""
    dtype: mx.Dtype
    dtype_name: str
    weights_bytes: int
    max_tokens: int
    """Longest input that the positions allow, in tokens."""
    vocabulary_size: int
    pad_token_id: int

    def hidden_states(self, items: Sequence[Item]) -> tuple[mx.array, mx.array]:
        """The hidden states [B, L, D] of `items`, and their mask [B, L] of ones where a token is."""
        num_tokens = max(len(item.token_ids) for item in items)
        token_ids = np.full((len(items), num_tokens), self.pad_token_id, dtype=np.int32)
        mask = np.zeros((len(items), num_tokens), dtype=np.float32)
        segments = np.zeros((len(items), num_tokens), dtype=np.int32)
        for row, item in enumerate(items):
            token_ids[row, : len(item.token_ids)] = item.token_ids
            mask[row, : len(item.token_ids)] = 1
            if item.segments is not None:
                segments[row, : len(item.segments)] = item.segments
        on_device = mx.array(mask)
        types = mx.array(segments) if self.family.has_segments else None
        hidden = self.family.hidden_states(self.model, mx.array(token_ids), on_device.astype(self.dtype), types)
        return hidden, on_device


def load_encoder(entry: ModelEntry, options: LoadOptions, report: Report) -> LoadedEncoder:
    """Load the folder `entry.path`. Raises `ModelLoadFailed` with the reason when it cannot be served."""
    folder = Path(entry.path)
    report("reading the weights", 0.05)
    config = encoder_config(read_json(folder / "config.json"))
    family = _family(entry, config)
    try:
        model, heads, has_pooler = _build(folder, config, family)
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except ModelLoadFailed:
        raise
    except (ValueError, OSError, KeyError, TypeError, RuntimeError, ImportError) as error:
        raise ModelLoadFailed(f"mlx-embeddings cannot load {entry.name}: {error}") from error
    model, dtype_name = with_dtype(model, options.dtype)
    if family.overflows_float16 and dtype_name.startswith("float16"):
        model, dtype_name = with_dtype(model, "float32")
    report("loading the weights", 0.3)
    mx.eval(model.parameters())
    weights: list[tuple[str, mx.array]] = tree_flatten(model.parameters())  # type: ignore[assignment]
    vocabulary_size = int(config["vocab_size"])
    pad_token_id = int(config.get("pad_token_id") or 0)
    return LoadedEncoder(
        model=model,
        family=family,
        config=config,
        tokenizer=tokenizer,
        folder=folder,
        heads=heads,
        has_pooler=has_pooler,
        dtype=next(array.dtype for _, array in weights if mx.issubdtype(array.dtype, mx.floating)),
        dtype_name=dtype_name,
        weights_bytes=sum(array.nbytes for _, array in weights),
        max_tokens=_max_tokens(config, family, options),
        vocabulary_size=vocabulary_size,
        pad_token_id=pad_token_id if pad_token_id < vocabulary_size else 0,
    )


def _family(entry: ModelEntry, config: dict[str, Any]) -> EncoderFamily:
    model_type = str(config.get("model_type"))
    family = find_encoder(model_type)
    if family is None:
        raise ModelLoadFailed(
            f"{entry.name} is of the architecture {model_type!r}, of which no text encoder can be served. "
            f"These can: {', '.join(encoder_families())}."
        )
    activation = config.get("hidden_act", config.get("hidden_activation"))
    if family.hidden_acts and activation is not None and activation not in family.hidden_acts:
        raise ModelLoadFailed(
            f"{entry.name} activates with {activation!r}; only {family.hidden_acts[0]} can be served."
        )
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise ModelLoadFailed(f"{entry.name} has relative positions, which cannot be served.")
    return family


def _build(folder: Path, config: dict[str, Any], family: EncoderFamily) -> tuple[nn.Module, dict[str, mx.array], bool]:
    """The library's class with the checkpoint's weights; those that are none of the encoder's; is there a pooler."""
    module = importlib.import_module(f"mlx_embeddings.models.{family.module}")
    # the classes of some architectures add the head of the task that the config names: heads are ours
    model = module.Model(module.ModelArgs.from_dict({**config, "architectures": []}))
    files = sorted(folder.glob("model*.safetensors")) or sorted(folder.glob("weight*.safetensors"))
    if not files:
        raise FileNotFoundError(f"there are no model*.safetensors in {folder}")
    raw: dict[str, mx.array] = {}
    for file in files:
        raw.update(mx.load(str(file)))  # type: ignore[arg-type]
    heads = {name: array for name, array in raw.items() if name.startswith(_HEADS)}
    encoder = {name.removeprefix(family.prefix): array for name, array in raw.items() if name not in heads}
    encoder = model.sanitize(encoder) if hasattr(model, "sanitize") else encoder
    if hasattr(model, "dense") and not any(name.startswith("dense.") for name in encoder):
        # the projections are in sentence-transformers' own folders, where `models.pooling` finds them
        model.dense = []
    _quantize(model, config, encoder)
    _check_names(model, encoder)
    model.load_weights(list(encoder.items()), strict=False)
    model.eval()
    return model, heads, any(name.startswith("pooler.") for name in encoder)


def _quantize(model: nn.Module, config: dict[str, Any], weights: dict[str, mx.array]) -> None:
    quantization = config.get("quantization")
    if not isinstance(quantization, dict):
        return

    def is_quantized(name: str, layer: nn.Module) -> bool | dict[str, Any]:
        own = quantization.get(name)
        if isinstance(own, dict):
            return own
        return hasattr(layer, "to_quantized") and f"{name}.scales" in weights

    nn.quantize(
        model,
        group_size=int(quantization["group_size"]),
        bits=int(quantization["bits"]),
        mode=str(quantization.get("mode", "affine")),
        class_predicate=is_quantized,
    )


def _check_names(model: nn.Module, weights: dict[str, mx.array]) -> None:
    """Nothing may be missing but a pooler that nobody asks, and nothing may be left over."""
    flat: list[tuple[str, mx.array]] = tree_flatten(model.parameters())  # type: ignore[assignment]
    shapes = {name: array.shape for name, array in flat}
    missing = [name for name in shapes if name not in weights and not name.startswith("pooler.")]
    if missing:
        raise ValueError(f"its files lack {len(missing)} weights, the first is {missing[0]}")
    surplus = [name for name in weights if name not in shapes]
    if surplus:
        raise ValueError(f"its files hold {len(surplus)} weights that the class has no place for: {surplus[0]} is one")
    for name, array in weights.items():
        if array.shape != shapes[name]:
            raise ValueError(f"{name} has the shape {array.shape} and not {shapes[name]}")


def _max_tokens(config: dict[str, Any], family: EncoderFamily, options: LoadOptions) -> int:
    positions = int(config.get("max_position_embeddings") or _FALLBACK_MAX_TOKENS)
    if family.counts_positions_past_padding:
        positions -= int(config.get("pad_token_id") or 0) + 1
    return min(positions, options.max_context) if options.max_context else positions


def read_json(path: Path) -> dict[str, Any]:
    """The object in the file; {} where there is none. Raises `ModelLoadFailed` for a damaged one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelLoadFailed(f"{path} cannot be read: {error}. Download the model again.") from None
    return content if isinstance(content, dict) else {}
