"""Half precision on a CPU, where MLX has no `gather_mm` for it: paged all the same, by the other attention."""

from __future__ import annotations

import json
from pathlib import Path

import mlx.core as mx
from mlx_lm.models.llama import Model, ModelArgs

from mlx_manager.catalog import LoadOptions
from mlx_manager.hub import Inventory
from mlx_manager.worker.load import load

_CONFIG = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "vocab_size": 49152,
    "max_position_embeddings": 512,
}


def write_tiny_llama(folder: Path, tokenizer_folder: Path, **changed: object) -> None:
    """A random two-layer Llama in float32, with the starter model's tokenizer; `changed` are fields of its config."""
    config = {**_CONFIG, **changed}
    folder.mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((tokenizer_folder / name).read_bytes())
    (folder / "config.json").write_text(json.dumps(config))
    mx.random.seed(7)
    Model(ModelArgs.from_dict(config)).save_weights(str(folder / "model.safetensors"))


def test_half_precision_is_paged(starter_folder: Path, tmp_path: Path) -> None:
    write_tiny_llama(tmp_path / "models" / "tiny", starter_folder)
    (entry,) = Inventory(tmp_path).entries()
    for dtype in ("bfloat16", "float16"):
        _, report = load(entry, LoadOptions(dtype=dtype, kv_budget_bytes=8 * 1024**2), lambda stage, fraction: None)
        assert (report.path, report.dtype, report.attention) == ("paged", dtype, "gathered_sdpa")
