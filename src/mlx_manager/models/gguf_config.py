"""What the metadata of a GGUF file say about a model: its sizes, its rotary positions, its config.json."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from mlx_manager.errors import InvalidRequest
from mlx_manager.models.families.gguf import GGUF_FAMILIES, GgufFamily, head_scalar
from mlx_manager.models.gguf_file import GgufHeader, MetadataValue

ROPE_DIVISORS = "rope_freqs.weight"
_FREE_PARTS = ("attn_norm", "ffn_norm", "post_attention_norm", "post_ffw_norm")


@dataclass(frozen=True)
class ModelShape:
    """The sizes of one model."""

    architecture: str
    """Of `GGUF_FAMILIES`."""
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
    further: Mapping[str, float]
    """Fields of config.json that only this architecture has."""

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
        parts: dict[str, tuple[int, ...]] = {
            **dict.fromkeys(_FREE_PARTS, (hidden,)),
            "attn_q": (hidden, queries),
            "attn_k": (hidden, keys),
            "attn_v": (hidden, keys),
            "attn_output": (queries, hidden),
            "attn_q_norm": (self.head_dim,),
            "attn_k_norm": (self.head_dim,),
            "ffn_gate": (hidden, inner),
            "ffn_up": (hidden, inner),
            "ffn_down": (inner, hidden),
        }
        for layer in range(self.num_layers):
            shapes |= {f"blk.{layer}.{part}.weight": parts[part] for part in self.family.layer}
        return shapes

    @property
    def family(self) -> GgufFamily:
        """What is particular to its architecture."""
        return GGUF_FAMILIES[self.architecture]

    def as_config(self) -> dict[str, object]:
        """The model's part of config.json, as transformers and mlx-lm name its fields."""
        return {
            **self.family.config,
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
            "tie_word_embeddings": self.is_tied,
            **self.further,
        }


def read_shape(header: GgufHeader) -> ModelShape:
    """The sizes of the model in a GGUF file. Raises `InvalidRequest` naming what is not supported or missing."""
    values = _Values(header.metadata)
    family = GGUF_FAMILIES[values.architecture]
    if header.metadata.get("split.count", 1) not in (0, 1):
        raise InvalidRequest(
            f"This file is one of {header.metadata['split.count']} parts (split.count). Merge them first: "
            "llama-gguf-split --merge FIRST_PART WHOLE.gguf"
        )
    values.check_without_effect(family.no_effect)
    hidden, num_heads, num_layers = (
        values.size(key) for key in ("embedding_length", "attention.head_count", "block_count")
    )
    head_dim = values.size("attention.key_length", hidden // num_heads)
    for key in ("attention.value_length", "rope.dimension_count"):
        if values.size(key, head_dim) != head_dim:
            raise InvalidRequest(
                f"{values.architecture}.{key} differs from the length of a head ({head_dim}), which is not supported."
            )
    tensors = {tensor.name: tensor for tensor in header.tensors}
    embedding = tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise InvalidRequest("This file holds no model: the tensor 'token_embd.weight' is missing.")
    further = {name: values.as_default(key, default) for name, (key, default) in family.sized.items()}
    if family.has_head_scalar:
        further["query_pre_attn_scalar"] = head_scalar(
            values.architecture, num_layers=num_layers, hidden_size=hidden, num_heads=num_heads, head_dim=head_dim
        )
    return ModelShape(
        architecture=values.architecture,
        num_layers=num_layers,
        hidden_size=hidden,
        intermediate_size=values.size("feed_forward_length"),
        num_heads=num_heads,
        num_kv_heads=values.size("attention.head_count_kv", num_heads),
        head_dim=head_dim,
        num_embeddings=embedding.shape[1],
        max_context=values.size("context_length"),
        rms_norm_eps=values.real("attention.layer_norm_rms_epsilon"),
        rope_theta=values.real("rope.freq_base", 10000.0),
        rope_scaling=values.linear_scaling(),
        is_tied="output.weight" not in tensors,
        has_rope_divisors=ROPE_DIVISORS in tensors,
        further=further,
    )


def find_llama3_scaling(divisors: list[float], shape: ModelShape) -> dict[str, str | float | int]:
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


def _llama3_divisors(shape: ModelShape, *, factor: float) -> list[float]:
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


class _Values:
    """The metadata of one architecture."""

    def __init__(self, metadata: Mapping[str, MetadataValue]) -> None:
        architecture = metadata.get("general.architecture")
        if not isinstance(architecture, str) or architecture not in GGUF_FAMILIES:
            known = " and ".join(repr(each) for each in GGUF_FAMILIES)
            raise InvalidRequest(
                f"The architecture of this file is {architecture!r} (general.architecture); only {known} can be "
                "imported. Use an MLX model folder of this model instead."
            )
        self.architecture = architecture
        self._metadata = metadata

    def check_without_effect(self, keys: Mapping[str, tuple[object, ...]]) -> None:
        for key, harmless in keys.items():
            value = self._get(key)
            if value is not None and value not in harmless:
                raise InvalidRequest(
                    f"{self.architecture}.{key} = {value!r} is not supported: this is not a plain model of its family."
                )

    def linear_scaling(self) -> dict[str, str | float | int] | None:
        kind = self._get("rope.scaling.type", "none")
        if kind == "none":
            return None
        if kind != "linear":
            raise InvalidRequest(
                f"{self.architecture}.rope.scaling.type = {kind!r} is not supported; known are 'none' and 'linear'."
            )
        return {"rope_type": "linear", "factor": self.real("rope.scaling.factor")}

    def as_default(self, key: str, default: float) -> float:
        """The value of `key`, of the same kind as its default."""
        return self.size(key, default) if isinstance(default, int) else self.real(key, default)

    def size(self, key: str, default: int | None = None) -> int:
        value = self._get(key, default)
        if value is None:
            raise InvalidRequest(f"This file is incomplete: {self.architecture}.{key} is missing from its metadata.")
        if isinstance(value, list):
            raise InvalidRequest(f"{self.architecture}.{key} differs from layer to layer, which is not supported.")
        if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
            raise InvalidRequest(f"This file is damaged: {self.architecture}.{key} is {value!r}.")
        return value

    def real(self, key: str, default: float | None = None) -> float:
        value = self._get(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value) or value <= 0:
            raise InvalidRequest(f"This file is damaged or incomplete: {self.architecture}.{key} is {value!r}.")
        # A float32 such as 9.999999747378752e-06 stands for 1e-05.
        return float(f"{value:.7g}")

    def _get(self, key: str, default: MetadataValue | None = None) -> MetadataValue | None:
        return self._metadata.get(f"{self.architecture}.{key}", default)
