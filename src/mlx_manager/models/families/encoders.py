"""The text encoders that mlx-embeddings has: how each hands out its hidden states, and what its checkpoints look like.

The pooling that the library's model classes do on their own is not used: `models.pooling` does what the files say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

HiddenStates = Callable[[Any, mx.array, mx.array, mx.array | None], mx.array]
"""(model, token ids [B, L], mask [B, L] of ones and zeros in the model's type, segments [B, L] or None) → [B, L, D].

Rows are padded on the right; what is returned at padded places has no meaning."""


@dataclass(frozen=True)
class EncoderFamily:
    """What is particular to one architecture."""

    module: str
    """In mlx_embeddings.models."""
    hidden_states: HiddenStates
    default_pooling: str
    """Where no file says: what the library itself does."""
    prefix: str = ""
    """What checkpoints with a head put before the names of the encoder's weights."""
    has_segments: bool = False
    """Whether the two texts of a pair are told apart by segment ids."""
    counts_positions_past_padding: bool = False
    """Whether positions begin after the id of the padding token: the table of positions holds that many fewer."""
    overflows_float16: bool = False
    """Whether the library's masks are beyond the range of float16, which makes padded rows NaN and those the others."""
    hidden_acts: tuple[str, ...] = ()
    """The only activations that the library's class computes; () where it reads the config."""


def _bert(model: Any, token_ids: mx.array, mask: mx.array, segments: mx.array | None) -> mx.array:
    hidden: mx.array = model(token_ids, token_type_ids=segments, attention_mask=mask).last_hidden_state
    return hidden


def _roberta(model: Any, token_ids: mx.array, mask: mx.array, segments: mx.array | None) -> mx.array:
    hidden: mx.array = model(token_ids, attention_mask=mask).last_hidden_state
    return hidden


def _modernbert(model: Any, token_ids: mx.array, mask: mx.array, segments: mx.array | None) -> mx.array:
    hidden: mx.array = model.model(token_ids, attention_mask=mask)["last_hidden_state"]
    return hidden


def _causal(model: Any, token_ids: mx.array, mask: mx.array, segments: mx.array | None) -> mx.array:
    hidden: mx.array = model.model(token_ids, attention_mask=mask)
    return hidden


def _bidirectional(model: Any, token_ids: mx.array, mask: mx.array, segments: mx.array | None) -> mx.array:
    hidden: mx.array = model.model(token_ids, _additive(mask[:, None, None, :] == 1, mask.dtype))
    return hidden


def _gemma3(model: Any, token_ids: mx.array, mask: mx.array, segments: mx.array | None) -> mx.array:
    """The library lets every layer see everything; the local ones see `sliding_window` tokens around each.

    That window is symmetric: half of it, and the token itself, to either side (transformers' `Gemma3TextConfig`).
    """
    encoder, config = model.model, model.config
    is_real = mask[:, None, None, :] == 1
    everywhere = _additive(is_real, mask.dtype)
    places = mx.arange(token_ids.shape[1])
    is_near = mx.abs(places[:, None] - places[None]) <= config.sliding_window // 2
    # padded rows near no real token would have nothing to look at, and turn into NaN
    nearby = _additive((is_real & is_near) | mx.eye(len(places), dtype=mx.bool_), mask.dtype)
    hidden: mx.array = encoder.embed_tokens(token_ids)
    hidden = hidden * mx.array(config.hidden_size**0.5, mask.dtype)
    for layer in encoder.layers:
        hidden = layer(hidden, nearby if layer.self_attn.is_sliding else everywhere, None)
    normed: mx.array = encoder.norm(hidden)
    return normed


def _additive(is_seen: mx.array, dtype: mx.Dtype) -> mx.array:
    return mx.where(is_seen, 0.0, -mx.inf).astype(dtype)


_ROBERTA = EncoderFamily(
    "xlm_roberta",
    _roberta,
    "mean",
    prefix="roberta.",
    counts_positions_past_padding=True,
    hidden_acts=("gelu",),
)

_FAMILIES: dict[str, EncoderFamily] = {
    "bert": EncoderFamily("bert", _bert, "mean", prefix="bert.", has_segments=True, hidden_acts=("gelu",)),
    "xlm-roberta": _ROBERTA,
    # the same architecture with another vocabulary
    "roberta": _ROBERTA,
    "modernbert": EncoderFamily("modernbert", _modernbert, "mean", overflows_float16=True),
    "qwen3": EncoderFamily("qwen3", _causal, "lasttoken", hidden_acts=("silu",)),
    "gemma3_text": EncoderFamily("gemma3_text", _gemma3, "mean"),
    "llama_bidirec": EncoderFamily("llama_bidirec", _bidirectional, "mean"),
}
"""By `model_type` of the config."""


def encoder_families() -> tuple[str, ...]:
    """The architectures that can be served."""
    return tuple(_FAMILIES)


def find_encoder(model_type: str) -> EncoderFamily | None:
    """The family of that `model_type`; None where mlx-embeddings has no text encoder of it."""
    return _FAMILIES.get(model_type.replace("xlm_roberta", "xlm-roberta"))


def encoder_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config as the library's classes read it: rotary bases taken out of the `rope_parameters` of newer files."""
    adapted = dict(config)
    rotary = config.get("rope_parameters")
    if not isinstance(rotary, dict):
        return adapted
    layers = {"full_attention": rotary} | {kind: value for kind, value in rotary.items() if isinstance(value, dict)}
    full, local = layers["full_attention"].get("rope_theta"), layers.get("sliding_attention", {}).get("rope_theta")
    for name, base in (
        ("rope_theta", full),
        ("global_rope_theta", full),
        ("rope_local_base_freq", local),
        ("local_rope_theta", local),
    ):
        if base is not None:
            adapted.setdefault(name, base)
    return adapted


@dataclass(frozen=True)
class RankingPrompt:
    """How a language model is asked whether a document answers a query; its answer is one of two tokens."""

    prefix: str
    body: str
    """With {instruction}, {query} and {document}."""
    suffix: str
    default_instruction: str
    yes: str = "yes"
    no: str = "no"


_QWEN3_RANKING = RankingPrompt(
    # as the model card of Qwen3-Reranker-0.6B writes it
    prefix=(
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
        'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
    ),
    body="<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}",
    suffix="<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
    default_instruction="Given a web search query, retrieve relevant passages that answer the query",
)


def ranking_prompt(model_type: str) -> RankingPrompt | None:
    """How a language model of that `model_type` is asked to rank; None where no such reranker is known."""
    return _QWEN3_RANKING if model_type == "qwen3" else None
