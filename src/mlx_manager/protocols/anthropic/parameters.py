"""What this server does with every parameter that clients of Anthropic's dialect send, as one table.

A parameter that is not in the table is unknown: accepted, and named in the answer's `x-mlx-manager-ignored` header.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from mlx_manager.protocols.parameters import Parameter, Support


def _served(name: str, note: str) -> Parameter:
    return Parameter(name, Support.SERVED, note)


def _harmless(name: str, note: str, *, is_passed_on: bool = True) -> Parameter:
    return Parameter(name, Support.HARMLESS, note, is_passed_on=is_passed_on)


def _refused(name: str, note: str, neutral: tuple[Any, ...] = ()) -> Parameter:
    return Parameter(name, Support.REFUSED, note, neutral)


_PROMPT = (
    _served("model", "request.model"),
    _served("messages", "request.prompt"),
    _served("system", "request.prompt"),
    _served("tools", "prompt.tools"),
    _served("tool_choice", "prompt.tool_choice, prompt.parallel_tool_calls"),
    _served("thinking", "prompt.thinking; with display: omitted only its signature is sent"),
    _served("output_config", "prompt.thinking, sampling.grammar"),
    _served("output_format", "sampling.grammar: the form before output_config.format"),
    _served("cache_control", "prompt.cache_ttl; here prefixes are always cached"),
    _harmless("metadata", "names the client's own user"),
    _harmless("user_profile_id", "names the client's own user"),
    _harmless("workspace_id", "names the client's own workspace"),
    _harmless("billing_policy", "says who pays"),
    _harmless("fallback_credit_token", "says who pays"),
    _harmless("service_tier", "chooses a price"),
    _harmless("speed", "chooses a price"),
    _harmless("inference_geo", "everything runs on this machine"),
    _harmless("diagnostics", "send the header X-Debug: prefix instead"),
    _harmless("fallbacks", "nothing is declined for policy reasons"),
    _harmless("betas", "the header anthropic-beta, which chooses nothing here", is_passed_on=False),
    Parameter(
        "context_management",
        Support.IGNORED,
        "nothing is cleared, so that the prefix stays cached",
        is_passed_on=True,
    ),
    _refused("container", "Nothing is run on this server: leave it out."),
    _refused("mcp_servers", "This server calls no MCP servers: offer their tools as tools of your own.", ([],)),
    _refused("thread", "Conversations are not kept: send all messages, as the official SDK then does."),
    _refused("compaction", "Conversations are not summarized: ask for a summary in a message."),
)
_SAMPLING = (
    _served("max_tokens", "sampling.max_tokens; more than the context has room for is lowered to that"),
    _served("stop_sequences", "sampling.stop"),
    _served("stream", "the form of the answer"),
    _served("temperature", "sampling.temperature"),
    _served("top_p", "sampling.top_p"),
    _served("top_k", "sampling.top_k"),
)

MESSAGES_PARAMETERS: Mapping[str, Parameter] = MappingProxyType({row.name: row for row in _PROMPT + _SAMPLING})
COUNT_TOKENS_PARAMETERS: Mapping[str, Parameter] = MappingProxyType(
    {
        row.name: row
        for row in (*_PROMPT, *(_harmless(row.name, "nothing is generated", is_passed_on=False) for row in _SAMPLING))
    }
)
