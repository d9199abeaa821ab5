"""How long a text a model takes, told from its config: the same answer for the hub, the fit check and the worker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_FIELDS = (
    # Learned positions come first: what lies behind their table must never be read.
    "n_positions",
    "max_position_embeddings",
    "max_sequence_length",
    "max_seq_len",
    "max_context_length",
    "seq_length",
    "model_max_length",
    "n_ctx",
)
"""What configs call the longest context, in the order in which they are believed."""
_MOST_TOKENS = 2**40
"""A config that promises a longer context than this is damaged, or means harm."""
_FALLBACK = 4096
"""Where neither the config nor its class says anything."""
_RECURRENT = frozenset({"falcon_mamba", "mamba", "mamba2", "rwkv7"})
"""Model types that keep a state and nothing else: no length is too long for them."""
_RECURRENT_CONTEXT = 2**20
"""What they are served with: as long as the longest that other models promise."""
_DEFAULTS = {
    name: context
    for context, names in {
        1024: "gpt2 gpt_bigcode",
        2048: "bitnet dbrx deepseek deepseek_v2 dots1 exaone4 exaone_moe gpt_neox gptj granite granitemoe "
        "granitemoehybrid hunyuan_v1_dense joyai_llm_flash kimi_k2 llama llava nanochat olmo olmo2 olmo3 phi plamo2 "
        "plamo3 talkie",
        4096: "deepseek_v3 helium kimi_k25 nemotron nemotron_h olmoe phi3 stablelm starcoder2",
        8192: "cohere cohere2 falcon_h1 gemma gemma2 qwen spark2_5",
        16384: "afmoe",
        32768: "gemma3n gemma3n_text internlm2 internlm3 mimo minicpm3 qwen2 qwen2_5_vl qwen2_5_vl_text qwen2_moe "
        "qwen2_vl qwen2_vl_text qwen3 qwen3_5 qwen3_5_moe qwen3_5_moe_text qwen3_5_text qwen3_moe qwen3_next smollm3",
        65536: "apertus olmo_hybrid",
        128000: "lfm2 lfm2_moe qwen3_vl qwen3_vl_moe qwen3_vl_moe_text qwen3_vl_text step3p5",
        131072: "bailing_moe_v3 ernie4_5 ernie4_5_moe gemma3 gemma3_text gemma4 gemma4_text glm glm4 glm4_moe gpt_oss "
        "iquestcoder iquestloopcoder laguna llama4 llama4_text longcat_flash mellum mimo_v2_flash minimax mistral "
        "mistral3 mixtral muse_glimmer muse_glimmer_text nemotron-nas phimoe solar_open youtu_llm",
        163840: "deepseek_v32",
        196608: "minimax_m2",
        202752: "glm4_moe_lite glm_moe_dsa",
        262144: "bailing_hybrid gemma4_unified gemma4_unified_text jamba ministral3",
        524288: "minimax_m3_vl minimax_m3_vl_text seed_oss",
        1048576: "deepseek_v41 deepseek_v41_text kimi_linear mistral4 muse_spark muse_spark_text",
    }.items()
    for name in names.split()
}
"""By model type, what its class in transformers has (for those it lacks, in mlx-lm): transformers leaves out of a
config.json what is as in the class, as in that of Gemma 3 4B."""


def find_context(config: Mapping[str, Any]) -> int | None:
    """The longest context the config promises, in tokens; None where neither it nor its class says anything."""
    return _written_context(config) or _default_context(config)


def served_context(config: Mapping[str, Any], max_context: int | None) -> int:
    """The longest context that is served, in tokens.

    `max_context`, the setting, lowers what the config names, and is taken as it is where it names none.
    """
    written = _written_context(config)
    if max_context:
        return min(written, max_context) if written else max_context
    return written or _default_context(config) or _FALLBACK


def _written_context(config: Mapping[str, Any]) -> int | None:
    if _types(config) & _RECURRENT:
        return None
    nested = config.get("text_config")
    for part in (nested, config):
        if not isinstance(part, Mapping):
            continue
        for field in _FIELDS:
            value = part.get(field)
            if isinstance(value, int) and 0 < value < _MOST_TOKENS:
                return int(value)
    return None


def _default_context(config: Mapping[str, Any]) -> int | None:
    types = _types(config)
    if types & _RECURRENT:
        return _RECURRENT_CONTEXT
    nested = config.get("text_config")
    own = nested.get("model_type") if isinstance(nested, Mapping) else None
    return _DEFAULTS.get(str(own)) or _DEFAULTS.get(str(config.get("model_type")))


def _types(config: Mapping[str, Any]) -> frozenset[str]:
    nested = config.get("text_config")
    parts = (config, nested) if isinstance(nested, Mapping) else (config,)
    return frozenset(str(part.get("model_type")) for part in parts)
