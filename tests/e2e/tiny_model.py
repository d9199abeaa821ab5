"""A tiny random Llama with the starter model's tokenizer: real files that load and answer, in a moment."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

_HIDDEN, _MLP, _HEADS, _LAYERS = 64, 128, 4, 2


def make_tiny_model(folder: Path, starter_folder: Path, seed: int, *, max_context: int = 1024) -> None:
    """Write a model folder whose weights are drawn with `seed`."""
    folder.mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(starter_folder / name, folder / name)
    starter = json.loads((starter_folder / "config.json").read_text())
    config = {key: value for key, value in starter.items() if not key.startswith("quantization")} | {
        "hidden_size": _HIDDEN,
        "intermediate_size": _MLP,
        "num_hidden_layers": _LAYERS,
        "num_attention_heads": _HEADS,
        "num_key_value_heads": _HEADS,
        "head_dim": _HIDDEN // _HEADS,
        "max_position_embeddings": max_context,
        "torch_dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(config))
    save_file(_weights(int(config["vocab_size"]), seed), folder / "model.safetensors")


def _weights(vocabulary_size: int, seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)

    def matrix(rows: int, columns: int) -> np.ndarray:
        scaled: np.ndarray = random.standard_normal((rows, columns)) / columns**0.5
        return scaled.astype(np.float32)

    tensors = {
        "model.embed_tokens.weight": matrix(vocabulary_size, _HIDDEN),
        "model.norm.weight": np.ones(_HIDDEN, np.float32),
    }
    for layer in range(_LAYERS):
        prefix = f"model.layers.{layer}"
        for part in ("q_proj", "k_proj", "v_proj", "o_proj"):
            tensors[f"{prefix}.self_attn.{part}.weight"] = matrix(_HIDDEN, _HIDDEN)
        for part, rows, columns in (
            ("gate_proj", _MLP, _HIDDEN),
            ("up_proj", _MLP, _HIDDEN),
            ("down_proj", _HIDDEN, _MLP),
        ):
            tensors[f"{prefix}.mlp.{part}.weight"] = matrix(rows, columns)
        for part in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{prefix}.{part}.weight"] = np.ones(_HIDDEN, np.float32)
    return tensors
