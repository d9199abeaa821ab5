"""A request of ours as a call of Anthropic's Messages, to be sent to somebody who speaks it. The inverse: `server`."""

from __future__ import annotations

import base64
import json
from typing import Any

from mlx_manager.errors import InvalidRequest, UnsupportedParameter
from mlx_manager.ir import (
    ChatPrompt,
    Content,
    GenerationRequest,
    GrammarKind,
    ImageContent,
    Message,
    Role,
    Sampling,
    TextContent,
    Thinking,
    ToolChoiceMode,
    VideoContent,
)
from mlx_manager.protocols.anthropic.signature import is_ours

MESSAGES_PATH = "/messages"
DEFAULT_MAX_TOKENS = 8192
"""The dialect wants a length; this one where the request names none."""
_BUDGETS = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 24576, "xhigh": 32768, "max": 32768}
"""Tokens of thinking for the words of other dialects."""
_LEAST_BUDGET = 1024
_CHOICES = {ToolChoiceMode.AUTO: "auto", ToolChoiceMode.NONE: "none", ToolChoiceMode.REQUIRED: "any"}


def render_request(request: GenerationRequest, *, provider: str) -> dict[str, Any]:
    """The body of a streamed call. Raises `UnsupportedParameter` for what the dialect does not know."""
    if not isinstance(request.prompt, ChatPrompt):
        raise UnsupportedParameter(
            f"{provider} takes conversations only, no raw text: ask it on /v1/chat/completions or /v1/messages.",
            param="prompt",
        )
    prompt, sampling = request.prompt, request.sampling
    _check(request, prompt, provider)
    max_tokens = sampling.max_tokens or DEFAULT_MAX_TOKENS
    body: dict[str, Any] = {
        "model": request.model,
        "max_tokens": max_tokens,
        "stream": True,
        "messages": _render_messages(prompt),
    }
    system = [message.text for message in prompt.messages if message.role is Role.SYSTEM]
    if system:
        body["system"] = "\n\n".join(system)
    for name in ("temperature", "top_p"):
        if getattr(sampling, name) is not None:
            body[name] = getattr(sampling, name)
    if sampling.top_k:
        body["top_k"] = sampling.top_k
    if sampling.stop:
        body["stop_sequences"] = list(sampling.stop)
    return body | _render_tools(prompt) | _render_thinking(prompt.thinking, max_tokens) | _render_grammar(sampling)


def _check(request: GenerationRequest, prompt: ChatPrompt, provider: str) -> None:
    sampling = request.sampling
    grammar = sampling.grammar
    asked = {
        "n": request.num_choices > 1,
        "seed": sampling.seed is not None,
        "min_p": bool(sampling.min_p),
        "repetition_penalty": sampling.repetition_penalty not in (None, 1),
        "presence_penalty": sampling.presence_penalty != 0,
        "frequency_penalty": sampling.frequency_penalty != 0,
        "logit_bias": bool(sampling.logit_bias),
        "logprobs": sampling.logprobs,
        "ignore_eos": sampling.ignore_eos,
        "chat_template_kwargs": bool(prompt.template_kwargs),
        grammar.param if grammar else "response_format": grammar is not None
        and grammar.kind is not GrammarKind.JSON_SCHEMA,
    }
    for name, is_asked in asked.items():
        if is_asked:
            raise UnsupportedParameter(f"{provider} does not know {name}, and would answer: leave it out.", param=name)
    if any(isinstance(piece, VideoContent) for message in prompt.messages for piece in message.visuals):
        raise UnsupportedParameter(
            f"{provider} takes no videos: send frames of them as images, in their order.", param="messages"
        )
    if sampling.temperature is not None and sampling.temperature > 1:
        raise UnsupportedParameter(f"{provider} takes a temperature from 0 to 1.", param="temperature")


def _render_messages(prompt: ChatPrompt) -> list[dict[str, Any]]:
    """User and assistant in turn, as the dialect wants them: several messages of one side are one."""
    rendered: list[dict[str, Any]] = []
    for message in prompt.messages:
        if message.role is Role.SYSTEM:
            continue
        role = "assistant" if message.role is Role.ASSISTANT else "user"
        blocks = _render_blocks(message)
        if not blocks:
            continue
        if rendered and rendered[-1]["role"] == role:
            rendered[-1]["content"] += blocks
        else:
            rendered.append({"role": role, "content": blocks})
    return rendered


def _render_blocks(message: Message) -> list[dict[str, Any]]:
    content = [_render_content(piece) for piece in message.content if not _is_empty(piece)]
    if message.role is Role.TOOL:
        block: dict[str, Any] = {"type": "tool_result", "tool_use_id": message.tool_call_id, "content": content}
        return [block | ({"is_error": True} if message.is_error else {})]
    blocks: list[dict[str, Any]] = []
    if message.reasoning_signature and not is_ours(message.reasoning_signature):
        # only what this provider signed may be sent back; what another model thought is not its to remember
        signed = {"type": "thinking", "thinking": message.reasoning, "signature": message.reasoning_signature}
        blocks.append(signed)
    blocks += content
    for call in message.tool_calls:
        blocks.append({"type": "tool_use", "id": call.call_id, "name": call.name, "input": _arguments(call.arguments)})
    return blocks


def _arguments(text: str) -> Any:
    try:
        return json.loads(text or "{}")
    except ValueError:
        raise InvalidRequest(
            "The arguments of a tool call in the conversation are no JSON.", param="messages"
        ) from None


def _is_empty(piece: Content) -> bool:
    return isinstance(piece, TextContent) and not piece.text


def _render_content(piece: Content) -> dict[str, Any]:
    if isinstance(piece, TextContent):
        return {"type": "text", "text": piece.text}
    assert isinstance(piece, ImageContent), "videos are refused before anything is rendered"
    if not piece.data:
        return {"type": "image", "source": {"type": "url", "url": piece.url}}
    encoded = base64.b64encode(piece.data).decode("ascii")
    media_type = piece.media_type or "image/png"
    return {"type": "image", "source": {"type": "base64", "media_type": media_type, "data": encoded}}


def _render_tools(prompt: ChatPrompt) -> dict[str, Any]:
    if not prompt.tools:
        return {}
    choice = prompt.tool_choice
    names = set(choice.names)
    tools = [
        {
            "name": tool.name,
            "description": tool.description,
            "input_schema": json.loads(tool.parameters),
            **({"strict": True} if tool.strict else {}),
        }
        for tool in prompt.tools
        # the dialect has no list of allowed tools: it is not shown the others
        if len(names) < 2 or tool.name in names
    ]
    rendered: dict[str, Any] = {"type": _CHOICES[choice.mode]}
    if len(names) == 1 and choice.mode is ToolChoiceMode.REQUIRED:
        rendered = {"type": "tool", "name": choice.names[0]}
    if not prompt.parallel_tool_calls and choice.mode is not ToolChoiceMode.NONE:
        rendered["disable_parallel_tool_use"] = True
    return {"tools": tools, "tool_choice": rendered}


def _render_thinking(thinking: Thinking, max_tokens: int) -> dict[str, Any]:
    if thinking.is_enabled is False:
        return {"thinking": {"type": "disabled"}}
    if thinking.effort in (None, "none") and not thinking.is_enabled:
        return {}
    budget = min(_BUDGETS.get(thinking.effort or "medium", _BUDGETS["medium"]), max_tokens - 1)
    # there is no room to think in: the answer is short either way
    return {"thinking": {"type": "enabled", "budget_tokens": budget}} if budget >= _LEAST_BUDGET else {}


def _render_grammar(sampling: Sampling) -> dict[str, Any]:
    if sampling.grammar is None:
        return {}
    return {"output_config": {"format": {"type": "json_schema", "schema": json.loads(sampling.grammar.text)}}}
