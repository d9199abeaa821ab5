"""A request of ours as a call of Anthropic's Messages, to be sent to somebody who speaks it. The inverse: `server`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from mlx_manager.errors import InvalidRequest, UnsupportedParameter
from mlx_manager.ir import (
    ChatPrompt,
    Content,
    DocumentContent,
    GenerationRequest,
    GrammarKind,
    ImageContent,
    Message,
    Role,
    TextContent,
    Thinking,
    Tool,
    ToolChoiceMode,
    VideoContent,
)
from mlx_manager.protocols.anthropic.cache_marks import render_mark
from mlx_manager.protocols.anthropic.signature import sign
from mlx_manager.protocols.data_urls import encode_base64
from mlx_manager.protocols.documents import PDF
from mlx_manager.protocols.images import render_media_type

MESSAGES_PATH, COUNT_PATH = "/messages", "/messages/count_tokens"
DEFAULT_MAX_TOKENS = 8192
"""The dialect wants a length; this one where the request names none."""
_EFFORTS = {"minimal": "low"}
"""Words of other dialects that this one does not know."""
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
    messages = prompt.messages
    num_leading = next((index for index, said in enumerate(messages) if said.role is not Role.SYSTEM), len(messages))
    body: dict[str, Any] = {
        "model": request.model,
        "max_tokens": sampling.max_tokens or DEFAULT_MAX_TOKENS,
        "stream": True,
        "messages": _render_turns(messages[num_leading:]),
    }
    optional: dict[str, Any] = {
        "system": [block for message in messages[:num_leading] for block in _render_contents(message.content)],
        "stop_sequences": list(sampling.stop),
        "thinking": _render_thinking(prompt.thinking),
        "output_config": _render_output_config(request, prompt),
    }
    sampled = {name: getattr(sampling, name) for name in ("temperature", "top_p", "top_k")}
    body |= {name: value for name, value in optional.items() if value}
    body |= {name: value for name, value in sampled.items() if value is not None}
    return body | _render_tools(prompt) | render_mark(prompt.cache_ttl)


def render_count(request: GenerationRequest, *, provider: str) -> dict[str, Any]:
    """The body of a call that only counts the tokens of the prompt. Raises as `render_request` does."""
    body = render_request(request, provider=provider)
    return {name: value for name, value in body.items() if name not in ("max_tokens", "stream")}


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


def _render_turns(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Turns as the dialect wants them: several messages of one side are one, and results are the user's."""
    turns: list[dict[str, Any]] = []
    for message in messages:
        role = "user" if message.role is Role.TOOL else message.role.value
        blocks = [_render_result(message)] if message.role is Role.TOOL else _render_message(message)
        if blocks and turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        elif blocks:
            turns.append({"role": role, "content": blocks})
    return turns


def _render_message(message: Message) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    if message.reasoning or message.reasoning_signature:
        signature = message.reasoning_signature or sign(message.reasoning)
        blocks.append({"type": "thinking", "thinking": message.reasoning, "signature": signature})
    blocks += _render_contents(message.content)
    for call in message.tool_calls:
        block = {"type": "tool_use", "id": call.call_id, "name": call.name, "input": _arguments(call.arguments)}
        blocks.append(block | render_mark(call.cache_ttl))
    return blocks


def _render_result(message: Message) -> dict[str, Any]:
    block: dict[str, Any] = {
        "type": "tool_result",
        "tool_use_id": message.tool_call_id,
        "content": _render_contents(message.content),
    }
    return block | ({"is_error": True} if message.is_error else {}) | render_mark(message.cache_ttl)


def _arguments(text: str) -> Any:
    try:
        return json.loads(text or "{}")
    except ValueError:
        raise InvalidRequest(
            "The arguments of a tool call in the conversation are no JSON.", param="messages"
        ) from None


def _render_contents(content: Sequence[Content]) -> list[dict[str, Any]]:
    """Without empty texts, which the dialect refuses."""
    return [
        _render_content(piece) | ({} if isinstance(piece, VideoContent) else render_mark(piece.cache_ttl))
        for piece in content
        if not (isinstance(piece, TextContent) and not piece.text)
    ]


def _render_content(piece: Content) -> dict[str, Any]:
    match piece:
        case TextContent(text):
            return {"type": "text", "text": text}
        case ImageContent(data=b"", url=url):
            return {"type": "image", "source": {"type": "url", "url": url}}
        case ImageContent():
            source = {"type": "base64", "media_type": render_media_type(piece), "data": encode_base64(piece.data)}
            return {"type": "image", "source": source}
        case VideoContent():
            raise AssertionError("videos are refused before anything is rendered")
        case DocumentContent(data=data, url=url, name=name):
            file = {"type": "base64", "media_type": PDF, "data": encode_base64(data)}
            if not data:
                file = {"type": "url", "url": url}
            return {"type": "document", "source": file} | ({"title": name} if name else {})


def _render_tools(prompt: ChatPrompt) -> dict[str, Any]:
    if not prompt.tools:
        return {}
    choice = prompt.tool_choice
    rendered: dict[str, Any] = {"type": _CHOICES[choice.mode]}
    names: tuple[str, ...] = ()
    if choice.mode is ToolChoiceMode.REQUIRED and len(choice.names) == 1:
        rendered = {"type": "tool", "name": choice.names[0]}
    elif choice.mode is not ToolChoiceMode.NONE:
        # the dialect has no list of allowed tools: it is not shown the others
        names = choice.names
    if not prompt.parallel_tool_calls and choice.mode is not ToolChoiceMode.NONE:
        rendered["disable_parallel_tool_use"] = True
    tools = [_render_tool(tool) for tool in prompt.tools if not names or tool.name in names]
    return {"tools": tools, "tool_choice": rendered}


def _render_tool(tool: Tool) -> dict[str, Any]:
    rendered: dict[str, Any] = {"name": tool.name, "input_schema": json.loads(tool.parameters)}
    if tool.description:
        rendered["description"] = tool.description
    return rendered | ({"strict": True} if tool.strict else {}) | render_mark(tool.cache_ttl)


def _render_thinking(thinking: Thinking) -> dict[str, Any]:
    if thinking.is_adaptive:
        return {"type": "adaptive"}
    if thinking.is_enabled is None:
        return {}
    if not thinking.is_enabled:
        return {"type": "disabled"}
    budget = {} if thinking.budget_tokens is None else {"budget_tokens": thinking.budget_tokens}
    return {"type": "enabled"} | budget


def _render_output_config(request: GenerationRequest, prompt: ChatPrompt) -> dict[str, Any]:
    config: dict[str, Any] = {}
    if prompt.thinking.effort not in (None, "none"):
        config["effort"] = _EFFORTS.get(prompt.thinking.effort, prompt.thinking.effort)
    if request.sampling.grammar is not None:
        config["format"] = {"type": "json_schema", "schema": json.loads(request.sampling.grammar.text)}
    return config
