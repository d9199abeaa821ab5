"""Tiny random models of the architectures that embed and rank, as folders with MiniLM's tokenizer."""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten

from mlx_manager.catalog import LoadOptions, ModelEntry
from mlx_manager.hub import Inventory
from mlx_manager.models.embedding import Embedder
from mlx_manager.models.families.encoders import find_encoder
from mlx_manager.models.reranking import Reranker

VOCABULARY_SIZE = 30_522
_SIZES = {"vocab_size": VOCABULARY_SIZE, "hidden_size": 32, "num_attention_heads": 4, "max_position_embeddings": 128}
_DECODER = {"num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 48, "rms_norm_eps": 1e-6}

CONFIGS: dict[str, dict[str, Any]] = {
    "bert": {"num_hidden_layers": 2, "intermediate_size": 48},
    "xlm-roberta": {"num_hidden_layers": 2, "intermediate_size": 48, "pad_token_id": 1},
    "roberta": {"num_hidden_layers": 2, "intermediate_size": 48, "pad_token_id": 1},
    "modernbert": {"num_hidden_layers": 4, "intermediate_size": 48, "local_attention": 8, "pad_token_id": 0},
    "qwen3": {"num_hidden_layers": 2, **_DECODER},
    "gemma3_text": {"num_hidden_layers": 3, "sliding_window": 8, "sliding_window_pattern": 3, **_DECODER},
    "llama_bidirec": {"num_hidden_layers": 2, **_DECODER},
}


def config_of(model_type: str, **changes: Any) -> dict[str, Any]:
    """A whole config.json."""
    return {"model_type": model_type, **_SIZES, **CONFIGS[model_type], **changes}


def random_weights(config: Mapping[str, Any]) -> dict[str, mx.array]:
    """Weights of the library's own class, large enough that every token tells."""
    family = find_encoder(str(config["model_type"]))
    assert family is not None
    module = importlib.import_module(f"mlx_embeddings.models.{family.module}")
    model = module.Model(module.ModelArgs.from_dict({**config, "architectures": []}))
    mx.random.seed(7)
    flat: list[tuple[str, mx.array]] = tree_flatten(model.parameters())  # type: ignore[assignment]
    return {
        name: mx.random.normal(array.shape) * 0.3 + (array if "norm" in name.lower() else 0.0)
        for name, array in flat
        if not name.startswith("dense.")
    }


def write_model(
    folder: Path,
    tokenizer_from: Path,
    config: Mapping[str, Any],
    weights: Mapping[str, mx.array],
    files: Mapping[str, object] | None = None,
) -> Path:
    """A model folder; `files` are further JSON files by their paths in it."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    mx.save_safetensors(str(folder / "model.safetensors"), dict(weights))
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        shutil.copy(tokenizer_from / name, folder / name)
    for name, content in (files or {}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    return folder


def pooled_by(*modes: str, normalize: bool = True, **more: object) -> dict[str, object]:
    """The files with which sentence-transformers says how to pool."""
    kinds = {"": "Transformer", "1_Pooling": "Pooling"} | ({"2_Normalize": "Normalize"} if normalize else {})
    modules = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in kinds.items()]
    return {"modules.json": modules, "1_Pooling/config.json": {f"pooling_mode_{mode}": True for mode in modes} | more}


def entry_of(folder: Path) -> ModelEntry:
    """The folder as the inventory sees it."""
    return Inventory(folder.parent).find(str(folder))


def load_embedder(folder: Path, dtype: str = "auto") -> Embedder:
    """The model in the folder."""
    return Embedder.load(entry_of(folder), LoadOptions(dtype=dtype), lambda stage, fraction: None)


def load_reranker(folder: Path) -> Reranker:
    """The model in the folder."""
    return Reranker.load(entry_of(folder), LoadOptions(), lambda stage, fraction: None)
