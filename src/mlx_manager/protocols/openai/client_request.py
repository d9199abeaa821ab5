"""A request of ours in OpenAI's dialect, to be sent to somebody who speaks it. The other way round: `server`."""

from __future__ import annotations

import base64
import json
from typing import Any

from mlx_manager.errors import UnsupportedParameter
from mlx_manager.ir import (
    ChatPrompt,
    Content,
    GenerationRequest,
    Grammar,
    GrammarKind,
    ImageContent,
    Message,
    Role,
    Sampling,
    TextContent,
    TextPrompt,
    TokenPrompt,
    ToolChoice,
    ToolChoiceMode,
    VideoContent,
)

CHAT_PATH, COMPLETIONS_PATH = "/chat/completions", "/completions"


def render_request(request: GenerationRequest, *, is_extended: bool, provider: str) -> tuple[str, dict[str, Any]]:
    """Path and body of a streamed call. `is_extended`: the server also knows what open servers add to the dialect.

    Raises `UnsupportedParameter` for what it does not know.
    """
    sampling = _render_sampling(request.sampling, is_extended=is_extended, provider=provider)
    body: dict[str, Any] = {
        "model": request.model,
        "stream": True,
        "stream_options": {"include_usage": True},
        **sampling,
    }
    if request.num_choices > 1:
        body["n"] = request.num_choices
    match request.prompt:
        case ChatPrompt() as prompt:
            body |= _render_chat(prompt, is_extended=is_extended, provider=provider)
            _render_chat_lengths(request.sampling, body, is_extended=is_extended)
            return CHAT_PATH, body
        case TextPrompt(text=text):
            body["prompt"] = text
        case TokenPrompt(token_ids=token_ids):
            body["prompt"] = list(token_ids)
    if request.sampling.max_tokens is not None:
        body["max_tokens"] = request.sampling.max_tokens
    if request.sampling.logprobs:
        body["logprobs"] = request.sampling.top_logprobs
    if request.echo:
        body["echo"] = True
    return COMPLETIONS_PATH, body


def _render_chat_lengths(sampling: Sampling, body: dict[str, Any], *, is_extended: bool) -> None:
    if sampling.max_tokens is not None:
        body["max_tokens" if is_extended else "max_completion_tokens"] = sampling.max_tokens
    if sampling.logprobs:
        body |= {"logprobs": True, "top_logprobs": sampling.top_logprobs}


def _render_sampling(sampling: Sampling, *, is_extended: bool, provider: str) -> dict[str, Any]:
    body: dict[str, Any] = {}
    for name in ("temperature", "top_p", "seed"):
        if getattr(sampling, name) is not None:
            body[name] = getattr(sampling, name)
    for name in ("presence_penalty", "frequency_penalty"):
        if getattr(sampling, name):
            body[name] = getattr(sampling, name)
    if sampling.logit_bias:
        body["logit_bias"] = {str(token): bias for token, bias in sampling.logit_bias.items()}
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    extras = {
        "top_k": sampling.top_k or None,
        "min_p": sampling.min_p or None,
        "repetition_penalty": None if sampling.repetition_penalty == 1 else sampling.repetition_penalty,
        "ignore_eos": sampling.ignore_eos or None,
    }
    asked = {name: value for name, value in extras.items() if value is not None}
    _check_extras(asked, is_extended=is_extended, provider=provider)
    return body | asked | _render_grammar(sampling.grammar, is_extended=is_extended, provider=provider)


def _render_grammar(grammar: Grammar | None, *, is_extended: bool, provider: str) -> dict[str, Any]:
    if grammar is None:
        return {}
    match grammar.kind:
        case GrammarKind.JSON_OBJECT:
            return {"response_format": {"type": "json_object"}}
        case GrammarKind.JSON_SCHEMA:
            schema = {"name": "answer", "schema": json.loads(grammar.text), "strict": True}
            return {"response_format": {"type": "json_schema", "json_schema": schema}}
        case GrammarKind.REGEX | GrammarKind.LARK:
            name = "guided_regex" if grammar.kind is GrammarKind.REGEX else "guided_grammar"
            _check_extras({grammar.param: grammar.text}, is_extended=is_extended, provider=provider)
            return {name: grammar.text}


def _render_chat(prompt: ChatPrompt, *, is_extended: bool, provider: str) -> dict[str, Any]:
    if not is_extended and any(isinstance(piece, VideoContent) for said in prompt.messages for piece in said.visuals):
        raise UnsupportedParameter(
            f"{provider} takes no videos: send frames of them as images, in their order.", param="messages"
        )
    body: dict[str, Any] = {
        "messages": [_render_message(message, is_extended=is_extended) for message in prompt.messages]
    }
    if prompt.tools:
        body["tools"] = [
            {
                "type": "function",
                "function": {
                    "name": tool.name,
                    "description": tool.description,
                    "parameters": json.loads(tool.parameters),
                    **({"strict": True} if tool.strict else {}),
                },
            }
            for tool in prompt.tools
        ]
        body["tool_choice"] = _render_tool_choice(prompt.tool_choice)
        if not prompt.parallel_tool_calls:
            body["parallel_tool_calls"] = False
    if prompt.thinking.effort is not None:
        body["reasoning_effort"] = prompt.thinking.effort
    extras: dict[str, Any] = {}
    if prompt.continue_final_message:
        extras |= {"continue_final_message": True, "add_generation_prompt": False}
    if prompt.template_kwargs:
        extras["chat_template_kwargs"] = dict(prompt.template_kwargs)
    _check_extras(extras, is_extended=is_extended, provider=provider)
    if prompt.thinking.is_enabled is not None and is_extended:
        # elsewhere a model thinks or does not: there is no switch, and the answer holds either way
        extras["chat_template_kwargs"] = extras.get("chat_template_kwargs", {}) | {
            "enable_thinking": prompt.thinking.is_enabled
        }
    return body | extras


def _render_tool_choice(choice: ToolChoice) -> str | dict[str, Any]:
    if not choice.names or choice.mode is ToolChoiceMode.NONE:
        return choice.mode.value
    named = [{"type": "function", "function": {"name": name}} for name in choice.names]
    if len(named) == 1 and choice.mode is ToolChoiceMode.REQUIRED:
        return named[0]
    return {"type": "allowed_tools", "allowed_tools": {"mode": choice.mode.value, "tools": named}}


def _render_message(message: Message, *, is_extended: bool) -> dict[str, Any]:
    body: dict[str, Any] = {"role": message.role.value, "content": _render_content(message)}
    if message.name is not None:
        body["name"] = message.name
    if message.role is Role.TOOL:
        body["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        body["tool_calls"] = [
            {
                "id": call.call_id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in message.tool_calls
        ]
        body["content"] = body["content"] or None
    if message.reasoning and is_extended:
        body["reasoning_content"] = message.reasoning
    return body


def _render_content(message: Message) -> str | list[dict[str, Any]]:
    if not message.visuals:
        return message.text
    return [_render_piece(piece) for piece in message.content]


def _render_piece(piece: Content) -> dict[str, Any]:
    match piece:
        case TextContent(text):
            return {"type": "text", "text": text}
        case ImageContent(detail=detail):
            url = _url_of(piece, "image/png")
            return {"type": "image_url", "image_url": {"url": url} | ({"detail": detail} if detail else {})}
        case VideoContent(frames=()):
            return {"type": "video_url", "video_url": {"url": _url_of(piece, "video/mp4")}}
        case VideoContent(frames=frames):
            return {"type": "video", "video": [_url_of(frame, "image/png") for frame in frames]}


def _url_of(piece: ImageContent | VideoContent, usual_type: str) -> str:
    if not piece.data:
        return piece.url
    encoded = base64.b64encode(piece.data).decode("ascii")
    return f"data:{piece.media_type or usual_type};base64,{encoded}"


def _check_extras(asked: dict[str, Any], *, is_extended: bool, provider: str) -> None:
    if asked and not is_extended:
        name = next(iter(asked))
        raise UnsupportedParameter(f"{provider} does not know {name}, and would answer: leave it out.", param=name)
