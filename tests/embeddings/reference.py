"""BERT in numpy, from the paper's formulas and a checkpoint's own names: what the served vectors are compared with.

Nothing of MLX, mlx-embeddings or our own code is in it, and each text is computed alone, so that nothing is padded.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file
from tokenizers import Tokenizer

Floats = np.ndarray[Any, np.dtype[np.float64]]

_erf = np.vectorize(math.erf, otypes=[np.float64])


class NumpyBert:
    """A BERT checkpoint with a sentence-transformers folder around it: mean pooling, then length one."""

    def __init__(self, folder: Path) -> None:
        self._weights = {
            name: array.astype(np.float64) for name, array in load_file(folder / "model.safetensors").items()
        }
        self._config = json.loads((folder / "config.json").read_text())
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        max_tokens = json.loads((folder / "sentence_bert_config.json").read_text())["max_seq_length"]
        self._tokenizer.enable_truncation(max_tokens)

    def token_ids(self, text: str) -> list[int]:
        """With [CLS] and [SEP], cut at the model's own limit."""
        ids: list[int] = self._tokenizer.encode(text).ids
        return ids

    def embed(self, text: str) -> Floats:
        """The vector of `text`."""
        pooled: Floats = self.hidden_states(self.token_ids(text)).mean(axis=0)
        return pooled / np.linalg.norm(pooled)

    def hidden_states(self, token_ids: list[int]) -> Floats:
        """The last hidden states [L, D]."""
        weights = self._weights
        hidden = (
            weights["embeddings.word_embeddings.weight"][token_ids]
            + weights["embeddings.position_embeddings.weight"][: len(token_ids)]
            + weights["embeddings.token_type_embeddings.weight"][0]
        )
        hidden = self._norm("embeddings.LayerNorm", hidden)
        for number in range(self._config["num_hidden_layers"]):
            layer = f"encoder.layer.{number}."
            attended = self._dense(layer + "attention.output.dense", self._attend(layer + "attention.self.", hidden))
            hidden = self._norm(layer + "attention.output.LayerNorm", hidden + attended)
            inner = self._dense(layer + "intermediate.dense", hidden)
            inner = inner * 0.5 * (1 + _erf(inner / math.sqrt(2)))
            hidden = self._norm(layer + "output.LayerNorm", hidden + self._dense(layer + "output.dense", inner))
        return hidden

    def _attend(self, name: str, hidden: Floats) -> Floats:
        num_heads = self._config["num_attention_heads"]
        query, key, value = (
            self._dense(name + part, hidden).reshape(len(hidden), num_heads, -1).transpose(1, 0, 2)
            for part in ("query", "key", "value")
        )
        scores = query @ key.transpose(0, 2, 1) / math.sqrt(query.shape[-1])
        shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
        shares /= shares.sum(axis=-1, keepdims=True)
        attended: Floats = (shares @ value).transpose(1, 0, 2).reshape(len(hidden), -1)
        return attended

    def _dense(self, name: str, values: Floats) -> Floats:
        product: Floats = values @ self._weights[name + ".weight"].T + self._weights[name + ".bias"]
        return product

    def _norm(self, name: str, values: Floats) -> Floats:
        centred = values - values.mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + self._config["layer_norm_eps"])
        normed: Floats = scaled * self._weights[name + ".weight"] + self._weights[name + ".bias"]
        return normed
