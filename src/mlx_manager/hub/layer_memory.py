"""What a model keeps per token and per sequence, told from its config and the shapes of its weights.

Attention is recognised by its projections, recurrent layers by their convolution and decay, as mlx-lm's model classes
name them, so that a family needs no row of its own unless it keeps something else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlx_manager.hub.safetensors_header import Tensor
from mlx_manager.hub.weights import layer_of

UNKNOWN_CACHES = frozenset(
    {
        "baichuan_m1",
        "bailing_hybrid",
        "bailing_moe_linear",
        "bailing_moe_v3",
        "deepseek_v41",
        "gear",
        "hunyuan",
        "iquestloopcoder",
        "kimi_k3",
        "kimi_linear",
        "longcat_flash_ngram",
        "minimax_m3_vl",
        "nanbeige",
        "olmo_hybrid",
        "openelm",
        "plamo2",
        "rwkv7",
    }
)
"""Model types whose caches mlx-lm computes in a way of their own: what is told of them is a guess."""
_FULL_LATENT = frozenset({"deepseek_v2", "minicpm3", "youtu_llm"})
"""Model types with latent attention whose code caches whole keys and values instead of the latent."""
_ALL_WINDOWED = frozenset({"recurrent_gemma"})
"""Model types all of whose attention has a window, of `attention_window_size`."""
_FUSED = ("qkv_proj", "query_key_value", "c_attn", "Wqkv", "wqkv", "att_proj", "qkv")


@dataclass(frozen=True)
class LayerMemory:
    """What one layer keeps."""

    kv_elements: int
    """Numbers of the keys and values of one token, in the type that is computed in."""
    window: int | None
    """Positions that a token sees; None: all before it."""
    conv_elements: int
    """Numbers of a sequence's convolution state, in the type that is computed in."""
    state_elements: int
    """Numbers of a sequence's recurrent state."""
    is_state_float32: bool


def layer_memories(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> list[LayerMemory]:
    """What each layer keeps. `tensors` are those the model loads, `config` is the text model's."""
    layers: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index = layer_of(name)
        if index is not None:
            layers.setdefault(index, {})[name] = tensor
    # The last layers of Gemma 3n and 4 read what earlier ones keep.
    num_own = len(layers) - int(config.get("num_kv_shared_layers") or 0)
    return [
        LayerMemory(
            kv_elements=_kv_elements(layer, config) if index < num_own else 0,
            window=_window(config, index),
            **_state(layer, config),
        )
        for index, layer in sorted(layers.items())
    ]


def _kv_elements(layer: Mapping[str, Tensor], config: Mapping[str, Any]) -> int:
    total = 0
    for name, tensor in layer.items():
        module = name.removesuffix(".weight")
        if module == name:
            continue
        leaf = module.rpartition(".")[2]
        rows = tensor.shape[0]
        if leaf == "kv_a_proj_with_mqa":
            total += _latent_elements(rows, config)
        elif module.endswith("indexer.wk"):
            total += 2 * rows
        elif leaf in ("k_proj", "c_k"):
            values = layer.get(name.replace("k_proj", "v_proj").replace("c_k", "c_v"))
            total += rows + (rows if values is None else values.shape[0])
        elif leaf in _FUSED:
            # Queries, keys and values one below the other.
            total += rows - num_attention_heads(config) * head_dim(config)
    return total


def _latent_elements(rows: int, config: Mapping[str, Any]) -> int:
    """`rows` is kv_lora_rank + qk_rope_head_dim, what latent attention keeps."""
    if config.get("model_type") not in _FULL_LATENT:
        return rows
    key_dim = int(config["qk_nope_head_dim"]) + int(config["qk_rope_head_dim"])
    value_dim = int(config.get("v_head_dim") or int(config["hidden_size"]) // num_attention_heads(config))
    return num_attention_heads(config) * (key_dim + value_dim)


def _window(config: Mapping[str, Any], index: int) -> int | None:
    is_everywhere = config.get("model_type") in _ALL_WINDOWED
    window = config.get("attention_window_size" if is_everywhere else "sliding_window")
    window = window or config.get("sliding_window_size")
    if is_everywhere or not isinstance(window, int):
        return window if isinstance(window, int) else None
    layer_types, pattern = config.get("layer_types"), config.get("sliding_window_pattern")
    hybrid = config.get("hybrid_layer_pattern")
    if isinstance(hybrid, list) and index < len(hybrid):
        return window if hybrid[index] == 1 else None
    if isinstance(layer_types, list) and index < len(layer_types):
        return window if layer_types[index] == "sliding_attention" else None
    if isinstance(pattern, str) and pattern:
        return window if pattern[index % len(pattern)] == "L" else None
    if isinstance(pattern, int) and pattern > 0:
        return window if (index + 1) % pattern else None
    return None


def _state(layer: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Any]:
    """The sizes of a recurrent layer; zeros for any other."""
    conv_elements = state_elements = num_channels = 0
    is_float32 = True
    for name, tensor in layer.items():
        if name.endswith(("conv1d.weight", "conv_1d.weight", ".conv.conv.weight")):
            num_channels = tensor.shape[0]
            # The last of the kernel's taps is the token itself. Depthwise, so the third size is 1.
            conv_elements += num_channels * (tensor.num_elements // num_channels - 1)
        elif name.endswith("rg_lru.recurrent_param"):
            # Griffin: one number a channel
            state_elements, is_float32 = tensor.num_elements, tensor.dtype == "F32"
    decay = next((tensor for name, tensor in layer.items() if name.endswith(".A_log")), None)
    if decay is not None and len(decay.shape) == 2:
        # Mamba: [channels, state size], as large as its state
        state_elements, is_float32 = decay.num_elements, decay.dtype == "F32"
    elif decay is not None and "linear_value_head_dim" in config:
        # Gated delta: an outer product of key and value per value head
        state_elements = decay.num_elements * int(config["linear_value_head_dim"]) * int(config["linear_key_head_dim"])
    elif decay is not None:
        state_elements = decay.num_elements * _mamba2_size(config)
    return {"conv_elements": conv_elements, "state_elements": state_elements, "is_state_float32": is_float32}


def _mamba2_size(config: Mapping[str, Any]) -> int:
    """Numbers of one head's state: head size times state size, under the names that families give them."""
    head_dim = next((config[k] for k in ("mamba_d_head", "mamba_head_dim", "head_dim") if config.get(k)), 0)
    size = next((config[k] for k in ("mamba_d_state", "ssm_state_size", "state_size") if config.get(k)), 0)
    return int(head_dim) * int(size)


def num_attention_heads(config: Mapping[str, Any]) -> int:
    found = next((config[k] for k in ("num_attention_heads", "n_head", "n_heads") if config.get(k)), 1)
    return int(found)


def head_dim(config: Mapping[str, Any]) -> int:
    hidden = next((config[k] for k in ("hidden_size", "n_embd", "d_model") if config.get(k)), 0)
    return int(config.get("head_dim") or int(hidden) // num_attention_heads(config))
