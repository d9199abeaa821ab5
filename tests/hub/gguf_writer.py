"""Tiny GGUF files of the Llama family, written by the reference writer: sound ones, and ones with a single flaw."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

HIDDEN, HEADS, KV_HEADS, HEAD_DIM, INNER, LAYERS, CONTEXT = 64, 4, 2, 16, 96, 2, 256
BYTES = [chr(code) for code in (*range(33, 127), *range(161, 173), *range(174, 256), *range(256, 324))]
"""The 256 letters that byte-level BPE writes bytes with."""
SPECIAL = ["<|end|>", "<|start|>", "<tool>"]
TOKENS = [*SPECIAL, *BYTES, "he", "ll", "hell", "hello"]
MERGES = ["h e", "l l", "he ll", "hell o"]
CONTROL, USER_DEFINED, NORMAL = 3, 4, 1


@dataclass
class TinyGguf:
    """What is written; change it before `write`. Metadata of None is left out."""

    metadata: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, Array] = field(default_factory=dict)
    types: dict[str, gguf.GGMLQuantizationType] = field(default_factory=dict)
    """Of the tensors that are not float32."""

    def write(self, path: Path) -> Path:
        """Write the file, in GGUF's own order and alignment."""
        writer = gguf.GGUFWriter(path, self.metadata["general.architecture"])
        for key, value in self.metadata.items():
            if value is not None and key != "general.architecture":
                _add(writer, key, value)
        for name, array in self.tensors.items():
            kind = self.types.get(name, gguf.GGMLQuantizationType.F32)
            writer.add_tensor(name, gguf.quants.quantize(array, kind), raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path


def tiny_llama(*, is_tied: bool = True, seed: int = 0) -> TinyGguf:
    """Two random layers with grouped queries and a byte-level vocabulary, all in float32."""
    random = np.random.default_rng(seed)

    def matrix(rows: int, columns: int) -> Array:
        return random.normal(0, 0.08, (rows, columns)).astype(np.float32)

    tensors = {"token_embd.weight": matrix(len(TOKENS), HIDDEN), "output_norm.weight": np.ones(HIDDEN, np.float32)}
    if not is_tied:
        tensors["output.weight"] = matrix(len(TOKENS), HIDDEN)
    for layer in range(LAYERS):
        shapes = {
            "attn_q": (HEADS * HEAD_DIM, HIDDEN),
            "attn_k": (KV_HEADS * HEAD_DIM, HIDDEN),
            "attn_v": (KV_HEADS * HEAD_DIM, HIDDEN),
            "attn_output": (HIDDEN, HEADS * HEAD_DIM),
            "ffn_gate": (INNER, HIDDEN),
            "ffn_up": (INNER, HIDDEN),
            "ffn_down": (HIDDEN, INNER),
        }
        tensors |= {f"blk.{layer}.{part}.weight": matrix(*shape) for part, shape in shapes.items()}
        norm = random.uniform(0.5, 1.5, HIDDEN).astype(np.float32)
        tensors |= {f"blk.{layer}.{part}.weight": norm for part in ("attn_norm", "ffn_norm")}
    return TinyGguf(_metadata(), tensors)


def _metadata() -> dict[str, Any]:
    return {
        "general.architecture": "llama",
        "llama.block_count": LAYERS,
        "llama.context_length": CONTEXT,
        "llama.embedding_length": HIDDEN,
        "llama.feed_forward_length": INNER,
        "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": KV_HEADS,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.freq_base": 5000.0,
        "llama.rope.dimension_count": HEAD_DIM,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": TOKENS,
        "tokenizer.ggml.token_type": [CONTROL, CONTROL, USER_DEFINED] + [NORMAL] * (len(TOKENS) - 3),
        "tokenizer.ggml.merges": MERGES,
        "tokenizer.ggml.eos_token_id": 0,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.chat_template": "{% for m in messages %}<|start|>{{ m['content'] }}{% endfor %}",
    }


def _add(writer: gguf.GGUFWriter, key: str, value: object) -> None:
    match value:
        case bool():
            writer.add_bool(key, value)
        case int():
            writer.add_uint32(key, value)
        case float():
            writer.add_float32(key, value)
        case str():
            writer.add_string(key, value)
        case list():
            writer.add_array(key, value)
        case _:
            raise TypeError(f"{key} cannot be {value!r}")


def llama_reference(tiny: TinyGguf, token_ids: list[int]) -> Array:
    """Logits `[tokens, vocabulary]` as ggml computes a Llama: rotary over neighbouring pairs, straight from the file.

    Written down from the definition of the architecture, in float64, so that the conversion has something to answer to.
    """
    weights: Mapping[str, NDArray[np.float64]] = {
        name: array.astype(np.float64) for name, array in tiny.tensors.items()
    }
    hidden = weights["token_embd.weight"][token_ids]
    for layer in range(LAYERS):
        prefix = f"blk.{layer}."
        normed = _rms_norm(hidden, weights[prefix + "attn_norm.weight"])
        queries = _rotate(_heads(normed @ weights[prefix + "attn_q.weight"].T, HEADS))
        keys = _rotate(_heads(normed @ weights[prefix + "attn_k.weight"].T, KV_HEADS))
        values = _heads(normed @ weights[prefix + "attn_v.weight"].T, KV_HEADS)
        keys, values = (np.repeat(array, HEADS // KV_HEADS, axis=0) for array in (keys, values))
        scores = queries @ keys.swapaxes(1, 2) / np.sqrt(HEAD_DIM)
        scores += np.triu(np.full(scores.shape[1:], -np.inf), 1)
        weighed = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (weighed / weighed.sum(-1, keepdims=True)) @ values
        hidden = hidden + mixed.swapaxes(0, 1).reshape(len(token_ids), -1) @ weights[prefix + "attn_output.weight"].T
        normed = _rms_norm(hidden, weights[prefix + "ffn_norm.weight"])
        gate = normed @ weights[prefix + "ffn_gate.weight"].T
        inner = gate / (1 + np.exp(-gate)) * (normed @ weights[prefix + "ffn_up.weight"].T)
        hidden = hidden + inner @ weights[prefix + "ffn_down.weight"].T
    output = weights.get("output.weight", weights["token_embd.weight"])
    return (_rms_norm(hidden, weights["output_norm.weight"]) @ output.T).astype(np.float32)


def _heads(rows: NDArray[np.float64], num_heads: int) -> NDArray[np.float64]:
    return rows.reshape(len(rows), num_heads, HEAD_DIM).swapaxes(0, 1)


def _rms_norm(rows: NDArray[np.float64], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    normed: NDArray[np.float64] = rows / np.sqrt((rows**2).mean(-1, keepdims=True) + 1e-5) * weight
    return normed


def _rotate(heads: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn each pair of neighbours `(2i, 2i+1)` of a head by `position / base ** (2i / head_dim)`."""
    positions = np.arange(heads.shape[1])[:, None]
    angles = positions / 5000.0 ** (np.arange(0, HEAD_DIM, 2) / HEAD_DIM)
    even, odd = heads[..., ::2], heads[..., 1::2]
    turned = (even * np.cos(angles) - odd * np.sin(angles), even * np.sin(angles) + odd * np.cos(angles))
    return np.stack(turned, axis=-1).reshape(heads.shape)
