"""The chat templates under tests/data/templates, each on a tokenizer of its own that knows its markers."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_lm.tokenizer_utils import BPEStreamingDetokenizer, TokenizerWrapper, _infer_tool_parser
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from mlx_manager.models.style import ModelStyle

FOLDER = Path(__file__).parents[1] / "data" / "templates"


@dataclass(frozen=True)
class Told:
    """What has to be found out about the model a template belongs to."""

    model_type: str
    family: str
    tools: str
    """The name of the tool-call format."""
    reasoning: str = ""
    """Its begin marker; "" for a model that does not think."""
    fixes: str = ""
    """What its template refuses or leaves out: words of `docs/families.md`."""
    library: str | None = None
    """The parser that mlx-lm infers."""


_V11 = "Mistral since v11, Devstral, Magistral, Ministral 3"
TOLD: dict[str, Told] = {
    "command-r7b": Told("cohere2", "Command-R7B, Command A", "command-r", "<|START_THINKING|>"),
    "deepseek-r1-distill": Told("qwen2", "DeepSeek R1 distilled", "hermes", "<think>", "late tools"),
    "deepseek-v3": Told("deepseek_v3", "DeepSeek R1, V3", "deepseek-r1", "", "tools"),
    "deepseek-v3.1": Told("deepseek_v3", "DeepSeek V3.1", "deepseek-v3.1", "<think>", "tools"),
    "deepseek-v3.2": Told("deepseek_v32", "DeepSeek V3.2", "deepseek-v3.2", "<think>"),
    "deepseek-v4": Told("deepseek_v4", "DeepSeek V4", "deepseek-v4", "<think>"),
    "devstral": Told(
        "mistral", "Mistral since v11, Devstral, Magistral, Ministral 3", "mistral-args", "", "", "mistral"
    ),
    "function-gemma": Told("gemma3_text", "FunctionGemma", "function-gemma", "", "lone result names", "function_gemma"),
    "gemma-2": Told("gemma2", "Gemma 1 to 3, 3n", "hermes", "", "system late turns begin tools"),
    "gemma-3": Told("gemma3_text", "Gemma 1 to 3, 3n", "hermes", "", "late alone turns begin tools"),
    "gemma-4": Told("gemma4", "Gemma 4", "gemma4", "<|channel>thought", "lone", "gemma4"),
    "glm-4.6": Told("glm4_moe", "GLM-4.5 and later", "glm", "<think>", "", "glm47"),
    "glm-4.7": Told("glm4_moe_lite", "GLM-4.5 and later", "glm", "<think>", "", "glm47"),
    "gpt-oss": Told("gpt_oss", "gpt-oss", "harmony", "<|channel|>analysis", "late one call lone"),
    "granite-3.3": Told("granite", "Granite 3", "granite", "<think>", "calls"),
    "granite-4": Told("granitemoehybrid", "Granite 4", "hermes", "", "", "json_tools"),
    "hermes-3": Told("llama", "Hermes", "hermes"),
    "kimi-k2": Told("kimi_k2", "Kimi K2", "kimi-k2", "", "calls", "kimi_k2"),
    "lfm2": Told("lfm2", "LFM2", "lfm2", "", "calls", "pythonic"),
    "llama-2": Told("llama", "Llama 2, 3, CodeLlama", "hermes", "", "late alone turns begin tools"),
    "llama-3.1": Told("llama", "Llama 3.1 to 3.3", "llama3", "", "alone one call"),
    "llama-4": Told("llama4_text", "Llama 4", "llama4"),
    "longcat": Told("longcat_flash", "LongCat", "longcat", "<longcat_think>", "", "longcat"),
    "minimax-m1": Told("minimax", "MiniMax M1", "minimax-m1", "", "late"),
    "minimax-m2": Told("minimax_m2", "MiniMax M2", "minimax-m2", "<think>", "late", "minimax_m2"),
    "ministral-3": Told(
        "ministral3",
        _V11,
        "mistral-args",
        "[THINK]",
        "late turns begin answer",
        "mistral",
    ),
    "mistral-nemo": Told(
        "mistral",
        "Mistral 7B, Mixtral, Nemo, Small",
        "mistral-list",
        "",
        "late alone hidden turns begin answer short ids",
        "mistral",
    ),
    "mistral-small-3.2": Told(
        "mistral3",
        _V11,
        "mistral-args",
        "",
        "late turns begin answer short ids",
        "mistral",
    ),
    "nemotron-3": Told("nemotron_h", "Nemotron 3", "qwen3-coder", "<think>", "", "qwen3_coder"),
    "nemotron-nano-2": Told("nemotron_h", "Nemotron", "nemotron", "<think>", "late"),
    "phi-3.5": Told("phi3", "Phi", "hermes", "", "tools"),
    "phi-4-mini": Told("phi3", "Phi-4-mini", "phi4-mini", "", "calls"),
    "qwen2.5": Told("qwen2", "Qwen 2, 2.5, 3, VL, QwQ", "hermes", "", "", "json_tools"),
    "qwen3": Told("qwen3", "Qwen 2, 2.5, 3, VL, QwQ", "hermes", "<think>", "", "json_tools"),
    "qwen3-coder": Told("qwen3_moe", "Qwen3-Coder, Qwen3.5", "qwen3-coder", "", "", "qwen3_coder"),
    "qwen3.5": Told("qwen3_5", "Qwen3-Coder, Qwen3.5", "qwen3-coder", "<think>", "late alone", "qwen3_coder"),
    "qwq": Told("qwen2", "Qwen 2, 2.5, 3, VL, QwQ", "hermes", "<think>", "", "json_tools"),
    "seed-oss": Told("seed_oss", "Seed-OSS", "seed-oss", "<seed:think>"),
    "smollm3": Told("smollm3", "SmolLM", "hermes", "<think>", "late tools"),
}
"""By template. Fixes: see `fixes_of`."""


def tokenizer_of(template: str, markers: tuple[str, ...] = ()) -> TokenizerWrapper:
    """A tokenizer of the 256 bytes with `template`, wrapped as mlx-lm's `load` does it; `markers` are tokens of it."""
    vocabulary = {token: index for index, token in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
    tokenizer.add_tokens(
        [AddedToken(marker, special=True, normalized=False) for marker in markers], special_tokens=True
    )
    tokenizer.chat_template = template
    parser = _infer_tool_parser(tokenizer)
    if parser is None:
        return TokenizerWrapper(tokenizer, BPEStreamingDetokenizer)
    module = importlib.import_module(f"mlx_lm.tool_parsers.{parser}")
    return TokenizerWrapper(
        tokenizer,
        BPEStreamingDetokenizer,
        tool_parser=module.parse_tool_call,
        tool_call_start=module.tool_call_start,
        tool_call_end=module.tool_call_end,
    )


def template_of(name: str) -> str:
    return (FOLDER / f"{name}.jinja").read_text(encoding="utf-8")


def style_of(name: str) -> ModelStyle:
    """The style of the model that the template `name` belongs to."""
    return ModelStyle.of(tokenizer_of(template_of(name)), TOLD[name].model_type)


def fixes_of(style: ModelStyle) -> str:
    """What the template refuses or leaves out, in words of one or two syllables, in this order.

    system: refuses one; late: refuses one in the middle; alone: refuses or loses one with nothing behind it; hidden:
    loses one when a result comes last; turns: wants them to alternate; begin: wants the user to; answer: wants one
    behind results; tools: shows none; calls: shows none of the assistant's; one call: shows one of a message; lone:
    loses results without a call; short ids, text arguments, result names: wants them.
    """
    traits = style.template.traits
    form: Any = traits.calls
    told = {
        "system": not traits.takes_system,
        "late": not traits.takes_late_system,
        "alone": not traits.takes_system_alone,
        "hidden": not traits.keeps_system_behind_results,
        "turns": not traits.takes_turns_in_a_row,
        "begin": not traits.takes_assistant_first,
        "answer": not traits.takes_user_behind_results,
        "tools": not traits.shows_tools,
        "calls": traits.shows_tools and form is None,
        "one call": form is not None and not traits.shows_several_calls,
        "lone": not traits.shows_lone_results,
        "short ids": form is not None and form.has_short_ids,
        "text arguments": form is not None and form.has_text_arguments,
        "result names": form is not None and form.has_named_results,
    }
    return " ".join(word for word, is_so in told.items() if is_so)
