"""A model that says one sentence whatever it is asked: real files, run by the real engine, with room for long prompts.

Each token is followed by a fixed one, because its layers add nothing: the embedding of a token of the sentence points
at a place of its own, and the row of the next token in the output matrix points there too.
"""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer

_HIDDEN, _MLP, _HEADS, _LAYERS = 64, 64, 4, 1
_SURE = 8.0


def make_parrot_model(folder: Path, starter_folder: Path, sentence: str, *, max_context: int = 65536) -> None:
    """Write a model folder. No token may occur twice in `sentence`."""
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
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer = Tokenizer.from_file(str(starter_folder / "tokenizer.json"))
    # the template's last token is a line break
    chain = tokenizer.encode("\n" + sentence + "<|im_end|>", add_special_tokens=False).ids
    assert len(set(chain)) == len(chain) < _HIDDEN, chain
    save_file(_weights(int(config["vocab_size"]), chain), folder / "model.safetensors")


def _weights(vocabulary_size: int, chain: list[int]) -> dict[str, np.ndarray]:
    embedding = np.zeros((vocabulary_size, _HIDDEN), np.float32)
    embedding[:, -1] = 1
    head = np.zeros((vocabulary_size, _HIDDEN), np.float32)
    for place, (token, following) in enumerate(itertools.pairwise(chain)):
        embedding[token] = np.eye(_HIDDEN, dtype=np.float32)[place]
        head[following, place] = _SURE
    # after anything else there is nothing to say
    head[chain[-1], -1] = _SURE
    tensors = {
        "model.embed_tokens.weight": embedding,
        "lm_head.weight": head,
        "model.norm.weight": np.ones(_HIDDEN, np.float32),
    }
    for layer in range(_LAYERS):
        prefix = f"model.layers.{layer}"
        for part in ("q_proj", "k_proj", "v_proj", "o_proj"):
            tensors[f"{prefix}.self_attn.{part}.weight"] = np.zeros((_HIDDEN, _HIDDEN), np.float32)
        for part in ("gate_proj", "up_proj", "down_proj"):
            tensors[f"{prefix}.mlp.{part}.weight"] = np.zeros((_MLP, _HIDDEN), np.float32)
        for part in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{prefix}.{part}.weight"] = np.ones(_HIDDEN, np.float32)
    return tensors
