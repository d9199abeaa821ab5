"""How many bytes a model's weights take once loaded: what `models.loading` does to them, told from their headers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlx_manager.hub.safetensors_header import DTYPE_BITS, Tensor

_FORMAT_NAMES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
_MAX_MEMORY_SHARE = 0.7
"""As `models.loading` has it: weights are dequantized when they then take at most this part of what is available."""
_IS_DROPPED = re.compile(r"rotary_emb\.inv_freq$|\.masked_bias$|(^|\.)mtp\.|(^|\.)(audio_tower|embed_audio)\.")
"""Tensors that the models leave out: computed anew, for training, or of the parts that hear."""
_SEES = re.compile(
    r"(^|\.)(vision_tower|vision_model|vision_encoder|visual|embed_vision|multi_modal_projector|connector)\."
)
"""Tensors of the parts that see, which a text model leaves out."""
_STAYS_QUANTIZED = re.compile(r"\.(embed_q|unembed_out)$")
"""Per-head products of latent attention; mlx-lm's `dequantize_model` passes them by."""
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")


@dataclass(frozen=True)
class ResidentWeights:
    """The weights in memory."""

    nbytes: int
    dtype: str
    """What is computed in, by the file format's name: F32, F16 or BF16."""
    is_dequantized: bool
    is_quantized: bool
    """Whether quantized weights remain."""

    @property
    def dtype_bytes(self) -> int:
        """Bytes of one number of `dtype`."""
        return DTYPE_BITS[self.dtype] // 8


def loaded_tensors(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Those of `tensors` that the language model keeps. `config` is the language model's."""
    num_layers = config.get("num_hidden_layers")
    has_head = not config.get("tie_word_embeddings", False)
    return {
        name: tensor
        for name, tensor in tensors.items()
        if not _IS_DROPPED.search(name)
        and not _SEES.search(name)
        and (has_head or not re.search(r"(^|\.)lm_head\.", name))
        and (not isinstance(num_layers, int) or (layer_of(name) or 0) < num_layers)
    }


def seeing_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of `tensors` that a vision model sees with."""
    return {name: tensor for name, tensor in tensors.items() if _SEES.search(name) and not _IS_DROPPED.search(name)}


def layer_of(name: str) -> int | None:
    """The number of the layer that the tensor `name` belongs to."""
    found = _LAYER.search(name)
    return int(found[1]) if found else None


def resident_weights(
    tensors: Mapping[str, Tensor],
    quantization: Mapping[str, Any],
    dtype: str,
    *,
    is_cpu_backend: bool,
    available_bytes: int,
) -> ResidentWeights:
    """What `loaded_tensors` take in memory, loaded with `dtype` (auto, float32, float16 or bfloat16).

    `quantization` is config.json's. `available_bytes` decides whether a CPU backend dequantizes.
    """
    is_casting = dtype != "auto" or is_cpu_backend
    target = _FORMAT_NAMES.get(dtype, "F32") if is_casting else _own_dtype(tensors)
    packed = {name.removesuffix(".scales") for name in tensors if name.endswith(".scales")}
    packed = {module for module in packed if f"{module}.weight" in tensors}
    dequantizing = set()
    if dtype == "auto" and is_cpu_backend:
        sizes = {
            module: _dequantized_elements(tensors, module, quantization)
            for module in packed
            if not _STAYS_QUANTIZED.search(module)
        }
        # Only linear layers and embeddings are counted there, stacks of experts (three dimensions) are not.
        counted = sum(size for module, size in sizes.items() if len(tensors[f"{module}.weight"].shape) == 2)
        if counted * DTYPE_BITS["F32"] // 8 < _MAX_MEMORY_SHARE * available_bytes:
            dequantizing = set(sizes)
    total = 0
    for module in dequantizing:
        # Scales of 8 bits are those of the microscaling formats, which come out as bfloat16.
        dequantized = target if tensors[f"{module}.scales"].is_floating else "BF16"
        total += sizes[module] * DTYPE_BITS[dequantized] // 8
    for name, tensor in tensors.items():
        module, _, leaf = name.rpartition(".")
        if not (module in dequantizing and leaf in ("weight", "scales", "biases")):
            total += _kept_bytes(tensor, target if is_casting else None)
    return ResidentWeights(total, target, bool(dequantizing), bool(packed - dequantizing))


def _own_dtype(tensors: Mapping[str, Tensor]) -> str:
    """What the model computes in when nothing is cast: the type that embeddings and norms promote to."""
    found = {t.dtype for name, t in tensors.items() if t.is_floating and re.search(r"embed|norm|k_proj", name)}
    found = found or {tensor.dtype for tensor in tensors.values() if tensor.is_floating}
    return next(iter(found)) if len(found) == 1 else "F32"


def _kept_bytes(tensor: Tensor, target: str | None) -> int:
    if tensor.dtype.startswith("F8"):
        # mlx-lm turns block-scaled 8-bit floats into bfloat16 while it loads
        return tensor.num_elements * DTYPE_BITS[target or "BF16"] // 8
    if tensor.is_floating and target is not None:
        return tensor.num_elements * DTYPE_BITS[target] // 8
    return tensor.nbytes


def _dequantized_elements(tensors: Mapping[str, Tensor], module: str, quantization: Mapping[str, Any]) -> int:
    """Weights of a quantized module, from its number of scales; a module may have a group size of its own."""
    own = quantization.get(module)
    group_size = own.get("group_size") if isinstance(own, dict) else None
    return tensors[f"{module}.scales"].num_elements * int(group_size or quantization.get("group_size") or 64)
