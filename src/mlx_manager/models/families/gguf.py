"""The model families whose GGUF files can be imported, as data: tensors, config, what the converter changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

_ATTENTION = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
}
_MLP = {"ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
_GEMMA_TEMPLATE = """{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- set prefix = messages[0]['content'] + '\\n\\n' -%}
    {%- set turns = messages[1:] -%}
{%- else -%}
    {%- set prefix = '' -%}
    {%- set turns = messages -%}
{%- endif -%}
{%- for message in turns -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
    {%- endif -%}
    {{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\\n' -}}
    {{ (prefix if loop.first else '') + message['content'] | trim + '<end_of_turn>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<start_of_turn>model\\n' }}{%- endif -%}
"""


@dataclass(frozen=True, kw_only=True)
class GgufFamily:
    """One architecture of GGUF files."""

    layer: Mapping[str, str]
    """mlx-lm's name of each part of a layer, by GGUF's."""
    config: Mapping[str, object]
    """The fields of config.json that are the same for all of its models."""
    sized: Mapping[str, tuple[str, float]] = field(default_factory=dict)
    """Further fields of config.json: the key of the metadata that has each, and its value where that says nothing."""
    is_rotary_permuted: bool = False
    """The converter has put the rows of q and k in the order of llama.cpp's rotary positions."""
    norm_offset: float = 0.0
    """What the converter has added to the weights of norms."""
    has_head_scalar: bool = False
    """config.json names what attention scores are scaled by."""
    no_effect: Mapping[str, tuple[object, ...]] = field(default_factory=dict)
    """Keys that change what such a model computes, which is not served here, with the values at which they do not."""
    chat_template: str = ""
    """For files that hold none."""


GGUF_FAMILIES: Mapping[str, GgufFamily] = {
    "llama": GgufFamily(
        layer={"attn_norm": "input_layernorm", **_ATTENTION, "ffn_norm": "post_attention_layernorm", **_MLP},
        config={
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_act": "silu",
            "attention_bias": False,
            "mlp_bias": False,
        },
        is_rotary_permuted=True,
        no_effect={
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
        },
    ),
    "gemma3": GgufFamily(
        layer={
            "attn_norm": "input_layernorm",
            **_ATTENTION,
            "attn_q_norm": "self_attn.q_norm",
            "attn_k_norm": "self_attn.k_norm",
            "post_attention_norm": "post_attention_layernorm",
            "ffn_norm": "pre_feedforward_layernorm",
            **_MLP,
            "post_ffw_norm": "post_feedforward_layernorm",
        },
        config={
            "architectures": ["Gemma3ForCausalLM"],
            "model_type": "gemma3_text",
            "hidden_activation": "gelu_pytorch_tanh",
        },
        sized={
            "sliding_window": ("attention.sliding_window", 512),
            "sliding_window_pattern": ("attention.sliding_window_pattern", 6),
            "rope_local_base_freq": ("rope.freq_base_swa", 10000.0),
        },
        norm_offset=1.0,
        has_head_scalar=True,
        no_effect={
            "attn_logit_softcapping": (0.0,),
            "final_logit_softcapping": (0.0,),
            "attention.causal": (True,),
            "rope.scale_linear": (0.0, 1.0),
            "rope.scaling.attn_factor": (0.0, 1.0),
        },
        chat_template=_GEMMA_TEMPLATE,
    ),
}
"""By `general.architecture`."""
_SCALED_BY_WIDTH = {("gemma3", 62)}
"""Models, told by their number of layers, whose scores are scaled by hidden size / heads: Gemma 3 27B."""


def head_scalar(architecture: str, *, num_layers: int, hidden_size: int, num_heads: int, head_dim: int) -> int:
    """Scores are divided by its root. GGUF does not say; llama.cpp tells it in the same way."""
    return hidden_size // num_heads if (architecture, num_layers) in _SCALED_BY_WIDTH else head_dim
