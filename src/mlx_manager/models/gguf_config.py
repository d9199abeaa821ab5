"""What the metadata of a GGUF file say about a Llama model: its sizes, its rotary positions, its config.json."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from mlx_manager.errors import InvalidRequest
from mlx_manager.models.gguf_file import GgufHeader, MetadataValue

ROPE_DIVISORS = "rope_freqs.weight"
_NO_EFFECT: Mapping[str, tuple[MetadataValue, ...]] = {
    "expert_count": (0,),
    "logit_scale": (0.0, 1.0),
    "embedding_scale": (0.0, 1.0),
    "residual_scale": (0.0, 1.0),
    "attention.scale": (0.0,),
    "attention.clamp_kqv": (0.0,),
    "attention.max_alibi_bias": (0.0,),
    "attention.causal": (True,),
    "rope.scale_linear": (0.0, 1.0),
    "rope.scaling.attn_factor": (0.0, 1.0),
    "use_parallel_residual": (False,),
}
"""Keys that change what a Llama computes, which is not served here, with the values at which they do not."""


@dataclass(frozen=True)
class LlamaShape:
    """The sizes of one Llama model."""

    num_layers: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    num_embeddings: int
    max_context: int
    rms_norm_eps: float
    rope_theta: float
    rope_scaling: Mapping[str, str | float | int] | None
    is_tied: bool
    """The output layer is the token embedding."""
    has_rope_divisors: bool
    """The tensor `ROPE_DIVISORS` scales the rotary frequencies."""

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """The name and the shape, in GGUF's order, of every tensor this model has to have."""
        hidden, keys = self.hidden_size, self.num_kv_heads * self.head_dim
        queries, inner = self.num_heads * self.head_dim, self.intermediate_size
        shapes: dict[str, tuple[int, ...]] = {
            "token_embd.weight": (hidden, self.num_embeddings),
            "output_norm.weight": (hidden,),
        }
        if self.has_rope_divisors:
            shapes[ROPE_DIVISORS] = (self.head_dim // 2,)
        if not self.is_tied:
            shapes["output.weight"] = (hidden, self.num_embeddings)
        for layer in range(self.num_layers):
            shapes |= {
                f"blk.{layer}.attn_norm.weight": (hidden,),
                f"blk.{layer}.attn_q.weight": (hidden, queries),
                f"blk.{layer}.attn_k.weight": (hidden, keys),
                f"blk.{layer}.attn_v.weight": (hidden, keys),
                f"blk.{layer}.attn_output.weight": (queries, hidden),
                f"blk.{layer}.ffn_norm.weight": (hidden,),
                f"blk.{layer}.ffn_gate.weight": (hidden, inner),
                f"blk.{layer}.ffn_up.weight": (hidden, inner),
                f"blk.{layer}.ffn_down.weight": (inner, hidden),
            }
        return shapes

    def as_config(self) -> dict[str, object]:
        """The model's part of config.json, as transformers and mlx-lm name its fields."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_act": "silu",
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "num_key_value_heads": self.num_kv_heads,
            "head_dim": self.head_dim,
            "vocab_size": self.num_embeddings,
            "max_position_embeddings": self.max_context,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_theta": self.rope_theta,
            "rope_scaling": dict(self.rope_scaling) if self.rope_scaling else None,
            "attention_bias": False,
            "mlp_bias": False,
            "tie_word_embeddings": self.is_tied,
        }


def read_shape(header: GgufHeader) -> LlamaShape:
    """The sizes of the Llama model in a GGUF file. Raises `InvalidRequest` naming what is not supported or missing."""
    metadata = header.metadata
    architecture = metadata.get("general.architecture")
    if architecture != "llama":
        raise InvalidRequest(
            f"The architecture of this file is {architecture!r} (general.architecture); only 'llama' can be imported. "
            "Use an MLX model folder of this model instead."
        )
    if metadata.get("split.count", 1) not in (0, 1):
        raise InvalidRequest(
            f"This file is one of {metadata['split.count']} parts (split.count). Merge them first: "
            "llama-gguf-split --merge FIRST_PART WHOLE.gguf"
        )
    for key, harmless in _NO_EFFECT.items():
        value = metadata.get(f"llama.{key}")
        if value is not None and value not in harmless:
            raise InvalidRequest(f"llama.{key} = {value!r} is not supported: this is not a plain Llama model.")
    hidden, num_heads = _size(metadata, "embedding_length"), _size(metadata, "attention.head_count")
    head_dim = _size(metadata, "attention.key_length", hidden // num_heads)
    for key in ("attention.value_length", "rope.dimension_count"):
        if _size(metadata, key, head_dim) != head_dim:
            raise InvalidRequest(f"llama.{key} differs from the length of a head ({head_dim}), which is not supported.")
    tensors = {tensor.name: tensor for tensor in header.tensors}
    embedding = tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise InvalidRequest("This file holds no model: the tensor 'token_embd.weight' is missing.")
    return LlamaShape(
        num_layers=_size(metadata, "block_count"),
        hidden_size=hidden,
        intermediate_size=_size(metadata, "feed_forward_length"),
        num_heads=num_heads,
        num_kv_heads=_size(metadata, "attention.head_count_kv", num_heads),
        head_dim=head_dim,
        num_embeddings=embedding.shape[1],
        max_context=_size(metadata, "context_length"),
        rms_norm_eps=_real(metadata, "attention.layer_norm_rms_epsilon"),
        rope_theta=_real(metadata, "rope.freq_base", 10000.0),
        rope_scaling=_linear_scaling(metadata),
        is_tied="output.weight" not in tensors,
        has_rope_divisors=ROPE_DIVISORS in tensors,
    )


def find_llama3_scaling(divisors: list[float], shape: LlamaShape) -> dict[str, str | float | int]:
    """The `rope_scaling` of Llama 3.1 and later whose frequencies are divided by `divisors`, one per pair of a head.

    GGUF keeps only the outcome of the formula, in the tensor rope_freqs.weight. Its constants were the same in all of
    Meta's releases, except the factor, which is the divisor of the lowest frequency. Raises `InvalidRequest`.
    """
    scaling: dict[str, str | float | int] = {
        "rope_type": "llama3",
        "factor": round(max(divisors), 4),
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    expected = _llama3_divisors(shape, factor=max(divisors))
    if len(divisors) != len(expected) or any(
        not math.isclose(found, wanted, rel_tol=1e-3) for found, wanted in zip(divisors, expected, strict=True)
    ):
        raise InvalidRequest(
            "The rotary frequencies of this file (tensor 'rope_freqs.weight') are not scaled as Llama 3 does it, which "
            "is not supported. Use the model's own safetensors folder instead."
        )
    return scaling


def _llama3_divisors(shape: LlamaShape, *, factor: float) -> list[float]:
    low, high, original = 1.0, 4.0, 8192
    divisors = []
    for pair in range(shape.head_dim // 2):
        wavelength = 2 * math.pi * shape.rope_theta ** (2 * pair / shape.head_dim)
        if wavelength < original / high:
            divisors.append(1.0)
        elif wavelength > original / low:
            divisors.append(factor)
        else:
            smooth = (original / wavelength - low) / (high - low)
            divisors.append(1 / ((1 - smooth) / factor + smooth))
    return divisors


def _linear_scaling(metadata: Mapping[str, MetadataValue]) -> dict[str, str | float | int] | None:
    kind = metadata.get("llama.rope.scaling.type", "none")
    if kind == "none":
        return None
    if kind != "linear":
        raise InvalidRequest(f"llama.rope.scaling.type = {kind!r} is not supported; known are 'none' and 'linear'.")
    return {"rope_type": "linear", "factor": _real(metadata, "rope.scaling.factor")}


def _size(metadata: Mapping[str, MetadataValue], key: str, default: int | None = None) -> int:
    value = metadata.get(f"llama.{key}", default)
    if value is None:
        raise InvalidRequest(f"This file is incomplete: llama.{key} is missing from its metadata.")
    if isinstance(value, list):
        raise InvalidRequest(f"llama.{key} differs from layer to layer, which is not supported.")
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise InvalidRequest(f"This file is damaged: llama.{key} is {value!r}.")
    return value


def _real(metadata: Mapping[str, MetadataValue], key: str, default: float | None = None) -> float:
    value = metadata.get(f"llama.{key}", default)
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value) or value <= 0:
        raise InvalidRequest(f"This file is damaged or incomplete: llama.{key} is {value!r}.")
    # A float32 such as 9.999999747378752e-06 stands for 1e-05.
    return float(f"{value:.7g}")
