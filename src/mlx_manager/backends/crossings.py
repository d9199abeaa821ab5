"""What becomes of the served parameters of every dialect at every kind of provider, as one table for the docs.

A test sends one request for each cell.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from mlx_manager.catalog import ProviderKind

REFUSED = "refused"
"""By name: the provider would answer as if it had not been sent."""


@dataclass(frozen=True)
class Crossing:
    """One row: the fields of the provider's request that the parameter is said in, `REFUSED`, or empty.

    Empty is what this server does itself, or what changes no answer. `label` is the parameter, and behind a colon which
    of its values is meant, where that matters.
    """

    label: str
    openai: str
    compatible: str
    anthropic: str

    def at(self, kind: ProviderKind) -> str:
        """The cell of one kind."""
        match kind:
            case ProviderKind.OPENAI:
                return self.openai
            case ProviderKind.COMPATIBLE:
                return self.compatible
            case ProviderKind.ANTHROPIC:
                return self.anthropic


_SAMPLING = (
    Crossing("temperature", "temperature", "temperature", "temperature"),
    Crossing("top_p", "top_p", "top_p", "top_p"),
    Crossing("top_k", REFUSED, "top_k", "top_k"),
    Crossing("min_p", REFUSED, "min_p", REFUSED),
    Crossing("seed", "seed", "seed", REFUSED),
    Crossing("repetition_penalty", REFUSED, "repetition_penalty", REFUSED),
    Crossing("presence_penalty", "presence_penalty", "presence_penalty", REFUSED),
    Crossing("frequency_penalty", "frequency_penalty", "frequency_penalty", REFUSED),
    Crossing("logit_bias", "logit_bias", "logit_bias", REFUSED),
    Crossing("stop", "stop", "stop", "stop_sequences"),
    Crossing("ignore_eos", REFUSED, "ignore_eos", REFUSED),
    Crossing("priority", "", "", ""),
    Crossing("stream", "", "", ""),
)
"""What chat and responses take alike."""

_OF_OPENAI = (
    *("user", "safety_identifier", "service_tier"),
    *("prompt_cache_key", "prompt_cache_options", "prompt_cache_retention"),
)
_OF_CHAT = ("metadata", "store", "prediction")
_OF_ANTHROPIC = (
    *("metadata", "user_profile_id", "workspace_id", "billing_policy", "fallback_credit_token", "service_tier"),
    *("speed", "inference_geo", "diagnostics", "fallbacks", "context_management"),
)
"""Parameters without effect here that providers of the same dialect are told."""

CROSSINGS: Mapping[str, tuple[Crossing, ...]] = MappingProxyType(
    {
        "chat": (
            *_SAMPLING,
            Crossing("response_format", "response_format", "response_format", "output_config"),
            Crossing("response_format: json_object", "response_format", "response_format", REFUSED),
            Crossing("guided_json", "response_format", "response_format", "output_config"),
            Crossing("guided_regex", REFUSED, "guided_regex", REFUSED),
            Crossing("guided_grammar", REFUSED, "guided_grammar", REFUSED),
            Crossing("enable_thinking", "", "chat_template_kwargs", "max_tokens, thinking"),
            Crossing("chat_template_kwargs", REFUSED, "chat_template_kwargs", REFUSED),
            Crossing("model", "model", "model", "model"),
            Crossing("messages", "messages", "messages", "messages"),
            Crossing("max_tokens", "max_completion_tokens", "max_tokens", "max_tokens"),
            Crossing("max_completion_tokens", "max_completion_tokens", "max_tokens", "max_tokens"),
            Crossing(
                "reasoning_effort", "reasoning_effort", "chat_template_kwargs, reasoning_effort", "max_tokens, thinking"
            ),
            Crossing(
                "reasoning_effort: none", "reasoning_effort", "chat_template_kwargs, reasoning_effort", "thinking"
            ),
            Crossing("n", "n", "n", REFUSED),
            Crossing("logprobs", "logprobs, top_logprobs", "logprobs, top_logprobs", REFUSED),
            Crossing("top_logprobs", "top_logprobs", "top_logprobs", REFUSED),
            Crossing("stream_options", "", "", ""),
            Crossing("continue_final_message", REFUSED, "", ""),
            Crossing("add_generation_prompt", REFUSED, "add_generation_prompt, continue_final_message", ""),
            Crossing("tools", "tool_choice, tools", "tool_choice, tools", "tool_choice, tools"),
            Crossing("tool_choice", "tool_choice", "tool_choice", "tool_choice"),
            Crossing("tool_choice: allowed_tools", "tool_choice", "tool_choice", "tools"),
            Crossing("parallel_tool_calls", "parallel_tool_calls", "parallel_tool_calls", "tool_choice"),
            Crossing(
                "functions",
                "parallel_tool_calls, tool_choice, tools",
                "parallel_tool_calls, tool_choice, tools",
                "tool_choice, tools",
            ),
            # beside a function that is named, parallel_tool_calls says nothing and is left out
            Crossing(
                "function_call",
                "parallel_tool_calls, tool_choice",
                "parallel_tool_calls, tool_choice",
                "tool_choice",
            ),
            *(Crossing(name, name, name, "") for name in (*_OF_OPENAI, *_OF_CHAT, "verbosity")),
        ),
        "completions": (
            Crossing("temperature", "temperature", "temperature", REFUSED),
            Crossing("top_p", "top_p", "top_p", REFUSED),
            Crossing("top_k", REFUSED, "top_k", REFUSED),
            Crossing("min_p", REFUSED, "min_p", REFUSED),
            Crossing("seed", "seed", "seed", REFUSED),
            Crossing("repetition_penalty", REFUSED, "repetition_penalty", REFUSED),
            Crossing("presence_penalty", "presence_penalty", "presence_penalty", REFUSED),
            Crossing("frequency_penalty", "frequency_penalty", "frequency_penalty", REFUSED),
            Crossing("logit_bias", "logit_bias", "logit_bias", REFUSED),
            Crossing("stop", "stop", "stop", REFUSED),
            Crossing("ignore_eos", REFUSED, "ignore_eos", REFUSED),
            Crossing("priority", "", "", REFUSED),
            Crossing("stream", "", "", REFUSED),
            Crossing("response_format", "response_format", "response_format", REFUSED),
            Crossing("response_format: json_object", "response_format", "response_format", REFUSED),
            Crossing("guided_json", "response_format", "response_format", REFUSED),
            Crossing("guided_regex", REFUSED, "guided_regex", REFUSED),
            Crossing("guided_grammar", REFUSED, "guided_grammar", REFUSED),
            Crossing("model", "model", "model", REFUSED),
            Crossing("prompt", "prompt", "prompt", REFUSED),
            Crossing("max_tokens", "max_tokens", "max_tokens", REFUSED),
            Crossing("max_completion_tokens", "max_tokens", "max_tokens", REFUSED),
            Crossing("n", "n", "n", REFUSED),
            Crossing("logprobs", "logprobs", "logprobs", REFUSED),
            Crossing("stream_options", "", "", REFUSED),
            Crossing("echo", "echo", "echo", REFUSED),
            *(Crossing(name, name, name, REFUSED) for name in (*_OF_OPENAI, *_OF_CHAT)),
        ),
        "responses": (
            *_SAMPLING,
            Crossing("enable_thinking", "", "chat_template_kwargs", "max_tokens, thinking"),
            Crossing("chat_template_kwargs", REFUSED, "chat_template_kwargs", REFUSED),
            Crossing("model", "model", "model", "model"),
            Crossing("input", "messages", "messages", "messages"),
            Crossing("instructions", "messages", "messages", "system"),
            Crossing("store", "", "", ""),
            Crossing("tools", "tool_choice, tools", "tool_choice, tools", "tool_choice, tools"),
            Crossing("tool_choice", "tool_choice", "tool_choice", "tool_choice"),
            Crossing("parallel_tool_calls", "parallel_tool_calls", "parallel_tool_calls", "tool_choice"),
            Crossing("text", "response_format", "response_format", "output_config"),
            Crossing("text: verbosity", "verbosity", "", ""),
            Crossing("text: json_object", "response_format", "response_format", REFUSED),
            Crossing("reasoning", "reasoning_effort", "chat_template_kwargs, reasoning_effort", "max_tokens, thinking"),
            Crossing("include", "", "", ""),
            Crossing(
                "include: message.output_text.logprobs", "logprobs, top_logprobs", "logprobs, top_logprobs", REFUSED
            ),
            Crossing("max_output_tokens", "max_completion_tokens", "max_tokens", "max_tokens"),
            Crossing("top_logprobs", "logprobs, top_logprobs", "logprobs, top_logprobs", REFUSED),
            Crossing("metadata", "", "", ""),
            Crossing("truncation", "", "", ""),
            Crossing("background", "", "", ""),
            *(Crossing(name, name, "", "") for name in _OF_OPENAI),
        ),
        "messages": (
            Crossing("model", "model", "model", "model"),
            Crossing("messages", "messages", "messages", "messages"),
            Crossing("system", "messages", "messages", "system"),
            Crossing("tools", "tool_choice, tools", "tool_choice, tools", "tool_choice, tools"),
            Crossing("tool_choice", "tool_choice", "tool_choice", "tool_choice"),
            Crossing("thinking", "reasoning_effort", "chat_template_kwargs, reasoning_effort", "thinking"),
            Crossing("thinking: adaptive", "", "chat_template_kwargs", "thinking"),
            Crossing("output_config", "response_format", "response_format", "output_config"),
            Crossing("output_config: effort", "reasoning_effort", "reasoning_effort", "output_config"),
            Crossing("output_format", "response_format", "response_format", "output_config"),
            Crossing("max_tokens", "max_completion_tokens", "max_tokens", "max_tokens"),
            Crossing("stop_sequences", "stop", "stop", "stop_sequences"),
            Crossing("stream", "", "", ""),
            Crossing("temperature", "temperature", "temperature", "temperature"),
            Crossing("top_p", "top_p", "top_p", "top_p"),
            Crossing("top_k", REFUSED, "top_k", "top_k"),
            Crossing("cache_control", "", "", "cache_control"),
            *(Crossing(name, "", "", name) for name in _OF_ANTHROPIC),
        ),
    }
)
"""By dialect."""
