"""From an `ir.GenerationRequest` to the body of POST /v1/chat/completions: what a client of that dialect sends.

`server.parse_chat` reads it back as the same request, but for what the dialect has no words for.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mlx_manager.errors import InvalidRequest
from mlx_manager.ir import (
    ChatPrompt,
    Content,
    GenerationRequest,
    Grammar,
    GrammarKind,
    ImageContent,
    Message,
    Priority,
    Role,
    Sampling,
    TextContent,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolChoiceMode,
    VideoContent,
)


@dataclass(frozen=True)
class RenderedChat:
    """A body, as JSON values, and what of the request is not in it."""

    body: dict[str, Any]
    unsaid: tuple[str, ...]
    """Fields of the request that the dialect has no words for."""


def render_chat_request(request: GenerationRequest, *, stream: bool = True) -> RenderedChat:
    """The body that asks for `request`. Raises `InvalidRequest` for a prompt that is no conversation."""
    prompt = request.prompt
    if not isinstance(prompt, ChatPrompt):
        raise InvalidRequest("Only conversations can be sent to a provider: send messages.", param="prompt")
    body: dict[str, Any] = {
        "model": request.model,
        "messages": [_render_message(message) for message in prompt.messages],
        **_render_tools(prompt),
        **_render_thinking(prompt.thinking),
        **_render_sampling(request.sampling),
    }
    if prompt.template_kwargs:
        body["chat_template_kwargs"] = prompt.template_kwargs
    if prompt.continue_final_message:
        body["continue_final_message"] = True
    if request.num_choices > 1:
        body["n"] = request.num_choices
    if request.priority is not Priority.NORMAL:
        body["priority"] = request.priority.value
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return RenderedChat(body, _unsaid(prompt))


def _unsaid(prompt: ChatPrompt) -> tuple[str, ...]:
    found = [f"messages[{index}].is_error" for index, message in enumerate(prompt.messages) if message.is_error]
    found += [
        f"messages[{index}].reasoning_signature"
        for index, message in enumerate(prompt.messages)
        if message.reasoning_signature
    ]
    found += [f"tools[{index}].is_deferred" for index, tool in enumerate(prompt.tools) if tool.is_deferred]
    if prompt.thinking.budget_tokens is not None:
        found.append("thinking.budget_tokens")
    return tuple(found)


def _render_message(message: Message) -> dict[str, Any]:
    rendered: dict[str, Any] = {"role": message.role.value, "content": _render_content(message)}
    if message.name is not None:
        rendered["name"] = message.name
    if message.reasoning:
        rendered["reasoning_content"] = message.reasoning
    if message.tool_calls:
        rendered["tool_calls"] = [_render_call(call) for call in message.tool_calls]
    if message.tool_call_id is not None:
        rendered["tool_call_id"] = message.tool_call_id
    return rendered


def _render_content(message: Message) -> str | list[dict[str, Any]] | None:
    match message.content:
        case ():
            return None if message.role is Role.ASSISTANT else ""
        case (TextContent(text),) if text:
            return text
        case pieces:
            return [_render_piece(piece) for piece in pieces]


def _render_piece(piece: Content) -> dict[str, Any]:
    if isinstance(piece, TextContent):
        return {"type": "text", "text": piece.text}
    if isinstance(piece, VideoContent):
        if piece.frames:
            return {"type": "video", "video": [_url_of(frame) for frame in piece.frames]}
        return {"type": "video_url", "video_url": {"url": _url_of(piece)}}
    return {"type": "image_url", "image_url": _render_image(piece)}


def _render_image(image: ImageContent) -> dict[str, str]:
    url = _url_of(image)
    return {"url": url} if image.detail is None else {"url": url, "detail": image.detail}


def _url_of(piece: ImageContent | VideoContent) -> str:
    return piece.url or f"data:{piece.media_type};base64,{base64.b64encode(piece.data).decode('ascii')}"


def _render_call(call: ToolCall) -> dict[str, Any]:
    return {"id": call.call_id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _render_tools(prompt: ChatPrompt) -> dict[str, Any]:
    if not prompt.tools:
        return {}
    rendered: dict[str, Any] = {"tools": [_render_tool(tool) for tool in prompt.tools]}
    if prompt.tool_choice != ToolChoice():
        rendered["tool_choice"] = _render_choice(prompt.tool_choice)
    if not prompt.parallel_tool_calls:
        rendered["parallel_tool_calls"] = False
    return rendered


def _render_tool(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name, "parameters": json.loads(tool.parameters)}
    if tool.description:
        function["description"] = tool.description
    if tool.strict:
        function["strict"] = True
    return {"type": "function", "function": function}


def _render_choice(choice: ToolChoice) -> str | dict[str, Any]:
    if not choice.names or choice.mode is ToolChoiceMode.NONE:
        return choice.mode.value
    named = [{"type": "function", "function": {"name": name}} for name in choice.names]
    if choice.mode is ToolChoiceMode.REQUIRED and len(named) == 1:
        return named[0]
    return {"type": "allowed_tools", "allowed_tools": {"mode": choice.mode.value, "tools": named}}


def _render_thinking(thinking: Thinking) -> dict[str, Any]:
    rendered: dict[str, Any] = {}
    if thinking.effort is not None:
        rendered["reasoning_effort"] = thinking.effort
    if thinking.is_enabled is not None and not (thinking.is_enabled and thinking.effort):
        rendered["enable_thinking"] = thinking.is_enabled
    return rendered


_FIELDS: tuple[tuple[str, str, object, Callable[[Any], Any]], ...] = (
    ("max_tokens", "max_completion_tokens", None, int),
    ("temperature", "temperature", None, float),
    ("top_p", "top_p", None, float),
    ("top_k", "top_k", None, int),
    ("min_p", "min_p", None, float),
    ("seed", "seed", None, int),
    ("repetition_penalty", "repetition_penalty", None, float),
    ("presence_penalty", "presence_penalty", 0.0, float),
    ("frequency_penalty", "frequency_penalty", 0.0, float),
    ("logit_bias", "logit_bias", {}, lambda bias: {str(token_id): value for token_id, value in bias.items()}),
    ("stop", "stop", (), list),
    ("ignore_eos", "ignore_eos", False, bool),
    ("logprobs", "logprobs", False, bool),
    ("top_logprobs", "top_logprobs", 0, int),
)
"""Field of the sampling, its name on the wire, the value that needs no saying, and how it is said."""


def _render_sampling(sampling: Sampling) -> dict[str, Any]:
    rendered = {
        name: say(getattr(sampling, field))
        for field, name, unsaid, say in _FIELDS
        if getattr(sampling, field) != unsaid
    }
    return rendered if sampling.grammar is None else rendered | _render_grammar(sampling.grammar)


def _render_grammar(grammar: Grammar) -> dict[str, Any]:
    match grammar.kind:
        case GrammarKind.JSON_OBJECT:
            return {"response_format": {"type": "json_object"}}
        case GrammarKind.JSON_SCHEMA if grammar.param == "guided_json":
            return {"guided_json": grammar.text}
        case GrammarKind.JSON_SCHEMA:
            schema = {"name": "answer", "schema": json.loads(grammar.text), "strict": True}
            return {"response_format": {"type": "json_schema", "json_schema": schema}}
        case GrammarKind.REGEX:
            return {"guided_regex": grammar.text}
        case GrammarKind.LARK:
            return {"guided_grammar": grammar.text}
