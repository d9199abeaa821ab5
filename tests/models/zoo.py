"""A small random model of every type that the installed mlx-lm knows: the configurations, as data, and their weights.

A configuration says only what differs from `_SIZES`; each type takes of these what it knows. Every kind of layer of a
family occurs, and windows are short, so that short prompts reach past them.
"""

from __future__ import annotations

import importlib
import math
import pkgutil
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import mlx.core as mx
import mlx_lm.models
from mlx import nn
from mlx.utils import tree_flatten, tree_unflatten

VOCABULARY_SIZE = 256
_WINDOW = 12
_NUM_LAYERS = 4
_SEED = 7
_SPREAD = 1.2
"""Weights get this much more than what keeps the size of what passes through them."""
_EMBEDDING_SPREAD = 0.3
"""Small, or models with tied embeddings would only repeat the token they just read."""

_NOT_RUN = {
    "olmo": "its module ends the interpreter unless the package ai2-olmo is installed",
    "bitnet": "its packed ternary product is a Metal kernel, which a CPU cannot run",
    "muse_spark": "its query and key norm is a Metal kernel, which a CPU cannot run",
    "prism_hadamard_qwen35": "a quantized qwen3_5 that needs a manifest of packed weights",
}

_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY_SIZE,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": _NUM_LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 1024,
    "rms_norm_eps": 1e-5,
    "norm_eps": 1e-5,
    "layer_norm_eps": 1e-5,
    "layernorm_epsilon": 1e-5,
    "layer_norm_epsilon": 1e-5,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "mlp_bias": False,
    "use_bias": False,
    "use_qk_norm": True,
    "sliding_window": _WINDOW,
    "partial_rotary_factor": 0.5,
    # mixtures of experts
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "num_shared_experts": 1,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
    "shared_intermediate_size": 32,
    "first_k_dense_replace": 1,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "norm_topk_prob": True,
    "routed_scaling_factor": 1.0,
    "n_group": 1,
    "topk_group": 1,
    # latent attention
    "q_lora_rank": 24,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 16,
    "v_head_dim": 16,
    "index_head_dim": 16,
    "index_n_heads": 2,
    "index_topk": 16,
    # recurrent layers
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "linear_conv_kernel_dim": 4,
    "linear_allow_neg_eigval": True,
    "full_attention_interval": 2,
    "conv_kernel": 4,
    "conv_bias": True,
    "conv_L_cache": 3,
    "use_conv_bias": True,
    "state_size": 16,
    "mamba_d_conv": 4,
    "mamba_d_state": 16,
    # multipliers
    "logits_scaling": 1.0,
    "attention_multiplier": 0.25,
    "embedding_multiplier": 1.0,
    "residual_multiplier": 1.0,
}

_FULL, _SLIDING = "full_attention", "sliding_attention"
_MIXED = [_SLIDING, _FULL, _SLIDING, _FULL]
_GPT = {"n_embd": 64, "n_head": 4, "n_layer": _NUM_LAYERS, "n_positions": 512, "n_ctx": 512, "n_inner": 64}
_YARN = {
    "beta_fast": 32,
    "beta_slow": 1,
    "factor": 40,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    "original_max_position_embeddings": 64,
    "type": "yarn",
}
_DYNAMIC = {"alpha": 1000.0, "factor": 1.0, "type": "dynamic", "beta_fast": 32, "beta_slow": 1}
_BAILING = {"layer_group_size": 2, "group_norm_size": 1, "num_key_value_heads": 4}
_LONGCAT = {
    "attention_method": "MLA",
    "zero_expert_type": "identity",
    "ffn_hidden_size": 64,
    "moe_topk": 2,
    "expert_ffn_hidden_size": 32,
    "zero_expert_num": 2,
    "num_layers": 2,
    "mla_scale_q_lora": True,
    "mla_scale_kv_lora": True,
}
_LFM2 = {
    "layer_types": ["conv", _FULL, "conv", _FULL],
    "block_dim": 64,
    "block_ff_dim": 64,
    "block_multiple_of": 4,
    "block_ffn_dim_multiplier": 1.0,
    "block_auto_adjust_ff_dim": True,
    "num_dense_layers": 1,
    "use_expert_bias": True,
}
_KIMI_LINEAR = {
    "linear_attn_config": {
        "num_heads": 4,
        "head_dim": 16,
        "kda_layers": [1, 3],
        "full_attn_layers": [2, 4],
        "short_conv_kernel_size": 4,
        "gate_lower_bound": -5.0,
    },
    "model_max_length": 1024,
    "num_experts_per_token": 2,
}
_GEMMA3N = {
    "vocab_size_per_layer_input": VOCABULARY_SIZE,
    "rope_local_base_freq": 100.0,
    "final_logit_softcapping": 30.0,
    "layer_types": _MIXED * 2,
    "num_hidden_layers": 8,
    "num_kv_shared_layers": 4,
    "activation_sparsity_pattern": [0.95, 0.95, *[0.0] * 6],
    "hidden_size_per_layer_input": 16,
    "altup_num_inputs": 4,
    "altup_coef_clip": 120.0,
    "altup_correct_scale": True,
    "altup_active_idx": 0,
    "laurel_rank": 8,
}
_GEMMA4 = {
    "layer_types": [_SLIDING, _FULL] * 3,
    "num_hidden_layers": 6,
    "num_kv_shared_layers": 2,
    "global_head_dim": 32,
    "vocab_size_per_layer_input": VOCABULARY_SIZE,
    "hidden_size_per_layer_input": 16,
}
_ROPE_BY_LAYER = {
    _FULL: {"rope_type": "default", "rope_theta": 1e6},
    _SLIDING: {"rope_type": "default", "rope_theta": 1e4},
}
_QWEN35 = {"rope_parameters": {"type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}}
_EXPERTS_ONLY_IN_MOE = {"num_experts": 0}

CONFIGS: Mapping[str, dict[str, Any]] = {
    "Klear": {},
    "afm7": {"hidden_dim": 64, "num_layers": 4, "num_kv_reuse_layers": 2, "num_heads": 4, "num_kv_heads": 2},
    "afmoe": {"layer_types": _MIXED},
    "apertus": {"post_norm": True, "qk_norm": True},
    "baichuan_m1": {"sliding_window_layers": [0, 2], "conv_window": 2},
    "bailing_hybrid": _BAILING,
    "bailing_moe": {},
    "bailing_moe_linear": _BAILING,
    "bailing_moe_v3": {"layer_group_size": 2, "moe_shared_expert_intermediate_size": 32},
    "cohere": {},
    "cohere2": {"sliding_window_pattern": 2},
    "dbrx": {
        "d_model": 64,
        "ffn_config": {"ffn_hidden_size": 32, "moe_num_experts": 4, "moe_top_k": 2},
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 10000},
        "n_layers": 4,
        "n_heads": 4,
    },
    "deepseek": {"first_k_dense_replace": 1},
    "deepseek_v2": {"rope_scaling": _YARN},
    "deepseek_v3": {"rope_scaling": _YARN, "n_group": 2},
    "deepseek_v32": {"rope_scaling": _YARN, "n_group": 2},
    "deepseek_v41": {
        "head_dim": 32,
        "o_groups": 2,
        "o_lora_rank": 16,
        "compress_ratios": (0, 4, 4, 0),
        "kv_source_layer_ids": (1,),
        "index_source_layer_ids": (1,),
        "index_topk": 8,
        "rope_scaling": _YARN,
        "rms_norm_eps": 1e-6,
    },
    "dots1": {"scoring_func": "noaux_tc"},
    "ernie4_5": {},
    "ernie4_5_moe": {"moe_num_experts": 4, "moe_k": 2, "moe_num_shared_experts": 1, "moe_intermediate_size": 32},
    "exaone": {"num_layers": 4},
    "exaone4": {"sliding_window_pattern": "LLLG"},
    "exaone_moe": {"layer_types": _MIXED, "is_moe_layer": [False, True, True, True]},
    "falcon_h1": {
        "mamba_d_ssm": 64,
        "mamba_d_head": 16,
        "mamba_n_heads": 4,
        "mamba_chunk_size": 16,
        "lm_head_multiplier": 1.0,
    },
    "gear": {"layer_types": ["conv_mixer", _SLIDING, "conv_mixer", _FULL]},
    "gemma": {},
    "gemma2": {},
    "gemma3": {"text_config": {"sliding_window_pattern": 2, "query_pre_attn_scalar": 16}},
    "gemma3_text": {"sliding_window_pattern": 2, "query_pre_attn_scalar": 16},
    "gemma3n": {"text_config": _GEMMA3N},
    "gemma4": {"text_config": _GEMMA4},
    "gemma4_text": _GEMMA4,
    "glm": {},
    "glm4": {},
    "glm4_moe": {},
    "glm4_moe_lite": {},
    "glm_moe_dsa": {
        "rope_parameters": {"rope_theta": 1e4, "rope_type": "default"},
        "topk_method": "noaux_tc",
        "scoring_func": "sigmoid",
        "moe_layer_freq": 1,
    },
    "gpt2": _GPT,
    "gpt_bigcode": _GPT,
    "gpt_neox": {"rotary_emb_base": 10000, "rotary_pct": 0.5},
    "gpt_oss": {"layer_types": _MIXED},
    "gptj": {**_GPT, "rotary_dim": 8},
    "granite": {},
    "granitemoe": {},
    "granitemoehybrid": {
        "layer_types": ["mamba", "attention", "mamba", "attention"],
        "mamba_n_heads": 4,
        "mamba_d_head": 16,
        "mamba_proj_bias": False,
        "mamba_n_groups": 1,
        "mamba_conv_bias": True,
    },
    "helium": {},
    "hunyuan": {
        "moe_topk": 2,
        "num_shared_expert": 1,
        "use_mixed_mlp_moe": True,
        "use_cla": True,
        "cla_share_factor": 2,
        "rope_scaling": _DYNAMIC,
    },
    "hunyuan_v1_dense": {"rope_scaling": _DYNAMIC},
    "internlm2": {},
    "internlm3": {},
    "iquestloopcoder": {"loop_num": 2, "loop_window_size": _WINDOW, "num_hidden_layers": 2},
    "jamba": {
        "attn_layer_offset": 1,
        "attn_layer_period": 2,
        "expert_layer_offset": 1,
        "expert_layer_period": 2,
        "mamba_expand": 2,
    },
    "kimi_k25": {"text_config": {"rope_scaling": _YARN, "n_group": 2}},
    "kimi_k3": {
        "text_config": {
            **_KIMI_LINEAR,
            "activation_situ_beta": 1.0,
            "activation_situ_linear_beta": 1.0,
            "attn_res_block_size": 2,
            "routed_expert_hidden_size": 32,
        }
    },
    "kimi_linear": _KIMI_LINEAR,
    "kimi_vl": {"text_config": {"n_group": 2}},
    "laguna": {"layer_types": _MIXED, "rope_parameters": _ROPE_BY_LAYER},
    "lfm2": _LFM2,
    "lfm2-vl": {"text_config": {**_LFM2, "model_type": "lfm2"}},
    "lfm2_moe": _LFM2,
    "lille-130m": {"block_size": 512, "n_layer": 4, "n_head": 4, "n_kv_heads": 2, "n_embd": 64},
    "llama": {"layer_types": _MIXED},
    "llama4": {
        "text_config": {
            "attention_chunk_size": 16,
            "interleave_moe_layer_step": 2,
            "intermediate_size_mlp": 64,
            "num_experts_per_tok": 1,
        }
    },
    "llama4_text": {"intermediate_size_mlp": 64, "no_rope_layers": [1, 1, 0, 1]},
    "longcat_flash": _LONGCAT,
    "longcat_flash_ngram": {**_LONGCAT, "ngram_vocab_size_ratio": 3},
    "mamba": {"intermediate_size": 128, "time_step_rank": 8},
    "mamba2": {
        "num_heads": 8,
        "intermediate_size": 128,
        "n_groups": 2,
        "time_step_limit": (0.01, 10.0),
        "time_step_rank": "auto",
    },
    "mellum": {"layer_types": _MIXED, "rope_parameters": _ROPE_BY_LAYER},
    "mimo": {},
    "mimo_v2_flash": {
        "hybrid_layer_pattern": [0, 1, 0, 1],
        "moe_layer_freq": [0, 1, 1, 1],
        "add_swa_attention_sink_bias": True,
        "add_full_attention_sink_bias": False,
        "sliding_window_size": _WINDOW,
        "topk_method": "noaux_tc",
        "scoring_func": "sigmoid",
        "swa_rope_theta": 1000.0,
        "swa_num_attention_heads": 4,
        "swa_num_key_value_heads": 2,
        "v_head_dim": 8,
        "swa_head_dim": 16,
        "swa_v_head_dim": 8,
    },
    "minicpm": {"dim_model_base": 64, "scale_depth": 1.4, "scale_emb": 1.0},
    "minicpm3": {
        "dim_model_base": 64,
        "scale_depth": 1.4,
        "scale_emb": 1.0,
        "rope_scaling": {"original_max_position_embeddings": 64, "short_factor": [1.0] * 4, "long_factor": [1.1] * 4},
    },
    "minimax": {"rotary_dim": 8},
    "minimax_m3_vl": {
        "text_config": {
            "dense_intermediate_size": 64,
            "moe_layer_freq": [0, 1, 1, 1],
            "sparse_attention_config": {
                "sparse_num_index_heads": 2,
                "sparse_index_dim": 16,
                "sparse_block_size": 8,
                "sparse_topk_blocks": 3,
                "sparse_local_block": 1,
                "sparse_attention_freq": [0, 1, 0, 1],
            },
        }
    },
    "ministral3": {
        "layer_types": _MIXED,
        "rope_parameters": {
            "rope_theta": 1e4,
            "type": "default",
            "llama_4_scaling_beta": 0.1,
            "original_max_position_embeddings": 32,
        },
    },
    "mistral3": {"text_config": {"model_type": "llama"}},
    "mistral4": {
        "rope_parameters": {
            "rope_theta": 1e4,
            "type": "default",
            "llama_4_scaling_beta": 0.1,
            "original_max_position_embeddings": 32,
        }
    },
    "mixtral": {},
    "muse_glimmer": {"output_multiplier": 1.0},
    "nanbeige": {"num_loops": 2},
    "nanochat": {"num_key_value_heads": 2},
    "nemotron": {"hidden_act": "relu2"},
    "nemotron-nas": {
        "block_configs": [
            {
                "attention": {"n_heads_in_group": 2, "no_op": False, "replace_with_linear": False},
                "ffn": {"ffn_mult": 1.0, "no_op": False, "replace_with_linear": False},
            },
            {
                "attention": {"n_heads_in_group": None, "no_op": True, "replace_with_linear": False},
                "ffn": {"ffn_mult": 1.0, "no_op": False, "replace_with_linear": False},
            },
            {
                "attention": {"n_heads_in_group": None, "no_op": False, "replace_with_linear": True},
                "ffn": {"ffn_mult": None, "no_op": True, "replace_with_linear": False},
            },
            {
                "attention": {"n_heads_in_group": 4, "no_op": False, "replace_with_linear": False},
                "ffn": {"ffn_mult": None, "no_op": False, "replace_with_linear": True},
            },
        ],
    },
    "nemotron_h": {
        "mamba_num_heads": 4,
        "mamba_head_dim": 16,
        "mamba_proj_bias": False,
        "ssm_state_size": 16,
        "n_groups": 2,
        "hybrid_override_pattern": ["M", "*", "-", "M", "E", "*"],
        "num_hidden_layers": 6,
        "moe_shared_expert_intermediate_size": 32,
        "time_step_limit": (0.01, 10.0),
    },
    "olmo2": {},
    "olmo3": {"layer_types": _MIXED},
    "olmo_hybrid": {"layer_types": ["linear_attention", _FULL] * 2},
    "olmoe": {},
    "openelm": {
        "num_transformer_layers": 4,
        "model_dim": 64,
        "ffn_dim_divisor": 16,
        "num_query_heads": [4, 4, 8, 8],
        "num_kv_heads": [2, 2, 4, 4],
        "ffn_multipliers": [1.0, 1.5, 2.0, 2.5],
    },
    "phi": {},
    "phi3": {},
    "phi3small": {
        # It writes to the logits of tokens 100256 to 100351, whatever the vocabulary: a smaller one is overrun.
        "vocab_size": 100352,
        "ff_intermediate_size": 64,
        "dense_attention_every_n_layers": 2,
        "gegelu_limit": 20.0,
        "blocksparse_block_size": 32,
        "blocksparse_num_local_blocks": 1,
        "blocksparse_vert_stride": 2,
    },
    "phimoe": {
        "rope_scaling": {
            "long_factor": [1.0] * 8,
            "short_factor": [1.0] * 8,
            "long_mscale": 1.2,
            "short_mscale": 1.2,
            "original_max_position_embeddings": 64,
            "type": "longrope",
        }
    },
    "phixtral": {
        "num_vocab": VOCABULARY_SIZE,
        "model_dim": 64,
        "num_heads": 4,
        "num_layers": 4,
        "rotary_dim": 8,
    },
    "pixtral": {"text_config": {"model_type": "llama"}},
    "plamo": {"n_shared_head": 2},
    "plamo2": {
        "hidden_size_per_head": 16,
        "attention_window_size": _WINDOW,
        "full_attention_idx": [1],
        "mamba_num_heads": 4,
        "mamba_step": 2,
        "mamba_chunk_size": 16,
    },
    "plamo3": {"window_size": _WINDOW, "sliding_window": None, "sliding_window_pattern": 2},
    "qwen": {"kv_channels": 16},
    "qwen2": {},
    "qwen2_moe": {},
    "qwen2_vl": {"text_config": {"model_type": "qwen2"}},
    "qwen3": {},
    "qwen3_5": {"text_config": {**_QWEN35, **_EXPERTS_ONLY_IN_MOE}},
    "qwen3_5_moe": {"text_config": _QWEN35},
    "qwen3_moe": {},
    "qwen3_next": {},
    "qwen3_vl": {"text_config": {"model_type": "qwen3"}},
    "qwen3_vl_moe": {"text_config": {"model_type": "qwen3_moe"}},
    "recurrent_gemma": {
        "conv1d_width": 4,
        "logits_soft_cap": 30.0,
        "attention_window_size": _WINDOW,
        "block_types": ["recurrent", "recurrent", "attention"],
        "num_hidden_layers": 6,
        "num_key_value_heads": 1,
    },
    "rwkv7": {"a_low_rank_dim": 8, "v_low_rank_dim": 8, "gate_low_rank_dim": 8, "decay_low_rank_dim": 8},
    "seed_oss": {},
    "smollm3": {"no_rope_layer_interval": 2},
    "solar_open": {},
    "spark2_5": {"layer_types": _MIXED, "rope_parameters": _ROPE_BY_LAYER},
    "stablelm": {"use_qkv_bias": True},
    "starcoder2": {},
    "step3p5": {
        "num_attention_groups": 2,
        "layer_types": _MIXED,
        "moe_num_experts": 4,
        "moe_top_k": 2,
        "share_expert_dim": 32,
        "attention_other_setting": {"num_attention_heads": 8, "num_attention_groups": 2, "head_dim": 16},
    },
    "talkie": {},
    "telechat3": {},
    "youtu_llm": {},
}


class NotBuilt(Exception):
    """A model type that cannot be built or run here, and why."""


def model_types() -> list[str]:
    """Every model type of the installed mlx-lm: its modules that define a model and its arguments."""
    names = sorted(module.name for module in pkgutil.iter_modules(mlx_lm.models.__path__))
    return [name for name in names if name in _NOT_RUN or _defines_model(_module(name))]


def build(model_type: str, **changed: object) -> nn.Module:
    """A model of `model_type` with random float32 weights, always the same ones. Raises `NotBuilt`.

    `changed` are fields of its configuration with other values.
    """
    if model_type in _NOT_RUN:
        raise NotBuilt(_NOT_RUN[model_type])
    if model_type not in CONFIGS:
        raise NotBuilt("no configuration for it is known here")
    mx.random.seed(_SEED)
    module = _module(model_type)
    model: nn.Module = module.Model(module.ModelArgs.from_dict({**config_of(model_type), **changed}))
    _randomize(model)
    model.eval()
    return model


def config_of(model_type: str) -> dict[str, Any]:
    """The whole configuration of `model_type`, as its config.json would have it."""
    own = CONFIGS[model_type]
    config = {"model_type": model_type, **_SIZES, **own}
    if "text_config" in own:
        config["text_config"] = {"model_type": model_type, **_SIZES, **own["text_config"]}
    return config


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"mlx_lm.models.{name}")


def _defines_model(module: ModuleType) -> bool:
    return hasattr(module, "Model") and hasattr(module, "ModelArgs")


def _randomize(model: nn.Module) -> None:
    embeddings = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.Embedding)}
    parameters: list[tuple[str, mx.array]] = tree_flatten(model.parameters())  # type: ignore[assignment]
    model.update(tree_unflatten([(name, _drawn(name, value, name in embeddings)) for name, value in parameters]))
    mx.eval(model.parameters())


def _drawn(name: str, value: mx.array, is_embedding: bool) -> mx.array:
    """A new value for a parameter: matrices anew, everything else moved a little away from where the class put it."""
    if not mx.issubdtype(value.dtype, mx.floating):
        return value
    noise = mx.random.normal(value.shape)
    if value.ndim < 2 or not name.endswith("weight"):
        return value.astype(mx.float32) + noise * (1.0 if name.endswith("sinks") else 0.2)
    if is_embedding:
        return noise * _EMBEDDING_SPREAD
    is_convolution = "conv" in name and value.ndim == 3
    fan_in = math.prod(value.shape[1:]) if is_convolution else value.shape[-1]
    return noise * (_SPREAD / math.sqrt(fan_in))
